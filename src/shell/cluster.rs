//! The cluster: reads what belongs to a MinimalImage, writes Jobs, status and Events. One field manager, no decisions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Event, Pod, Secret, ServiceAccount},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    runtime::events::{Event as Note, EventType, Recorder, Reporter},
};
use serde_json::json;

use crate::{
    api::v1alpha1::{MinimalImage, Status},
    domain::{
        decide,
        job::OWNER_LABEL,
        observed::{JobFact, job_fact},
    },
};

/// Who owns the fields that we write.
pub const FIELD_MANAGER: &str = "minimalimage";

/// A client for everything that the operator does in the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// By resource, reason and message: the library counts Events that are equal but for their message as one, with the first
    /// one's message.
    recorders: Arc<Mutex<HashMap<String, Recorder>>>,
}

/// So many messages are remembered; a message that is forgotten becomes an Event of its own.
const RECORDERS: usize = 1000;

impl Cluster {
    /// The cluster behind `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, recorders: Arc::default() }
    }

    /// The Jobs of `image` and how far they are.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn jobs(&self, image: &MinimalImage) -> kube::Result<Vec<JobFact>> {
        let namespace = image.namespace().unwrap_or_default();
        let uid = image.uid().unwrap_or_default();
        let ours = ListParams::default().labels(&format!("{OWNER_LABEL}={uid}"));
        let (jobs, pods) = (self.namespaced::<Job>(&namespace), self.namespaced::<Pod>(&namespace));
        let (jobs, pods) = futures::try_join!(jobs.list(&ours), pods.list(&ours))?;
        let mut facts = Vec::new();
        for job in jobs.items.iter().filter(|job| owned_by(&job.metadata, &uid)) {
            let job_uid = job.uid().unwrap_or_default();
            let has_pod = pods.items.iter().any(|pod| owned_by(&pod.metadata, &job_uid));
            let events = if has_pod { Vec::new() } else { self.events(&namespace, &job_uid).await? };
            facts.extend(job_fact(job, &pods.items, &events));
        }
        Ok(facts)
    }

    /// The Events about an object: refusals of a Job's Pod are told nowhere else.
    async fn events(&self, namespace: &str, uid: &str) -> kube::Result<Vec<Event>> {
        let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        Ok(self.namespaced::<Event>(namespace).list(&about).await?.items)
    }

    /// Creates `job`; one of the same name is the same work, so that this can be done twice.
    ///
    /// # Errors
    /// When the API server refuses it or does not answer.
    pub async fn create(&self, job: &Job) -> kube::Result<()> {
        let jobs = self.namespaced::<Job>(&job.namespace().unwrap_or_default());
        match jobs.create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }, job).await
        {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Deletes a Job with its Pods; only the one with this UID.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn delete(&self, namespace: &str, job: &JobFact) -> kube::Result<()> {
        let precondition = Preconditions { uid: Some(job.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(precondition), ..DeleteParams::background() };
        match self.namespaced::<Job>(namespace).delete(&job.name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Writes `status` where it differs from what `image` has; gives the resource as it is then.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn write_status(&self, image: &MinimalImage, status: &Status) -> kube::Result<Option<MinimalImage>> {
        if image.status.as_ref() == Some(status) {
            return Ok(None);
        }
        let patch = json!({
            "apiVersion": MinimalImage::api_version(&()),
            "kind": MinimalImage::kind(&()),
            "metadata": {"uid": image.uid()},
            "status": status,
        });
        let images = self.namespaced::<MinimalImage>(&image.namespace().unwrap_or_default());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        images.patch_status(&image.name_any(), &params, &Patch::Apply(patch)).await.map(Some)
    }

    /// Records an Event about `image`; one that cannot be recorded is no reason to stop.
    pub async fn record(&self, image: &MinimalImage, note: &decide::Note) {
        let event = Note {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.as_str().into(),
            note: Some(crate::api::conditions::truncated(&note.message, 1000)),
            action: "Build".into(),
            secondary: None,
        };
        let recorder = self.recorder(&format!("{:?} {} {}", image.uid(), event.reason, note.message));
        if let Err(error) = recorder.publish(&event, &image.object_ref(&())).await {
            tracing::warn!(%error, "failed to record an event");
        }
    }

    /// The recorder that counts Events with this text.
    fn recorder(&self, text: &str) -> Recorder {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if recorders.len() >= RECORDERS {
            recorders.clear();
        }
        let new = || Recorder::new(self.client.clone(), Reporter { controller: FIELD_MANAGER.into(), instance: None });
        recorders.entry(text.to_owned()).or_insert_with(new).clone()
    }

    /// The generation that the API server has now; none when the resource is gone or being deleted.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn generation(&self, image: &MinimalImage) -> kube::Result<Option<i64>> {
        let images = self.namespaced::<MinimalImage>(&image.namespace().unwrap_or_default());
        let current = images.get_metadata_opt(&image.name_any()).await?;
        let current =
            current.filter(|current| current.uid() == image.uid() && current.metadata.deletion_timestamp.is_none());
        Ok(current.and_then(|current| current.metadata.generation))
    }

    /// A Secret's data and annotations.
    ///
    /// # Errors
    /// When it cannot be read; the API error tells not found from forbidden.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> kube::Result<(BTreeMap<String, Vec<u8>>, BTreeMap<String, String>)> {
        let secret = self.namespaced::<Secret>(namespace).get(name).await?;
        let annotations = secret.metadata.annotations.unwrap_or_default();
        Ok((secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(), annotations))
    }

    /// A ConfigMap's text and binary data.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn config_map(&self, namespace: &str, name: &str) -> kube::Result<BTreeMap<String, Vec<u8>>> {
        let map = self.namespaced::<ConfigMap>(namespace).get(name).await?;
        let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
        Ok(text.chain(map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0))).collect())
    }

    /// Names of the image pull Secrets of a ServiceAccount.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn pull_secrets(&self, namespace: &str, account: &str) -> kube::Result<Vec<String>> {
        let account = self.namespaced::<ServiceAccount>(namespace).get(account).await?;
        Ok(account.image_pull_secrets.unwrap_or_default().into_iter().map(|secret| secret.name).collect())
    }

    /// The operator's own Secret `name`, made with `data` when it does not exist: the first replica wins.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub async fn own_secret(&self, namespace: &str, name: &str, key: &str, data: &[u8]) -> kube::Result<Vec<u8>> {
        let secrets = self.namespaced::<Secret>(namespace);
        let existing = match secrets.get_opt(name).await? {
            Some(secret) => secret,
            None => {
                let secret = Secret {
                    metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
                    data: Some(BTreeMap::from([(key.into(), k8s_openapi::ByteString(data.to_vec()))])),
                    ..Secret::default()
                };
                match secrets.create(&PostParams::default(), &secret).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => secrets.get(name).await?,
                    result => result?,
                }
            }
        };
        Ok(existing.data.and_then(|mut data| data.remove(key)).map(|value| value.0).unwrap_or_default())
    }

    fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}
