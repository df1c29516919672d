//! The tree as it can be seen from outside at any time, also while a supervisor is busy or stuck.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use telemetry::incidents::{self, IncidentId};
use telemetry::metrics::BoundHistogram;
use tokio::time::Instant;

use crate::{
    ChildSpec, Exit, Kind, MailboxSnapshot, Path, SpecSummary, StuckIn, TaskGroup, address::Availability,
    context::Identity, heartbeat::unix_millis, supervised::MESSAGE_DURATION, task_group::WeakTaskGroup,
};

/// Records of a child that wait for their outcome; it panicked at most so often before its supervisor decided.
const PENDING_MAX: usize = 4;

/// Incidents that are kept for each child.
const HISTORY: usize = 16;

/// One place in the tree. Its supervisor writes it, everyone may read it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) spec: SpecSummary,
    /// Whether its messages are timed.
    pub(crate) is_metered: bool,
    /// Where the times of its messages are counted, for an actor. One for all that have the same label.
    pub(crate) message_duration: Option<Arc<BoundHistogram>>,
    /// For how long one message may be in hand.
    pub(crate) message_limit: Option<Duration>,
    /// The address of an actor.
    address: Option<Arc<dyn Availability>>,
    data: Mutex<NodeData>,
    children: Mutex<BTreeMap<u64, Arc<Node>>>,
}

/// What changes in a node.
#[derive(Debug)]
pub(crate) struct NodeData {
    pub(crate) status: Status,
    pub(crate) since: Instant,
    pub(crate) incarnation: u64,
    pub(crate) degraded: bool,
    pub(crate) stuck: Option<StuckIn>,
    pub(crate) restarts: u64,
    /// Those of the latest incarnation that had any.
    pub(crate) tasks: WeakTaskGroup,
    /// Most children never fail.
    past: Option<Box<Past>>,
}

/// How a child has failed.
#[derive(Debug, Default)]
struct Past {
    failures: BTreeMap<&'static str, u64>,
    history: VecDeque<Incident>,
    /// Records of what became of which is not decided yet, oldest first.
    pending: VecDeque<IncidentId>,
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// Not running, and no start is due: not started yet, stopped with its group, or its start failed.
    Down,
    /// Its start function runs.
    Starting,
    /// It serves.
    Up,
    /// It was asked to stop.
    Stopping,
    /// It failed, and the next start is due.
    Waiting {
        /// In this many milliseconds, as of now.
        due_in_ms: u64,
    },
    /// It ended orderly and is not started again.
    Finished,
    /// An operator stopped it; a restart of its group leaves it so.
    StoppedByHand,
    /// It declined to start.
    Ignored,
    /// It outlived its kill and still runs, unsupervised; no other incarnation is started meanwhile.
    Leaked,
}

/// One failure of a child, and what the supervisor did about it.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The incarnation that failed.
    pub incarnation: u64,
    /// How it ended.
    pub exit: Exit,
    /// How long it had run, in milliseconds; 0 if it did not start.
    pub uptime_ms: u64,
    /// Until the next start, in milliseconds; none if there is none.
    pub restart_in_ms: Option<u64>,
}

/// A place in the tree, as of now, with all below it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeSnapshot {
    /// Its id.
    pub id: String,
    /// Its path.
    pub path: Path,
    /// What it is made of.
    pub kind: Kind,
    /// What it is doing.
    #[serde(flatten)]
    pub status: Status,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// The running incarnation, or the last one.
    pub incarnation: u64,
    /// Its restart budget is used up, and it has not run well since.
    pub degraded: bool,
    /// Where it is stuck, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck: Option<StuckIn>,
    /// Of an actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<MailboxSnapshot>,
    /// Starts after a failure.
    pub restarts: u64,
    /// Failures by cause: `panic`, `error`, `kill`, `start_timeout`, `stuck`, `gave_up`.
    pub failures: BTreeMap<&'static str, u64>,
    /// The latest failures, newest last.
    pub history: Vec<Incident>,
    /// In start order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<NodeSnapshot>,
}

/// Tasks of one name that a child has started, see [`ChildContext::tasks`](crate::ChildContext::tasks).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskCount {
    /// Whose they are.
    pub path: Path,
    /// What they are called.
    pub name: String,
    /// How many have not ended.
    pub count: usize,
}

/// How many children of which kind, as `count_children` of OTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Children known, running or not.
    pub specs: usize,
    /// Children that run.
    pub active: usize,
    /// Of all known, supervisors.
    pub supervisors: usize,
    /// Of all known, actors and tasks.
    pub workers: usize,
}

impl NodeSnapshot {
    /// Counts the direct children.
    pub fn counts(&self) -> Counts {
        let supervisors = self.children.iter().filter(|child| child.kind == Kind::Supervisor).count();
        let active = |child: &&Self| matches!(child.status, Status::Up | Status::Stopping);
        Counts {
            specs: self.children.len(),
            active: self.children.iter().filter(active).count(),
            supervisors,
            workers: self.children.len() - supervisors,
        }
    }

    /// The node at `path` below this one.
    pub fn find(&self, path: &str) -> Option<&Self> {
        if self.path.as_str() == path {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(path))
    }

    /// This node and all below it, parents first.
    pub fn walk(&self) -> Vec<&Self> {
        let mut nodes = vec![self];
        for child in &self.children {
            nodes.extend(child.walk());
        }
        nodes
    }
}

impl Node {
    /// `shared` is where a neighbour of the same label counts the times of its messages.
    pub(crate) fn new(identity: Identity, spec: &ChildSpec, shared: Option<Arc<BoundHistogram>>) -> Arc<Self> {
        let bind = || Arc::new(MESSAGE_DURATION.bind(identity.as_child()));
        let is_timed = spec.is_metered && spec.kind == Kind::Actor;
        let message_duration = is_timed.then(|| shared.unwrap_or_else(bind));
        let data = NodeData {
            status: Status::Down,
            since: Instant::now(),
            incarnation: 0,
            degraded: false,
            stuck: None,
            restarts: 0,
            tasks: WeakTaskGroup::default(),
            past: None,
        };
        Arc::new(Self {
            identity,
            spec: spec.summary(),
            is_metered: spec.is_metered,
            message_duration,
            message_limit: spec.message_limit,
            address: spec.availability.clone(),
            data: Mutex::new(data),
            children: Mutex::default(),
        })
    }

    /// The node at `path`, seen from the root.
    pub(crate) fn find(self: &Arc<Self>, path: &Path) -> Option<Arc<Self>> {
        path.ids().try_fold(Arc::clone(self), |node, id| {
            node.children().values().find(|child| child.spec.id == id).map(Arc::clone)
        })
    }

    pub(crate) fn data(&self) -> MutexGuard<'_, NodeData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn adopt(&self, sequence: u64, child: Arc<Node>) {
        self.children().insert(sequence, child);
    }

    pub(crate) fn disown(&self, sequence: u64) {
        self.children().remove(&sequence);
    }

    /// A restarted supervisor starts from its declared children only. Answers with those of its former life, by id, so that
    /// what is known of them is not forgotten.
    pub(crate) fn disown_all(&self) -> HashMap<String, Arc<Node>> {
        let former = std::mem::take(&mut *self.children());
        former.into_values().map(|node| (node.spec.id.clone(), node)).collect()
    }

    /// Takes over what was known of its predecessor: incarnations, restarts, failures, and the same of all below it.
    pub(crate) fn inherit(&self, predecessor: &Self) {
        let (mut own, mut former) = (self.data(), predecessor.data());
        own.incarnation = former.incarnation;
        own.restarts = former.restarts;
        own.past = former.past.take();
        // If it is a supervisor, its next life takes over from them in turn.
        *self.children() = std::mem::take(&mut *predecessor.children());
    }

    pub(crate) fn snapshot(&self) -> NodeSnapshot {
        let children: Vec<Arc<Node>> = self.children().values().cloned().collect();
        // Before its own lock is taken: its supervisor must not wait until all below it is read.
        let children = children.iter().map(|child| child.snapshot()).collect();
        let data = self.data();
        NodeSnapshot {
            id: self.spec.id.clone(),
            path: self.identity.path.clone(),
            kind: self.spec.kind,
            status: data.status_now(),
            for_ms: millis(data.since.elapsed()),
            incarnation: data.incarnation,
            degraded: data.degraded,
            stuck: data.stuck.clone(),
            mailbox: self.address.as_ref().map(|address| address.mailbox()),
            restarts: data.restarts,
            failures: data.past.as_ref().map(|past| past.failures.clone()).unwrap_or_default(),
            history: data.past.iter().flat_map(|past| past.history.iter().cloned()).collect(),
            children,
        }
    }

    /// The tasks of this child and of all below it.
    pub(crate) fn tasks(&self) -> Vec<TaskCount> {
        let group = self.data().tasks.upgrade();
        let counts = group.iter().flat_map(TaskGroup::counts);
        let own = counts.map(|(name, count)| TaskCount { path: self.identity.path.clone(), name, count });
        let mut tasks: Vec<_> = own.collect();
        let children: Vec<Arc<Node>> = self.children().values().cloned().collect();
        children.iter().for_each(|child| tasks.extend(child.tasks()));
        tasks
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Node>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeData {
    pub(crate) fn set(&mut self, status: Status) {
        self.status = status;
        self.since = Instant::now();
    }

    /// Keeps a failure; `restart_in` is none if there will be no restart.
    pub(crate) fn failed(&mut self, exit: Exit, uptime: Duration, restart_in: Option<Duration>) {
        let past = self.past.get_or_insert_default();
        *past.failures.entry(exit.cause()).or_default() += 1;
        if past.history.len() == HISTORY {
            past.history.pop_front();
        }
        past.history.push_back(Incident {
            at_ms: unix_millis(Instant::now()),
            incarnation: self.incarnation,
            exit,
            uptime_ms: millis(uptime),
            restart_in_ms: restart_in.map(millis),
        });
    }

    /// Something about it is on record, and its supervisor will decide what becomes of it.
    pub(crate) fn on_record(&mut self, incident: IncidentId) {
        let past = self.past.get_or_insert_default();
        if past.pending.len() == PENDING_MAX {
            past.pending.pop_front();
        }
        past.pending.push_back(incident);
    }

    /// Puts on record what is done about it, for now.
    pub(crate) fn outcome_so_far(&self, outcome: impl FnOnce() -> String) {
        if let Some(past) = self.past.as_ref().filter(|past| !past.pending.is_empty()) {
            let outcome = outcome();
            for incident in &past.pending {
                // One that is no longer kept needs no outcome.
                let _ = incidents::amend(*incident, &*outcome);
            }
        }
    }

    /// Puts on record what has become of it.
    pub(crate) fn outcome(&mut self, outcome: impl FnOnce() -> String) {
        self.outcome_so_far(outcome);
        if let Some(past) = &mut self.past {
            past.pending.clear();
        }
    }

    /// How long it had to wait for its latest restart, in milliseconds.
    pub(crate) fn waited_ms(&self) -> u64 {
        self.past.iter().filter_map(|past| past.history.back()?.restart_in_ms).sum()
    }

    /// A waiting child says how long it still waits.
    fn status_now(&self) -> Status {
        match self.status {
            Status::Waiting { due_in_ms } => {
                Status::Waiting { due_in_ms: due_in_ms.saturating_sub(millis(self.since.elapsed())) }
            }
            status => status,
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
