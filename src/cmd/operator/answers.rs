//! Answers what a decision asks: secrets, sources, registries, the queue. Failures become values with a stable reason.

use std::{collections::BTreeMap, sync::Mutex};

use futures::future::{join_all, try_join_all};
use kube::{ResourceExt, runtime::reflector::Store};
use tokio::sync::Semaphore;

use crate::{
    api::{
        conditions::Reason,
        v1alpha1::{LocalReference, MinimalImage},
    },
    domain::{
        artifact::Artifact,
        credentials::Keychain,
        decide::{Facts, Question, ResolvedImage, Trouble},
        git::GitRef,
        image::RuntimeConfig,
        plan::{GitTarget, Outline, SourceKind},
        recipe::Key,
        record::Signer,
        settings::Settings,
        source::{ServerCredential, SourceCredential, config_map_digest},
        value::{Digest, Reference},
    },
    shell::{
        cache::Cache,
        chain,
        cluster::Cluster,
        net::Http,
        queue::{ImageId, Queue},
        registry::{Client, Registry, RegistryError},
        source::{self, SourceError},
    },
};

use super::{packages::Resolved, preflight::Indexes, shared::Composing, turns::Turns};

/// Texts of a source's files; none where there is no such file.
pub(super) type Texts = BTreeMap<String, Option<String>>;

/// Names the server that a Secret may be sent to.
const HOST_ANNOTATION: &str = "minimalimage.dev/host";
/// Fields of a resource that name Secrets, for messages.
const DESTINATION_SECRET: &str = "spec.destination.secretRef";
const ACCOUNT: &str = "spec.serviceAccountName";

/// Everything outside a MinimalImage that the operator can ask.
pub(super) struct World {
    pub cluster: Cluster,
    pub http: Http,
    pub registry: Registry,
    pub queue: Queue,
    pub signer: Signer,
    pub settings: Settings,
    /// The ClusterRole by which a namespace lets the operator read its Secrets, and the operator's account: for the
    /// message when it may not.
    pub secrets_role: String,
    pub account: String,
    /// Unpacked sizes by manifest digest: they follow from content, so whoever may read the manifest may know them.
    pub sizes: Memo<Digest, u64>,
    /// The Dockerfile and what belongs to it of a resource (by UID and generation) at a revision.
    pub files: Memo<(String, i64, String), Texts>,
    /// The packages of bases, by what was asked for. Archives are the same for everybody: nobody's credentials are sent for them.
    pub packages: Memo<Digest, Resolved>,
    /// Who puts which base together.
    pub composing: Composing,
    /// All resources, as the watch has seen them last.
    pub images: Store<MinimalImage>,
    /// Held while an archive is read.
    pub resolving: Semaphore,
    /// What an image's config says, by the UID of the resource whose credentials have read it.
    pub configs: Memo<(String, Digest), RuntimeConfig>,
    /// Sources that are read at the same time: each takes room on the disk and some memory.
    pub readers: Semaphore,
    /// Indexes of bases' layers.
    pub indexes: Indexes,
    /// Images whose layers are being looked at at the same time.
    pub preflights: Turns,
    /// Snapshots that are being put together at the same time.
    pub keepers: Semaphore,
    /// What was kept, by the UID of its resource and its artifact.
    pub kept: Memo<(String, Digest), ()>,
    /// Artifacts that a resource (by UID and cache repository) has adopted under a key, so that later passes of its build need not ask again.
    pub adopted: Memo<(String, Digest, Key), Artifact>,
}

/// Remembers answers that cannot change. All of it may be forgotten at any time.
pub(super) struct Memo<K, V>(Mutex<BTreeMap<K, V>>);

/// One resource's view of the world: with its credentials.
pub(super) struct Answers<'a> {
    pub world: &'a World,
    pub image: &'a MinimalImage,
    pub outline: &'a Outline,
    pub id: ImageId,
}

impl Answers<'_> {
    /// Answers all of `questions`, at the same time, into `facts`.
    pub async fn answer(&self, questions: Vec<Question>, facts: &mut Facts) {
        let answers = join_all(questions.into_iter().map(|question| self.one(question))).await;
        for put in answers {
            put(facts);
        }
    }

    async fn one(&self, question: Question) -> Box<dyn FnOnce(&mut Facts) + Send> {
        match question {
            Question::Revision => {
                let answer = self.revision().await;
                Box::new(|facts| facts.revision = Some(answer))
            }
            Question::CredentialHost => {
                let answer = self.source_secret().await.map(|secret| secret.map(|(_, host)| host));
                Box::new(|facts| facts.credential_host = Some(answer))
            }
            Question::Image(reference) => {
                let answer = self.resolve(&reference).await;
                Box::new(move |facts| drop(facts.images.insert(reference, answer)))
            }
            Question::Packages { base, pinned, anew } => {
                let answer = self.packages(&base, pinned, anew).await;
                Box::new(|facts| facts.packages = Some(answer))
            }
            Question::Certificates => {
                let answer = self.certificates().await;
                Box::new(|facts| facts.certificates = Some(answer))
            }
            Question::Files { revision, paths } => {
                let answer = self.files(revision, &paths).await;
                Box::new(|facts| facts.files = Some(answer))
            }
            Question::Config(reference) => {
                let answer = self.config(&reference).await;
                Box::new(move |facts| drop(facts.configs.insert(reference, answer)))
            }
            Question::Record(key) => {
                let answer = self.record(&key).await;
                Box::new(move |facts| drop(facts.records.insert(key, answer)))
            }
            Question::Base(key) => {
                let answer = self.shared(&key).await;
                Box::new(move |facts| drop(facts.records.insert(key, answer)))
            }
            Question::Compose(key) => {
                let answer = self.compose(&key);
                Box::new(move |facts| drop(facts.compose.insert(key, answer)))
            }
            Question::Snapshot(key) => {
                let answer = self.snapshot(&key).await;
                Box::new(move |facts| drop(facts.snapshots.insert(key, answer)))
            }
            Question::Adopt { artifact, key, also } => {
                let answer = self.adopt(artifact, key, &also).await;
                Box::new(move |facts| drop(facts.adopted.insert(key, answer)))
            }
            Question::Slot => {
                let answer = self.world.queue.ask(&self.id);
                Box::new(|facts| facts.slot = Some(answer))
            }
            Question::Publish(publication) => {
                let answer = self.publish(&publication).await;
                Box::new(|facts| facts.published = Some(answer))
            }
        }
    }

    async fn revision(&self) -> Result<String, Trouble> {
        let Some(source) = &self.outline.source else { return Ok(String::new()) };
        match &source.kind {
            SourceKind::Git { url, target, .. } => {
                let reference = git_reference(target)?;
                let credential = self.source_credential().await?;
                let commit = source::resolve(&self.world.http, url, &reference, credential.as_ref()).await;
                commit.map(|commit| commit.to_string()).map_err(|error| source_trouble(&error))
            }
            SourceKind::ConfigMap { name } => {
                let namespace = self.image.namespace().unwrap_or_default();
                let data = self.world.cluster.config_map(&namespace, name).await;
                let data =
                    data.map_err(|error| self.reference_trouble("spec.source.configMap", "ConfigMap", name, &error))?;
                Ok(config_map_digest(&data).to_string())
            }
            SourceKind::Http { .. } | SourceKind::Inline { .. } => Ok(source.pinned_revision().unwrap_or_default()),
        }
    }

    /// The source's credential, for its server alone.
    pub(super) async fn source_credential(&self) -> Result<Option<ServerCredential>, Trouble> {
        let secret = self.source_secret().await?;
        let credential = secret.map(|(credential, host)| ServerCredential::new(&host, credential));
        credential.transpose().map_err(|error| credential_trouble(&error))
    }

    /// The source's credential and the server that it is for.
    async fn source_secret(&self) -> Result<Option<(SourceCredential, String)>, Trouble> {
        let Some(source) = &self.outline.source else { return Ok(None) };
        let Some(name) = source.secret() else { return Ok(None) };
        let field = match source.kind {
            SourceKind::Http { .. } => "spec.source.http.secretRef",
            _ => "spec.source.git.secretRef",
        };
        let (data, annotations) = self.secret(field, name).await?;
        let Some(host) = annotations.get(HOST_ANNOTATION) else {
            let message = format!(
                "{field}: Secret {name} does not say which server it is for: kubectl annotate secret {name} {HOST_ANNOTATION}=https://HOST"
            );
            return Err(Trouble { reason: Reason::SourceAccessDenied, message });
        };
        let credential = SourceCredential::from_secret(&data).map_err(|error| credential_trouble(&error))?;
        Ok(Some((credential, host.clone())))
    }

    async fn resolve(&self, reference: &Reference) -> Result<ResolvedImage, Trouble> {
        let client = self.pull_client().await?;
        let found =
            client.resolve(reference, &self.outline.platform).await.map_err(|error| registry_trouble(&error))?;
        let Some(found) = found else {
            let message = format!("{reference} does not exist in its registry: check name and tag");
            return Err(Trouble { reason: Reason::ImageNotFound, message });
        };
        let digest = found.manifest.digest;
        // A Dockerfile's stages will ask for it.
        let name = (self.image.uid().unwrap_or_default(), digest);
        self.world.configs.put(name, RuntimeConfig::parse(&found.config));
        let size = match self.world.sizes.get(&digest) {
            Some(size) => size,
            None => {
                let size = client.unpacked_size(reference.repository(), &found).await;
                let size = size.map_err(|error| registry_trouble(&error))?;
                self.world.sizes.put(digest, size);
                size
            }
        };
        Ok(ResolvedImage {
            digest: found.reference_digest,
            manifest_digest: digest,
            size,
            compressed_size: found.compressed_size,
        })
    }

    async fn record(&self, key: &Key) -> Result<Option<Artifact>, Trouble> {
        self.cache().await?.lookup(key).await.map_err(|error| registry_trouble(&error))
    }

    /// Reads what an agent made and vouches for it. Under the first key someone else may have been faster: theirs counts.
    async fn adopt(&self, digest: Digest, key: Key, also: &[Key]) -> Result<Artifact, Trouble> {
        let owner = format!("{} {}", self.image.uid().unwrap_or_default(), self.outline.cache);
        let name = (owner, digest, key);
        if let Some(artifact) = self.world.adopted.get(&name) {
            return Ok(artifact);
        }
        let cache = self.cache().await?;
        let failed = |error: RegistryError| registry_trouble(&error);
        let ((artifact, size), earlier) = futures::try_join!(cache.read(digest), cache.lookup(&key)).map_err(failed)?;
        if let Some(earlier) = earlier {
            self.world.adopted.put(name, earlier.clone());
            return Ok(earlier);
        }
        let records = also.iter().chain([&key]).map(|key| cache.record(&self.world.signer, key, digest, size));
        try_join_all(records).await.map_err(failed)?;
        self.world.adopted.put(name, artifact.clone());
        Ok(artifact)
    }

    /// The cache repository with the credentials for it.
    pub(super) async fn cache(&self) -> Result<Cache, Trouble> {
        let client = self.cache_client().await?;
        Ok(Cache::new(client, self.outline.cache.clone(), self.world.settings.public_key.clone()))
    }

    pub(super) async fn cache_client(&self) -> Result<Client, Trouble> {
        let spec = &self.image.spec;
        let own = spec.cache.as_ref().is_some_and(|cache| cache.secret_ref.is_some());
        let field = if own { "spec.cache.secretRef" } else { DESTINATION_SECRET };
        self.client(field, spec.cache_secret().into_iter()).await
    }

    pub(super) async fn destination_client(&self) -> Result<Client, Trouble> {
        self.client(DESTINATION_SECRET, self.image.spec.destination.secret_ref.iter()).await
    }

    /// For builder and base images: the spec's pull Secrets, else those of the ServiceAccount, as Pods have it.
    pub(super) async fn pull_client(&self) -> Result<Client, Trouble> {
        let spec = &self.image.spec;
        let namespace = self.image.namespace().unwrap_or_default();
        if !spec.image_pull_secrets.is_empty() {
            return self.client("spec.imagePullSecrets", spec.image_pull_secrets.iter()).await;
        }
        let account = spec.service_account_name.as_deref().unwrap_or("default");
        let names = self.world.cluster.pull_secrets(&namespace, account).await;
        let names = names.map_err(|error| self.reference_trouble(ACCOUNT, "ServiceAccount", account, &error))?;
        let secrets: Vec<_> = names.into_iter().map(|name| LocalReference { name }).collect();
        // Those that its ServiceAccount names.
        self.client(ACCOUNT, secrets.iter()).await
    }

    /// With the logins of `secrets`, which `field` of the resource names.
    async fn client(&self, field: &str, secrets: impl Iterator<Item = &LocalReference>) -> Result<Client, Trouble> {
        let mut keychain = Keychain::default();
        for LocalReference { name } in secrets {
            let (data, _) = self.secret(field, name).await?;
            let config = data.get(".dockerconfigjson").ok_or_else(|| Trouble {
                reason: Reason::RegistryAccessDenied,
                message: format!(
                    "{field}: Secret {name} has no key .dockerconfigjson: make it with kubectl create secret docker-registry"
                ),
            })?;
            let parsed = Keychain::parse(config).map_err(|error| Trouble {
                reason: Reason::RegistryAccessDenied,
                message: format!("{field}: Secret {name} cannot be used: {error}"),
            })?;
            keychain = keychain.merge(parsed);
        }
        Ok(self.world.registry.with(keychain))
    }

    pub(super) async fn secret(
        &self,
        field: &str,
        name: &str,
    ) -> Result<(BTreeMap<String, Vec<u8>>, BTreeMap<String, String>), Trouble> {
        let namespace = self.image.namespace().unwrap_or_default();
        let secret = self.world.cluster.secret(&namespace, name).await;
        secret.map_err(|error| self.reference_trouble(field, "Secret", name, &error))
    }

    /// Why what `field` of the resource names cannot be had.
    pub(super) fn reference_trouble(&self, field: &str, kind: &str, name: &str, error: &kube::Error) -> Trouble {
        let namespace = self.image.namespace().unwrap_or_default();
        let code = if let kube::Error::Api(status) = error { status.code } else { 0 };
        let (reason, message) = match code {
            404 => {
                (Reason::ReferenceNotFound, format!("{field}: {kind} {name} does not exist in namespace {namespace}"))
            }
            403 if kind == "Secret" => (
                Reason::SecretAccessDenied,
                format!(
                    "the operator may not read Secrets in namespace {namespace}: kubectl create rolebinding minimalimage-secrets \
                     --namespace {namespace} --clusterrole {} --serviceaccount {}",
                    self.world.secrets_role, self.world.account
                ),
            ),
            _ => (Reason::BuildInterrupted, format!("{field}: failed to read {kind} {name}: {}", chain(error))),
        };
        Trouble { reason, message }
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, V: Clone> Memo<K, V> {
    /// Enough for the builds that run at once; small even if all entries are.
    const MOST: usize = 2000;

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.0.lock().ok()?.get(key).cloned()
    }

    pub(super) fn put(&self, key: K, value: V) {
        let Ok(mut entries) = self.0.lock() else { return };
        if entries.len() >= Self::MOST {
            entries.clear();
        }
        entries.insert(key, value);
    }
}

fn git_reference(target: &GitTarget) -> Result<GitRef, Trouble> {
    let invalid = |error: &dyn std::fmt::Display| Trouble {
        reason: Reason::InvalidSpec,
        message: format!("spec.source.git.ref: {error}"),
    };
    Ok(match target {
        GitTarget::Head => GitRef::Head,
        GitTarget::Branch(name) => GitRef::Branch(name.parse().map_err(|error| invalid(&error))?),
        GitTarget::Tag(name) => GitRef::Tag(name.parse().map_err(|error| invalid(&error))?),
        GitTarget::Commit(id) => GitRef::Commit(id.parse().map_err(|error| invalid(&error))?),
    })
}

fn credential_trouble(error: &dyn std::error::Error) -> Trouble {
    Trouble { reason: Reason::SourceAccessDenied, message: chain(error) }
}

pub(super) fn source_trouble(error: &SourceError) -> Trouble {
    Trouble { reason: error.reason().reason(), message: chain(error) }
}

pub(super) fn registry_trouble(error: &RegistryError) -> Trouble {
    Trouble { reason: error.reason(), message: chain(error) }
}
