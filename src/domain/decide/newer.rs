//! Whether there is something newer than a base that is pinned by its digest: what its tag points to now.

use crate::domain::value::Reference;

use super::{Asked, Pass, Question};

impl Pass<'_> {
    /// The digest that the tag of `base` points to, where `base` says that another one is taken. What was known before where that
    /// cannot be told: no build fails for it.
    pub(super) fn newer(&self, base: Option<&Reference>) -> Asked<Option<String>> {
        let Some((base, pinned)) = base.and_then(|base| Some((base, base.digest()?))) else { return Ok(None) };
        let Some(tag) = base.tag().and_then(|tag| base.repository().tagged(tag).ok()) else { return Ok(None) };
        match self.facts.images.get(&tag) {
            None => Err(vec![Question::Image(tag)]),
            // The digest may be that of an index, or of the image for one platform in it.
            Some(Ok(image)) if ![image.digest, image.manifest_digest].contains(&pinned) => {
                Ok(Some(image.digest.to_string()))
            }
            Some(Ok(_)) => Ok(None),
            Some(Err(_)) => Ok(self.known_newer(base)),
        }
    }

    fn known_newer(&self, base: &Reference) -> Option<String> {
        let known = self.status.base.as_ref().filter(|known| known.display_name == base.to_string())?;
        known.newer.clone()
    }

    /// The image that the last one starts from; none where that is no image.
    pub(super) fn last_base(&self) -> Option<Reference> {
        let base = self.status.base.as_ref().filter(|base| base.kind == "Image")?;
        base.display_name.parse().ok()
    }
}
