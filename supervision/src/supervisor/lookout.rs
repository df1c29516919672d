//! Looking for children that are alive but stuck. The root looks after the whole tree; each finding is handed down to the
//! supervisor of the child, which acts on it.

use std::{collections::HashMap, time::Duration};

use telemetry::incidents::{self, Noted};
use tokio::sync::oneshot;

use super::{
    Answer, Operation, Request,
    plan::{Goal, Step},
    slot::State,
    state::{Deferred, Sequence, Supervisor, Timer},
};
use crate::{EventKind, Exit, OnStuck, OperationError, Path, StuckIn, context::Component};

telemetry::declare_metrics! {
    /// Children that were alive but stuck.
    pub static STUCK: Counter<Component> = ("supervisor.stuck", "{child}");
}

/// Nothing is looked at more often, or less, than this.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(1);

/// What the root knows of stuck children.
#[derive(Default)]
pub(super) struct Lookout {
    stuck: HashMap<Path, News>,
    is_looking: bool,
}

/// What the supervisor of a stuck child says to the news; none when it has taken it up.
type News = Option<oneshot::Receiver<Result<Answer, OperationError>>>;

/// True if the supervisor of the child could not be told, or the child was not up yet: it is told again.
fn is_lost(news: &mut News) -> bool {
    let Some(answer) = news else { return false };
    match answer.try_recv() {
        Ok(Ok(_)) => {
            *news = None;
            false
        }
        Err(oneshot::error::TryRecvError::Empty) => false,
        Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => true,
    }
}

impl Supervisor {
    /// True if this is the root and nothing makes it look yet.
    pub(super) fn must_begin_to_look(&self) -> bool {
        self.ending.is_none() && self.lookout.as_ref().is_some_and(|lookout| !lookout.is_looking)
    }

    /// Looks once, and sets the clock for the next time if there is anything to look after.
    pub(super) fn look(&mut self) {
        let Some(lookout) = self.lookout.as_mut().filter(|_| self.ending.is_none()) else { return };
        let seen = self.context.heartbeats().stuck();
        lookout.is_looking = seen.shortest.is_some();
        if let Some(shortest) = seen.shortest {
            self.timers.insert(Timer::Look, (shortest / 2).clamp(*EVERY.start(), *EVERY.end()));
        }
        let over = lookout.stuck.extract_if(|path, _| !seen.stuck.contains_key(path)).map(|(path, _)| (path, None));
        let mut news: Vec<(Path, Option<StuckIn>)> = over.collect();
        for (path, place) in seen.stuck {
            if lookout.stuck.get_mut(&path).is_none_or(is_lost) {
                news.push((path, Some(place)));
            }
        }
        for (path, place) in news {
            let is_stuck = place.is_some();
            let (reply, answer) = oneshot::channel();
            let ids = path.ids().map(str::to_owned).collect();
            self.operate(Request { path: ids, operation: Operation::Stuck(place), reply });
            if let Some(lookout) = self.lookout.as_mut().filter(|_| is_stuck) {
                lookout.stuck.insert(path, Some(answer));
            }
        }
    }

    /// A child of this supervisor is stuck, or goes on.
    ///
    /// # Errors
    /// It is not up.
    pub(super) fn is_stuck(&mut self, sequence: Sequence, place: Option<StuckIn>) -> Result<Answer, OperationError> {
        let Some(slot) = self.slots.get(&sequence).filter(|slot| matches!(slot.state, State::Up { .. })) else {
            return Err(OperationError::NotRunning);
        };
        let (path, rule) = (slot.path().clone(), slot.spec.on_stuck);
        let mut data = slot.node.data();
        if data.stuck.is_some() == place.is_some() {
            return Ok(Answer::Done);
        }
        data.stuck = place.clone();
        let incarnation = data.incarnation;
        if place.is_none() {
            data.outcome(|| "it went on by itself".to_owned());
        }
        drop(data);
        let Some(place) = place else {
            tracing::info!(%path, "a child that was stuck goes on");
            self.emit(sequence, EventKind::Unstuck);
            return Ok(Answer::Done);
        };
        STUCK.add(1, slot.node.identity.as_component());
        tracing::error!(%path, %place, ?rule, "child is stuck");
        let incident = incidents::note(Noted {
            kind: "stuck",
            component: slot.node.identity.component(),
            actor: &slot.node.identity.label,
            policy: if rule == OnStuck::Restart { "restart" } else { "none" },
            incarnation,
            message: format!("stuck in {place}"),
            detail: vec![("path".to_owned(), path.to_string())],
        });
        let mut data = slot.node.data();
        data.on_record(incident);
        data.outcome_so_far(|| match rule {
            OnStuck::Report => "it is left alone".to_owned(),
            OnStuck::Restart => "it is asked to stop, to be started again".to_owned(),
        });
        drop(data);
        self.emit(sequence, EventKind::Stuck { place });
        if rule == OnStuck::Restart {
            self.inbox.push_back(Deferred::Stuck(sequence));
        }
        Ok(Answer::Done)
    }

    /// Stops a child that is still stuck, to start it again.
    pub(super) fn unstick(&mut self, sequence: Sequence) {
        let Some(slot) = self.slots.get(&sequence) else { return };
        let State::Up { since } = slot.state else { return };
        let Some(place) = slot.node.data().stuck.clone() else { return };
        let goal = Goal::Unstick { sequence, exit: Exit::Stuck(place), uptime: since.elapsed() };
        self.begin(goal, [Step::Stop(sequence)]);
    }
}
