//! The stage that puts a base together of packages: no build container, one layer.

use std::{fs, path::Path, sync::Arc, time::Instant};

use super::{
    AgentSettings, Backend, UploadError, internal, milliseconds,
    outputs::{TRIES, TransferError, commit, upload},
};
use crate::{
    api::conditions::Reason,
    domain::{
        debian::base::Composition,
        task::{AgentFailure, AgentMessage, FailureReason, Limits, StageTask},
    },
    shell::{
        chain,
        debian::{self, BaseError},
        net::Http,
        pack::PackError,
    },
};

/// Fetches, unpacks, packs and uploads.
pub(super) async fn make<B: Backend>(
    (task, backend, composition): (&StageTask, &B, &Composition),
    settings: &AgentSettings,
    message: &mut AgentMessage,
) -> Result<(), AgentFailure> {
    let start = Instant::now();
    let work = &settings.work_dir;
    fs::create_dir_all(work).map_err(|error| internal(&format!("failed to make {}", work.display()), &error))?;
    let base = Arc::new(backend.compose(composition, &task.package_urls, work).await?);
    message.timings.fetch = milliseconds(start.elapsed());
    let start = Instant::now();
    for attempt in 1.. {
        let (base, threads) = (Arc::clone(&base), settings.threads);
        let ((), packed) = upload(backend, (), move |(), queue| base.pack(threads, queue)).await?;
        match packed {
            Ok(packed) => {
                message.artifact = Some(commit(backend, vec![packed]).await?);
                break;
            }
            Err(TransferError::Upload(UploadError::Lost(_))) if attempt < TRIES => {}
            Err(TransferError::Upload(UploadError::Lost(failure) | UploadError::Final(failure))) => {
                return Err(failure);
            }
            Err(TransferError::Pack(error @ PackError::Intake(_))) => {
                return Err(AgentFailure::new(FailureReason::BaseInvalid, error.to_string()));
            }
            Err(TransferError::Pack(error)) => return Err(internal("failed to pack the base", &error)),
        }
    }
    message.timings.pack = milliseconds(start.elapsed());
    Ok(())
}

/// Puts a base together, failures as an agent tells them.
pub(in crate::cmd) async fn compose(
    http: &Http,
    (composition, urls): (&Composition, &[String]),
    work: &Path,
    limits: &Limits,
) -> Result<debian::Base, AgentFailure> {
    let with = debian::Compose { http, work_dir: work, limits };
    debian::compose(composition, urls, with).await.map_err(|error| failure(&error))
}

fn failure(error: &BaseError) -> AgentFailure {
    let reason = match error.reason() {
        Reason::BaseInvalid => FailureReason::BaseInvalid,
        _ if matches!(error, BaseError::File(_)) => FailureReason::Internal,
        _ => FailureReason::ArchiveUnavailable,
    };
    AgentFailure::new(reason, chain(error))
}
