//! Answers about Dockerfiles: their text, and the configs of the images that they are built from.

use std::{collections::BTreeMap, path::Path, time::Duration};

use kube::ResourceExt;

use crate::{
    api::conditions::Reason,
    domain::{
        decide::Trouble,
        image::RuntimeConfig,
        plan::SourceKind,
        source::config_map_digest,
        task::{Limits, SourceTask},
        value::Reference,
    },
    shell::source::{self, FetchEnvironment},
};

use super::answers::{Answers, Texts, registry_trouble, source_trouble};

/// How long reading may take in all.
const READ_TIME: Duration = Duration::from_secs(30);
/// Bytes of the files of one source that are remembered.
const KEPT_BYTES: usize = 16 << 10;
/// Bytes and files that a source may have to be read by the operator, where its server cannot give out single files.
const READ_LIMITS: (u64, u64) = (512 << 20, 50_000);

impl Answers<'_> {
    /// The texts of files of the source at `revision`.
    pub(super) async fn files(&self, revision: String, paths: &[String]) -> Result<Texts, Trouble> {
        let name = (self.image.uid().unwrap_or_default(), self.image.metadata.generation.unwrap_or_default(), revision);
        if let Some(texts) = self.world.files.get(&name) {
            return Ok(texts);
        }
        let contents = self.read(&name.2, paths).await?;
        let text = |(path, content): (String, Option<Vec<u8>>)| {
            let text = content.map(String::from_utf8).transpose().map_err(|_| Trouble {
                reason: Reason::DockerfileInvalid,
                message: format!("{path} is not UTF-8 text"),
            });
            Ok((path, text?))
        };
        let texts = contents.into_iter().map(text).collect::<Result<Texts, Trouble>>()?;
        // Larger ones are read again: a thousand of them would not fit into the operator's memory.
        if texts.values().flatten().map(String::len).sum::<usize>() <= KEPT_BYTES {
            self.world.files.put(name, texts.clone());
        }
        Ok(texts)
    }

    async fn read(&self, revision: &str, paths: &[String]) -> Result<BTreeMap<String, Option<Vec<u8>>>, Trouble> {
        let Some(plan) = &self.outline.source else { return Ok(BTreeMap::new()) };
        if let SourceKind::ConfigMap { name } = &plan.kind {
            return self.read_config_map(name, revision, paths).await;
        }
        let credential = self.source_credential().await?;
        let invalid = || Trouble { reason: Reason::SourceInvalid, message: format!("{revision} is no revision") };
        let origin = plan.origin(revision, None).ok_or_else(invalid)?;
        let task = SourceTask { origin, directory: plan.directory.clone() };
        let (source_bytes, source_entries) = READ_LIMITS;
        let limits = Limits { source_bytes, source_entries, ..self.world.settings.limits.clone() };
        let work_dir = std::env::temp_dir();
        let environment = FetchEnvironment {
            http: &self.world.http,
            // Secrets and ConfigMaps are read by name here, not mounted.
            secret_dir: Path::new("/nonexistent"),
            config_map_dir: Path::new("/nonexistent"),
            work_dir: &work_dir,
            limits: &limits,
            time: READ_TIME,
        };
        // Never closed, so that there is always a permit to come.
        let _turn = self.world.readers.acquire().await;
        let read = source::read_files(&task, credential.as_ref(), &environment, paths).await;
        read.map_err(|error| source_trouble(&error))
    }

    async fn read_config_map(
        &self,
        name: &str,
        revision: &str,
        paths: &[String],
    ) -> Result<BTreeMap<String, Option<Vec<u8>>>, Trouble> {
        let namespace = self.image.namespace().unwrap_or_default();
        let data = self.world.cluster.config_map(&namespace, name).await;
        let data = data.map_err(|error| self.reference_trouble("spec.source.configMap", "ConfigMap", name, &error))?;
        if config_map_digest(&data).to_string() != revision {
            // The old content will not come back: this build ends, and the next look begins another.
            let message = format!("ConfigMap {name} has changed since the build began");
            return Err(Trouble { reason: Reason::SourceInvalid, message });
        }
        let directory = self.outline.source.as_ref().map(|source| source.directory.as_str()).unwrap_or_default();
        let key = |path: &str| if directory.is_empty() { path.to_owned() } else { format!("{directory}/{path}") };
        Ok(paths.iter().map(|path| (path.clone(), data.get(&key(path)).cloned())).collect())
    }

    /// What the config of a pinned image says.
    pub(super) async fn config(&self, pinned: &Reference) -> Result<RuntimeConfig, Trouble> {
        let missing =
            || Trouble { reason: Reason::ImageNotFound, message: format!("{pinned} is no longer in its registry") };
        let digest = pinned.digest().ok_or_else(missing)?;
        let name = (self.image.uid().unwrap_or_default(), digest);
        if let Some(config) = self.world.configs.get(&name) {
            return Ok(config);
        }
        let client = self.pull_client().await?;
        let found = client.resolve(pinned, &self.outline.platform).await.map_err(|error| registry_trouble(&error))?;
        let config = RuntimeConfig::parse(&found.ok_or_else(missing)?.config);
        self.world.configs.put(name, config.clone());
        Ok(config)
    }
}
