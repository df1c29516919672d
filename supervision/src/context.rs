//! What one incarnation of a child is given.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use telemetry::incidents::IncidentId;
use telemetry::panic::{PANIC_RECOVERED, Policy, Recovery};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    GuardSite, HandedOver, Heartbeat, Heartbeats, Panicked, Path, TaskGroup, guard, node::Node, path::first_of,
    supervisor::SupervisorControl, tree::TreeShared,
};

/// Handed to the start function of a child, anew for each incarnation. Cheap to clone.
#[derive(Clone)]
pub struct ChildContext(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    tree: Arc<TreeShared>,
    incarnation: u64,
    cancelled: CancellationToken,
    /// Made for the few whose start waits for it.
    ready: OnceLock<watch::Sender<bool>>,
    tasks: OnceLock<TaskGroup>,
    /// Set when the incarnation has ended: from then on nothing can be spawned in its name.
    ended: AtomicBool,
    /// If the child is a supervisor: how it is reached while it starts. Not longer, because the two hold each other.
    starting: Mutex<Option<SupervisorControl>>,
    /// For whoever asked for this start.
    handed_over: Mutex<HandedOver>,
    #[cfg(feature = "battery")]
    probe: OnceLock<Arc<crate::battery::Probe>>,
}

telemetry::labels! {
    /// A child, by the component that it belongs to and by its path with labels in place of ids.
    pub struct Child<'a> { component: &'a str, actor: &'a str }
    /// A child of the root.
    pub struct Component<'a> { component: &'a str }
}

/// Who a child is, in each place where it is named.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) path: Path,
    /// The path with the label of dynamic children in place of their ids: a metric's label is a name, never an id.
    pub(crate) label: Arc<str>,
}

impl Identity {
    /// The direct child of the root under which it lies, by its label: metrics are grouped by it.
    pub(crate) fn component(&self) -> &str {
        first_of(&self.label)
    }

    /// Its labels.
    pub(crate) fn as_child(&self) -> Child<'_> {
        Child { component: self.component(), actor: &self.label }
    }

    /// The labels of what is told of a whole component.
    pub(crate) fn as_component(&self) -> Component<'_> {
        Component { component: self.component() }
    }

    /// Exports the panic counters of this child as 0, of itself and of its tasks: one that is born at its first increment hides
    /// the first panic.
    pub(crate) fn bear_counters(&self) {
        let Child { component, actor } = self.as_child();
        for policy in [Policy::Restart, Policy::KeepRunning] {
            PANIC_RECOVERED.born(Recovery { component, actor, policy });
        }
    }
}

impl ChildContext {
    pub(crate) fn new(node: Arc<Node>, tree: Arc<TreeShared>, incarnation: u64, cancelled: CancellationToken) -> Self {
        let (ready, tasks, ended) = (OnceLock::new(), OnceLock::new(), AtomicBool::new(false));
        let (starting, handed_over) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner {
            node,
            tree,
            incarnation,
            cancelled,
            ready,
            tasks,
            ended,
            starting,
            handed_over,
            #[cfg(feature = "battery")]
            probe: OnceLock::new(),
        }))
    }

    /// Where the child stands in the tree.
    pub fn path(&self) -> &Path {
        &self.identity().path
    }

    /// The direct child of the root under which it lies, by its label if it has one.
    pub fn component(&self) -> &str {
        self.identity().component()
    }

    /// Counts the incarnations of this child from 1.
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// Asks this incarnation to stop.
    pub(crate) fn cancel(&self) {
        self.0.cancelled.cancel();
    }

    /// Fires when this incarnation is asked to stop.
    pub fn cancelled(&self) -> CancellationToken {
        self.0.cancelled.clone()
    }

    /// Registers a loop that promises to beat every `interval`.
    pub fn heartbeat(&self, loop_name: &'static str, interval: Duration) -> Heartbeat {
        self.heartbeats().register(self.path(), loop_name, interval)
    }

    /// Says that a task which was declared with [`ChildSpec::start_when_ready`](crate::ChildSpec::start_when_ready) is
    /// now serving.
    pub fn ready(&self) {
        self.readiness().send_replace(true);
    }

    /// Leaves a value for whoever asked for this start, to be found in
    /// [`StartOutcome::Started`](crate::StartOutcome::Started). Nobody asks for an automatic start: then it is dropped.
    pub fn hand_over(&self, value: impl Any + Send) {
        *lock(&self.0.handed_over) = HandedOver(Some(Box::new(value)));
    }

    /// Tasks of this incarnation: cancelled when it has ended, and waited for before the next one starts. What should
    /// hear of a stop as soon as it is asked listens to [`ChildContext::cancelled`].
    pub fn tasks(&self) -> &TaskGroup {
        let label = || self.identity().label.clone();
        let tasks = self.0.tasks.get_or_init(|| {
            let tasks = TaskGroup::labelled(label());
            self.0.node.data().tasks = tasks.downgrade();
            tasks
        });
        if self.0.ended.load(Ordering::Acquire) {
            tasks.close();
        }
        tasks
    }

    /// Runs `future` as a part of this child that may panic without ending it: the panic is recorded with the policy
    /// `keep_running`, and the caller told.
    ///
    /// # Errors
    /// [`Panicked`] if it did.
    pub async fn run_with_recover<T>(&self, name: &str, future: impl Future<Output = T>) -> Result<T, Panicked> {
        let site = GuardSite {
            component: self.component(),
            actor: &self.identity().label,
            policy: Policy::KeepRunning,
            phase: name,
            tenant: None,
            detail: vec![("path".to_owned(), self.path().to_string())],
        };
        guard(site, future).await
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    /// Something about this incarnation is on record: its supervisor will say what it does about it.
    pub(crate) fn on_record(&self, incident: IncidentId) {
        let mut data = self.0.node.data();
        // One that was given up long ago may still panic.
        if data.incarnation == self.incarnation() {
            data.on_record(incident);
        }
    }

    pub(crate) fn tree(&self) -> &Arc<TreeShared> {
        &self.0.tree
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.node.identity
    }

    pub(crate) fn heartbeats(&self) -> &Heartbeats {
        &self.0.tree.heartbeats
    }

    /// Resolves when [`ChildContext::ready`] was called.
    pub(crate) async fn until_ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.readiness().subscribe().wait_for(|ready| *ready).await;
    }

    fn readiness(&self) -> &watch::Sender<bool> {
        self.0.ready.get_or_init(|| watch::Sender::new(false))
    }

    /// The tasks to be ended with the incarnation, if there ever were any; there will be no more.
    pub(crate) fn started_tasks(&self) -> Option<&TaskGroup> {
        self.0.ended.store(true, Ordering::Release);
        self.0.tasks.get()
    }

    /// Says how the supervisor that is this child is reached while it starts; none when it has started.
    pub(crate) fn publish(&self, control: Option<SupervisorControl>) {
        *lock(&self.0.starting) = control;
    }

    /// How the supervisor that is this child is reached while it starts.
    pub(crate) fn control(&self) -> Option<SupervisorControl> {
        lock(&self.0.starting).clone()
    }

    pub(crate) fn take_handed_over(&self) -> HandedOver {
        std::mem::take(&mut lock(&self.0.handed_over))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(feature = "battery")]
impl ChildContext {
    #[inline]
    pub(crate) fn probe(&self) -> Option<&Arc<crate::battery::Probe>> {
        self.0.probe.get()
    }

    pub(crate) fn set_probe(&self, probe: Arc<crate::battery::Probe>) {
        // A context is made for one start.
        let _ = self.0.probe.set(probe);
    }

    /// The group of this incarnation, if it ever had one.
    pub(crate) fn task_group(&self) -> Option<&TaskGroup> {
        self.0.tasks.get()
    }
}

impl fmt::Debug for ChildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChildContext({}#{})", self.path(), self.incarnation())
    }
}
