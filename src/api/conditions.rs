//! Condition types and reasons, and the one place where conditions are set.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition types, by kstatus: Ready is normal-true, the others are abnormal-true and absent when false.
pub const READY: &str = "Ready";
/// Present and True while the operator works or will try again by itself.
pub const RECONCILING: &str = "Reconciling";
/// Present and True when a failure needs a change by a person.
pub const STALLED: &str = "Stalled";

/// The reasons of conditions and Events: stable names that people and tools may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The image of the current spec is pushed.
    Succeeded,
    /// Stages run.
    Building,
    /// The image is being put together and pushed.
    Pushing,
    /// The build waits for its turn: too many run in the cluster or the namespace.
    Queued,
    /// A build Pod finds no node.
    Unschedulable,
    /// The node cannot pull an image.
    ImagePullFailed,
    /// A ResourceQuota refuses the build Pod.
    QuotaExceeded,
    /// A LimitRange refuses the build Pod.
    LimitRangeViolated,
    /// The namespace's Pod Security level refuses the build Pod.
    PodSecurityViolated,
    /// The build Pod is refused or cannot start for another reason.
    PodRejected,
    /// A Secret, ConfigMap, ServiceAccount or claim that the spec names does not exist.
    ReferenceNotFound,
    /// The operator has no right to read a Secret in this namespace.
    SecretAccessDenied,
    /// The resource is suspended.
    Suspended,
    /// The spec contradicts itself.
    InvalidSpec,
    /// The Dockerfile is not there, or something in it cannot be: the message says file, line and column.
    DockerfileInvalid,
    /// The Dockerfile's last stage would put more into the image than what is copied into it.
    FinalStageNotMinimal,
    /// The source server cannot be reached or answers with errors.
    SourceUnavailable,
    /// The source server refuses the credentials.
    SourceAccessDenied,
    /// The source is not as the spec says.
    SourceInvalid,
    /// The archive of a base's packages cannot be reached or is being updated.
    ArchiveUnavailable,
    /// What the archive says is not signed by a key that is believed, has expired, or is older than what was seen before.
    ArchiveUntrusted,
    /// A package does not exist, or packages do not go together.
    PackagesUnresolvable,
    /// The packages do not make a base: a broken file, two with one path, a maintainer script that nobody has looked at.
    BaseInvalid,
    /// A builder or base image does not exist.
    ImageNotFound,
    /// A registry cannot be reached or answers with errors.
    RegistryUnavailable,
    /// A registry refuses the credentials.
    RegistryAccessDenied,
    /// A registry's answer is not what it should be.
    RegistryInvalid,
    /// The image could not start: a library, an interpreter or the program itself is missing or does not fit.
    PreflightRefused,
    /// A stage's command failed.
    StageFailed,
    /// A stage did not make a file that is copied from it.
    ArtifactPathMissing,
    /// A stage gave something that must not leave it.
    ArtifactInvalid,
    /// A stage was killed for want of memory.
    OutOfMemory,
    /// A stage took longer than its timeout.
    Timeout,
    /// Something in the Dockerfile is doubtful and built all the same. Only in Events.
    DockerfileWarning,
    /// A file of the image is doubtful, and the image is pushed all the same. Only in Events.
    PreflightWarning,
    /// A snapshot is kept of what a stage's first steps did. Only in Events.
    SnapshotKept,
    /// What a stage left in its caches is in the cache repository. Only in Events.
    CachesKept,
    /// The node could not start from a snapshot: the stage starts from its builder image. Only in Events.
    SnapshotUnusable,
    /// A build Pod went away: evicted, its node lost, its agent failed.
    BuildInterrupted,
}

impl Reason {
    /// The reason as conditions write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Building => "Building",
            Self::Pushing => "Pushing",
            Self::Queued => "Queued",
            Self::Unschedulable => "Unschedulable",
            Self::ImagePullFailed => "ImagePullFailed",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::LimitRangeViolated => "LimitRangeViolated",
            Self::PodSecurityViolated => "PodSecurityViolated",
            Self::PodRejected => "PodRejected",
            Self::ReferenceNotFound => "ReferenceNotFound",
            Self::SecretAccessDenied => "SecretAccessDenied",
            Self::Suspended => "Suspended",
            Self::InvalidSpec => "InvalidSpec",
            Self::DockerfileInvalid => "DockerfileInvalid",
            Self::FinalStageNotMinimal => "FinalStageNotMinimal",
            Self::SourceUnavailable => "SourceUnavailable",
            Self::SourceAccessDenied => "SourceAccessDenied",
            Self::SourceInvalid => "SourceInvalid",
            Self::ArchiveUnavailable => "ArchiveUnavailable",
            Self::ArchiveUntrusted => "ArchiveUntrusted",
            Self::PackagesUnresolvable => "PackagesUnresolvable",
            Self::BaseInvalid => "BaseInvalid",
            Self::ImageNotFound => "ImageNotFound",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::RegistryAccessDenied => "RegistryAccessDenied",
            Self::RegistryInvalid => "RegistryInvalid",
            Self::PreflightRefused => "PreflightRefused",
            Self::PreflightWarning => "PreflightWarning",
            Self::StageFailed => "StageFailed",
            Self::DockerfileWarning => "DockerfileWarning",
            Self::SnapshotKept => "SnapshotKept",
            Self::CachesKept => "CachesKept",
            Self::SnapshotUnusable => "SnapshotUnusable",
            Self::ArtifactPathMissing => "ArtifactPathMissing",
            Self::ArtifactInvalid => "ArtifactInvalid",
            Self::OutOfMemory => "OutOfMemory",
            Self::Timeout => "Timeout",
            Self::BuildInterrupted => "BuildInterrupted",
        }
    }
}

impl Reason {
    /// How long to wait before the first retry; none when only a change by a person helps.
    #[must_use]
    pub fn first_retry(self) -> Option<Duration> {
        match self {
            Self::SourceUnavailable | Self::RegistryUnavailable | Self::ArchiveUnavailable | Self::BuildInterrupted => {
                Some(Duration::from_secs(5))
            }
            // A mirror catches up by itself.
            Self::ArchiveUntrusted => Some(Duration::from_mins(1)),
            // A corrected Secret must lead to an image without anything else being touched.
            Self::SourceAccessDenied
            | Self::RegistryAccessDenied
            | Self::SecretAccessDenied
            | Self::ReferenceNotFound
            | Self::PodRejected => Some(Duration::from_secs(30)),
            _ => None,
        }
    }

    /// Whether something is wrong, rather than going on.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        !matches!(self, Self::Succeeded | Self::Building | Self::Pushing | Self::Queued | Self::Suspended)
    }
}

/// What kstatus shall read from the three conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Current: Ready True, nothing else.
    Current,
    /// In progress: Reconciling True; Ready False, or Unknown before the first result.
    InProgress,
    /// Failed: Ready False and Stalled True.
    Failed,
    /// What was said of the last build stays; Reconciling True says that looking for something newer does not succeed.
    /// Beside Stalled it is left out: kstatus knows no resource that is both.
    Checking,
    /// Nothing goes on: Ready as it was if True, else False.
    Suspended,
}

/// The conditions that say `health`; other types and unchanged transition times are kept.
#[must_use]
pub fn with_health(
    conditions: &[Condition],
    health: Health,
    reason: Reason,
    message: &str,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let was_ready = find(conditions, READY).is_some_and(|ready| ready.status == "True");
    let wanted: &[(&str, &str)] = match health {
        Health::Current => &[(READY, "True")],
        Health::InProgress => &[(READY, "False"), (RECONCILING, "True")],
        Health::Failed => &[(READY, "False"), (STALLED, "True")],
        Health::Checking if find(conditions, STALLED).is_some() => return conditions.to_vec(),
        Health::Checking => &[(RECONCILING, "True")],
        Health::Suspended if was_ready => &[],
        Health::Suspended => &[(READY, "False")],
    };
    let kept: &[&str] = match health {
        Health::Checking => &[READY],
        Health::Suspended if was_ready => &[READY],
        _ => &[],
    };
    let stays =
        |c: &&Condition| kept.contains(&c.type_.as_str()) || ![READY, RECONCILING, STALLED].contains(&c.type_.as_str());
    let kept = conditions.iter().filter(stays).cloned();
    let ours = wanted.iter().map(|(type_, status)| {
        let previous = conditions.iter().find(|c| c.type_ == *type_ && c.status == *status);
        Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: reason.as_str().to_owned(),
            message: truncated(message, 1000),
            observed_generation: Some(generation),
            last_transition_time: previous.map_or(Time(now), |c| c.last_transition_time.clone()),
        }
    });
    ours.chain(kept).collect()
}

/// The condition of `type_`, if present.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// At most `limit` bytes of `text`, cut at a character.
#[must_use]
pub fn truncated(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit.saturating_sub(3)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn types(conditions: &[Condition]) -> Vec<(&str, &str)> {
        conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect()
    }

    #[test]
    fn abnormal_conditions_are_absent_when_all_is_well() {
        let failed = with_health(&[], Health::Failed, Reason::StageFailed, "m", 1, at(1));
        assert_eq!(types(&failed), [("Ready", "False"), ("Stalled", "True")]);
        let current = with_health(&failed, Health::Current, Reason::Succeeded, "m", 2, at(2));
        assert_eq!(types(&current), [("Ready", "True")]);
    }

    #[test]
    fn a_look_that_fails_leaves_the_last_verdict_alone() {
        let current = with_health(&[], Health::Current, Reason::Succeeded, "m", 1, at(1));
        let checking = with_health(&current, Health::Checking, Reason::SourceUnavailable, "n", 1, at(2));
        assert_eq!(types(&checking), [("Reconciling", "True"), ("Ready", "True")]);
        let failed = with_health(&[], Health::Failed, Reason::StageFailed, "m", 1, at(1));
        assert_eq!(with_health(&failed, Health::Checking, Reason::SourceUnavailable, "n", 1, at(2)), failed);
    }

    #[test]
    fn suspending_claims_nothing_new() {
        let current = with_health(&[], Health::Current, Reason::Succeeded, "m", 1, at(1));
        assert_eq!(with_health(&current, Health::Suspended, Reason::Suspended, "n", 2, at(2)), current);
        let failed = with_health(&[], Health::Failed, Reason::StageFailed, "m", 1, at(1));
        let suspended = with_health(&failed, Health::Suspended, Reason::Suspended, "n", 2, at(2));
        assert_eq!(types(&suspended), [("Ready", "False")]);
    }

    #[test]
    fn transition_times_change_only_with_the_status() {
        let first = with_health(&[], Health::InProgress, Reason::Building, "m", 1, at(1));
        let second = with_health(&first, Health::InProgress, Reason::Pushing, "n", 1, at(2));
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        let third = with_health(&second, Health::Current, Reason::Succeeded, "o", 1, at(3));
        assert_eq!(third[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn foreign_conditions_are_kept() {
        let foreign = Condition {
            type_: "Other".into(),
            status: "True".into(),
            reason: "R".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(at(0)),
        };
        let result = with_health(std::slice::from_ref(&foreign), Health::Current, Reason::Succeeded, "m", 1, at(1));
        assert!(result.contains(&foreign));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        assert_eq!(truncated("äöü", 5), "ä…");
        assert_eq!(truncated("abc", 5), "abc");
    }
}
