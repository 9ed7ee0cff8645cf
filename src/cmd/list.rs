//! `list`: the images of a cluster's MinimalImages, as `docker images` lists them; `kubectl minimalimage list` is this.

use std::io::{self, Write as _};

use anyhow::Context as _;
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use serde::Serialize;

use super::{
    build::columns,
    table::{Place, age, ordered},
};
use crate::{
    api::v1alpha1::{MinimalImage, Status},
    cli::ListArgs,
    domain::value::human_size,
    shell::kubeconfig::{connect, for_each},
};

/// One resource and its last good image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    repository: String,
    tags: Vec<String>,
    digest: Option<String>,
    created: Option<Timestamp>,
    size: Option<u64>,
    compressed_size: Option<u64>,
    base: Option<String>,
    ready: String,
    suspended: bool,
}

/// Prints the list.
///
/// # Errors
/// When there is no cluster, or it does not answer.
pub async fn run(args: ListArgs) -> anyhow::Result<()> {
    let (client, own) = connect(args.cluster.kubeconfig.as_deref(), args.cluster.kube_context.as_deref()).await?;
    let namespace = args.cluster.namespace.unwrap_or(own);
    let api = if args.all_namespaces { Api::all(client) } else { Api::namespaced(client, &namespace) };
    let mut rows = Vec::new();
    for_each(&api, |image| rows.push(Row::new(&image))).await.context("failed to list MinimalImages")?;
    let rows = ordered(rows, &args.order, Row::place);
    let text = if args.json { serde_json::to_string_pretty(&rows)? } else { table(&rows, Timestamp::now()) };
    writeln!(io::stdout().lock(), "{}", text.trim_end()).context("failed to print the list")
}

impl Row {
    fn new(resource: &MinimalImage) -> Self {
        let nothing = Status::default();
        let status = resource.status.as_ref().unwrap_or(&nothing);
        let image = status.image.as_ref();
        let pushed_to = image.and_then(|image| Some(image.reference.split_once('@')?.0.to_owned()));
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let size = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
        Self {
            namespace: resource.namespace().unwrap_or_default(),
            name: resource.name_any(),
            repository: pushed_to.unwrap_or_else(|| resource.spec.destination.repository.clone()),
            tags: image.map(|image| image.tags.clone()).unwrap_or_default(),
            digest: image.map(|image| image.digest.clone()),
            created: created(status),
            size: size(image.map(|image| image.size)),
            compressed_size: size(image.map(|image| image.compressed_size)),
            base: image.and(status.base.as_ref()).map(|base| base.display_name.clone()),
            ready: ready.map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
            suspended: resource.spec.suspend,
        }
    }

    fn place(&self) -> Place {
        let created = self.created.map(Timestamp::as_second);
        Place { created, size: self.size.unwrap_or_default(), name: vec![self.namespace.clone(), self.name.clone()] }
    }

    fn cells(&self, now: Timestamp) -> [String; 10] {
        let or_none = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
        let digest = self.digest.as_ref().and_then(|digest| digest.strip_prefix("sha256:")?.get(..12));
        let created = self.created.map(|created| age(now.as_second().saturating_sub(created.as_second())));
        [
            self.namespace.clone(),
            self.name.clone(),
            self.repository.clone(),
            or_none(Some(self.tags.join(","))),
            or_none(digest.map(str::to_owned)),
            or_none(created),
            or_none(self.size.map(human_size)),
            or_none(self.compressed_size.map(human_size)),
            or_none(self.base.clone()),
            if self.suspended { format!("{}, suspended", self.ready) } else { self.ready.clone() },
        ]
    }
}

/// When the image of `status` was built: the oldest build that gave it and is remembered.
fn created(status: &Status) -> Option<Timestamp> {
    let digest = status.image.as_ref().map(|image| &image.digest);
    let mut builds = status.history.iter().rev().chain(&status.last_build);
    let build = builds.find(|build| build.succeeded && build.digest.as_ref() == digest);
    Some(build?.completion_time.as_ref()?.0)
}

fn table(rows: &[Row], now: Timestamp) -> String {
    let header = ["NAMESPACE", "NAME", "REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE", "COMPRESSED", "BASE", "READY"];
    let lines: Vec<_> =
        std::iter::once(header.map(str::to_owned)).chain(rows.iter().map(|row| row.cells(now))).collect();
    columns(&lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(status: serde_json::Value) -> MinimalImage {
        serde_json::from_value(json!({
            "apiVersion": "minimalimage.dev/v1alpha1", "kind": "MinimalImage",
            "metadata": {"name": "app", "namespace": "team"},
            "spec": {"image": {}, "destination": {"repository": "r.example.com/new"}}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn rows_are_of_the_last_good_image() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let build = |digest: &str, time: &str| json!({"succeeded": true, "digest": digest, "completionTime": time});
        let image = resource(json!({
            "conditions": [{"type": "Ready", "status": "False", "reason": "StageFailed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "image": {"reference": format!("r.example.com/old@{digest}"), "digest": digest, "tags": ["a", "b"], "size": 2_000_000, "compressedSize": 1_000_000},
            "base": {"displayName": "scratch"},
            "history": [build(&digest, "2026-01-01T01:00:00Z"), build("sha256:other", "2026-01-01T00:00:00Z")],
        }));
        let now: Timestamp = "2026-01-01T03:00:00Z".parse().unwrap();
        let cells = Row::new(&image).cells(now);
        let expected = [
            "team",
            "app",
            "r.example.com/old",
            "a,b",
            "aaaaaaaaaaaa",
            "2 hours ago",
            "2.00MB",
            "1.00MB",
            "scratch",
            "False",
        ];
        assert_eq!(cells, expected);
        let cells = Row::new(&resource(json!({}))).cells(now);
        assert_eq!(cells, ["team", "app", "r.example.com/new", "-", "-", "-", "-", "-", "-", "Unknown"]);
        let mut suspended = resource(json!({}));
        suspended.spec.suspend = true;
        assert_eq!(Row::new(&suspended).cells(now)[9], "Unknown, suspended");
    }
}
