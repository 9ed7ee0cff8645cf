//! The places for running builds, in the cluster and in each namespace. Rebuilt from the Jobs that run after a restart.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::domain::decide::Slot;

/// Names a MinimalImage across the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How many builds may run, and which do or wait.
pub struct Queue {
    most: usize,
    most_per_namespace: usize,
    places: Mutex<Places>,
    wake: UnboundedSender<ImageId>,
}

#[derive(Default)]
struct Places {
    running: Vec<ImageId>,
    /// In the order in which they came.
    waiting: Vec<ImageId>,
}

impl Queue {
    /// A queue with so many places, and where it names those whose turn has come.
    #[must_use]
    pub fn new(most: usize, most_per_namespace: usize) -> (Self, UnboundedReceiver<ImageId>) {
        let (wake, woken) = unbounded_channel();
        (Self { most, most_per_namespace, places: Mutex::default(), wake }, woken)
    }

    /// A place for `image`, if there is one or it has one already.
    pub fn ask(&self, image: &ImageId) -> Slot {
        let mut places = self.lock();
        if places.running.contains(image) {
            return Slot::Granted;
        }
        let (running, in_namespace) = (places.running.len(), places.in_namespace(&image.namespace));
        if !places.waiting.contains(image) {
            places.waiting.push(image.clone());
        }
        let ahead = places.waiting.iter().take_while(|other| *other != image).count();
        if in_namespace >= self.most_per_namespace {
            let most = self.most_per_namespace;
            return Slot::Queued(format!(
                "{in_namespace} of {most} builds run in the namespace; {ahead} builds wait before this one"
            ));
        }
        if running >= self.most {
            return Slot::Queued(format!(
                "{running} of {} builds run in the cluster; {ahead} builds wait before this one",
                self.most
            ));
        }
        places.waiting.retain(|other| other != image);
        places.running.push(image.clone());
        Slot::Granted
    }

    /// Counts a build whose Pods were there before the operator.
    pub fn hold(&self, image: ImageId) {
        let mut places = self.lock();
        if !places.running.contains(&image) {
            places.running.push(image);
        }
    }

    /// `image` runs and waits no longer; those who can use its place are woken.
    pub fn forget(&self, image: &ImageId) {
        let mut places = self.lock();
        let before = (places.running.len(), places.waiting.len());
        places.running.retain(|other| other != image);
        places.waiting.retain(|other| other != image);
        if (places.running.len(), places.waiting.len()) == before {
            return;
        }
        let free = self.most.saturating_sub(places.running.len());
        let ready =
            places.waiting.iter().filter(|other| places.in_namespace(&other.namespace) < self.most_per_namespace);
        for next in ready.take(free) {
            // The receiver ends with the program.
            let _ = self.wake.send(next.clone());
        }
    }

    /// How many builds run and wait.
    pub fn counts(&self) -> (usize, usize) {
        let places = self.lock();
        (places.running.len(), places.waiting.len())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Places> {
        // Nothing in here panics between two changes that belong together.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn in_namespace(&self, namespace: &str) -> usize {
        self.running.iter().filter(|image| image.namespace == namespace).count()
    }
}

/// The places by namespace, for people who look at a running operator.
impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = self.lock();
        let by_namespace = places.running.iter().fold(BTreeMap::new(), |mut counts: BTreeMap<&str, usize>, image| {
            *counts.entry(&image.namespace).or_default() += 1;
            counts
        });
        formatter.debug_struct("Queue").field("running", &by_namespace).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(namespace: &str, name: &str) -> ImageId {
        ImageId { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn a_full_namespace_does_not_hold_up_another() {
        let (queue, _woken) = Queue::new(3, 1);
        assert_eq!(queue.ask(&image("a", "1")), Slot::Granted);
        assert_eq!(queue.ask(&image("a", "1")), Slot::Granted);
        assert!(
            matches!(queue.ask(&image("a", "2")), Slot::Queued(text) if text.starts_with("1 of 1 builds run in the namespace"))
        );
        assert_eq!(queue.ask(&image("b", "1")), Slot::Granted);
        assert_eq!(queue.counts(), (2, 1));
    }

    #[test]
    fn a_free_place_wakes_the_first_that_can_use_it() {
        let (queue, mut woken) = Queue::new(1, 1);
        queue.hold(image("a", "1"));
        assert!(matches!(queue.ask(&image("a", "2")), Slot::Queued(_)));
        assert!(matches!(queue.ask(&image("b", "3")), Slot::Queued(_)));
        queue.forget(&image("a", "1"));
        assert_eq!(woken.try_recv().unwrap(), image("a", "2"));
        assert!(woken.try_recv().is_err());
        queue.forget(&image("a", "1"));
        assert!(woken.try_recv().is_err(), "a place is given back once");
    }

    #[test]
    fn who_is_gone_waits_no_longer() {
        let (queue, mut woken) = Queue::new(1, 1);
        queue.hold(image("a", "1"));
        let _ = queue.ask(&image("a", "2"));
        queue.forget(&image("a", "2"));
        queue.forget(&image("a", "1"));
        assert!(woken.try_recv().is_err());
    }
}
