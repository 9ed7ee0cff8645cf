//! Assembly: base manifest and config + layers + the spec's config → the final config and manifest, byte for byte the
//! same for the same inputs. The base's JSON is edited in place, so fields that we do not know survive.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::v1alpha1::{ImageSpec, Port, Protocol};

use super::{
    artifact::Layer,
    media_type,
    value::{Descriptor, Digest, Platform, Reference},
};

/// Images are made at this time unless told otherwise: a real one would give another digest every day.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What runtimes set where an image's config has no PATH (containerd, oci/spec.go).
pub const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// More than any runtime can unpack one over the other.
const MOST_LAYERS: usize = 500;

/// An image that others are put on top of, as read from its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// The reference as the spec names it.
    pub reference: Reference,
    /// What the reference pointed to: the image, or an index that has it.
    pub digest: Digest,
    /// The platform's manifest.
    pub manifest: Vec<u8>,
    /// The platform's config.
    pub config: Vec<u8>,
}

/// A layer and where it comes from, for the history and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcedLayer {
    /// The layer.
    pub layer: Layer,
    /// A stage's name, `source` or `files`.
    pub from: String,
}

/// A layer of a base: its bytes are never looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseLayer {
    /// Media type, in OCI spelling.
    pub media_type: String,
    /// Digest of the compressed blob.
    pub digest: Digest,
    /// Bytes of the compressed blob.
    pub size: u64,
}

impl BaseLayer {
    /// What a manifest says of it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.size }
    }
}

/// What the final image's config says on top of its base's; what is none or empty is inherited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// The program. Given without `cmd` it clears the base's CMD, as ENTRYPOINT does.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the program where there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Variables in order.
    pub env: Vec<(String, String)>,
    /// Where the program starts.
    pub working_dir: Option<String>,
    /// Whom it runs as.
    pub user: Option<String>,
    /// What ends it.
    pub stop_signal: Option<String>,
    /// `port/protocol`.
    pub ports: Vec<String>,
    /// Directories.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// A `HealthcheckConfig` of the Docker image specification.
    pub healthcheck: Option<Value>,
    /// The shell of shell forms.
    pub shell: Option<Vec<String>>,
    /// Triggers for images built from this one, in place of the base's, which a Dockerfile has used up.
    pub on_build: Option<Vec<String>>,
    /// Who made it.
    pub author: Option<String>,
}

impl ImageConfig {
    /// The same on top of what a base of packages says, as for that of an image.
    #[must_use]
    pub fn above(self, below: &Self) -> Self {
        let mut env = below.env.clone();
        for (name, value) in self.env {
            match env.iter_mut().find(|(other, _)| *other == name) {
                Some((_, old)) => *old = value,
                None => env.push((name, value)),
            }
        }
        Self {
            entrypoint: self.entrypoint.or_else(|| below.entrypoint.clone()),
            env,
            working_dir: self.working_dir.or_else(|| below.working_dir.clone()),
            user: self.user.or_else(|| below.user.clone()),
            ..self
        }
    }
}

impl From<&ImageSpec> for ImageConfig {
    fn from(spec: &ImageSpec) -> Self {
        let port = |port: &Port| {
            let protocol = match port.protocol {
                Protocol::TCP => "tcp",
                Protocol::UDP => "udp",
                Protocol::SCTP => "sctp",
            };
            format!("{}/{protocol}", port.container_port)
        };
        Self {
            entrypoint: spec.command.clone(),
            cmd: spec.args.clone(),
            env: spec.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            stop_signal: spec.stop_signal.clone(),
            ports: spec.ports.iter().map(port).collect(),
            volumes: spec.volumes.clone(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            ..Self::default()
        }
    }
}

/// What an image's config says for stages that are built from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeConfig {
    /// Variables in order.
    pub env: Vec<(String, String)>,
    /// Where its program starts; empty for `/`.
    pub working_dir: String,
    /// Whom it runs as; empty for root.
    pub user: String,
    /// The shell of shell forms, where it is not `/bin/sh -c`.
    pub shell: Option<Vec<String>>,
    /// ONBUILD triggers, each a line of a Dockerfile.
    pub on_build: Vec<String>,
}

impl RuntimeConfig {
    /// Reads an image's config; what is missing or of another type is taken as not set, as container runtimes do.
    #[must_use]
    pub fn parse(config: &[u8]) -> Self {
        let config: Value = serde_json::from_slice(config).unwrap_or_default();
        let field = |name: &str| config.get("config").and_then(|config| config.get(name));
        let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let texts = |name: &str| -> Vec<String> {
            let list = field(name).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
        };
        let variable = |entry: String| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            env: texts("Env").into_iter().filter_map(variable).collect(),
            working_dir: text("WorkingDir"),
            user: text("User"),
            shell: Some(texts("Shell")).filter(|shell| !shell.is_empty()),
            on_build: texts("OnBuild"),
        }
    }
}

impl RuntimeConfig {
    /// The value of a variable; of several the last one counts.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A finished image: all that is pushed but the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The manifest's digest, which is the image's.
    pub digest: Digest,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The config's digest.
    pub config_digest: Digest,
    /// Layers of the base, lowest first.
    pub base_layers: Vec<BaseLayer>,
    /// When the base was made, by its own config.
    pub base_created: Option<String>,
}

/// Why a base cannot be built upon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// Its manifest or config is not what the specification says.
    #[error("the base image {reference} is malformed: {problem}")]
    Malformed {
        /// The base.
        reference: Box<Reference>,
        /// What is wrong.
        problem: &'static str,
    },
    /// A layer type that this project cannot pass on.
    #[error("the base image {reference} has a layer of type `{media_type}`, expected an OCI or Docker layer")]
    UnknownLayer {
        /// The base.
        reference: Box<Reference>,
        /// The type.
        media_type: String,
    },
    /// It is for something else.
    #[error("the base image {reference} is for {found}, expected {wanted}")]
    WrongPlatform {
        /// The base.
        reference: Box<Reference>,
        /// What its config says.
        found: String,
        /// What the image is for.
        wanted: Platform,
    },
}

/// Puts `layers` on `base` and applies `spec`.
///
/// # Errors
/// When the base is malformed, for another platform, or holds layers of an unknown kind.
pub fn assemble(
    base: Option<&BaseImage>,
    layers: &[SourcedLayer],
    image: &ImageConfig,
    platform: &Platform,
) -> Result<Image, AssembleError> {
    let base_layers = base.map_or(Ok(Vec::new()), base_layers)?;
    let mut config = base.map_or_else(|| Ok(Map::new()), |base| base_config(base, platform))?;
    let base_created = config.get("created").and_then(Value::as_str).map(str::to_owned);
    config.insert("created".into(), json!(CREATED));
    config.insert("architecture".into(), json!(platform.architecture));
    config.insert("os".into(), json!(platform.os));
    if let Some(variant) = &platform.variant {
        config.insert("variant".into(), json!(variant));
    }
    if let Some(author) = &image.author {
        config.insert("author".into(), json!(author));
    }
    runtime_config(object(&mut config, "config"), image);
    let diff_ids = layers.iter().map(|layer| json!(layer.layer.diff_id));
    let rootfs = object(&mut config, "rootfs");
    rootfs.insert("type".into(), json!("layers"));
    array(rootfs, "diff_ids").extend(diff_ids);
    array(&mut config, "history").extend(layers.iter().map(|layer| {
        let created_by = format!("COPY --from={}", layer.from);
        json!({"created": CREATED, "created_by": created_by, "comment": "minimalimage"})
    }));
    let config = Value::Object(config).to_string().into_bytes();
    let config_digest = Digest::of(&config);
    let manifest = manifest(base, &base_layers, layers, &image.annotations, (config_digest, config.len()));
    let digest = Digest::of(&manifest);
    Ok(Image { manifest, digest, config, config_digest, base_layers, base_created })
}

fn manifest(
    base: Option<&BaseImage>,
    base_layers: &[BaseLayer],
    layers: &[SourcedLayer],
    own_annotations: &BTreeMap<String, String>,
    (config, config_size): (Digest, usize),
) -> Vec<u8> {
    let descriptor =
        |media_type: &str, digest: Digest, size: u64| json!({"mediaType": media_type, "digest": digest, "size": size});
    let below = base_layers.iter().map(|layer| descriptor(&layer.media_type, layer.digest, layer.size));
    let above = layers
        .iter()
        .map(|SourcedLayer { layer, .. }| descriptor(&layer.media_type, layer.digest, layer.compressed_size));
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": descriptor(media_type::CONFIG, config, config_size as u64),
        "layers": below.chain(above).collect::<Vec<_>>(),
    });
    // The pre-defined annotation keys of the OCI image-spec; the user's own win.
    let mut annotations = BTreeMap::new();
    if let Some(base) = base {
        annotations.insert("org.opencontainers.image.base.name".to_owned(), base.reference.to_string());
        annotations.insert("org.opencontainers.image.base.digest".to_owned(), base.digest.to_string());
    }
    annotations.extend(own_annotations.clone());
    if let (false, Some(manifest)) = (annotations.is_empty(), manifest.as_object_mut()) {
        manifest.insert("annotations".into(), json!(annotations));
    }
    manifest.to_string().into_bytes()
}

/// The layers of the base's manifest, Docker's media types in OCI spelling (a manifest must not mix the two).
///
/// # Errors
/// When the manifest is malformed or names layers of an unknown kind.
pub fn base_layers(base: &BaseImage) -> Result<Vec<BaseLayer>, AssembleError> {
    let malformed = |problem| AssembleError::Malformed { reference: Box::new(base.reference.clone()), problem };
    let manifest: Value = serde_json::from_slice(&base.manifest).map_err(|_| malformed("its manifest is not JSON"))?;
    let layers =
        manifest.get("layers").and_then(Value::as_array).ok_or_else(|| malformed("its manifest has no layers"))?;
    let parse = |layer: &Value| {
        let field = |name| layer.get(name).and_then(Value::as_str);
        let found = field("mediaType").ok_or_else(|| malformed("a layer has no mediaType"))?;
        let media_type = match found {
            media_type::DOCKER_LAYER => media_type::LAYER,
            media_type::DOCKER_LAYER_TAR => media_type::LAYER_TAR,
            known if known.starts_with(media_type::LAYER_TAR) => known,
            other => {
                return Err(AssembleError::UnknownLayer {
                    reference: Box::new(base.reference.clone()),
                    media_type: other.chars().take(100).collect(),
                });
            }
        };
        let digest = field("digest").and_then(|digest| digest.parse().ok());
        let size = layer.get("size").and_then(Value::as_u64);
        match (digest, size) {
            (Some(digest), Some(size)) => Ok(BaseLayer { media_type: media_type.to_owned(), digest, size }),
            _ => Err(malformed("a layer has no digest or size")),
        }
    };
    if layers.len() > MOST_LAYERS {
        return Err(malformed("it has more than 500 layers"));
    }
    layers.iter().map(parse).collect()
}

fn base_config(base: &BaseImage, platform: &Platform) -> Result<Map<String, Value>, AssembleError> {
    let malformed = |problem| AssembleError::Malformed { reference: Box::new(base.reference.clone()), problem };
    let config: Value = serde_json::from_slice(&base.config).map_err(|_| malformed("its config is not JSON"))?;
    let Value::Object(config) = config else { return Err(malformed("its config is not an object")) };
    let field = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let found = (field("os"), field("architecture"));
    if found != (platform.os.as_str(), platform.architecture.as_str()) {
        return Err(AssembleError::WrongPlatform {
            reference: Box::new(base.reference.clone()),
            found: format!("{}/{}", found.0, found.1),
            wanted: platform.clone(),
        });
    }
    if config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")).and_then(Value::as_array).is_none() {
        return Err(malformed("its config has no rootfs.diff_ids"));
    }
    Ok(config)
}

/// What a Dockerfile's last stage does to the inherited config.
fn runtime_config(config: &mut Map<String, Value>, image: &ImageConfig) {
    if let Some(entrypoint) = &image.entrypoint {
        // Docker leaves an empty list out, of whatever kind.
        if entrypoint.is_empty() {
            config.remove("Entrypoint");
        } else {
            config.insert("Entrypoint".into(), json!(entrypoint));
        }
        // As in Docker: a new ENTRYPOINT makes the base's CMD meaningless.
        config.remove("Cmd");
    }
    if !image.env.is_empty() {
        let env = array(config, "Env");
        for (name, value) in &image.env {
            let prefix = format!("{name}=");
            let entry = json!(format!("{prefix}{value}"));
            match env.iter_mut().find(|old| old.as_str().is_some_and(|old| old.starts_with(&prefix))) {
                Some(old) => *old = entry,
                None => env.push(entry),
            }
        }
    }
    let texts = [("WorkingDir", &image.working_dir), ("User", &image.user), ("StopSignal", &image.stop_signal)];
    for (key, value) in texts {
        if let Some(value) = value {
            config.insert(key.into(), json!(value));
        }
    }
    for (key, list) in [("Cmd", &image.cmd), ("Shell", &image.shell), ("OnBuild", &image.on_build)] {
        match list {
            Some(list) if list.is_empty() => drop(config.remove(key)),
            Some(list) => drop(config.insert(key.into(), json!(list))),
            None => {}
        }
    }
    if let Some(healthcheck) = &image.healthcheck {
        config.insert("Healthcheck".into(), healthcheck.clone());
    }
    for (key, names) in [("ExposedPorts", &image.ports), ("Volumes", &image.volumes)] {
        for name in names {
            object(config, key).insert(name.clone(), json!({}));
        }
    }
    for (name, value) in &image.labels {
        object(config, "Labels").insert(name.clone(), json!(value));
    }
}

/// The object under `key`, made when it is missing or null (Docker writes null for empty).
fn object<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("made an object above"),
    }
}

/// The array under `key`, made when it is missing or null.
fn array<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = parent.entry(key).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(array) => array,
        _ => unreachable!("made an array above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1alpha1::LiteralVariable;

    fn layer(name: &str) -> SourcedLayer {
        let digest = Digest::of(name.as_bytes());
        let diff_id = Digest::of(format!("{name} unpacked").as_bytes());
        let layer =
            Layer { media_type: media_type::LAYER.into(), digest, compressed_size: 10, diff_id, size: 20, index: None };
        SourcedLayer { layer, from: name.into() }
    }

    fn base() -> BaseImage {
        let manifest = json!({"schemaVersion": 2, "config": {}, "layers": [
            {"mediaType": media_type::DOCKER_LAYER, "digest": Digest::of(b"low"), "size": 5}]});
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "unknown": {"z": 1, "a": 2},
            "config": {"Env": ["PATH=/bin", "A=1"], "Entrypoint": ["/old"], "Cmd": ["x"], "Labels": null,
                       "Healthcheck": {"Test": ["NONE"]}, "User": "65532", "Volumes": {"/old": {}}},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"low unpacked")]},
            "history": [{"created_by": "old"}]});
        BaseImage {
            reference: "gcr.io/distroless/static:latest".parse().unwrap(),
            digest: Digest::of(b"index"),
            manifest: manifest.to_string().into_bytes(),
            config: config.to_string().into_bytes(),
        }
    }

    fn spec() -> ImageSpec {
        let variable = |name: &str, value: &str| LiteralVariable { name: name.into(), value: value.into() };
        ImageSpec {
            command: Some(vec!["/app".into()]),
            env: vec![variable("A", "2"), variable("B", "3")],
            ports: vec![Port { container_port: 8080, protocol: Protocol::TCP }],
            volumes: vec!["/data".into()],
            labels: [("l".to_owned(), "v".to_owned())].into(),
            annotations: [("n".to_owned(), "v".to_owned())].into(),
            ..ImageSpec::default()
        }
    }

    fn parsed(image: &Image) -> (Value, Value) {
        (serde_json::from_slice(&image.manifest).unwrap(), serde_json::from_slice(&image.config).unwrap())
    }

    #[test]
    fn a_scratch_image_has_only_its_own_layers() {
        let spec = ImageSpec { command: Some(vec!["/app".into()]), ..ImageSpec::default() };
        let image = assemble(None, &[layer("build")], &ImageConfig::from(&spec), &Platform::linux("amd64")).unwrap();
        let (manifest, config) = parsed(&image);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        assert_eq!(manifest.get("annotations"), None);
        assert_eq!(config["config"], json!({"Entrypoint": ["/app"]}));
        assert_eq!(config["rootfs"]["diff_ids"], json!([layer("build").layer.diff_id]));
        assert_eq!(config["history"].as_array().unwrap().len(), 1);
        assert_eq!(image.digest, Digest::of(&image.manifest));
    }

    #[test]
    fn a_base_is_inherited_as_docker_does() {
        let image =
            assemble(Some(&base()), &[layer("build")], &ImageConfig::from(&spec()), &Platform::linux("amd64")).unwrap();
        let (manifest, config) = parsed(&image);
        let runtime = &config["config"];
        assert_eq!(runtime["Env"], json!(["PATH=/bin", "A=2", "B=3"]));
        assert_eq!(runtime["Entrypoint"], json!(["/app"]));
        assert_eq!(runtime.get("Cmd"), None);
        assert_eq!(runtime["Healthcheck"], json!({"Test": ["NONE"]}));
        assert_eq!(runtime["User"], "65532");
        assert_eq!(runtime["Volumes"], json!({"/old": {}, "/data": {}}));
        assert_eq!(runtime["Labels"], json!({"l": "v"}));
        assert_eq!(runtime["ExposedPorts"], json!({"8080/tcp": {}}));
        assert_eq!(config["unknown"].to_string(), r#"{"z":1,"a":2}"#);
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        assert_eq!(manifest["layers"][0]["mediaType"], media_type::LAYER);
        assert_eq!(manifest["annotations"]["org.opencontainers.image.base.digest"], json!(Digest::of(b"index")));
        assert_eq!(manifest["annotations"]["n"], "v");
        assert_eq!(image.base_created.as_deref(), Some("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn equal_inputs_give_equal_bytes() {
        let once = || {
            assemble(Some(&base()), &[layer("a"), layer("b")], &ImageConfig::from(&spec()), &Platform::linux("amd64"))
                .unwrap()
        };
        assert_eq!(once(), once());
    }

    #[test]
    fn bases_that_cannot_work_are_refused() {
        let amd64 = Platform::linux("amd64");
        let refuse =
            |base: BaseImage| assemble(Some(&base), &[], &ImageConfig::default(), &amd64).unwrap_err().to_string();
        assert!(refuse(BaseImage { config: b"[]".to_vec(), ..base() }).contains("not an object"));
        assert!(refuse(BaseImage { manifest: b"{}".to_vec(), ..base() }).contains("no layers"));
        let arm = String::from_utf8(base().config).unwrap().replace("amd64", "arm64").into_bytes();
        assert!(refuse(BaseImage { config: arm, ..base() }).contains("linux/arm64, expected linux/amd64"));
    }
}
