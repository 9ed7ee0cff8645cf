//! What agents have sent beside artifacts is kept: once, within bounds, and told of. A build does not wait for it, and what fails
//! costs the next build its time only.

use std::time::Duration;

use kube::ResourceExt as _;

use crate::{
    api::v1alpha1::MinimalImage,
    domain::{
        decide::{Kept, Note, Trouble},
        plan::Draft,
        value::Digest,
    },
    shell::queue::ImageId,
};

use super::answers::{Answers, World};

/// How long one may take, its place in the line included: a registry that trickles keeps nobody else's for longer.
const LONGEST: Duration = Duration::from_mins(20);

/// Keeps it, unless that is done already.
pub(super) async fn keep(world: &World, image: &MinimalImage, id: ImageId, kept: Kept) {
    let name = (image.uid().unwrap_or_default(), kept.artifact());
    if world.kept.get(&name).is_some() {
        return;
    }
    world.kept.put(name, ());
    let Ok(draft) = Draft::new(&image.spec) else { return };
    let answers = Answers { world, image, outline: draft.outline(), id };
    match tokio::time::timeout(LONGEST, put(&answers, &kept)).await {
        Ok(Ok(told)) => {
            for message in told {
                world.cluster.record(image, &Note { warning: false, reason: kept.reason(), message }).await;
            }
        }
        Ok(Err(trouble)) => tracing::warn!(artifact = %kept.artifact(), message = trouble.message, "nothing is kept"),
        Err(_) => tracing::warn!(artifact = %kept.artifact(), "nothing is kept: it took over {LONGEST:?}"),
    }
}

async fn put(answers: &Answers<'_>, kept: &Kept) -> Result<Vec<String>, Trouble> {
    let Ok(_permit) = answers.world.keepers.acquire().await else { return Ok(Vec::new()) };
    match kept {
        Kept::Snapshots(keep) => answers.put_snapshots(keep).await,
        Kept::Caches(keep) => answers.put_caches(keep).await,
    }
}

impl Answers<'_> {
    /// Deletes a manifest that nothing names any more, where the registry lets us: its layers could never be collected.
    pub(super) async fn forget(&self, artifact: Digest) {
        let Ok(client) = self.cache_client().await else { return };
        if let Err(error) = client.delete_manifest(&self.outline.cache, artifact).await {
            tracing::debug!(%artifact, %error, "a manifest that nothing names stays");
        }
    }
}
