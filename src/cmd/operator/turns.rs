//! Turns for work that takes memory and may wait for others' servers: so many at the same time, and one of them for each namespace,
//! so that the slow registry of one namespace does not keep all others waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Who works, and who may.
pub(super) struct Turns {
    all: Semaphore,
    namespaces: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// The right to work until it is dropped.
pub(super) struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _namespace: OwnedSemaphorePermit,
}

impl Turns {
    /// So many at the same time.
    pub(super) fn new(count: usize) -> Self {
        Self { all: Semaphore::new(count), namespaces: Mutex::default() }
    }

    /// Waits for a turn of `namespace`.
    ///
    /// # Errors
    /// Never: no semaphore is closed.
    pub(super) async fn wait(&self, namespace: &str) -> Result<Turn<'_>, AcquireError> {
        let own = self.of(namespace);
        let own = own.acquire_owned().await?;
        Ok(Turn { _all: self.all.acquire().await?, _namespace: own })
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        // Who is gone has nobody that waits.
        namespaces.retain(|_, semaphore| semaphore.strong_count() > 0);
        if let Some(semaphore) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return semaphore;
        }
        let semaphore = Arc::new(Semaphore::new(1));
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_namespace_has_one_turn_and_leaves_the_others_to_others() {
        let turns = Turns::new(2);
        let first = turns.wait("a").await.unwrap();
        let mut again = Box::pin(turns.wait("a"));
        assert!(again.as_mut().now_or_never().is_none(), "the same namespace waits");
        let other = turns.wait("b").now_or_never().unwrap().unwrap();
        assert!(turns.wait("c").now_or_never().is_none(), "two are the most");
        drop(first);
        let second = again.await.unwrap();
        drop((second, other));
        assert!(turns.wait("a").now_or_never().is_some());
    }
}
