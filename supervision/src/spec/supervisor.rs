//! A supervisor, as its children's common part of the spec, and the check of a whole tree before anything starts.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{AutoShutdown, ChildSpec, GiveUpAs, GroupRestart, Kind, OnGiveUp, Restart, SpecFault, Strategy};
use crate::Intensity;

/// A supervisor and its children, in start order.
///
/// Defaults: OTP's intensity of 1 restart in 5 s for all children together, no auto-shutdown.
#[derive(Clone, Debug)]
pub struct SupervisorSpec {
    pub(crate) id: String,
    pub(crate) strategy: Strategy,
    pub(crate) intensity: Option<Intensity>,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) group_restart: GroupRestart,
    pub(crate) give_up_as: GiveUpAs,
    pub(crate) is_serial: bool,
    pub(crate) is_strict: bool,
    pub(crate) forgets_stopped: bool,
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
            group_restart: GroupRestart::default(),
            give_up_as: GiveUpAs::default(),
            is_serial: false,
            is_strict: false,
            forgets_stopped: false,
            children: Vec::new(),
        }
    }

    /// A supervisor without children that behaves as OTP's own in all that can be set; its children need
    /// [`Backoff::NONE`](crate::Backoff::NONE) and [`ChildSpec::start_without_limit`] for the rest.
    pub fn like_otp(id: impl Into<String>, strategy: Strategy) -> Self {
        let own = Self::new(id, strategy);
        let intensity = own.intensity.map(Intensity::in_whole_seconds);
        Self { intensity, ..own }
            .group_restart(GroupRestart::All)
            .give_up_as(GiveUpAs::Shutdown)
            .one_at_a_time()
            .strict_stops()
            .forget_stopped_children()
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

    /// The restart budget that all children share. After [`SupervisorSpec::like_otp`] it counts in whole seconds.
    pub fn intensity(self, intensity: Intensity) -> Self {
        let whole_seconds = intensity.whole_seconds || self.intensity.is_some_and(|before| before.whole_seconds);
        Self { intensity: Some(Intensity { whole_seconds, ..intensity }), ..self }
    }

    /// No shared budget; only the children's own count.
    pub fn no_shared_intensity(self) -> Self {
        Self { intensity: None, ..self }
    }

    /// Whether the end of significant children ends it.
    pub fn auto_shutdown(self, auto_shutdown: AutoShutdown) -> Self {
        Self { auto_shutdown, ..self }
    }

    /// Which members a restart of the whole group starts.
    pub fn group_restart(self, group_restart: GroupRestart) -> Self {
        Self { group_restart, ..self }
    }

    /// How it ends when it gives up.
    pub fn give_up_as(self, give_up_as: GiveUpAs) -> Self {
        Self { give_up_as, ..self }
    }

    /// Does one thing at a time, as OTP does: while a child starts or stops it serves nothing else, not even its own stop.
    /// By default it does, and under [`Strategy::OneForOne`] children restart independently of each other.
    pub fn one_at_a_time(self) -> Self {
        Self { is_serial: true, ..self }
    }

    /// Reports, as OTP does, a permanent child that was asked to stop and ended as [`Exit::Normal`](crate::Exit::Normal)
    /// and not as [`Exit::Shutdown`](crate::Exit::Shutdown). By default any orderly end is a good one.
    pub fn strict_stops(self) -> Self {
        Self { is_strict: true, ..self }
    }

    /// Dynamic children only: one that an operator stops is forgotten, and there is no starting and no deleting one by hand,
    /// as in OTP. By default it stays as stopped by hand.
    pub fn forget_stopped_children(self) -> Self {
        Self { forgets_stopped: true, ..self }
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
        faults.extend(self.torn_stop_groups());
        faults.extend(self.shared_addresses());
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

    /// Stop groups whose members are not neighbours: to stop them at once would stop others out of order.
    fn torn_stop_groups(&self) -> Vec<SpecFault> {
        let mut seen = HashSet::new();
        let mut faults = Vec::new();
        for (before, child) in [None].into_iter().chain(self.children.iter().map(Some)).zip(&self.children) {
            let Some(group) = child.stop_group else { continue };
            let continues = before.is_some_and(|before| before.stop_group == Some(group));
            if !seen.insert(group) && !continues {
                let reason = format!("the members of the stop group {group} are not neighbours");
                faults.push(SpecFault::new(&child.id, reason));
            }
        }
        faults
    }

    /// Addresses of two children: a message could reach only one of them. Those of one child are among its own faults.
    fn shared_addresses(&self) -> Vec<SpecFault> {
        let mut holders: HashMap<usize, (usize, &str)> = HashMap::new();
        let mut faults = Vec::new();
        for (index, child) in self.children.iter().enumerate() {
            for (address, path) in &child.addresses {
                let (holder, holder_path) = *holders.entry(*address).or_insert((index, path));
                if holder != index {
                    faults.push(SpecFault::new(path, format!("its address is that of {holder_path}")));
                }
            }
        }
        faults
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
        if child.message_limit.is_some() && (child.kind != Kind::Actor || !child.is_metered) {
            faults.push("message_within is for metered actors only");
        }
        if child.intensity.is_none() && child.on_give_up != OnGiveUp::Escalate {
            faults.push("degrade needs an intensity of the child's own");
        }
        faults
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
    fn what_is_like_otp_counts_in_whole_seconds_whatever_its_budget() {
        let spec =
            SupervisorSpec::like_otp("root", Strategy::OneForOne).intensity(Intensity::new(3, Duration::from_secs(9)));
        assert!(spec.intensity.unwrap().whole_seconds);
    }

    #[test]
    fn a_stop_group_is_of_neighbours() {
        let neighbours = SupervisorSpec::new("root", Strategy::OneForOne)
            .child(task("a").stop_group("io"))
            .child(task("b").stop_group("io"))
            .child(task("c"));
        assert_eq!(neighbours.check(), Ok(()));
        let torn = neighbours.child(task("d").stop_group("io"));
        assert_eq!(reasons(&torn), ["child \"d\": the members of the stop group io are not neighbours"]);
    }

    #[test]
    fn an_address_of_two_children_is_refused_wherever_they_are() {
        struct Nobody;
        impl ractor::Actor for Nobody {
            type Msg = ();
            type State = ();
            type Arguments = ();

            async fn pre_start(&self, _: ractor::ActorRef<()>, (): ()) -> Result<(), ractor::ActorProcessingErr> {
                Ok(())
            }
        }
        let (desk, other) = (crate::Address::new("desk"), crate::Address::new("desk"));
        let actor = |id: &str, address: &crate::Address<()>| ChildSpec::actor(id, address, |_| (Nobody, ()));
        let inner = |id: &str, child| ChildSpec::supervisor(SupervisorSpec::new(id, Strategy::OneForOne).child(child));
        let apart = SupervisorSpec::new("root", Strategy::OneForOne).child(actor("a", &desk)).child(actor("b", &other));
        assert_eq!(apart.check(), Ok(()), "a name is no address");
        let shared = SupervisorSpec::new("root", Strategy::OneForOne)
            .child(inner("left", actor("a", &desk)))
            .child(inner("right", inner("deep", actor("b", &desk))));
        assert_eq!(reasons(&shared), ["child \"right.deep.b\": its address is that of left.a"]);
    }

    #[test]
    fn degrading_without_a_budget_of_its_own_is_refused() {
        let degrade = OnGiveUp::Degrade { retry: Duration::from_secs(300) };
        let root = SupervisorSpec::new("root", Strategy::OneForOne).child(task("a").on_give_up(degrade));
        assert_eq!(reasons(&root), ["child \"a\": degrade needs an intensity of the child's own"]);
    }
}
