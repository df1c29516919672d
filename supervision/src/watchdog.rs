//! The watchdog: a thread of its own that notices a callback which never yields.
//!
//! Such a callback keeps its worker thread for itself, and nothing in the runtime can end it or be relied on to see it. The
//! thread looks at every child once a round: the same odd number of [polls](Activity::polls) as long ago means that the
//! callback has not given its thread back since. A callback that waits, however long, is not polled and not meant.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::Serialize;
use telemetry::panic::{PANIC_RECOVERED, PanicSite, Policy, Recovery, catch_sync};
// Outside of a runtime this is the real clock.
use tokio::time::Instant;

use crate::{Heartbeats, Path, activity::Activity, door, node::millis};

telemetry::declare_metrics! {
    /// Children whose callback keeps its thread and does not yield.
    pub static NOT_YIELDING: Gauge = ("supervision.not_yielding", "{child}");
    /// Callbacks that were found not to yield.
    pub static FOUND: Counter = ("supervision.not_yielding.found", "{callback}");
}

/// How closely children are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogSettings {
    /// From one round to the next; at least 1 ms. A round looks at one number of each child.
    pub every: Duration,
    /// A callback that keeps its thread for longer is reported, up to two rounds later; at least `every`.
    pub not_yielding_after: Duration,
}

/// A round every 100 ms, a report after 1 s.
impl Default for WatchdogSettings {
    fn default() -> Self {
        Self { every: Duration::from_millis(100), not_yielding_after: Duration::from_secs(1) }
    }
}

/// Why there is no watchdog.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The settings make no sense.
    #[error("a round must take 1 ms at least, and the limit a round")]
    Settings,
    /// These heartbeats have a watchdog already.
    #[error("there is a watchdog already")]
    AlreadyWatched,
    /// There is no thread for it.
    #[error("cannot make a thread: {0}")]
    Thread(#[from] io::Error),
}

/// A child whose callback keeps its thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotYielding {
    /// The child.
    pub path: Path,
    /// The actor's message type; `task` if the child is a task.
    pub message_type: &'static str,
    /// For how long at least, in milliseconds, as of the last round.
    pub for_ms: u64,
}

/// Keeps the watchdog running; see [`Heartbeats::watch`].
#[derive(Debug)]
#[must_use = "the watchdog ends when this is dropped"]
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Ends it and waits for its thread, which takes no longer than one round does.
    pub fn stop(self) {}
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        // Its panics are caught within.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the watchdog shares with those who ask it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    is_on: AtomicBool,
    found: Mutex<Vec<NotYielding>>,
}

impl Watch {
    fn publish(&self, found: Vec<NotYielding>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

impl Heartbeats {
    /// Starts a thread that reports children whose callback keeps its thread for too long: once when it is noticed and once
    /// when it is over, in the log, as a metric and in [`Heartbeats::not_yielding`]. Actors that are
    /// [unmetered](crate::ChildSpec::unmetered) are not seen, nor what a child spawns.
    ///
    /// # Errors
    /// See [`WatchdogError`].
    pub fn watch(&self, settings: WatchdogSettings) -> Result<Watchdog, WatchdogError> {
        if settings.every < Duration::from_millis(1) || settings.not_yielding_after < settings.every {
            return Err(WatchdogError::Settings);
        }
        if self.the_watch().is_on.swap(true, AcqRel) {
            return Err(WatchdogError::AlreadyWatched);
        }
        FOUND.born(());
        PANIC_RECOVERED.born(Recovery { component: "watchdog", actor: "watchdog", policy: Policy::KeepRunning });
        NOT_YIELDING.set(0.0, ());
        let (stop, stopped) = mpsc::channel();
        let heartbeats = self.clone();
        let thread = door::spawn_thread("watchdog", move || watch(&heartbeats, settings, &stopped))
            .inspect_err(|_| self.the_watch().is_on.store(false, Release))?;
        Ok(Watchdog { stop: Some(stop), thread: Some(thread) })
    }

    /// The children whose callback does not yield, as of the watchdog's last round; none without a watchdog.
    pub fn not_yielding(&self) -> Vec<NotYielding> {
        self.the_watch().found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The watchdog's life, until the other end of `stopped` is dropped.
fn watch(heartbeats: &Heartbeats, settings: WatchdogSettings, stopped: &Receiver<()>) {
    let mut rounds = Rounds { settings, suspects: Vec::new(), last: Instant::now() };
    while stopped.recv_timeout(settings.every) == Err(RecvTimeoutError::Timeout) {
        // The subscriber that gets the log lines is foreign code.
        let round = catch_sync(|| {
            let findings = rounds.next(Instant::now(), heartbeats.polled());
            let found = rounds.reported();
            NOT_YIELDING.set(found.len() as f64, ());
            heartbeats.the_watch().publish(found);
            findings.iter().for_each(Finding::report);
        });
        if let Err(captured) = round {
            let incident = telemetry::panic::record(site(), captured);
            telemetry::incidents::amend(incident, "this round was given up, the next one comes");
        }
    }
    heartbeats.the_watch().publish(Vec::new());
    NOT_YIELDING.set(0.0, ());
    heartbeats.the_watch().is_on.store(false, Release);
}

/// What is known from one round to the next.
struct Rounds {
    settings: WatchdogSettings,
    /// Callbacks that had their thread in the last round: no more than there are threads.
    suspects: Vec<Suspect>,
    last: Instant,
}

struct Suspect {
    path: Path,
    activity: Arc<Activity>,
    /// What its activity said when it was first seen.
    polls: u64,
    since: Instant,
    is_reported: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Began(NotYielding),
    Over(NotYielding),
}

impl Rounds {
    /// One round: what is new. `polled` are the children whose callback has its thread now.
    fn next(&mut self, now: Instant, polled: Vec<(Path, Arc<Activity>)>) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.suspects.retain(|suspect| {
            let goes_on = suspect.activity.polls() == suspect.polls;
            if !goes_on && suspect.is_reported {
                findings.push(Finding::Over(suspect.as_of(now)));
            }
            goes_on
        });
        // After a standstill of the whole process nothing is known of the time between.
        let stood_still = now.saturating_duration_since(self.last)
            > self.settings.every.saturating_add(self.settings.not_yielding_after);
        for suspect in self.suspects.iter_mut().filter(|suspect| !suspect.is_reported) {
            if stood_still {
                suspect.since = now;
            } else if now.saturating_duration_since(suspect.since) >= self.settings.not_yielding_after {
                suspect.is_reported = true;
                findings.push(Finding::Began(suspect.as_of(now)));
            }
        }
        for (path, activity) in polled {
            let polls = activity.polls();
            let is_known = self.suspects.iter().any(|suspect| Arc::ptr_eq(&suspect.activity, &activity));
            if polls % 2 == 1 && !is_known {
                self.suspects.push(Suspect { path, activity, polls, since: now, is_reported: false });
            }
        }
        self.last = now;
        findings
    }

    fn reported(&self) -> Vec<NotYielding> {
        let mut found: Vec<_> =
            self.suspects.iter().filter(|it| it.is_reported).map(|it| it.as_of(self.last)).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }
}

impl Suspect {
    fn as_of(&self, now: Instant) -> NotYielding {
        let for_ms = millis(now.saturating_duration_since(self.since));
        NotYielding { path: self.path.clone(), message_type: self.activity.message_type(), for_ms }
    }
}

impl Finding {
    fn report(&self) {
        match self {
            Self::Began(NotYielding { path, message_type, for_ms }) => {
                FOUND.add(1, ());
                tracing::error!(%path, message_type, for_ms, "callback does not yield: it keeps its thread");
            }
            Self::Over(NotYielding { path, message_type, for_ms }) => {
                tracing::warn!(%path, message_type, for_ms, "callback has yielded at last");
            }
        }
    }
}

fn site() -> PanicSite<'static> {
    PanicSite {
        component: "watchdog",
        actor: "watchdog",
        policy: Policy::KeepRunning,
        phase: "round",
        message_type: None,
        incarnation: 1,
        tenant: None,
        detail: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(100);

    type Polled = Vec<(Path, Arc<Activity>)>;

    /// Rounds with a limit of one second, and a child in the middle of a poll.
    fn a_poll() -> (Rounds, Instant, Arc<Activity>, Polled) {
        let now = Instant::now();
        let activity = Arc::new(Activity::new(now, "Msg", None));
        activity.polling();
        let rounds = Rounds { settings: WatchdogSettings::default(), suspects: Vec::new(), last: now };
        (rounds, now, activity.clone(), vec![(Path::from("a"), activity)])
    }

    #[test]
    fn one_long_poll_is_reported_once_and_its_end_once() {
        let (mut rounds, start, activity, polled) = a_poll();
        let of = |for_ms| NotYielding { path: Path::from("a"), message_type: "Msg", for_ms };
        for round in 0..10 {
            assert_eq!(rounds.next(start + round * ROUND, polled.clone()), []);
        }
        assert_eq!(rounds.next(start + 10 * ROUND, polled.clone()), [Finding::Began(of(1000))]);
        assert_eq!(rounds.next(start + 11 * ROUND, polled.clone()), []);
        assert_eq!(rounds.reported(), [of(1100)]);
        activity.yielded();
        assert_eq!(rounds.next(start + 12 * ROUND, Vec::new()), [Finding::Over(of(1200))]);
        assert_eq!((rounds.next(start + 13 * ROUND, Vec::new()), rounds.reported()), (vec![], vec![]));
    }

    #[test]
    fn many_short_polls_are_never_reported() {
        let (mut rounds, start, activity, polled) = a_poll();
        for round in 0..100 {
            assert_eq!(rounds.next(start + round * ROUND, polled.clone()), []);
            activity.yielded();
            activity.polling();
        }
    }

    #[test]
    fn a_standstill_of_the_whole_process_is_no_callbacks_fault() {
        let (mut rounds, start, _, polled) = a_poll();
        rounds.next(start, polled.clone());
        let woken = start + Duration::from_secs(3600);
        assert_eq!(rounds.next(woken, polled.clone()), []);
        assert_eq!(rounds.next(woken + 9 * ROUND, polled.clone()), []);
        assert_eq!(rounds.next(woken + 10 * ROUND, polled).len(), 1);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_and_a_second_watchdog_too() {
        let heartbeats = Heartbeats::new();
        let settings = WatchdogSettings::default();
        let refused = heartbeats.watch(WatchdogSettings { every: Duration::ZERO, ..settings });
        assert!(matches!(refused, Err(WatchdogError::Settings)));
        let refused = heartbeats.watch(WatchdogSettings { not_yielding_after: Duration::from_millis(99), ..settings });
        assert!(matches!(refused, Err(WatchdogError::Settings)));
        let watchdog = heartbeats.watch(settings).unwrap();
        assert!(matches!(heartbeats.watch(settings), Err(WatchdogError::AlreadyWatched)));
        watchdog.stop();
        heartbeats.watch(settings).unwrap().stop();
    }
}
