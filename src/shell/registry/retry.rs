//! How often and how long after a failure a request is sent again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Exponential delays with jitter, bounded in number and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay before the first retry; each next one is twice as long.
    pub first_delay: Duration,
    /// No delay is longer, apart from what a registry asks for.
    pub longest_delay: Duration,
    /// Retries after the first attempt.
    pub retries: usize,
    /// A registry that wants to be left alone for longer (`Retry-After`) is not waited for.
    pub longest_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(5),
            retries: 5,
            longest_retry_after: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// The first failure is final.
    #[must_use]
    pub fn none() -> Self {
        Self { retries: 0, ..Self::default() }
    }

    pub(super) fn start(&self) -> Attempts {
        let delays = ExponentialBuilder::new()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.longest_delay)
            .with_max_times(self.retries)
            .with_jitter()
            .build();
        Attempts { delays, longest_retry_after: self.longest_retry_after }
    }
}

/// The retries left for one piece of work.
pub(super) struct Attempts {
    delays: ExponentialBackoff,
    longest_retry_after: Duration,
}

impl Attempts {
    /// Waits before the next attempt; `false` at once when there is none.
    pub async fn pause(&mut self, retry_after: Option<Duration>) -> bool {
        let wait = retry_after.unwrap_or_default();
        match self.delays.next() {
            Some(delay) if wait <= self.longest_retry_after => {
                tokio::time::sleep(delay.max(wait)).await;
                true
            }
            _ => false,
        }
    }
}
