//! The data of one supervisor.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::FuturesUnordered;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};
use tracing::Span;

use super::{
    Control, OPERATIONS_MAX, Request, StopRequest, SupervisorControl,
    restart::{DEGRADED, ESCALATIONS, RESTARTS},
    stop::LEAKED,
};
use crate::{
    ChildContext, ChildSpec, ChildStop, Event, EventKind, Exit, OperationError, Path, Status, Strategy, SupervisorSpec,
    context::Identity,
    intensity::RestartWindow,
    node::Node,
    process::{DrillOrder, Ended, Process, StartFailure, Started},
};

/// As good as never; what lies beyond it overflows clocks and timers.
pub(super) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A child's place in start order. Never used twice, so it also tells a child from its successor of the same id.
pub(super) type Sequence = u64;

pub(super) type PlanId = u64;

pub(crate) struct Supervisor {
    pub(super) context: ChildContext,
    pub(super) spec: SupervisorSpec,
    /// In start order.
    pub(super) slots: BTreeMap<Sequence, Slot>,
    pub(super) by_id: HashMap<String, Sequence>,
    next_sequence: Sequence,
    pub(super) window: Option<RestartWindow>,
    pub(super) plans: BTreeMap<PlanId, Plan>,
    next_plan: PlanId,
    /// Children that ended while their supervisor was busy with a plan of the whole group.
    pub(super) deferred: VecDeque<Sequence>,
    /// Operations that wait for such a plan to be complete.
    pub(super) queued: VecDeque<Request>,
    /// Resolves for each child that ends.
    pub(super) ends: FuturesUnordered<EndWatch>,
    pub(super) timers: DelayQueue<Timer>,
    pub(super) inputs: Inputs,
    /// Told when all children have started.
    pub(super) started: Option<oneshot::Sender<()>>,
    /// Set once it is decided that the supervisor ends, and as what.
    pub(super) ending: Option<Exit>,
    pub(super) ending_since: Option<Instant>,
    /// Whether the request to stop, of which there is at most one and a tighter one, has been taken up.
    pub(super) stop_heard: bool,
    pub(super) stop_deadline: Option<Instant>,
    pub(super) stop_span: Span,
    pub(super) boot_span: Span,
    /// The children stopped by its end, in that order.
    pub(super) report: Vec<ChildStop>,
    pub(super) done: bool,
}

/// What the loop listens to.
pub(super) struct Inputs {
    pub(super) stop: watch::Receiver<Option<StopRequest>>,
    pub(super) operations: mpsc::Receiver<Request>,
    pub(super) drill: DrillOrder,
    /// At most one message for each child that is starting.
    pub(super) starts: mpsc::UnboundedReceiver<StartDone>,
    pub(super) start_done: mpsc::UnboundedSender<StartDone>,
}

/// The outcome of one start attempt.
pub(super) struct StartDone {
    pub(super) sequence: Sequence,
    pub(super) incarnation: u64,
    pub(super) result: Result<Started, StartFailure>,
}

pub(super) type EndWatch = futures_util::future::BoxFuture<'static, (Sequence, u64, Ended)>;

/// One child.
pub(super) struct Slot {
    pub(super) spec: Arc<ChildSpec>,
    pub(super) node: Arc<Node>,
    pub(super) state: State,
    /// The process of the running incarnation, or of the leaked one.
    pub(super) process: Option<Process>,
    /// Asks the running incarnation to stop.
    pub(super) cancel: CancellationToken,
    /// The plan that waits for this child.
    pub(super) plan: Option<PlanId>,
    pub(super) timer: Option<delay_queue::Key>,
    /// Added at run time, not declared.
    pub(super) is_added: bool,
    /// The context of a start in progress, through which a supervisor hears that it must hurry.
    pub(super) starting: Option<ChildContext>,
    /// Consecutive restarts without a good run between them.
    pub(super) attempt: u32,
    pub(super) window: Option<RestartWindow>,
}

/// What the supervisor knows of a child. [`Status`] is its public face.
#[derive(Debug)]
pub(super) enum State {
    Down,
    Starting {
        since: Instant,
    },
    Up {
        since: Instant,
    },
    /// It ended by itself while the supervisor was busy; this is how.
    Exited {
        exit: Exit,
        uptime: Duration,
    },
    Waiting,
    Stopping(Stopping),
    Leaked,
}

/// A stop in progress.
#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) since: Instant,
    pub(super) phase: StopPhase,
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopPhase {
    /// Asked, its budget runs.
    Asked,
    /// Killed at once, as its spec says.
    BrutallyKilled,
    /// Outlived its budget and was killed; the grace runs.
    Killed,
}

/// A sequence of steps towards one end.
pub(super) struct Plan {
    pub(super) goal: Goal,
    pub(super) steps: VecDeque<Step>,
    /// Children the current step waits for.
    pub(super) open: usize,
    /// The current step is a pause.
    pub(super) is_paused: bool,
}

/// What a plan is for.
pub(super) enum Goal {
    /// The first start of all children.
    Boot,
    /// The restart of a child, with its group where the strategy says so.
    Restart,
    /// The end of the supervisor.
    End,
    /// An operator's wish.
    Operation { reply: oneshot::Sender<Result<(), OperationError>>, then: Status },
}

pub(super) enum Step {
    /// Stop these, all at once.
    Stop(Vec<Sequence>),
    /// Let this child wait.
    Pause(Sequence, Duration),
    /// Start this child.
    Start(Sequence),
}

/// What a timer was set for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// The pause of this child is over.
    Due(Sequence),
    /// The stop budget, or the grace after the kill, is used up.
    StopOverdue(Sequence),
    /// A degraded child has run well for long enough, if it is still this incarnation.
    Recovered(Sequence, u64),
}

impl Supervisor {
    pub(super) fn new(
        spec: SupervisorSpec,
        context: ChildContext,
        started: oneshot::Sender<()>,
    ) -> (Self, SupervisorControl) {
        let (stop, stop_receiver) = watch::channel(None);
        let (operations, operations_receiver) = mpsc::channel(OPERATIONS_MAX);
        let (start_done, starts) = mpsc::unbounded_channel();
        let drill = DrillOrder::default();
        context.node().disown_all();
        context.heartbeats().forget_below(context.path());
        let mut supervisor = Self {
            context: context.clone(),
            slots: BTreeMap::new(),
            by_id: HashMap::new(),
            next_sequence: 0,
            window: spec.intensity.map(RestartWindow::new),
            plans: BTreeMap::new(),
            next_plan: 0,
            deferred: VecDeque::new(),
            queued: VecDeque::new(),
            ends: FuturesUnordered::new(),
            timers: DelayQueue::new(),
            inputs: Inputs {
                stop: stop_receiver,
                operations: operations_receiver,
                drill: drill.clone(),
                starts,
                start_done,
            },
            started: Some(started),
            ending: None,
            ending_since: None,
            stop_heard: false,
            stop_deadline: None,
            stop_span: Span::none(),
            boot_span: Span::current(),
            report: Vec::new(),
            done: false,
            spec,
        };
        for child in supervisor.spec.children.clone() {
            supervisor.add_slot(child);
        }
        let control = Control { context, stop, kill: CancellationToken::new(), operations, drill };
        (supervisor, SupervisorControl(Arc::new(control)))
    }

    /// Appends a child, last in start order.
    pub(super) fn add_slot(&mut self, spec: ChildSpec) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let own = self.context.identity();
        let label_id = spec.label.unwrap_or(&spec.id);
        let label = if own.path.is_root() { label_id.to_owned() } else { format!("{}.{label_id}", own.label) };
        let identity = Identity { path: own.path.child(&spec.id), label };
        identity.bear_counters();
        bear_counters(&identity);
        let node = Node::new(identity, spec.id.clone(), spec.kind, spec.is_metered);
        self.context.node().adopt(sequence, Arc::clone(&node));
        self.by_id.insert(spec.id.clone(), sequence);
        let slot = Slot {
            node,
            state: State::Down,
            process: None,
            cancel: CancellationToken::new(),
            plan: None,
            timer: None,
            is_added: false,
            starting: None,
            attempt: 0,
            window: spec.intensity.map(RestartWindow::new),
            spec: Arc::new(spec),
        };
        self.slots.insert(sequence, slot);
        sequence
    }

    /// Forgets a child that is not running.
    pub(super) fn remove_slot(&mut self, sequence: Sequence) {
        if let Some(slot) = self.slots.remove(&sequence) {
            if self.by_id.get(&slot.spec.id) == Some(&sequence) {
                self.by_id.remove(&slot.spec.id);
            }
            self.context.node().disown(sequence);
            self.context.heartbeats().forget(&slot.node.identity.path);
        }
    }

    /// Begins a plan and takes it as far as it goes without waiting.
    pub(super) fn begin(&mut self, goal: Goal, steps: impl IntoIterator<Item = Step>) {
        let id = self.next_plan;
        self.next_plan += 1;
        self.plans.insert(id, Plan { goal, steps: steps.into_iter().collect(), open: 0, is_paused: false });
        self.advance(id);
    }

    /// True if the strategy makes children share their fates, so that only one plan may run at a time.
    pub(super) fn is_group(&self) -> bool {
        matches!(self.spec.strategy, Strategy::OneForAll | Strategy::RestForOne)
    }

    /// True if what concerns this child must wait for a plan to be complete.
    pub(super) fn is_busy(&self, sequence: Sequence) -> bool {
        if self.is_group() {
            return self.is_group_at_work();
        }
        self.slots.get(&sequence).is_some_and(|slot| slot.plan.is_some())
    }

    /// True if a plan moves the children of a group. One that only pauses holds nothing up: a member that never comes back
    /// must not keep the others from being looked after.
    pub(super) fn is_group_at_work(&self) -> bool {
        self.is_group() && self.plans.values().any(|plan| !plan.is_paused)
    }

    pub(super) fn emit(&self, sequence: Sequence, kind: EventKind) {
        if let Some(slot) = self.slots.get(&sequence) {
            let incarnation = slot.incarnation();
            self.context.tree().emit(Event { path: slot.path().clone(), incarnation, kind });
        }
    }

    pub(super) fn cancel_timer(&mut self, sequence: Sequence) {
        if let Some(key) = self.slots.get_mut(&sequence).and_then(|slot| slot.timer.take()) {
            self.timers.try_remove(&key);
        }
    }

    pub(super) fn set_timer(&mut self, sequence: Sequence, timer: Timer, after: Duration) {
        self.cancel_timer(sequence);
        let key = self.timers.insert(timer, after.min(FAR));
        if let Some(slot) = self.slots.get_mut(&sequence) {
            slot.timer = Some(key);
        }
    }
}

/// As [`Identity::bear_counters`], for what the supervisor counts of a child.
fn bear_counters(identity: &Identity) {
    let (component, actor) = (identity.path.component(), identity.label.as_str());
    RESTARTS.born(&[("component", component), ("actor", actor), ("cause", "panic")]);
    ESCALATIONS.born(&[("component", component)]);
    LEAKED.born(&[("component", component)]);
    DEGRADED.set(0.0, &[("component", component), ("actor", actor)]);
}

impl Slot {
    pub(super) fn path(&self) -> &Path {
        &self.node.identity.path
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.node.data().incarnation
    }

    /// True if there is, or may be, a process.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Up { .. } | State::Stopping(_) | State::Leaked)
    }

    /// Sets the state and its public face.
    pub(super) fn become_(&mut self, state: State, status: Status) {
        self.state = state;
        self.node.data().set(status);
    }

    /// Tells the address that no incarnation takes messages until `due`, or at all.
    pub(super) fn unavailable(&self, due: Option<Instant>) {
        match (&self.spec.availability, due) {
            (Some(address), Some(due)) => address.restarting(due),
            (Some(address), None) => address.down(),
            (None, _) => {}
        }
    }
}
