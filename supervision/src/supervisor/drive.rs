//! The loop.

use std::future::poll_fn;

use futures_util::StreamExt;

use super::{
    StopRequest,
    plan::{Goal, Step},
    slot::State,
    state::{Deferred, Supervisor, Timer},
};
use crate::{Exit, LossReason, process::Ended};

impl Supervisor {
    /// Starts the children, then lives until all of them are stopped. Its handlers do not wait, so that between any two
    /// inputs the state is whole.
    pub(super) async fn run(&mut self) {
        if self.started.is_some() && self.ending.is_none() {
            let steps: Vec<Step> = match self.spec.strategy {
                crate::Strategy::Dynamic { .. } => Vec::new(),
                _ => self.slots.keys().copied().map(Step::Start).collect(),
            };
            self.begin(Goal::Boot, steps);
        }
        let heartbeats = self.context.heartbeats().clone();
        while !self.done {
            // A stop wins over all else; operations over the churn of a child that fails again and again.
            tokio::select! {
                biased;
                request = stop_request(&mut self.inputs.stop, self.stop_heard) => self.stop_asked(request),
                () = self.inputs.drill.given(), if self.ending.is_none() => {
                    self.inputs.drill.carry_out(self.context.path()).await;
                }
                Some(request) = self.inputs.operations.recv() => self.operate(request),
                Some((sequence, incarnation, ended)) = self.ends.next(), if !self.ends.is_empty() => {
                    self.child_ended(sequence, incarnation, ended);
                }
                Some(done) = self.inputs.starts.recv() => self.start_done(done),
                Some(timer) = poll_fn(|cx| self.timers.poll_expired(cx)), if !self.timers.is_empty() => {
                    self.timer_fired(timer.into_inner());
                }
                () = heartbeats.until_watched(), if self.must_begin_to_look() => self.look(),
                // Last of all: a retry comes after whatever else there is to do.
                () = std::future::ready(()), if !self.retries.is_empty() && !self.is_at_work() => self.take_retry(),
            }
            self.take_deferred();
        }
    }

    fn take_retry(&mut self) {
        if let Some(sequence) = self.retries.pop_front() {
            self.retry_now(sequence);
        }
    }

    fn timer_fired(&mut self, timer: Timer) {
        match timer {
            Timer::Due(sequence) => {
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.timer = None;
                }
                self.pause_over(sequence);
            }
            Timer::StopOverdue(sequence) => {
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.timer = None;
                }
                self.stop_overdue(sequence);
            }
            Timer::StartOverdue(sequence, incarnation) => self.start_overdue(sequence, incarnation),
            Timer::Recovered(sequence, incarnation) => {
                if let Some(slot) = self.slots.get_mut(&sequence) {
                    slot.timer = None;
                }
                self.recovered(sequence, incarnation);
            }
            Timer::Look => self.look(),
        }
    }

    /// Takes up what waited for a plan that is complete now, in the order in which it came.
    fn take_deferred(&mut self) {
        for _ in 0..self.inbox.len() {
            if self.is_at_work() {
                return;
            }
            let Some(deferred) = self.inbox.pop_front() else { return };
            let must_wait = match &deferred {
                Deferred::End(..) | Deferred::Operation(_) if self.ending.is_some() => true,
                Deferred::End(sequence, _) | Deferred::Stuck(sequence) => self.is_busy(*sequence),
                Deferred::Operation(_) => false,
                Deferred::Due(_) | Deferred::Retry(_) | Deferred::Stop(_) => false,
            };
            if must_wait {
                self.inbox.push_back(deferred);
            } else {
                self.take(deferred);
            }
        }
    }

    fn take(&mut self, deferred: Deferred) {
        match deferred {
            Deferred::Operation(request) => self.operate(request),
            Deferred::Stop(request) => self.stop_now(request),
            Deferred::Retry(sequence) => self.retry_now(sequence),
            Deferred::Due(sequence) => {
                let plan = self.slots.get(&sequence).and_then(|slot| self.plans.get(&slot.plan?));
                if plan.is_some_and(|plan| plan.is_paused) {
                    self.pause_over(sequence);
                }
            }
            Deferred::Stuck(sequence) => self.unstick(sequence),
            Deferred::End(sequence, incarnation) => {
                let Some(slot) = self.slots.get_mut(&sequence) else { return };
                // If a plan stopped it meanwhile, its end is consumed.
                if !matches!(slot.state, State::Exited { .. }) || slot.incarnation() != incarnation {
                    return;
                }
                if let State::Exited { exit, uptime } = std::mem::replace(&mut slot.state, State::Down) {
                    self.ended_by_itself(sequence, exit, uptime);
                }
            }
        }
    }

    /// The loop was interrupted: by a panic of its own, or by a kill, which leaves its children no time.
    pub(super) fn interrupt(&mut self, exit: Exit) {
        let killed = exit == Exit::Killed;
        self.ending = None;
        if killed {
            self.stop_deadline = Some(tokio::time::Instant::now());
        }
        self.end(exit);
    }

    /// The stop of the children has failed as well: kill what can be killed.
    pub(super) fn abandon_children(&mut self) {
        for slot in self.slots.values_mut().rev().filter(|slot| slot.is_alive()) {
            slot.cancel();
            if let Some(process) = &slot.process {
                process.kill();
            }
            slot.unavailable(Err(LossReason::Failed));
            tracing::error!(path = %slot.node.identity.path, "child abandoned: its supervisor failed twice");
            self.report.push(crate::ChildStop {
                path: slot.node.identity.path.clone(),
                outcome: crate::StopOutcome::Leaked,
                took: std::time::Duration::ZERO,
                budget: slot.spec.shutdown,
            });
        }
    }

    pub(super) fn into_ended(self) -> Ended {
        for deferred in self.inbox {
            if let Deferred::Operation(request) = deferred {
                let _ = request.reply.send(Err(crate::OperationError::Stopping));
            }
        }
        Ended {
            exit: self.ending.unwrap_or(Exit::Shutdown),
            below: self.report,
            stop_took: self.ending_since.map(|since| since.elapsed()).unwrap_or_default(),
            ignored: false,
            leaked_tasks: Vec::new(),
        }
    }
}

async fn stop_request(stop: &mut tokio::sync::watch::Receiver<Option<StopRequest>>, heard: bool) -> StopRequest {
    if heard && stop.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let request = match stop.wait_for(Option::is_some).await {
        Ok(request) => request.clone(),
        // Its own life holds a handle, so this cannot be.
        Err(_) => None,
    };
    request.unwrap_or(StopRequest { deadline: None, span: tracing::Span::none() })
}
