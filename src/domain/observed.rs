//! What a Job and its Pod say about a stage. Read from container statuses: they are two seconds ahead of the Job.

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStatus, Event, Pod},
};

use crate::api::conditions::{Reason, truncated};

use super::{
    job::{ATTEMPT_ANNOTATION, GENERATION_ANNOTATION, KEY_ANNOTATION, SNAPSHOT_ANNOTATION, STAGE_LABEL},
    plan::TIMEOUT_ADVICE,
    snapshot::Prefix,
    task::{AGENT_CONTAINER, AgentFailure, AgentMessage, BUILD_CONTAINER, FailureReason, Sent},
    value::Digest,
};

/// One Job of a MinimalImage.
#[derive(Debug, Clone, PartialEq)]
pub struct JobFact {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The stage that it runs.
    pub stage: String,
    /// The stage's key, in full.
    pub key: String,
    /// Which try it is.
    pub attempt: u32,
    /// The generation of the spec that its Pod was made for; Jobs of older versions do not say.
    pub generation: Option<i64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When its Pod was taken by a node.
    pub started: Option<Timestamp>,
    /// When its agent ended.
    pub finished: Option<Timestamp>,
    /// How far it is.
    pub state: JobState,
    /// The snapshot that its build container was started from.
    pub snapshot: Option<Digest>,
    /// What the steps before each cut took from the source, where they took anything.
    pub prefixes: Vec<Prefix>,
    /// The snapshots that were made, whatever became of the stage.
    pub snapshots: Option<Sent>,
}

/// How far a Job is.
#[derive(Debug, Clone, PartialEq)]
pub enum JobState {
    /// User code does not run yet.
    Waiting {
        /// Why.
        reason: Reason,
        /// The same for people.
        message: String,
        /// Whether it has a Pod, of whose changes we hear.
        has_pod: bool,
        /// Whether it is the build container that cannot be started.
        build: bool,
    },
    /// User code runs.
    Running,
    /// The build container has ended and the agent goes on: for a moment that is how a stage ends; when it lasts, the agent
    /// waits for a connection that never comes, which is this failure.
    Orphaned(JobFailure),
    /// It was started from a snapshot of other files, and did nothing.
    Outdated,
    /// The agent has ended well.
    Done(AgentMessage),
    /// It will give no artifact.
    Failed(JobFailure),
}

/// Why a Job gave no artifact.
#[derive(Debug, Clone, PartialEq)]
pub struct JobFailure {
    /// The kind of failure.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
    /// Exit code of the command that failed.
    pub exit_code: Option<i32>,
    /// The last lines of the build container.
    pub log_tail: Option<String>,
    /// Whether another try may go better.
    pub transient: bool,
    /// When it failed.
    pub at: Option<Timestamp>,
}

impl JobFact {
    /// Whether its Pod may still do something.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let over = matches!(self.state, JobState::Done(_) | JobState::Failed(_) | JobState::Outdated);
        !self.deleting && !over
    }
}

/// Reads a Job. `pods` may hold others' Pods: only one whose controller is this Job's UID is believed.
/// `events` are the Job's own, needed while there is no Pod.
#[must_use]
pub fn job_fact(job: &Job, pods: &[Pod], events: &[Event]) -> Option<JobFact> {
    let meta = &job.metadata;
    let annotation = |name: &str| meta.annotations.as_ref()?.get(name).cloned();
    let uid = meta.uid.clone()?;
    let owned = |pod: &&Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
    };
    let newest = pods.iter().filter(owned).max_by_key(|pod| pod.metadata.creation_timestamp.clone());
    let state = newest.map_or_else(|| without_pod(job, events), pod_state);
    let said = newest.and_then(|pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        agent_message(statuses.iter().find(|status| status.name == AGENT_CONTAINER)?)
    });
    let said = said.unwrap_or_default();
    Some(JobFact {
        name: meta.name.clone()?,
        uid,
        stage: meta.labels.as_ref()?.get(STAGE_LABEL)?.clone(),
        key: annotation(KEY_ANNOTATION)?,
        attempt: annotation(ATTEMPT_ANNOTATION)?.parse().ok()?,
        generation: annotation(GENERATION_ANNOTATION).and_then(|text| text.parse().ok()),
        deleting: meta.deletion_timestamp.is_some(),
        created: meta.creation_timestamp.as_ref().map(|time| time.0),
        started: newest.and_then(|pod| Some(pod.status.as_ref()?.start_time.as_ref()?.0)),
        finished: newest.and_then(|pod| {
            let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
            terminated_at(containers.iter().find(|container| container.name == AGENT_CONTAINER))
        }),
        state,
        snapshot: annotation(SNAPSHOT_ANNOTATION).and_then(|start| start.split_once(' ')?.1.parse().ok()),
        prefixes: said.prefixes,
        snapshots: said.snapshots,
    })
}

fn without_pod(job: &Job, events: &[Event]) -> JobState {
    let finished = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if finished.into_iter().any(|c| c.status == "True" && (c.type_ == "Failed" || c.type_ == "Complete")) {
        return interrupted("the Pod was deleted before the operator had read its result", None);
    }
    let refusals = events.iter().filter(|event| event.reason.as_deref() == Some("FailedCreate"));
    let newest = refusals.max_by_key(|event| event.last_timestamp.clone());
    let message = newest.and_then(|event| event.message.clone()).unwrap_or_default();
    let reason = match message.as_str() {
        "" => Reason::Building,
        text if text.contains("exceeded quota") || text.contains("failed quota") => Reason::QuotaExceeded,
        text if text.contains("violates PodSecurity") => Reason::PodSecurityViolated,
        text if text.contains("per Container")
            || text.contains("per Pod")
            || text.contains("limit to request ratio") =>
        {
            Reason::LimitRangeViolated
        }
        // A LimitRange also fills in limits, which our requests can then be above.
        text if text.contains("must be less than or equal to") => Reason::LimitRangeViolated,
        text if text.contains("serviceaccount") && text.contains("not found") => Reason::ReferenceNotFound,
        _ => Reason::PodRejected,
    };
    let message = if message.is_empty() { "its Pod is being created".into() } else { truncated(&message, 600) };
    JobState::Waiting { reason, message, has_pod: false, build: false }
}

fn pod_state(pod: &Pod) -> JobState {
    let Some(status) = &pod.status else {
        return waits(Reason::Building, "its Pod is being scheduled");
    };
    let statuses = || status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let by_name = |name: &str| statuses().find(|status| status.name == name);
    let (agent, build) = (by_name(AGENT_CONTAINER), by_name(BUILD_CONTAINER));
    if let Some(message) = agent.and_then(agent_message)
        && message.artifact.is_some()
        && message.failure.is_none()
    {
        return JobState::Done(message);
    }
    let outdated = |failure: &AgentFailure| failure.reason == FailureReason::SnapshotOutdated;
    if agent.and_then(agent_message).and_then(|message| message.failure).is_some_and(|failure| outdated(&failure)) {
        return JobState::Outdated;
    }
    let at = terminated_at(agent).or_else(|| terminated_at(build));
    match status.reason.as_deref() {
        Some("DeadlineExceeded") => {
            let limit = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
            let limit = limit.map(|seconds| format!(" of {seconds} s")).unwrap_or_default();
            let message = format!("the stage took longer than its timeout{limit}: {TIMEOUT_ADVICE}");
            return failed(Reason::Timeout, &message, build, at, false);
        }
        Some(reason @ ("Evicted" | "Preempted" | "NodeLost" | "Shutdown" | "NodeShutdown" | "Terminated")) => {
            let detail = status.message.clone().unwrap_or_default();
            return interrupted(&format!("the Pod went away ({reason}) {}", truncated(&detail, 300)), at);
        }
        _ => {}
    }
    if let Some(terminated) = build.and_then(|build| build.state.as_ref()?.terminated.as_ref()) {
        match terminated.reason.as_deref() {
            Some("OOMKilled") => {
                let message = "the stage was killed for want of memory: raise resources.limits.memory of its entry in spec.stages, or of spec.dockerfile.pod";
                return failed(Reason::OutOfMemory, message, build, at, false);
            }
            Some("StartError" | "ContainerCannotRun") => {
                // An agent that fails at once leaves the build container nothing to start from.
                let cause = agent.and_then(agent_message).and_then(|message| message.failure);
                let own = |cause: &AgentFailure| {
                    !matches!(cause.reason, FailureReason::BuildInterrupted | FailureReason::Internal)
                };
                if let Some(cause) = cause.filter(own) {
                    return agent_ended(Some(cause), None, at);
                }
                if agent.is_some_and(is_terminated) {
                    // As when its start hook failed. Beside an image that cannot be started it waits to be connected.
                    return interrupted("the agent ended before the build container had started", at);
                }
                let detail = terminated.message.clone().unwrap_or_default();
                let message = format!("the builder image cannot be started: {}", truncated(&detail, 400));
                return failed(Reason::PodRejected, &message, None, at, false);
            }
            _ => {}
        }
    }
    if agent.is_some_and(is_terminated) {
        let failure = agent.and_then(agent_message).and_then(|message| message.failure);
        // Only after its own failure has the build container last words; otherwise nothing that it does counts any more.
        let has_words = failure.as_ref().is_some_and(|failure| {
            use FailureReason::{ArtifactPathMissing, BuildInterrupted, StepFailed};
            matches!(failure.reason, StepFailed | ArtifactPathMissing | BuildInterrupted)
        });
        if !(has_words && build.is_some_and(is_running)) {
            return agent_ended(failure, build, at);
        }
    }
    if status.phase.as_deref() == Some("Failed") {
        return interrupted("the Pod failed before the agent had given its result", at);
    }
    if build.is_some_and(is_terminated) && agent.is_some_and(is_running) {
        let message = "the build container ended before it had reached the agent";
        return JobState::Orphaned(job_failure(Reason::BuildInterrupted, message, build, terminated_at(build), true));
    }
    if build.is_some_and(is_running) || agent.is_some_and(is_running) && build.is_none() {
        return JobState::Running;
    }
    waiting(pod, &[agent, build])
}

/// The agent has ended without an artifact.
fn agent_ended(failure: Option<AgentFailure>, build: Option<&ContainerStatus>, at: Option<Timestamp>) -> JobState {
    let Some(AgentFailure { reason, message, exit_code }) = failure else {
        return interrupted("the agent ended without a result", at);
    };
    let reason = reason.reason();
    let transient = reason.first_retry().is_some();
    // Where no command has failed, the container's last words are those of the message.
    let shown = (reason == Reason::StageFailed).then_some(build).flatten();
    JobState::Failed(JobFailure { exit_code, ..job_failure(reason, &message, shown, at, transient) })
}

fn waiting(pod: &Pod, containers: &[Option<&ContainerStatus>]) -> JobState {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unscheduled = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        let message = condition.message.as_deref().unwrap_or("no node takes the Pod");
        return match missing_claim(message) {
            Some(claim) => {
                let message = format!("there is no PersistentVolumeClaim {claim}: create it in this namespace");
                waits(Reason::ReferenceNotFound, &message)
            }
            None => {
                let advice = "no node takes its Pod: look at its resources, nodeSelector, tolerations and affinity";
                waits(Reason::Unschedulable, &format!("{advice}; {}", truncated(message, 600)))
            }
        };
    }
    let waiting =
        containers.iter().flatten().filter_map(|status| Some((status, status.state.as_ref()?.waiting.as_ref()?)));
    for (status, wait) in waiting {
        let reason = match wait.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
                Reason::ImagePullFailed
            }
            "CreateContainerConfigError" => Reason::ReferenceNotFound,
            "CreateContainerError" | "RunContainerError" | "CrashLoopBackOff" => Reason::PodRejected,
            _ => continue,
        };
        let detail = truncated(wait.message.as_deref().or(wait.reason.as_deref()).unwrap_or_default(), 500);
        let message = match reason {
            Reason::ReferenceNotFound => {
                format!(
                    "what its env, or spec.dockerfile.secrets, takes from Secrets and ConfigMaps is not there: {detail}"
                )
            }
            _ => format!("{} ({}): {detail}", status.name, status.image),
        };
        return JobState::Waiting { reason, message, has_pod: true, build: status.name == BUILD_CONTAINER };
    }
    waits(Reason::Building, "its containers are being started")
}

/// The claim that the scheduler does not find: `persistentvolumeclaim "cache" not found`.
fn missing_claim(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("persistentvolumeclaim \"")?;
    rest.split_once("\" not found").map(|(claim, _)| claim)
}

fn waits(reason: Reason, message: &str) -> JobState {
    JobState::Waiting { reason, message: message.to_owned(), has_pod: true, build: false }
}

fn agent_message(agent: &ContainerStatus) -> Option<AgentMessage> {
    serde_json::from_str(agent.state.as_ref()?.terminated.as_ref()?.message.as_deref()?).ok()
}

fn is_terminated(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.terminated.is_some())
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn terminated_at(status: Option<&ContainerStatus>) -> Option<Timestamp> {
    Some(status?.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
}

fn failed(
    reason: Reason,
    message: &str,
    build: Option<&ContainerStatus>,
    at: Option<Timestamp>,
    transient: bool,
) -> JobState {
    JobState::Failed(job_failure(reason, message, build, at, transient))
}

fn job_failure(
    reason: Reason,
    message: &str,
    build: Option<&ContainerStatus>,
    at: Option<Timestamp>,
    transient: bool,
) -> JobFailure {
    let tail = build.and_then(|build| build.state.as_ref()?.terminated.as_ref()?.message.as_deref());
    JobFailure {
        reason,
        message: message.trim().to_owned(),
        exit_code: None,
        log_tail: tail.filter(|tail| !tail.is_empty()).map(|tail| truncated(tail, 2048)),
        transient,
        at,
    }
}

fn interrupted(message: &str, at: Option<Timestamp>) -> JobState {
    failed(Reason::BuildInterrupted, message, None, at, true)
}

#[cfg(test)]
mod tests;
