//! A MinimalImage in a file, as it would be applied to a cluster.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::api::{crd, v1alpha1::MinimalImageSpec};

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
    /// A value of another type than the API server takes.
    #[error("{field}: expected {expected}, found {found}: {advice}")]
    Type {
        /// Where it is.
        field: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there, as JSON has it.
        found: String,
        /// What to do.
        advice: &'static str,
    },
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
    // Reading converts where it can; the API server does not.
    let values: Value = serde_saphyr::from_str(text).map_err(yaml)?;
    if let Some(values) = values.get("spec") {
        check_types(values, &crd::spec_schema(), "spec")?;
    }
    Ok(Resource { name: document.metadata.name, spec: document.spec })
}

/// Refuses values whose YAML type is not that of the schema: `"17"` for 17, 3.11 for `"3.11"`.
fn check_types(value: &Value, schema: &Value, field: &str) -> Result<(), ResourceError> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let known = schema.get("properties").and_then(|properties| properties.get(name));
            let schema = known.or_else(|| schema.get("additionalProperties"));
            schema.map_or(Ok(()), |schema| check_types(value, schema, &format!("{field}.{name}")))
        }),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, value)| {
            let schema = schema.get("items");
            schema.map_or(Ok(()), |schema| check_types(value, schema, &format!("{field}[{index}]")))
        }),
        Value::Null => Ok(()),
        scalar => {
            let (expected, is_one, advice) = match schema.get("type").and_then(Value::as_str) {
                Some("string") => ("a text", scalar.is_string(), "put it in quotes"),
                Some("integer") => ("a whole number", scalar.is_i64() || scalar.is_u64(), "write it without quotes"),
                Some("boolean") => ("true or false", scalar.is_boolean(), "write it without quotes"),
                _ => return Ok(()),
            };
            let wrong = || ResourceError::Type { field: field.to_owned(), expected, found: scalar.to_string(), advice };
            if is_one { Ok(()) } else { Err(wrong()) }
        }
    }
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
            (
                "image: {",
                "image: {base: {runtime: {java: \"17\"}}, ",
                &["spec.image.base.runtime.java: expected a whole number, found \"17\""],
            ),
            ("image: {", "image: {user: 65532, ", &["spec.image.user: expected a text, found 65532: put it in quotes"]),
            ("image: {", "image: {env: [{name: A, value: 1}], ", &["spec.image.env[0].value: expected a text"]),
            ("image: {", "image: {debug: \"true\", ", &["spec.image.debug: expected true or false, found \"true\""]),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error}");
            }
        }
    }
}
