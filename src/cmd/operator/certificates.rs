//! The certificates of `spec.image.certificates`, as ConfigMaps and Secrets have them now.

use kube::ResourceExt as _;

use super::answers::Answers;
use crate::{
    api::conditions::Reason,
    domain::{debian::certificates::normalized, decide::Trouble},
};

impl Answers<'_> {
    /// One PEM text, in the spec's order.
    pub(super) async fn certificates(&self) -> Result<String, Trouble> {
        let namespace = self.image.namespace().unwrap_or_default();
        let mut all = String::new();
        for (index, source) in self.image.spec.image.certificates.iter().enumerate() {
            let field = format!("spec.image.certificates[{index}]");
            let (kind, selector, data) = match (&source.config_map_key_ref, &source.secret_key_ref) {
                (Some(selector), _) => {
                    let data = self.world.cluster.config_map(&namespace, &selector.name).await;
                    let data =
                        data.map_err(|error| self.reference_trouble(&field, "ConfigMap", &selector.name, &error))?;
                    ("ConfigMap", selector, data)
                }
                (None, Some(selector)) => ("Secret", selector, self.secret(&field, &selector.name).await?.0),
                (None, None) => continue,
            };
            let text = data.get(&selector.key).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let found = text.as_deref().and_then(normalized);
            let problem =
                if text.is_none() { "has no key" } else { "has no PEM certificates, or broken ones, under the key" };
            let message = || format!("{field}: {kind} {} {problem} {}", selector.name, selector.key);
            all += &found.ok_or_else(|| Trouble { reason: Reason::ReferenceNotFound, message: message() })?;
        }
        Ok(all)
    }
}
