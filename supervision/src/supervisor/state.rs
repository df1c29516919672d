//! The data of one supervisor.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, time::DelayQueue};
use tracing::Span;

use super::{
    Control, OPERATIONS_MAX, Request, StopRequest, SupervisorControl,
    log_limit::LogLimit,
    lookout::Lookout,
    note::LEAKED,
    plan::{Plan, PlanId},
    restart::{DEGRADED, ESCALATIONS, RESTARTS, Restarted},
    slot::{Slot, State},
};
use crate::{
    ChildContext, ChildSpec, ChildStop, Event, EventKind, Exit, LossReason, Strategy, SupervisorSpec,
    context::{Child, Identity},
    exit::Cause,
    hold::Hold,
    intensity::RestartWindow,
    node::Node,
    process::{DrillOrder, Ended, StartFailure, Started},
};

/// As good as never; what lies beyond it overflows clocks and timers.
pub(super) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A child's place in start order. Never used twice, so it also tells a child from its successor of the same id.
pub(super) type Sequence = u64;

pub(crate) struct Supervisor {
    pub(super) context: ChildContext,
    pub(super) spec: SupervisorSpec,
    /// In start order. Boxed, because a tree that only grows at its end is half empty.
    pub(super) slots: BTreeMap<Sequence, Box<Slot>>,
    pub(super) by_id: HashMap<String, Sequence>,
    next_sequence: Sequence,
    pub(super) window: Option<RestartWindow>,
    pub(super) plans: BTreeMap<PlanId, Plan>,
    pub(super) next_plan: PlanId,
    /// What came while it was busy with something that must be complete first, in the order in which it came.
    pub(super) inbox: VecDeque<Deferred>,
    /// Children whose restart failed and is tried again at once, after all else that waits.
    pub(super) retries: VecDeque<Sequence>,
    /// Children that failed at their first start and are tried again when all others have had theirs.
    pub(super) first_failures: Vec<(Sequence, Exit)>,
    /// A significant child ended while others were still to be started.
    pub(super) ends_after_boot: bool,
    /// Where something is stuck, if this is the root, which looks after the whole tree.
    pub(super) lookout: Option<Lookout>,
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
    /// Dynamic children that did not stop cleanly, counted by outcome: in a storm one line for each is too many.
    pub(super) unclean: BTreeMap<&'static str, usize>,
    /// Of lines about children that fail.
    pub(super) log_limit: LogLimit,
    pub(super) done: bool,
}

/// What waits for a plan to be complete.
pub(super) enum Deferred {
    /// This incarnation of a child ended by itself.
    End(Sequence, u64),
    /// The next attempt for a child whose restart failed, where there is one queue for all, as in OTP.
    Retry(Sequence),
    /// The pause of a child is over.
    Due(Sequence),
    /// A child that is to be restarted because it is stuck.
    Stuck(Sequence),
    Operation(Request),
    Stop(StopRequest),
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
    /// Keeps the address until this is heard.
    pub(super) hold: Option<Arc<Hold>>,
    /// It was not even tried.
    pub(super) is_refused: bool,
}

/// Waits for the end of one incarnation.
pub(super) struct EndWatch {
    pub(super) sequence: Sequence,
    pub(super) incarnation: u64,
    pub(super) ended: BoxFuture<'static, Ended>,
}

impl Future for EndWatch {
    type Output = (Sequence, u64, Ended);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.ended.poll_unpin(cx).map(|ended| (self.sequence, self.incarnation, ended))
    }
}

/// What a timer was set for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// The pause of this child is over.
    Due(Sequence),
    /// The stop budget, or the grace after the kill, is used up.
    StopOverdue(Sequence),
    /// A start has outlived its budget, if it is still this incarnation's.
    StartOverdue(Sequence, u64),
    /// A degraded child has run well for long enough, if it is still this incarnation.
    Recovered(Sequence, u64),
    /// It is time to look for children that are stuck.
    Look,
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
        let former = context.node().disown_all();
        context.heartbeats().forget_below(context.path());
        let mut supervisor = Self {
            context: context.clone(),
            slots: BTreeMap::new(),
            by_id: HashMap::new(),
            next_sequence: 0,
            window: spec.intensity.map(RestartWindow::new),
            plans: BTreeMap::new(),
            next_plan: 0,
            inbox: VecDeque::new(),
            retries: VecDeque::new(),
            first_failures: Vec::new(),
            ends_after_boot: false,
            lookout: context.path().is_root().then(Lookout::default),
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
            unclean: BTreeMap::new(),
            log_limit: LogLimit::new(),
            done: false,
            spec,
        };
        for child in std::mem::take(&mut supervisor.spec.children) {
            let predecessor = former.get(&child.id);
            let sequence = supervisor.add_slot(child);
            if let (Some(predecessor), Some(slot)) = (predecessor, supervisor.slots.get(&sequence)) {
                slot.node.inherit(predecessor);
            }
        }
        let control = Control { context, stop, kill: CancellationToken::new(), operations, drill };
        (supervisor, SupervisorControl(Arc::new(control)))
    }

    /// Appends a child, last in start order.
    pub(super) fn add_slot(&mut self, mut spec: ChildSpec) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let own = self.context.identity();
        let label_id = spec.label.unwrap_or(&spec.id);
        let label = if own.path.is_root() { label_id.to_owned() } else { format!("{}.{label_id}", own.label) };
        let path = own.path.child(&spec.id);
        // Of children that are many, neighbours have the same name in the metrics.
        let sibling = self.slots.values().next_back().map(|slot| &*slot.node).filter(|it| *it.identity.label == *label);
        let label = sibling.map_or_else(|| label.into(), |sibling| Arc::clone(&sibling.identity.label));
        let identity = Identity { path, label };
        if sibling.is_none() {
            identity.bear_counters();
            bear_counters(&identity);
        }
        let node = Node::new(identity, &spec, sibling.and_then(|sibling| sibling.message_duration.clone()));
        // They were for the check.
        spec.addresses = Vec::new();
        self.context.node().adopt(sequence, Arc::clone(&node));
        self.by_id.insert(spec.id.clone(), sequence);
        let slot = Slot {
            node,
            state: State::Down,
            process: None,
            hold: None,
            plan: None,
            timer: None,
            is_added: false,
            context: None,
            comes_back: None,
            is_unwanted: false,
            attempt: 0,
            window: spec.intensity.map(|intensity| Box::new(RestartWindow::new(intensity))),
            spec: Arc::new(spec),
        };
        self.slots.insert(sequence, Box::new(slot));
        sequence
    }

    /// Forgets a child that is not running.
    pub(super) fn remove_slot(&mut self, sequence: Sequence) {
        self.cancel_timer(sequence);
        if let Some(slot) = self.slots.remove(&sequence) {
            slot.unavailable(Err(LossReason::Stopped));
            if self.by_id.get(&slot.spec.id) == Some(&sequence) {
                self.by_id.remove(&slot.spec.id);
            }
            self.context.node().disown(sequence);
            self.context.heartbeats().forget(&slot.node.identity.path);
            if slot.node.data().degraded {
                not_degraded(&slot.node.identity);
            }
            // With it goes what makes the child, which is foreign code and may panic when it is dropped.
            Self::drop_caught(slot);
        }
    }

    /// Drops what may be foreign code; a panic in it is recorded, and no one's failure.
    pub(super) fn drop_caught<T>(foreign: T) {
        if let Err(captured) = telemetry::panic::catch_sync(|| drop(foreign)) {
            crate::guard::record_unowned("drop", captured);
        }
    }

    /// True if the strategy makes children share their fates.
    pub(super) fn is_group(&self) -> bool {
        matches!(self.spec.strategy, Strategy::OneForAll | Strategy::RestForOne)
    }

    pub(super) fn is_dynamic(&self) -> bool {
        matches!(self.spec.strategy, Strategy::Dynamic { .. })
    }

    /// True if only one plan may move children at a time.
    pub(super) fn is_serial(&self) -> bool {
        self.spec.is_serial || self.is_group()
    }

    /// True if what concerns this child must wait for a plan to be complete.
    pub(super) fn is_busy(&self, sequence: Sequence) -> bool {
        if self.is_serial() {
            return self.is_at_work();
        }
        self.slots.get(&sequence).is_some_and(|slot| slot.plan.is_some())
    }

    /// True if a plan moves children, where only one may. One that only pauses holds nothing up: a member that never comes
    /// back must not keep the others from being looked after.
    pub(super) fn is_at_work(&self) -> bool {
        self.is_serial() && self.plans.values().any(|plan| !plan.is_paused)
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
    let Child { component, actor } = identity.as_child();
    RESTARTS.born(Restarted { component, actor, cause: Cause::Panic });
    ESCALATIONS.born(identity.as_component());
    LEAKED.born(identity.as_component());
    not_degraded(identity);
}

pub(super) fn not_degraded(identity: &Identity) {
    DEGRADED.set(0.0, identity.as_child());
}
