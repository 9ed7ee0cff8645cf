//! The last stage: base, copies, files and config.

use serde_json::{Value, json};

use super::{Conversion, copy, plain, yaml};
use crate::{
    api::v1alpha1::{Base, Copy, File, ImageBase, ImageSpec, LiteralVariable, Port, Protocol},
    domain::{dockerfile::Problem, plan::LayerPlan, recipe::TextFile},
};

pub(super) fn convert(conversion: &Conversion<'_>, problems: &mut Vec<Problem>) -> Value {
    let target = conversion.target_number();
    check(conversion, target, problems);
    let copies = conversion.layer_items().into_iter();
    let copies: Vec<Copy> =
        copies.filter_map(|(from, item)| copy(from, item, conversion.place_of(Some(target), item), problems)).collect();
    let config = &conversion.plan.image;
    let base = conversion.plan.base.as_ref().map(|base| ImageBase { reference: base.to_string() });
    let files = conversion.plan.layers.iter().filter_map(|layer| match layer {
        LayerPlan::Files(files) => Some(files),
        LayerPlan::Artifact(_) | LayerPlan::Include(_) => None,
    });
    let image = ImageSpec {
        base: Base { image: base, ..Base::default() },
        copy: copies,
        files: files.flatten().map(file).collect(),
        command: config.entrypoint.clone(),
        args: config.cmd.clone(),
        env: config
            .env
            .iter()
            .map(|(name, value)| LiteralVariable { name: name.clone(), value: value.clone() })
            .collect(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone().filter(|user| !user.is_empty()),
        ports: config.ports.iter().filter_map(|port| self::port(port)).collect(),
        labels: config.labels.clone(),
        volumes: config.volumes.clone(),
        stop_signal: config.stop_signal.clone(),
        ..ImageSpec::default()
    };
    let mut fields = plain(&image);
    if let Some(fields) = fields.as_object_mut() {
        fields.insert(yaml::COMMENT.into(), json!(conversion.comment(Some(target))));
    }
    fields
}

/// What the spec's image has not.
fn check(conversion: &Conversion<'_>, target: usize, problems: &mut Vec<Problem>) {
    let config = &conversion.plan.image;
    let triggers = config.on_build.as_ref().is_some_and(|triggers| !triggers.is_empty());
    let unsaid = [
        (config.healthcheck.is_some(), "HEALTHCHECK", "spec.image has no health check"),
        (config.shell.is_some(), "SHELL", "spec.image has no shell"),
        (triggers, "ONBUILD", "spec.image has no triggers"),
        (config.author.is_some(), "MAINTAINER", "spec.image has no author: use a LABEL"),
    ];
    for (_, name, message) in unsaid.into_iter().filter(|(there, ..)| *there) {
        problems.push(Problem::new(conversion.place(Some(target), name), name, message));
    }
    let layers = &conversion.plan.layers;
    let whole = |layer: &LayerPlan| match layer {
        LayerPlan::Artifact(from) => conversion.output(from).is_some_and(|output| output.changes),
        LayerPlan::Files(_) | LayerPlan::Include(_) => false,
    };
    if layers.iter().any(whole) {
        let message =
            "an image of stages has no RUN: run it in a stage before, and copy what the image needs from there";
        problems.push(Problem::new(conversion.place(Some(target), "RUN"), "RUN", message));
    }
    let below = layers.iter().rev().skip(1).any(|layer| matches!(layer, LayerPlan::Files(_)));
    if below {
        let message = "spec.image.files come above all copies: put here-documents behind the other COPYs";
        problems.push(Problem::new(conversion.place(Some(target), "COPY"), "COPY", message));
    }
}

fn file(file: &TextFile) -> File {
    let owner = (file.owner.uid, file.owner.gid);
    File {
        path: file.path.to_string(),
        content: file.content.clone(),
        mode: (file.mode != 0o644).then(|| format!("{:04o}", file.mode)),
        owner: (owner != (0, 0)).then(|| format!("{}:{}", owner.0, owner.1)),
    }
}

/// `80/tcp`, as the plan has it.
fn port(text: &str) -> Option<Port> {
    let (number, protocol) = text.split_once('/')?;
    let protocol = match protocol {
        "udp" => Protocol::UDP,
        "sctp" => Protocol::SCTP,
        _ => Protocol::TCP,
    };
    Some(Port { container_port: number.parse().ok()?, protocol })
}
