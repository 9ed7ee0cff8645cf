//! A MinimalImage in a file, as it would be applied to a cluster.

use serde::{Deserialize, de::IgnoredAny};

use crate::api::v1alpha1::MinimalImageSpec;

const API_VERSION: &str = "minimalimage.dev/v1alpha1";
const KIND: &str = "MinimalImage";

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The resource's name.
    pub name: String,
    /// What is to be built.
    pub spec: MinimalImageSpec,
}

/// Why a text is no MinimalImage.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// Not YAML of that form; the message has line, column and field.
    #[error("{0}")]
    Yaml(String),
    /// Another kind of resource.
    #[error("it is a {kind} of {api_version}, expected a {KIND} of {API_VERSION}")]
    Kind {
        /// What the file says.
        kind: String,
        /// What the file says.
        api_version: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: MinimalImageSpec,
    /// As `kubectl get -o yaml` writes it.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// Labels and whatever else Kubernetes knows have no meaning here.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    kind: String,
}

/// Reads the one MinimalImage of a YAML document.
///
/// # Errors
/// When it is another kind, has unknown fields, or lacks some.
pub fn parse(text: &str) -> Result<Resource, ResourceError> {
    let yaml = |error: serde_saphyr::Error| ResourceError::Yaml(error.to_string());
    let Kind { api_version, kind } = serde_saphyr::from_str(text).map_err(yaml)?;
    if (api_version.as_str(), kind.as_str()) != (API_VERSION, KIND) {
        return Err(ResourceError::Kind { kind, api_version });
    }
    let document: Document = serde_saphyr::from_str(text).map_err(yaml)?;
    debug_assert_eq!((document.api_version.as_str(), document.kind.as_str()), (API_VERSION, KIND));
    Ok(Resource { name: document.metadata.name, spec: document.spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: minimalimage.dev/v1alpha1
kind: MinimalImage
metadata: {name: app, labels: {a: b}}
spec:
  image: {copy: [{from: source, source: a, destination: /a}]}
  destination: {repository: registry.example.com/app}
status: {anything: 1}
";

    #[test]
    fn a_resource_is_read_as_a_cluster_would() {
        let resource = parse(GOOD).unwrap();
        assert_eq!((resource.name.as_str(), resource.spec.interval.as_str()), ("app", "10m"));
    }

    #[test]
    fn the_readme_s_resources_are_read() {
        let readme = include_str!("../../README.md");
        let starts: Vec<_> = readme.match_indices("apiVersion:").map(|(start, _)| start).collect();
        assert_eq!(starts.len(), 2);
        for start in starts {
            let text: Vec<_> = readme[start..].lines().take_while(|line| !["```", "EOF"].contains(line)).collect();
            let resource = parse(&text.join("\n")).unwrap();
            assert!(crate::domain::plan::Draft::new(&resource.spec).is_ok(), "{}", resource.name);
        }
    }

    #[test]
    fn whatever_a_cluster_would_refuse_is_refused_with_its_place() {
        for (from, to, words) in [
            ("destination: {repository", "destinatoin: {repository", &["destinatoin", "line 6"][..]),
            ("repository:", "repo:", &["repo", "line 6"]),
            ("kind: MinimalImage", "kind: Deployment", &["Deployment", "expected a MinimalImage"]),
            ("v1alpha1", "v9", &["minimalimage.dev/v9"]),
            ("metadata:", "metadata", &["line"]),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error}");
            }
        }
    }
}
