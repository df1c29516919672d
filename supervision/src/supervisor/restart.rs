//! When a child ends by itself: who is started again, when, and when enough is enough.

use std::time::Duration;

use telemetry::incidents::{self, IncidentId, Noted};
use tokio::time::Instant;

use super::note::LEAKED;
use super::{
    plan::{Goal, PlanId, Step},
    slot::State,
    state::{Deferred, FAR, Sequence, Supervisor, not_degraded},
};
use crate::{
    AutoShutdown, EventKind, Exit, GiveUpAs, GroupRestart, LossReason, OnGiveUp, OperationError, Restart, Status,
    StopOutcome, Strategy,
    context::{Child, Component},
    exit::Cause,
    node::Node,
    process::Ended,
};

telemetry::labels! {
    /// A child that failed, and how.
    pub struct Restarted<'a> { component: &'a str, actor: &'a str, cause: Cause }
}

telemetry::declare_metrics! {
    /// Restarts of a child after a failure.
    pub static RESTARTS: Counter<Restarted> = ("supervisor.restarts", "{restart}");
    /// Supervisors that gave up because a child failed once too often.
    pub static ESCALATIONS: Counter<Component> = ("supervisor.escalations", "{escalation}");
    /// 1 while a child is degraded: its budget is used up and it is tried again at the slow beat.
    pub static DEGRADED: Gauge<Child> = ("supervisor.degraded", "{child}");
}

impl Supervisor {
    /// The end of an incarnation has been seen.
    pub(super) fn child_ended(&mut self, sequence: Sequence, incarnation: u64, ended: Ended) {
        // When the supervisor ends, all are told of in their turn.
        let busy = self.ending.is_some() || self.is_busy(sequence);
        let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| slot.incarnation() == incarnation) else { return };
        match &slot.state {
            State::Stopping(_) => self.stopped(sequence, ended),
            State::Up { since } => {
                let uptime = since.elapsed();
                slot.process = None;
                self.cancel_timer(sequence);
                if ended.leaves_something() {
                    return self.ended_with_a_leak(sequence, ended);
                }
                let Some(slot) = self.slots.get_mut(&sequence).filter(|_| busy) else {
                    return self.ended_by_itself(sequence, ended.exit, uptime);
                };
                slot.become_(State::Exited { exit: ended.exit, uptime }, Status::Down);
                self.inbox.push_back(Deferred::End(sequence, incarnation));
            }
            State::Leaked => self.leak_ended(sequence),
            State::Down | State::Starting { .. } | State::Exited { .. } | State::Waiting => {}
        }
    }

    /// It is gone, but not all that it had started: it stays leaked, because its next incarnation would overlap with that.
    fn ended_with_a_leak(&mut self, sequence: Sequence, ended: Ended) {
        self.emit(sequence, EventKind::Exited { exit: ended.exit.clone() });
        self.leaves_a_leak(sequence, &ended);
        let Some(slot) = self.slots.get(&sequence) else { return };
        slot.unavailable(Err(LossReason::Failed));
        let mut data = slot.node.data();
        data.outcome(|| "it left something behind that does not end, and is not started again before that".to_owned());
        data.failed(ended.exit, Duration::ZERO, None);
    }

    /// What it had started and could not end goes on.
    pub(super) fn leaves_a_leak(&mut self, sequence: Sequence, ended: &Ended) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let below: Vec<_> = ended.below.iter().filter(|child| child.outcome == StopOutcome::Leaked).collect();
        tracing::error!(path = %slot.path(), exit = %ended.exit, tasks = ?ended.leaked_tasks, ?below, "child ended and leaked");
        LEAKED.add(1, slot.node.identity.as_component());
        slot.become_(State::Leaked, Status::Leaked);
    }

    /// What had leaked is gone.
    pub(super) fn leak_ended(&mut self, sequence: Sequence) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        slot.process = None;
        let comes_back = slot.comes_back.take();
        let by_hand = std::mem::take(&mut slot.is_unwanted);
        slot.become_(State::Down, if by_hand { Status::StoppedByHand } else { Status::Down });
        // A plan that moves it goes on as it would with one that is down.
        let is_planned = slot.plan.is_some();
        tracing::warn!(path = %slot.path(), "a leaked child has ended");
        self.emit(sequence, EventKind::LeakEnded);
        if let Some(exit) = comes_back.filter(|_| self.ending.is_none() && !is_planned) {
            self.restart_failed(sequence, exit);
        }
    }

    /// OTP's table: permanent children come back always, transient ones after a failure, temporary ones never.
    pub(super) fn ended_by_itself(&mut self, sequence: Sequence, exit: Exit, uptime: Duration) {
        self.emit(sequence, EventKind::Exited { exit: exit.clone() });
        let ending = self.ending.is_some();
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let comes_back = match slot.spec.restart {
            Restart::Permanent => true,
            Restart::Transient => !exit.is_orderly(),
            Restart::Temporary => false,
        };
        if comes_back && !ending {
            return self.restart(sequence, exit, uptime);
        }
        slot.unavailable(Err(if exit.is_orderly() { LossReason::Finished } else { LossReason::Failed }));
        let significant = slot.spec.significant;
        // What came and went is not kept where others come and go.
        let is_gone = slot.spec.restart == Restart::Temporary || matches!(self.spec.strategy, Strategy::Dynamic { .. });
        if exit.is_orderly() {
            slot.become_(State::Down, Status::Finished);
            self.context.heartbeats().forget(&slot.node.identity.path);
        } else {
            let mut data = slot.node.data();
            data.outcome(|| if ending { "its supervisor ends" } else { "it is not started again" }.to_owned());
            data.failed(exit, uptime, None);
            drop(data);
            slot.become_(State::Down, Status::Down);
        }
        if is_gone && !ending {
            self.remove_slot(sequence);
        }
        if significant && !ending {
            self.check_auto_shutdown();
        }
    }

    pub(super) fn restart(&mut self, sequence: Sequence, exit: Exit, uptime: Duration) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        slot.become_(State::Down, Status::Down);
        if uptime >= slot.spec.backoff.reset_after {
            slot.attempt = 0;
        }
        self.schedule(sequence, exit, uptime, Moment::AfterExit);
    }

    /// The next start comes after a backoff; without one that is allowed, the supervisor gives up.
    fn schedule(&mut self, sequence: Sequence, exit: Exit, uptime: Duration, moment: Moment) {
        match self.decide(sequence, &exit) {
            Some(delay) => {
                self.note_restart(sequence, exit, uptime, delay);
                let culprit = self.join_paused_restart(sequence);
                let steps = self.restart_steps(culprit, delay, moment);
                self.begin(Goal::Restart { due: Instant::now() + delay.min(FAR) }, steps);
            }
            None => {
                if let Some(slot) = self.slots.get(&sequence) {
                    slot.unavailable(Err(LossReason::Failed));
                    slot.node.data().failed(exit.clone(), uptime, None);
                }
                self.give_up(sequence, exit);
            }
        }
    }

    /// A member of a group failed while the group waits to restart for another one: both wait together from here on. Answers
    /// from whom on the group is started.
    fn join_paused_restart(&mut self, sequence: Sequence) -> Sequence {
        if !self.is_group() {
            return sequence;
        }
        let waiting: Vec<(Sequence, PlanId)> =
            self.slots.iter().filter_map(|(other, slot)| Some((*other, slot.plan?))).collect();
        let is_paused = |(_, id): &(Sequence, PlanId)| self.plans.get(id).is_some_and(|plan| plan.is_paused);
        let waiting: Vec<_> = waiting.into_iter().filter(is_paused).collect();
        let mut first = sequence;
        for (other, plan) in waiting {
            self.cancel_timer(other);
            self.replace(plan);
            if let Some(slot) = self.slots.get_mut(&other).filter(|slot| matches!(slot.state, State::Waiting)) {
                slot.become_(State::Down, Status::Down);
            }
            first = first.min(other);
        }
        first
    }

    /// A restart attempt did not succeed, and there will be a further one. Without a backoff it comes after all that waits
    /// already, so that a child which fails at once and always does not keep its supervisor from answering.
    pub(super) fn restart_failed(&mut self, sequence: Sequence, exit: Exit) {
        if self.ending.is_some() {
            return;
        }
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let at_once = slot.spec.backoff.delay(slot.attempt.saturating_add(1), 0.0).is_zero();
        if !at_once || slot.node.data().degraded || matches!(slot.state, State::Leaked) {
            return self.retry(sequence, exit);
        }
        slot.comes_back = Some(exit);
        slot.become_(State::Waiting, Status::Waiting { due_in_ms: 0 });
        slot.unavailable(Ok(Instant::now()));
        if self.spec.is_serial {
            self.inbox.push_back(Deferred::Retry(sequence));
        } else {
            self.retries.push_back(sequence);
        }
    }

    /// Its turn has come, unless somebody else has taken care of it.
    pub(super) fn retry_now(&mut self, sequence: Sequence) {
        let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| matches!(slot.state, State::Waiting)) else {
            return;
        };
        let Some(exit) = slot.comes_back.take() else { return };
        slot.become_(State::Down, Status::Down);
        self.retry(sequence, exit);
    }

    /// A further attempt; it counts as a restart of its own.
    fn retry(&mut self, sequence: Sequence, exit: Exit) {
        self.schedule(sequence, exit, Duration::ZERO, Moment::AfterFailedStart);
    }

    /// How long to wait before the next start; none if a budget is used up and the supervisor must give up.
    fn decide(&mut self, sequence: Sequence, exit: &Exit) -> Option<Duration> {
        let now = Instant::now();
        if !self.window.as_mut().is_none_or(|window| window.allows(now)) {
            return None;
        }
        let slot = self.slots.get_mut(&sequence)?;
        let degraded = slot.node.data().degraded;
        let within = !degraded && slot.window.as_mut().is_none_or(|window| window.allows(now));
        if within {
            slot.attempt = slot.attempt.saturating_add(1);
            return Some(slot.spec.backoff.delay(slot.attempt, fastrand::f64()));
        }
        match slot.spec.on_give_up {
            OnGiveUp::Escalate => None,
            OnGiveUp::Degrade { retry } => {
                if !degraded {
                    self.degrade(sequence, exit);
                }
                Some(retry.mul_f64(1.0 - 0.5 * fastrand::f64()))
            }
        }
    }

    fn degrade(&mut self, sequence: Sequence, exit: &Exit) {
        let Some(slot) = self.slots.get(&sequence) else { return };
        slot.node.data().degraded = true;
        let identity = &slot.node.identity;
        let message = format!("its restart budget is used up: it {exit}");
        let incident = noted(&slot.node, "degrade", message);
        slot.node.data().on_record(incident);
        DEGRADED.set(1.0, identity.as_child());
        tracing::error!(path = %identity.path, "child degraded: its restart budget is used up");
        self.emit(sequence, EventKind::Degraded);
    }

    /// A degraded child ran well for long enough, if it is still the same incarnation.
    pub(super) fn recovered(&mut self, sequence: Sequence, incarnation: u64) {
        let Some(slot) = self.slots.get_mut(&sequence).filter(|slot| slot.incarnation() == incarnation) else { return };
        slot.attempt = 0;
        if let Some(window) = &mut slot.window {
            window.clear();
        }
        slot.node.data().degraded = false;
        let identity = &slot.node.identity;
        not_degraded(identity);
        tracing::info!(path = %identity.path, "degraded child recovered");
        self.emit(sequence, EventKind::Recovered);
    }

    fn note_restart(&mut self, sequence: Sequence, exit: Exit, uptime: Duration, delay: Duration) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        let identity = &slot.node.identity;
        let Child { component, actor } = identity.as_child();
        RESTARTS.add(1, Restarted { component, actor, cause: exit.word() });
        let incarnation = slot.incarnation();
        if let Some(suppressed) = self.log_limit.admit() {
            let path = &identity.path;
            tracing::warn!(%path, incarnation, %exit, ?delay, suppressed, "child failed and is started again");
        }
        let mut data = slot.node.data();
        data.restarts += 1;
        let how = if data.degraded { "degraded, and tried again" } else { "started again" };
        data.outcome_so_far(|| format!("it is {how} in {} ms", delay.as_millis()));
        data.failed(exit, uptime, Some(delay));
        drop(data);
        slot.unavailable(Ok(Instant::now() + delay.min(FAR)));
        self.emit(sequence, EventKind::RestartScheduled { delay });
    }

    /// The steps that bring a child back, and with it those the strategy names.
    fn restart_steps(&mut self, culprit: Sequence, delay: Duration, moment: Moment) -> Vec<Step> {
        let pause = Step::Pause(culprit, delay);
        match moment {
            _ if !self.is_group() => vec![pause, Step::Start(culprit)],
            Moment::AfterFailedStart => vec![pause, Step::Group(culprit)],
            Moment::AfterExit => {
                let (stops, starts) = self.group_steps(culprit);
                stops.into_iter().chain([pause]).chain(starts).collect()
            }
        }
    }

    /// The stops and the starts of all that share the fate of a child, as of now.
    pub(super) fn group_steps(&self, culprit: Sequence) -> (Vec<Step>, Vec<Step>) {
        let group = self.group_of(culprit);
        let stops = self.stop_steps(group.iter().rev().filter(|sequence| **sequence != culprit).copied());
        let is_started = |sequence: &Sequence| *sequence == culprit || self.takes_part(*sequence);
        (stops, group.into_iter().filter(is_started).map(Step::Start).collect())
    }

    /// A child, and those that its strategy restarts with it.
    pub(super) fn group_of(&self, culprit: Sequence) -> Vec<Sequence> {
        match self.spec.strategy {
            Strategy::OneForOne | Strategy::Dynamic { .. } => vec![culprit],
            Strategy::RestForOne => self.slots.range(culprit..).map(|(sequence, _)| *sequence).collect(),
            Strategy::OneForAll => self.slots.keys().copied().collect(),
        }
    }

    /// Whether a child is started with its group. A temporary one never is.
    pub(super) fn takes_part(&self, sequence: Sequence) -> bool {
        let Some(slot) = self.slots.get(&sequence) else { return false };
        let is_resting = || matches!(slot.node.data().status, Status::Finished | Status::StoppedByHand);
        slot.spec.restart != Restart::Temporary && (self.spec.group_restart == GroupRestart::All || !is_resting())
    }

    /// The budget is used up: the supervisor ends with all its children, and says because of whom.
    pub(super) fn give_up(&mut self, sequence: Sequence, exit: Exit) {
        let Some(slot) = self.slots.get(&sequence) else { return };
        let (child, incarnation) = (slot.path().clone(), slot.incarnation());
        ESCALATIONS.add(1, slot.node.identity.as_component());
        let path = self.context.path().clone();
        tracing::error!(%path, %child, incarnation, %exit, "supervisor gives up");
        // On record as the supervisor's own failure: what becomes of that is decided further up.
        let own = self.context.node();
        let incident = noted(own, "escalate", format!("gave up on {child}, which {exit}"));
        slot.node.data().outcome(|| format!("its supervisor gave up, see incident {incident}"));
        let mut data = own.data();
        data.on_record(incident);
        if path.is_root() {
            data.outcome(|| "the whole tree ended".to_owned());
        }
        drop(data);
        let kind = EventKind::GaveUp { child: child.clone(), exit: exit.clone() };
        self.context.tree().emit(crate::Event { path, incarnation: self.context.incarnation(), kind });
        self.end(match self.spec.give_up_as {
            GiveUpAs::Failure => Exit::GaveUp { path: child, cause: Box::new(exit) },
            GiveUpAs::Shutdown => Exit::Shutdown,
        });
    }

    /// A significant child ended for good.
    fn check_auto_shutdown(&mut self) {
        let ends = match self.spec.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => !self
                .slots
                .values()
                .any(|slot| slot.spec.significant && !matches!(slot.state, State::Down | State::Leaked)),
        };
        if ends && self.started.is_some() {
            // Not before it has started: its starter would take that for a failure.
            self.ends_after_boot = true;
        } else if ends {
            self.end(Exit::Shutdown);
        }
    }

    /// Takes a child out of a restart in progress, so that an operator's wish comes first. The others of its group stay
    /// as they are.
    pub(super) fn leave_restart(&mut self, sequence: Sequence) {
        let plan: Option<PlanId> = self.slots.get(&sequence).and_then(|slot| slot.plan);
        if let Some(id) = plan {
            self.abandon(id, OperationError::Superseded);
        }
    }
}

/// Keeps a record that somebody failed once too often.
fn noted(node: &Node, policy: &'static str, message: String) -> IncidentId {
    let identity = &node.identity;
    incidents::note(Noted {
        kind: "gave_up",
        component: identity.component(),
        actor: &identity.label,
        policy,
        incarnation: node.data().incarnation,
        message,
        detail: vec![("path".to_owned(), identity.path.to_string())],
    })
}

/// When the steps of a restart are drawn up.
#[derive(Clone, Copy)]
enum Moment {
    /// Those that share its fate stop at once, and wait with it.
    AfterExit,
    /// What is up again stays up until the next attempt.
    AfterFailedStart,
}
