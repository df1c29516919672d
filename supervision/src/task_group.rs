//! Scoped work: tasks that belong to someone, can be cancelled together and waited for with a deadline.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use telemetry::panic::Policy;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{GuardSite, Path, door, guard, path::first_of};

/// How long an aborted task may take to reach its next await.
const ABORT_GRACE: Duration = Duration::from_millis(250);

/// As good as for ever; what lies beyond it overflows clocks.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A group of tasks. Cheap to clone; all clones are the same group.
///
/// A task that panics costs itself only: the panic is recorded with the policy `keep_running`. A group does not end its
/// tasks when it is dropped; its owner calls [`TaskGroup::stop`].
#[derive(Clone, Debug)]
pub struct TaskGroup(Arc<Group>);

#[derive(Debug)]
struct Group {
    /// As whose its panics are counted.
    label: Arc<str>,
    cancel: CancellationToken,
    tasks: Mutex<HashMap<u64, Task>>,
    next: AtomicU64,
    emptied: Notify,
    is_closed: AtomicBool,
    /// Whoever had not ended at the deadline of the stop is aborted.
    is_aborted: AtomicBool,
    /// There were some, although they had been given time.
    was_late: AtomicBool,
}

/// A group that somebody else has.
#[derive(Debug, Default)]
pub(crate) struct WeakTaskGroup(Weak<Group>);

impl WeakTaskGroup {
    /// None if nobody has it any more.
    pub(crate) fn upgrade(&self) -> Option<TaskGroup> {
        self.0.upgrade().map(TaskGroup)
    }
}

/// Whose work a task does, and what becomes of that work if it panics: for the record of the panic.
#[derive(Clone, Debug, Default)]
pub struct Errand {
    /// Whose data it is, if anyone's.
    pub tenant: Option<String>,
    /// More that helps to find the cause, such as the job's id.
    pub detail: Vec<(String, String)>,
    /// What the incident says has become of it.
    pub if_it_panics: Option<&'static str>,
}

#[derive(Debug)]
struct Task {
    name: Cow<'static, str>,
    /// None until it has been spawned.
    abort: Option<AbortHandle>,
}

impl TaskGroup {
    /// An empty group whose panics are recorded as those of `path`.
    pub fn new(path: impl Into<Path>) -> Self {
        Self::labelled(Arc::from(path.into().as_str()))
    }

    pub(crate) fn labelled(label: Arc<str>) -> Self {
        let (cancel, tasks, next) = (CancellationToken::new(), Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Group {
            label,
            cancel,
            tasks,
            next,
            emptied: Notify::new(),
            is_closed: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            was_late: AtomicBool::new(false),
        }))
    }

    /// Runs `future` in the group. In one that has been stopped it is dropped: nobody would end it.
    pub fn spawn(&self, name: impl Into<Cow<'static, str>>, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_errand(name, Errand::default(), future);
    }

    /// As [`TaskGroup::spawn`], for work that is somebody's.
    pub fn spawn_errand(
        &self,
        name: impl Into<Cow<'static, str>>,
        errand: Errand,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let name = name.into();
        let task_name = name.clone();
        // Before the spawn, so that a task which ends at once finds its entry to remove; and not locked over it, because a
        // runtime that shuts down drops the future at once.
        let Some(entry) = self.enter(name) else { return };
        let id = entry.id;
        // On the heap from the start: what wraps a future by value has room for it twice, and is copied with each step.
        let future = Box::pin(future);
        // In this order they are dropped if it is aborted before it has run: the entry says that the future is gone.
        let work = (future, entry);
        let handle = door::spawn(async move {
            let (future, entry) = work;
            let group = Arc::clone(&entry.group.0);
            let Errand { tenant, mut detail, if_it_panics } = errand;
            detail.insert(0, ("task".to_owned(), task_name.into_owned()));
            let site = GuardSite {
                component: first_of(&group.label),
                actor: &group.label,
                policy: Policy::KeepRunning,
                phase: "task",
                tenant: tenant.as_deref(),
                detail,
            };
            // Recorded; there is no one else to tell.
            if let (Err(panicked), Some(outcome)) = (guard(site, future).await, if_it_panics) {
                panicked.outcome(outcome);
            }
            drop(entry);
        });
        if let Some(task) = self.tasks().get_mut(&id) {
            task.abort = Some(handle.abort_handle());
        }
        // The group was stopped between the two, when there was nothing to abort yet.
        if self.0.is_aborted.load(SeqCst) {
            handle.abort();
        }
    }

    /// Counts a task in; none in a group that has been stopped. Locked together, or one could slip in behind the stop.
    fn enter(&self, name: Cow<'static, str>) -> Option<Entry> {
        let mut tasks = self.tasks();
        if self.0.is_closed.load(SeqCst) {
            return None;
        }
        let id = self.0.next.fetch_add(1, Relaxed);
        tasks.insert(id, Task { name, abort: None });
        Some(Entry { group: self.clone(), id })
    }

    /// Asks all tasks to end: fires [`TaskGroup::token`].
    pub fn cancel(&self) {
        self.0.cancel.cancel();
    }

    /// Fires when the group is cancelled.
    pub fn token(&self) -> CancellationToken {
        self.0.cancel.clone()
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tasks().len()
    }

    /// How many tasks there are that have not ended, by name.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for task in self.tasks().values() {
            *counts.entry(task.name.to_string()).or_default() += 1;
        }
        counts
    }

    /// The group, as long as somebody else has it.
    pub(crate) fn downgrade(&self) -> WeakTaskGroup {
        WeakTaskGroup(Arc::downgrade(&self.0))
    }

    /// True if no task is left.
    pub fn is_empty(&self) -> bool {
        self.tasks().is_empty()
    }

    /// Waits until no task is left, for `deadline` at most; returns the names of those that are.
    pub async fn wait(&self, deadline: Duration) -> Vec<String> {
        let until = Instant::now() + deadline.min(FOREVER);
        loop {
            let emptied = self.0.emptied.notified();
            if self.is_empty() || tokio::time::timeout_at(until, emptied).await.is_err() {
                return self.tasks().values().map(|task| task.name.to_string()).collect();
            }
        }
    }

    /// Cancels, waits for `deadline`, aborts what is left and waits for that; returns the names of those that even then
    /// did not end, because they do not yield.
    pub async fn stop(&self, deadline: Duration) -> Vec<String> {
        self.close();
        self.cancel();
        if self.wait(deadline).await.is_empty() {
            return Vec::new();
        }
        self.0.is_aborted.store(true, SeqCst);
        self.0.was_late.store(!deadline.is_zero(), SeqCst);
        self.abort();
        self.wait(ABORT_GRACE).await
    }

    /// From now on nothing is spawned.
    pub(crate) fn close(&self) {
        let _locked = self.tasks();
        self.0.is_closed.store(true, SeqCst);
    }

    /// True if some had not ended at the deadline of the stop. Those of a killed incarnation are given no time.
    #[cfg(feature = "battery")]
    pub(crate) fn had_to_abort(&self) -> bool {
        self.0.was_late.load(SeqCst)
    }

    /// Ends all tasks at their next await.
    pub fn abort(&self) {
        for task in self.tasks().values() {
            task.abort.iter().for_each(AbortHandle::abort);
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Task>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the task from its group when its future is dropped, however that comes about.
struct Entry {
    group: TaskGroup,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut tasks = self.group.tasks();
        tasks.remove(&self.id);
        if tasks.is_empty() {
            self.group.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_group_is_empty_when_its_tasks_have_ended() {
        let group = TaskGroup::new("api");
        for _ in 0..10 {
            let token = group.token();
            group.spawn("connection", async move { token.cancelled().await });
        }
        assert_eq!(group.len(), 10);
        assert!(group.stop(SECOND).await.is_empty());
        assert!(group.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_cancel_is_aborted_at_the_deadline() {
        let group = TaskGroup::new("api");
        group.spawn("deaf", std::future::pending());
        assert_eq!(group.wait(SECOND).await, ["deaf"]);
        assert!(group.stop(SECOND).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_takes_no_longer_than_its_deadline_and_names_everyone_who_is_late() {
        let group = TaskGroup::new("api");
        for seconds in 1..=4 {
            group.spawn(format!("takes {seconds} s"), tokio::time::sleep(seconds * SECOND));
        }
        let began = Instant::now();
        let mut late = group.wait(SECOND * 5 / 2).await;
        late.sort();
        assert_eq!((late, began.elapsed()), (vec!["takes 3 s".into(), "takes 4 s".into()], SECOND * 5 / 2));
        assert!(group.wait(60 * SECOND).await.is_empty());
        assert_eq!(began.elapsed(), 4 * SECOND, "and it ends with the last of them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_group_takes_no_more_tasks_and_drops_them() {
        let group = TaskGroup::new("api");
        assert!(group.stop(SECOND).await.is_empty());
        let (held, dropped) = tokio::sync::oneshot::channel::<()>();
        group.spawn("late", async move {
            let _held = held;
            std::future::pending().await
        });
        assert!(dropped.await.is_err());
        assert!(group.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_task_slips_in_behind_a_stop() {
        for _ in 0..40 {
            let group = TaskGroup::new("api");
            let spawning = group.clone();
            // Spawns without a pause until nothing is taken any more.
            let spawner = door::spawn(async move {
                while !spawning.0.is_closed.load(Relaxed) {
                    spawning.spawn("deaf", std::future::pending());
                }
            });
            while group.is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(group.stop(Duration::ZERO).await, Vec::<String>::new());
            spawner.await.unwrap();
        }
    }

    #[tokio::test]
    async fn tasks_are_counted_by_name_until_they_end() {
        let group = TaskGroup::new("api");
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        group.spawn("socket", std::future::pending());
        group.spawn("socket", std::future::pending());
        group.spawn("short", async move { drop(finished.await) });
        assert_eq!(group.counts(), [("short".to_owned(), 1), ("socket".to_owned(), 2)].into());
        finish.send(()).unwrap();
        while group.len() > 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(group.counts(), [("socket".to_owned(), 2)].into());
        assert!(group.stop(Duration::ZERO).await.is_empty());
        assert!(group.counts().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_task_costs_itself_only() {
        let group = TaskGroup::new("api");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        group.spawn("poison", async { panic!("poison") });
        group.spawn("good", async move { sender.send(7).unwrap() });
        assert_eq!(receiver.await.unwrap(), 7);
        assert!(group.wait(SECOND).await.is_empty());
    }
}
