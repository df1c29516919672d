//! What a process has to tell others that share its store: in which queues there are jobs to look at.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::Poke;

/// Names that wait to be told, at most. If there are more, it is all queues.
const NAMES_MAX: usize = 100;

/// Is called with a queue that another process tells, or with [`Wakeups::ALL`].
pub type Hear<'a> = &'a (dyn Fn(&str) + Send + Sync + 'a);

/// Queues that wait to be told, each once. A hint and nothing more: what is lost is found by the poll.
#[derive(Debug, Default)]
pub struct Wakeups {
    queues: Mutex<BTreeSet<String>>,
    news: Poke,
}

impl Wakeups {
    /// Stands for all queues.
    pub const ALL: &'static str = "";

    /// Nothing to tell yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// There are jobs in this queue, or in [`Wakeups::ALL`].
    pub fn tell(&self, queue: &str) {
        let mut queues = self.queues();
        if queues.contains(queue) || queues.contains(Self::ALL) {
            return;
        }
        if queue == Self::ALL || queues.len() == NAMES_MAX {
            queues.clear();
            queues.insert(Self::ALL.to_owned());
        } else {
            queues.insert(queue.to_owned());
        }
        self.news.poke();
    }

    /// Waits until there is something to tell, and takes it. Safe to drop: nothing is taken then.
    pub async fn next(&self) -> Vec<String> {
        loop {
            let taken = std::mem::take(&mut *self.queues());
            if !taken.is_empty() {
                return taken.into_iter().collect();
            }
            self.news.wait().await;
        }
    }

    fn queues(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_told_once_and_too_many_are_all() {
        let wakeups = Wakeups::new();
        for queue in ["b", "a", "b"] {
            wakeups.tell(queue);
        }
        assert_eq!(wakeups.next().await, ["a", "b"]);
        let idle = tokio::time::timeout(std::time::Duration::from_secs(1), wakeups.next()).await;
        assert!(idle.is_err(), "{idle:?}");
        for n in 0..=NAMES_MAX {
            wakeups.tell(&format!("q{n}"));
        }
        wakeups.tell("another");
        assert_eq!(wakeups.next().await, [Wakeups::ALL]);
    }
}
