//! What agent and wrapper say to each other over their socket: frames of one byte kind, four bytes length, payload.
//!
//! Agent: `Setup` (or `End` when nothing is to be done). Wrapper: `Want(step)` for each copy step as it comes to it; agent:
//! `Data…`, `DataEnd`. Wrapper: `Done` or `Failed`. Agent: `SendOutput(index)` as often as needed; wrapper: `Data…`,
//! `DataEnd`, or `Failed`. Agent: `End`.
//!
//! Between steps the wrapper may send `Snapshot(step)`, `Data…`, `DataEnd`: what those before it have changed. `Failed` in place
//! of `DataEnd` ends the snapshot alone. When a process first wants a cache: `WantCache(index)`; agent: `Data…`, `DataEnd`, or
//! `Failed` where the cache breaks off. Before `Done`: `Cache(index)`, `Data…`, `DataEnd` or `Failed`.

use serde::{Deserialize, Serialize};

use super::{
    recipe::{Output, Step},
    snapshot::SnapshotTask,
};

/// How a line of the build container's log begins that says which step is next: its number follows.
pub const STEP_LINE: &str = "minimalimage: step ";

/// Bytes of a frame's head.
pub const HEAD: usize = 5;
/// The longest payload of a data frame.
pub const MAX_DATA: usize = 256 * 1024;
const MAX_SETUP: usize = 8 * 1024 * 1024;
const MAX_FAILURE: usize = 16 * 1024;

/// What the wrapper has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    /// The recipe's steps.
    pub steps: Vec<Step>,
    /// The recipe's outputs.
    pub outputs: Vec<Output>,
    /// Variables whose values are masked in the log tail.
    pub secret_variables: Vec<String>,
    /// CA certificates (PEM) that the steps trust beside the image's own.
    pub ca_certificates: Option<String>,
    /// Which steps are there already, and where snapshots are made.
    pub snapshots: SnapshotTask,
}

/// Why the wrapper cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum WrapperFailure {
    /// A step ended with another code than 0.
    Step {
        /// Its index in the recipe.
        step: usize,
        /// Its code, 128 + signal number when it was killed.
        exit_code: i32,
    },
    /// A declared artifact path does not exist.
    Missing {
        /// The path.
        path: String,
        /// What is in the nearest directory that exists.
        nearby: Vec<String>,
    },
    /// What was declared cannot be an artifact, or a copy step cannot be done.
    Files {
        /// For people.
        message: String,
        /// The step's index in the recipe, if it is one.
        #[serde(default)]
        step: Option<usize>,
    },
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Agent: what is to be done.
    Setup(Box<Setup>),
    /// Wrapper: the archive of the copy step with this index, please.
    Want(u32),
    /// Both: a piece of an archive.
    Data(Vec<u8>),
    /// Both: the archive is complete.
    DataEnd,
    /// Wrapper: all steps ended well and nothing runs any more.
    Done,
    /// Wrapper: why there is nothing to come.
    Failed(WrapperFailure),
    /// Agent: the archive of the output with this index, please.
    SendOutput(u32),
    /// Agent: everything is committed, or nothing was to be done.
    End,
    /// Wrapper: what the steps before this one have changed comes now.
    Snapshot(u32),
    /// Wrapper: what the cache with this index holds, please.
    WantCache(u32),
    /// Wrapper: what the cache with this index holds now comes.
    Cache(u32),
}

/// Why some bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind that does not exist.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// Longer than its kind may be.
    #[error("a frame of kind {kind} with {length} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// The announced length.
        length: usize,
    },
    /// The payload is not what its kind says.
    #[error("a frame of kind {0} with a broken payload")]
    Payload(u8),
}

impl Frame {
    /// The frame as bytes.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let (kind, payload) = match self {
            Self::Setup(setup) => (1, serde_json::to_vec(setup).map_err(|_| FrameError::Payload(1))?),
            Self::Want(step) => (2, step.to_be_bytes().to_vec()),
            Self::Data(bytes) => (3, bytes.clone()),
            Self::DataEnd => (4, Vec::new()),
            Self::Done => (5, Vec::new()),
            Self::Failed(failure) => (6, serde_json::to_vec(failure).map_err(|_| FrameError::Payload(6))?),
            Self::SendOutput(index) => (7, index.to_be_bytes().to_vec()),
            Self::End => (8, Vec::new()),
            Self::Snapshot(step) => (9, step.to_be_bytes().to_vec()),
            Self::WantCache(index) => (10, index.to_be_bytes().to_vec()),
            Self::Cache(index) => (11, index.to_be_bytes().to_vec()),
        };
        let mut bytes = head(kind, payload.len())?.to_vec();
        bytes.extend(payload);
        Ok(bytes)
    }

    /// The frame of `kind` with `payload`, whose length [`length`] has approved.
    pub fn decode(kind: u8, payload: Vec<u8>) -> Result<Self, FrameError> {
        let broken = || FrameError::Payload(kind);
        let number = |payload: &[u8]| payload.try_into().map(u32::from_be_bytes).map_err(|_| broken());
        match kind {
            1 => serde_json::from_slice(&payload).map(Self::Setup).map_err(|_| broken()),
            2 => number(&payload).map(Self::Want),
            3 => Ok(Self::Data(payload)),
            4 => Ok(Self::DataEnd),
            5 => Ok(Self::Done),
            6 => serde_json::from_slice(&payload).map(Self::Failed).map_err(|_| broken()),
            7 => number(&payload).map(Self::SendOutput),
            8 => Ok(Self::End),
            9 => number(&payload).map(Self::Snapshot),
            10 => number(&payload).map(Self::WantCache),
            11 => number(&payload).map(Self::Cache),
            _ => Err(FrameError::Kind(kind)),
        }
    }
}

/// The head of a data frame, for bytes that are sent without copying them into a [`Frame`].
pub fn data_head(length: usize) -> Result<[u8; HEAD], FrameError> {
    head(3, length)
}

/// Kind and payload length out of a frame's head, refused before anything is allocated.
pub fn length(head: [u8; HEAD]) -> Result<(u8, usize), FrameError> {
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    bounded(kind, length).map(|()| (kind, length))
}

fn head(kind: u8, length: usize) -> Result<[u8; HEAD], FrameError> {
    bounded(kind, length)?;
    let [a, b, c, d] = u32::try_from(length).map_err(|_| FrameError::Length { kind, length })?.to_be_bytes();
    Ok([kind, a, b, c, d])
}

fn bounded(kind: u8, length: usize) -> Result<(), FrameError> {
    let fits = match kind {
        1 => length <= MAX_SETUP,
        2 | 7 | 9..=11 => length == 4,
        3 => (1..=MAX_DATA).contains(&length),
        4 | 5 | 8 => length == 0,
        6 => length <= MAX_FAILURE,
        _ => return Err(FrameError::Kind(kind)),
    };
    if fits { Ok(()) } else { Err(FrameError::Length { kind, length }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_a_round_trip() {
        let setup = Setup {
            steps: vec![Step::CopyArtifact { input: 3, owner: None, transient: false, names: None }],
            outputs: vec![],
            secret_variables: vec![],
            ca_certificates: None,
            snapshots: SnapshotTask { cuts: vec![3], ..SnapshotTask::default() },
        };
        let missing = WrapperFailure::Missing { path: "/a".into(), nearby: vec!["b".into()] };
        for frame in [
            Frame::Setup(Box::new(setup)),
            Frame::Want(7),
            Frame::Data(vec![1, 2, 3]),
            Frame::DataEnd,
            Frame::Done,
            Frame::Failed(WrapperFailure::Step { step: 1, exit_code: 137 }),
            Frame::Failed(missing),
            Frame::SendOutput(u32::MAX),
            Frame::End,
            Frame::Snapshot(3),
            Frame::WantCache(0),
            Frame::Cache(7),
        ] {
            let bytes = frame.encode().unwrap();
            let (kind, size) = length(bytes[..HEAD].try_into().unwrap()).unwrap();
            assert_eq!(size, bytes.len() - HEAD);
            assert_eq!(Frame::decode(kind, bytes[HEAD..].to_vec()).unwrap(), frame);
        }
    }

    #[test]
    fn lengths_are_refused_by_their_head_alone() {
        for head in [
            [3, 0xff, 0xff, 0xff, 0xff],
            [3, 0, 4, 0, 1],
            [3, 0, 0, 0, 0],
            [6, 0, 1, 0, 0],
            [8, 0, 0, 0, 1],
            [2, 0, 0, 0, 5],
        ] {
            assert!(matches!(length(head), Err(FrameError::Length { .. })), "{head:?}");
        }
        assert_eq!(length([0, 0, 0, 0, 0]), Err(FrameError::Kind(0)));
        assert_eq!(length([12, 0, 0, 0, 0]), Err(FrameError::Kind(12)));
        assert_eq!(length([3, 0, 4, 0, 0]), Ok((3, MAX_DATA)));
    }

    #[test]
    fn broken_payloads_are_refused() {
        for kind in [1, 6] {
            assert_eq!(Frame::decode(kind, b"{".to_vec()), Err(FrameError::Payload(kind)));
        }
        assert_eq!(Frame::decode(2, vec![0]), Err(FrameError::Payload(2)));
    }
}
