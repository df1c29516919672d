//! What a supervisor is told about its children, and the check of it before anything starts.

use std::{collections::HashSet, fmt, future::Future, sync::Arc, time::Duration};

use ractor::Actor;
use serde::{Serialize, Serializer};
use telemetry::context::TraceContext;

use crate::{
    Address, Backoff, BoxError, ChildContext, Intensity,
    actor::ActorStarter,
    address::Availability,
    process::StartChild,
    supervisor::SupervisorStarter,
    task::{Placement, TaskStarter},
};

/// When a child that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    Permanent,
    /// After a failure only.
    Transient,
    /// Never; its spec is forgotten when it ends.
    Temporary,
}

/// What a child may take to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It is asked, and killed after this long.
    Within(Duration),
    /// It is asked and waited for, however long that takes. For supervisors, whose children have budgets.
    Infinity,
    /// It is killed at once.
    BrutalKill,
}

impl Serialize for Shutdown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Within(budget) => crate::report::as_millis(budget, serializer),
            Self::Infinity => serializer.serialize_str("infinity"),
            Self::BrutalKill => serializer.serialize_str("brutal_kill"),
        }
    }
}

/// Which siblings share a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// None: only the failed child is started again.
    OneForOne,
    /// All: they are stopped in reverse order, and all are started in order.
    OneForAll,
    /// Those after it in start order.
    RestForOne,
    /// As [`Strategy::OneForOne`], for children that come and go at run time; they stop all at once.
    Dynamic {
        /// The most children at a time.
        max_children: usize,
    },
}

/// Whether the end of significant children ends their supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// The first significant child that ends for good ends it.
    AnySignificant,
    /// The last significant child that ends for good ends it.
    AllSignificant,
}

/// What follows when a child has used up its own restart budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGiveUp {
    /// Its supervisor gives up with it: all siblings stop and the failure climbs the tree.
    Escalate,
    /// It is shown as degraded and tried again for ever, every `retry` (less up to half of it, at random).
    Degrade {
        /// The slow beat of the further tries.
        retry: Duration,
    },
}

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
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) start_budget: Option<Duration>,
    pub(crate) significant: bool,
    pub(crate) backoff: Backoff,
    pub(crate) intensity: Option<Intensity>,
    pub(crate) on_give_up: OnGiveUp,
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
        Self {
            shutdown: Shutdown::Infinity,
            start_budget: None,
            faults,
            ..Self::new(id, Kind::Supervisor, Arc::new(SupervisorStarter::new(spec)))
        }
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

    /// What it may take to stop.
    pub fn stop_budget(&self) -> Shutdown {
        self.shutdown
    }

    /// What follows when its own budget is used up.
    pub fn give_up_rule(&self) -> OnGiveUp {
        self.on_give_up
    }

    fn change_task(&mut self, what: &'static str, change: impl FnOnce(&TaskStarter) -> TaskStarter) {
        match self.starter.as_task() {
            Some(task) => self.starter = Arc::new(change(task)),
            None => self.faults.push(SpecFault::new(&self.id, format!("{what} is for tasks only"))),
        }
    }

    fn from_actor<A: Actor>(id: impl Into<String>, address: &Address<A::Msg>, starter: ActorStarter<A>) -> Self {
        let availability: Arc<dyn Availability> = Arc::new(address.clone());
        Self { availability: Some(availability), ..Self::new(id.into(), Kind::Actor, Arc::new(starter)) }
    }

    fn new(id: String, kind: Kind, starter: Arc<dyn StartChild>) -> Self {
        Self {
            id,
            label: None,
            kind,
            starter,
            availability: None,
            restart: Restart::Permanent,
            shutdown: Shutdown::Within(Duration::from_secs(5)),
            start_budget: Some(Duration::from_secs(10)),
            significant: false,
            backoff: Backoff::default(),
            intensity: None,
            on_give_up: OnGiveUp::Escalate,
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

/// A supervisor and its children, in start order.
///
/// Defaults: OTP's intensity of 1 restart in 5 s for all children together, no auto-shutdown.
#[derive(Clone, Debug)]
pub struct SupervisorSpec {
    pub(crate) id: String,
    pub(crate) strategy: Strategy,
    pub(crate) intensity: Option<Intensity>,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) children: Vec<ChildSpec>,
}

impl SupervisorSpec {
    /// A supervisor without children yet.
    pub fn new(id: impl Into<String>, strategy: Strategy) -> Self {
        Self {
            id: id.into(),
            strategy,
            intensity: Some(Intensity::new(1, Duration::from_secs(5))),
            auto_shutdown: AutoShutdown::Never,
            children: Vec::new(),
        }
    }

    /// Appends a child: it starts after those before it and stops before them.
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Appends children in their order.
    pub fn with_children(self, children: impl IntoIterator<Item = ChildSpec>) -> Self {
        children.into_iter().fold(self, Self::child)
    }

    /// The restart budget that all children share.
    pub fn intensity(self, intensity: Intensity) -> Self {
        Self { intensity: Some(intensity), ..self }
    }

    /// No shared budget; only the children's own count.
    pub fn no_shared_intensity(self) -> Self {
        Self { intensity: None, ..self }
    }

    /// Whether the end of significant children ends it.
    pub fn auto_shutdown(self, auto_shutdown: AutoShutdown) -> Self {
        Self { auto_shutdown, ..self }
    }

    /// Its children, in start order.
    pub fn children(&self) -> &[ChildSpec] {
        &self.children
    }

    /// Checks the whole subtree without starting anything.
    ///
    /// # Errors
    /// Every fault, with the path of its child.
    pub fn check(&self) -> Result<(), Vec<SpecFault>> {
        let mut faults = Vec::new();
        let mut ids = HashSet::new();
        for child in &self.children {
            faults.extend(child.faults.iter().map(|fault| fault.below(child)));
            faults.extend(self.check_child(child).into_iter().map(|reason| SpecFault::new(&child.id, reason)));
            if !ids.insert(&child.id) {
                faults.push(SpecFault::new(&child.id, "the id is used twice"));
            }
        }
        if let Strategy::Dynamic { max_children } = self.strategy {
            if self.children.len() > max_children {
                faults.push(SpecFault::new("", format!("has more than max_children = {max_children} children")));
            }
            if self.auto_shutdown != AutoShutdown::Never {
                faults.push(SpecFault::new("", "auto_shutdown is not offered for dynamic children"));
            }
        }
        if self.intensity.is_some_and(|intensity| intensity.period.is_zero()) {
            faults.push(SpecFault::new("", "the period of the intensity is zero"));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// The faults of one child in this supervisor, also of one that is added at run time.
    pub(crate) fn check_child(&self, child: &ChildSpec) -> Vec<&'static str> {
        let mut faults = Vec::new();
        if child.id.is_empty() || child.id.contains(['.', '/']) || child.id.contains(char::is_whitespace) {
            faults.push("an id is not empty and has no dot, slash or white space");
        }
        if child.significant && self.auto_shutdown == AutoShutdown::Never {
            faults.push("significant needs auto_shutdown");
        }
        if child.significant && child.restart == Restart::Permanent {
            faults.push("significant contradicts permanent");
        }
        if child.intensity.is_some_and(|intensity| intensity.period.is_zero()) {
            faults.push("the period of the intensity is zero");
        }
        if !(child.backoff.factor.is_finite() && child.backoff.jitter.is_finite()) {
            faults.push("the factor and the jitter of the backoff are numbers");
        }
        if child.intensity.is_none() && child.on_give_up != OnGiveUp::Escalate {
            faults.push("degrade needs an intensity of the child's own");
        }
        faults
    }
}

/// One contradiction in a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("child {path:?}: {reason}")]
pub struct SpecFault {
    /// The ids down to the child, joined by dots; empty for the supervisor itself.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl SpecFault {
    fn new(path: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }

    fn below(&self, parent: &ChildSpec) -> Self {
        let own = self.path == parent.id || self.path.is_empty();
        let path = if own { parent.id.clone() } else { format!("{}.{}", parent.id, self.path) };
        Self { path, reason: self.reason.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> ChildSpec {
        ChildSpec::task(id, |_| async { Ok(()) })
    }

    fn reasons(spec: &SupervisorSpec) -> Vec<String> {
        spec.check().unwrap_err().into_iter().map(|fault| fault.to_string()).collect()
    }

    #[test]
    fn all_faults_of_a_tree_are_told_at_once_with_their_paths() {
        let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(task("a")).child(task("a"));
        let root = SupervisorSpec::new("root", Strategy::OneForOne)
            .child(task("with.dot"))
            .child(task("s").significant())
            .child(ChildSpec::supervisor(inner).on_own_runtime());
        assert_eq!(
            reasons(&root),
            [
                "child \"with.dot\": an id is not empty and has no dot, slash or white space",
                "child \"s\": significant needs auto_shutdown",
                "child \"s\": significant contradicts permanent",
                "child \"inner.a\": the id is used twice",
                "child \"inner\": on_own_runtime is for tasks only",
            ]
        );
    }

    #[test]
    fn a_sound_tree_has_no_faults() {
        let root = SupervisorSpec::new("root", Strategy::OneForAll).child(task("a")).child(task("b"));
        assert_eq!(root.check(), Ok(()));
    }

    #[test]
    fn degrading_without_a_budget_of_its_own_is_refused() {
        let degrade = OnGiveUp::Degrade { retry: Duration::from_secs(300) };
        let root = SupervisorSpec::new("root", Strategy::OneForOne).child(task("a").on_give_up(degrade));
        assert_eq!(reasons(&root), ["child \"a\": degrade needs an intensity of the child's own"]);
    }
}
