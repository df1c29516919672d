//! One child, as its supervisor is told about it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use ractor::Actor;
use serde::Serialize;
use telemetry::context::TraceContext;

use super::{FirstStart, OnGiveUp, OnStuck, Restart, Shutdown, SpecFault, SupervisorSpec};
use crate::{
    Address, Backoff, BoxError, ChildContext, Intensity,
    actor::ActorStarter,
    address::Availability,
    process::StartChild,
    supervisor::SupervisorStarter,
    task::{Placement, TaskStarter},
};

/// One child: how it is started, and what the supervisor does when it ends.
///
/// Defaults: permanent, 5 s to stop (a supervisor: infinity), 10 s to start (a supervisor: no limit, its children have
/// theirs), [`Backoff::default`], no budget of its own.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) id: String,
    pub(crate) label: Option<&'static str>,
    pub(crate) kind: Kind,
    pub(crate) starter: Arc<dyn StartChild>,
    pub(crate) availability: Option<Arc<dyn Availability>>,
    /// The addresses of the child, or of all declared below it, with the ids from it down.
    pub(crate) addresses: Vec<(usize, String)>,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) start_budget: Option<Duration>,
    pub(crate) significant: bool,
    pub(crate) backoff: Backoff,
    pub(crate) intensity: Option<Intensity>,
    pub(crate) on_give_up: OnGiveUp,
    pub(crate) first_start: FirstStart,
    pub(crate) on_stuck: OnStuck,
    pub(crate) message_limit: Option<Duration>,
    pub(crate) stop_group: Option<&'static str>,
    pub(crate) starts_apart: bool,
    pub(crate) is_metered: bool,
    pub(crate) faults: Vec<SpecFault>,
}

/// What a child is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A ractor actor.
    Actor,
    /// A future.
    Task,
    /// A supervisor with children of its own.
    Supervisor,
}

/// A child's spec as it is in force, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpecSummary {
    /// Unique within its supervisor.
    pub id: String,
    /// What it is made of.
    pub kind: Kind,
    /// When it is started again.
    pub restart: Restart,
    /// What it may take to stop.
    pub shutdown: Shutdown,
    /// What it may take to start, in milliseconds; none is without limit.
    pub start_budget_ms: Option<u64>,
    /// Whether its end may end its supervisor.
    pub significant: bool,
    /// With whom it stops.
    pub stop_group: Option<&'static str>,
    /// What follows when its very first start fails.
    pub first_start: FirstStart,
    /// What follows when it is stuck.
    pub on_stuck: OnStuck,
}

/// A message that carries the trace context of its sender, so that its handling is a child span of the sending one.
pub trait Traced {
    /// The context in which the message was sent; empty if there was none.
    fn trace_context(&self) -> &TraceContext;
}

impl ChildSpec {
    /// An actor. `make` is called for each incarnation; the running one is reached through `address`.
    pub fn actor<A: Actor>(
        id: impl Into<String>,
        address: &Address<A::Msg>,
        make: impl Fn(ChildContext) -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        Self::from_actor(id, address, ActorStarter::new(address.clone(), make))
    }

    /// An actor whose messages carry their sender's trace context.
    pub fn traced_actor<A: Actor<Msg: Traced>>(
        id: impl Into<String>,
        address: &Address<A::Msg>,
        make: impl Fn(ChildContext) -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        Self::from_actor(id, address, ActorStarter::new(address.clone(), make).with_context(A::Msg::trace_context))
    }

    /// A future that runs under the same rules: a clean return is an orderly end, an error or a panic a failure.
    pub fn task<F, Fut>(id: impl Into<String>, run: F) -> Self
    where
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::new(id.into(), Kind::Task, Arc::new(TaskStarter::new(run)))
    }

    /// A supervisor.
    pub fn supervisor(spec: SupervisorSpec) -> Self {
        let (id, faults) = (spec.id.clone(), spec.check().err().unwrap_or_default());
        let below = spec.children.iter().flat_map(|child| &child.addresses);
        let addresses = below.map(|(address, path)| (*address, format!("{id}.{path}"))).collect();
        Self { faults, addresses, ..Self::of_supervisor(id, SupervisorStarter::new(move |_| Ok(spec.clone()))) }
    }

    /// A supervisor that is made anew at each of its starts. `make` may decline with [`Ignore`](crate::Ignore), which is no
    /// failure, or fail: then nothing is left running. What it makes is checked before any child starts; its own id does not
    /// count.
    pub fn supervisor_from(
        id: impl Into<String>,
        make: impl Fn(ChildContext) -> Result<SupervisorSpec, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let checked = move |context| {
            let spec = make(context)?;
            spec.check().map_err(|faults| SpecFault::list(&faults))?;
            Ok(spec)
        };
        Self::of_supervisor(id.into(), SupervisorStarter::new(checked))
    }

    /// When it is started again.
    pub fn restart(self, restart: Restart) -> Self {
        Self { restart, ..self }
    }

    /// What it may take to stop.
    pub fn stop_within(self, shutdown: Shutdown) -> Self {
        Self { shutdown, ..self }
    }

    /// What it may take to start.
    pub fn start_within(self, budget: Duration) -> Self {
        Self { start_budget: Some(budget), ..self }
    }

    /// It may take as long as it likes to start, as in OTP.
    pub fn start_without_limit(self) -> Self {
        Self { start_budget: None, ..self }
    }

    /// Starts it in a task of its own from the first step. By default its supervisor takes the start as far as it goes without
    /// waiting, which is several times faster, and is held up by a `pre_start` that keeps its thread. One that is started apart
    /// and does not yield is reported as leaked soon after its budget.
    pub fn start_apart(self) -> Self {
        Self { starts_apart: true, ..self }
    }

    /// What follows when its very first start fails.
    pub fn on_first_start(self, first_start: FirstStart) -> Self {
        Self { first_start, ..self }
    }

    /// Neighbours of one group stop all at once, each within its own budget, so that a group takes as long as its slowest
    /// member and not the sum. In OTP children stop one after the other, always: that is the default.
    pub fn stop_group(self, name: &'static str) -> Self {
        Self { stop_group: Some(name), ..self }
    }

    /// What follows when it is stuck.
    pub fn on_stuck(self, on_stuck: OnStuck) -> Self {
        Self { on_stuck, ..self }
    }

    /// An actor only: for how long one message may be in hand before the actor counts as stuck.
    pub fn message_within(self, limit: Duration) -> Self {
        Self { message_limit: Some(limit), ..self }
    }

    /// Its delay between restarts.
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// A restart budget of its own, beside that of its supervisor.
    pub fn intensity(self, intensity: Intensity) -> Self {
        Self { intensity: Some(intensity), ..self }
    }

    /// What follows when its own budget is used up.
    pub fn on_give_up(self, on_give_up: OnGiveUp) -> Self {
        Self { on_give_up, ..self }
    }

    /// Its orderly end may end its supervisor, see [`SupervisorSpec::auto_shutdown`].
    pub fn significant(self) -> Self {
        Self { significant: true, ..self }
    }

    /// The name under which the metrics of this child are kept, where ids come and go with the data.
    pub fn label(self, label: &'static str) -> Self {
        Self { label: Some(label), ..self }
    }

    /// Does not time the messages of this actor, nor show the one in hand: for an actor with very many small messages,
    /// where two looks at the clock are a tenth of the work.
    pub fn unmetered(self) -> Self {
        Self { is_metered: false, ..self }
    }

    /// A task only: its start is complete when it called [`ChildContext::ready`], not when it was spawned.
    pub fn start_when_ready(mut self) -> Self {
        self.change_task("start_when_ready", |task| task.with_readiness());
        self
    }

    /// A task only: runs on a thread and a current-thread runtime of its own, so that it goes on when the main runtime is
    /// blocked. It cannot be killed while it does not yield, as any task.
    pub fn on_own_runtime(mut self) -> Self {
        self.change_task("on_own_runtime", |task| task.placed(Placement::OwnRuntime));
        self
    }

    /// The id, unique within its supervisor.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All that a supervisor knows of it, to be shown.
    pub fn summary(&self) -> SpecSummary {
        SpecSummary {
            id: self.id.clone(),
            kind: self.kind,
            restart: self.restart,
            shutdown: self.shutdown,
            start_budget_ms: self.start_budget.map(crate::node::millis),
            significant: self.significant,
            stop_group: self.stop_group,
            first_start: self.first_start,
            on_stuck: self.on_stuck,
        }
    }

    /// What it may take to stop.
    pub fn stop_budget(&self) -> Shutdown {
        self.shutdown
    }

    /// What follows when its own budget is used up.
    pub fn give_up_rule(&self) -> OnGiveUp {
        self.on_give_up
    }

    /// The root as its own child, which no one else supervises.
    pub(crate) fn supervisor_shell(spec: &SupervisorSpec) -> Self {
        Self::supervisor(SupervisorSpec::new(spec.id.clone(), spec.strategy))
    }

    fn change_task(&mut self, what: &'static str, change: impl FnOnce(&TaskStarter) -> TaskStarter) {
        match self.starter.as_task() {
            Some(task) => self.starter = Arc::new(change(task)),
            None => self.faults.push(SpecFault::new(&self.id, format!("{what} is for tasks only"))),
        }
    }

    fn from_actor<A: Actor>(id: impl Into<String>, address: &Address<A::Msg>, starter: ActorStarter<A>) -> Self {
        let (id, availability): (String, Arc<dyn Availability>) = (id.into(), Arc::new(address.clone()));
        let addresses = vec![(availability.identity().1, id.clone())];
        Self { availability: Some(availability), addresses, ..Self::new(id, Kind::Actor, Arc::new(starter)) }
    }

    fn of_supervisor(id: String, starter: SupervisorStarter) -> Self {
        let own = Self::new(id, Kind::Supervisor, Arc::new(starter));
        Self { shutdown: Shutdown::Infinity, start_budget: None, ..own }
    }

    fn new(id: String, kind: Kind, starter: Arc<dyn StartChild>) -> Self {
        Self {
            id,
            label: None,
            kind,
            starter,
            availability: None,
            addresses: Vec::new(),
            restart: Restart::Permanent,
            shutdown: Shutdown::Within(Duration::from_secs(5)),
            start_budget: Some(Duration::from_secs(10)),
            significant: false,
            backoff: Backoff::default(),
            intensity: None,
            on_give_up: OnGiveUp::Escalate,
            first_start: FirstStart::default(),
            on_stuck: OnStuck::default(),
            message_limit: None,
            stop_group: None,
            starts_apart: false,
            is_metered: true,
            faults: Vec::new(),
        }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChildSpec({:?} {}, {:?}, stop {:?})", self.kind, self.id, self.restart, self.shutdown)
    }
}
