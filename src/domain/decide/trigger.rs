//! Why a build begins, goes on, or need not begin.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::{
    api::v1alpha1::{BuildReason, FLUX_REQUESTED_AT, NO_CACHE_REQUESTED_AT, PinnedImage, Progress, REQUESTED_AT},
    domain::{
        debian::base::PackagesBase,
        plan::{Draft, Outline, inputs},
        value::{Digest, Reference},
    },
};

use super::{Pass, ResolvedImage, pinned_digest, pins_of};

impl Pass<'_> {
    /// The build in hand or the one to begin; none when there is no cause.
    pub(super) fn trigger(&self, outline: &Outline) -> Option<Progress> {
        let requested = self.requested();
        let no_cache = self.requested_without_cache();
        let asked = |reason, message: &str| {
            let progress = self.new_progress(reason, message);
            Some(Progress { no_cache: no_cache.cloned(), ..progress })
        };
        if no_cache.is_some() {
            return asked(BuildReason::Requested, "a build without cached artifacts was requested by annotation");
        }
        if requested {
            return asked(BuildReason::Requested, "a build was requested by annotation");
        }
        match &self.status.progress {
            Some(progress) if progress.generation == self.generation => return Some(progress.clone()),
            Some(progress) if progress.poll => {}
            Some(_) => return asked(BuildReason::SpecChanged, "the spec changed during a build"),
            None => {}
        }
        match &self.status.last_build {
            None => asked(BuildReason::Created, "the first build"),
            Some(last) if last.generation != self.generation => {
                asked(BuildReason::SpecChanged, &format!("the spec changed to generation {}", self.generation))
            }
            Some(_) if self.until_poll(outline) == Some(Duration::ZERO) => {
                Some(Progress { poll: true, ..self.new_progress(BuildReason::SourceChanged, "") })
            }
            Some(_) => None,
        }
    }

    /// Whether an annotation asks for a build and was not handled yet.
    fn requested(&self) -> bool {
        self.is_new(REQUESTED_AT, self.status.last_handled_requested_at.as_ref()).is_some()
            || self.is_new(FLUX_REQUESTED_AT, self.status.last_handled_reconcile_at.as_ref()).is_some()
    }

    /// The request for a build without cached artifacts that was not handled yet.
    fn requested_without_cache(&self) -> Option<&String> {
        self.is_new(NO_CACHE_REQUESTED_AT, self.status.last_handled_no_cache_requested_at.as_ref())
    }

    fn is_new(&self, annotation: &str, handled: Option<&String>) -> Option<&String> {
        self.annotation(annotation).filter(|value| Some(*value) != handled)
    }

    /// Whether any of these asks.
    pub(super) fn has_new_request(&self) -> bool {
        self.requested() || self.requested_without_cache().is_some()
    }

    /// How long until tags and branches are looked at again; none when nothing can change.
    pub(super) fn until_poll(&self, outline: &Outline) -> Option<Duration> {
        let interval = outline.poll()?;
        let Some(last) = &self.status.last_check_time else { return Some(Duration::ZERO) };
        // Up to a tenth more or less, the same for one resource: a thousand resources of one commit spread out.
        let spread = Digest::of(self.image.uid().unwrap_or_default().as_bytes()).hex();
        let share = u32::from_str_radix(spread.get(..4).unwrap_or("0"), 16).unwrap_or_default();
        let interval = interval * 9 / 10 + interval / 5 * share / 0xffff;
        let passed = Duration::try_from(self.now.duration_since(last.0)).unwrap_or_default();
        Some(interval.saturating_sub(passed))
    }

    fn new_progress(&self, reason: BuildReason, message: &str) -> Progress {
        let attempts = self.facts.jobs.iter().map(|job| job.attempt + 1);
        Progress {
            reason,
            message: message.to_owned(),
            generation: self.generation,
            start_time: Some(Time(self.now)),
            // Tries of earlier builds do not count for this one.
            first_attempt: attempts.max().unwrap_or_default(),
            ..Progress::default()
        }
    }

    /// The resolved build with the reason that shows in status; none when what it would build is what was built last.
    pub(super) fn worth_building(&self, draft: &Draft, progress: Progress) -> Option<Progress> {
        let Some(last) = self.status.last_build.as_ref().filter(|_| progress.reason != BuildReason::Requested) else {
            return Some(progress);
        };
        let same = inputs(&self.image.spec, &pins_of(&progress)).to_string() == last.inputs;
        // With another build in hand its Pods are to be ended and its traces in status to be replaced: by building.
        let idle = self.status.progress.as_ref().is_none_or(|progress| progress.poll);
        if same && (progress.poll || last.succeeded && idle) {
            return None;
        }
        if !progress.poll {
            return Some(progress);
        }
        let base = match draft {
            Draft::Complete(plan) if plan.packages.as_ref().is_some_and(PackagesBase::is_whole) => {
                progress.packages.as_deref().and_then(|digest| digest.parse().ok())
            }
            Draft::Complete(plan) => plan.base.as_ref().and_then(|base| pinned_digest(&progress, base)),
            // The Dockerfile's base is one of its images: the one that status names.
            Draft::Dockerfile(_) => self.status.base.as_ref().and_then(|base| {
                let found = progress.images.iter().find(|image| image.reference == base.display_name)?;
                found.digest.parse().ok()
            }),
        };
        let known_base = self.status.base.as_ref().and_then(|base| base.digest.clone());
        let base_moved = base.map(|digest| digest.to_string()) != known_base;
        let known_certificates = self.status.image.as_ref().and_then(|image| image.certificates.clone());
        let (reason, message) = if progress.revision != last.revision {
            let revision = progress.revision.clone().unwrap_or_default();
            (BuildReason::SourceChanged, format!("the source is at {revision}"))
        } else if let Some(changes) = self.changed_packages(draft) {
            (BuildReason::BaseChanged, changes)
        } else if progress.certificates != known_certificates {
            (BuildReason::BaseChanged, "the certificates of spec.image.certificates changed".to_owned())
        } else if base_moved {
            (BuildReason::BaseChanged, "the base image's tag points to another image".to_owned())
        } else {
            (BuildReason::BuilderChanged, "a builder image's tag points to another image".to_owned())
        };
        Some(Progress { reason, message, poll: false, ..progress })
    }
}

/// What status remembers of a resolved image.
pub(super) fn pinned(reference: &Reference, image: &ResolvedImage) -> PinnedImage {
    PinnedImage {
        reference: reference.to_string(),
        digest: image.digest.to_string(),
        manifest_digest: image.manifest_digest.to_string(),
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        compressed_size: i64::try_from(image.compressed_size).unwrap_or(i64::MAX),
    }
}
