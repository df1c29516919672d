//! The workers of a scenario, and the log into which they and the supervisors write, so that its order is real.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supervision::{BoxError, ChildContext, Ignore, Orderly};
use tokio::sync::{Notify, oneshot};

use crate::otp::{
    options::{ChildOptions, StartPlan, StartStep, StopManner},
    scenario::{Place, Reason},
};

/// What the children of one scenario share. Cheap to clone.
#[derive(Clone, Default)]
pub struct Stage(Arc<Shared>);

#[derive(Default)]
struct Shared {
    book: Mutex<Book>,
    /// Lets the starts that are held go on.
    gate: Notify,
}

/// What is known of every place.
#[derive(Default)]
struct Book {
    log: Vec<String>,
    places: BTreeMap<Place, Entry>,
    /// Where starts are held.
    held: BTreeSet<Place>,
}

#[derive(Default)]
struct Entry {
    options: ChildOptions,
    attempts: usize,
    incarnation: u64,
    is_up: bool,
    /// How the last incarnation ended, until its supervisor knows.
    ended: Option<Reason>,
    /// Takes the reason for which the running worker is to end by itself.
    order: Option<oneshot::Sender<Reason>>,
}

/// The failure of a worker, in the word of the scenario.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl Stage {
    /// Appends a line to the log.
    pub fn write(&self, line: impl Into<String>) {
        self.book().log.push(line.into());
    }

    /// All lines since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.book().log)
    }

    /// How many lines there are since then.
    pub fn log_length(&self) -> usize {
        self.book().log.len()
    }

    /// Says how the child at `place` is declared, or was added last.
    pub fn declare(&self, place: &Place, options: ChildOptions) {
        self.book().entry(place).options = options;
    }

    /// The options of the child at `place`.
    pub fn options(&self, place: &Place) -> ChildOptions {
        self.book().entry(place).options.clone()
    }

    /// The child at `place` runs: writes it down under the number of its incarnation.
    pub fn started(&self, place: &Place) -> u64 {
        let mut book = self.book();
        let entry = book.entry(place);
        entry.incarnation += 1;
        entry.is_up = true;
        let incarnation = entry.incarnation;
        book.log.push(format!("start {place}#{incarnation} ok"));
        incarnation
    }

    /// The child at `place` is gone: writes it down.
    pub fn ended(&self, place: &Place, reason: Reason) {
        let mut book = self.book();
        let entry = book.entry(place);
        if !std::mem::replace(&mut entry.is_up, false) {
            return;
        }
        entry.order = None;
        let line = format!("exit {place}#{} {reason}", entry.incarnation);
        entry.ended = Some(reason);
        book.log.push(line);
    }

    /// Whether the child at `place` runs.
    pub fn is_up(&self, place: &Place) -> bool {
        self.book().places.get(place).is_some_and(|entry| entry.is_up)
    }

    /// The number of its incarnation, from 1; 0 if it never ran.
    pub fn incarnation(&self, place: &Place) -> u64 {
        self.book().places.get(place).map_or(0, |entry| entry.incarnation)
    }

    /// How the last incarnation at `place` ended, if that is not known yet.
    pub fn take_end(&self, place: &Place) -> Option<Reason> {
        self.book().entry(place).ended.take()
    }

    /// Lets the worker at `place` end by itself, when it is polled next.
    pub fn order(&self, place: &Place, reason: Reason) {
        let order = self.book().entry(place).order.take();
        // It may have ended meanwhile.
        let _ = order.map(|order| order.send(reason));
    }

    /// Whether a start is held.
    pub fn is_held(&self) -> bool {
        !self.book().held.is_empty()
    }

    /// Lets the starts that are held go on.
    pub fn release(&self) {
        self.0.gate.notify_waiters();
    }

    /// One incarnation of the worker at `place`, from the attempt to start it.
    pub async fn live(self, place: Place, options: ChildOptions, context: ChildContext) -> Result<(), BoxError> {
        match self.attempt(&place, &options.start).await {
            StartStep::Fail => {
                self.write(format!("start {place} error"));
                return Err(Failure("fail".to_owned()).into());
            }
            StartStep::Ignore => {
                self.write(format!("start {place} ignore"));
                return Err(Ignore.into());
            }
            _ => {}
        }
        let (mut life, order) = Life::begin(&self, &place);
        context.ready();
        let stop = context.cancelled();
        let reason = tokio::select! {
            biased;
            Ok(reason) = order => reason,
            () = stop.cancelled() => stopped(options.stop).await,
        };
        life.reason = reason.clone();
        end_with(reason)
    }

    /// What the next attempt at `place` comes to; if it is held, then when it is released.
    async fn attempt(&self, place: &Place, plan: &StartPlan) -> StartStep {
        let step = {
            let mut book = self.book();
            let entry = book.entry(place);
            entry.attempts += 1;
            plan.attempt(entry.attempts - 1)
        };
        if step.is_held() {
            let _hold = Hold::begin(self, place);
            self.0.gate.notified().await;
        }
        step.released()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn entry(&mut self, place: &Place) -> &mut Entry {
        self.places.entry(place.clone()).or_default()
    }
}

/// Works towards the end as the child's manner is, and says with which reason it ends.
async fn stopped(manner: StopManner) -> Reason {
    match manner {
        StopManner::Clean => Reason::Shutdown,
        StopManner::Normal => Reason::Normal,
        StopManner::Bad => Reason::Abnormal("bad".to_owned()),
        StopManner::Slow(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Reason::Shutdown
        }
        StopManner::Hang => std::future::pending().await,
    }
}

fn end_with(reason: Reason) -> Result<(), BoxError> {
    match reason {
        Reason::Normal => Err(Orderly::Normal.into()),
        Reason::Shutdown => Err(Orderly::Shutdown.into()),
        Reason::ShutdownWith(word) => Err(Orderly::ShutdownWith(word).into()),
        Reason::Killed => Err(Failure("killed".to_owned()).into()),
        Reason::Abnormal(word) => Err(Failure(word).into()),
    }
}

/// A running incarnation. When it is dropped, which is when its future is, its end is written down.
struct Life {
    stage: Stage,
    place: Place,
    /// Unless it ends by itself, somebody killed it.
    reason: Reason,
}

impl Life {
    fn begin(stage: &Stage, place: &Place) -> (Self, oneshot::Receiver<Reason>) {
        stage.started(place);
        let (sender, receiver) = oneshot::channel();
        stage.book().entry(place).order = Some(sender);
        (Self { stage: stage.clone(), place: place.clone(), reason: Reason::Killed }, receiver)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stage.ended(&self.place, self.reason.clone());
    }
}

/// A start that is held, until it is released or cancelled.
struct Hold {
    stage: Stage,
    place: Place,
}

impl Hold {
    fn begin(stage: &Stage, place: &Place) -> Self {
        stage.book().held.insert(place.clone());
        Self { stage: stage.clone(), place: place.clone() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.stage.book().held.remove(&self.place);
    }
}
