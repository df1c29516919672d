//! How many calls are in flight, in all and to each host, and how each host is doing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::breaker::{Breaker, BreakerSettings, Permit};
use super::error::OutboundError;
use super::settings::OutboundSettings;

/// How many hosts are remembered without a call in flight. Beyond it those are forgotten that do not rest, and if all
/// rest, all of them: a host that is still away is found out again by a few calls.
const IDLE_LINES_MAX: usize = 4_096;

/// Whose limits hold for a call beside the cap on all calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Limits {
    /// Those of its host.
    OfHost,
    /// Those of a key that the caller has chosen.
    OfKey(String),
    /// The caller counts and breaks by itself.
    None,
}

/// The lines to all hosts.
#[derive(Debug)]
pub(super) struct Lines {
    places: Arc<Semaphore>,
    in_line_max: usize,
    place_wait: Duration,
    breaker: BreakerSettings,
    by_key: Mutex<HashMap<String, Arc<Line>>>,
}

/// The line to one host, or of one key.
#[derive(Debug)]
struct Line {
    places: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    under_way: AtomicUsize,
}

/// One call in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    passage: Option<Passage>,
    _places: (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit),
}

/// One call that a breaker has let through, until it is dropped.
#[derive(Debug)]
struct Passage(Arc<Line>);

impl Lines {
    pub(super) fn new(settings: &OutboundSettings) -> Self {
        Self {
            places: semaphore(settings.in_flight_max),
            in_line_max: settings.host_in_flight_max,
            place_wait: settings.place_wait,
            breaker: settings.breaker,
            by_key: Mutex::default(),
        }
    }

    /// Waits for a place, as long as is allowed and no longer than `deadline`. A line that rests refuses at once.
    pub(super) async fn enter(&self, host: &str, limits: &Limits, deadline: Instant) -> Result<Ticket, OutboundError> {
        let line = match limits {
            Limits::OfHost => Some(self.line(host)),
            // No origin begins so.
            Limits::OfKey(key) => Some(self.line(&format!("key {key}"))),
            Limits::None => None,
        };
        let passage = line.clone().map(Passage::enter).transpose();
        let passage = passage.map_err(|rest| OutboundError::Open { host: host.to_owned(), rest })?;
        let places = async {
            // First the narrow place, then the wide one: who waits for its own host stands in nobody's way.
            let own = match &line {
                Some(line) => Some(Arc::clone(&line.places).acquire_owned().await.ok()?),
                None => None,
            };
            Some((own, Arc::clone(&self.places).acquire_owned().await.ok()?))
        };
        match tokio::time::timeout_at(deadline.min(Instant::now() + self.place_wait), places).await {
            Ok(Some(places)) => Ok(Ticket { passage, _places: places }),
            _ => Err(OutboundError::Busy { host: host.to_owned() }),
        }
    }

    fn line(&self, key: &str) -> Arc<Line> {
        let mut lines = lock(&self.by_key);
        if let Some(line) = lines.get(key) {
            return Arc::clone(line);
        }
        if lines.len() >= IDLE_LINES_MAX {
            lines.retain(|_, line| Arc::strong_count(line) > 1 || lock(&line.breaker).is_open());
        }
        if lines.len() >= IDLE_LINES_MAX {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        let line = Arc::new(Line {
            places: semaphore(self.in_line_max),
            breaker: Mutex::new(Breaker::new(self.breaker)),
            under_way: AtomicUsize::new(0),
        });
        lines.insert(key.to_owned(), Arc::clone(&line));
        line
    }
}

impl Passage {
    /// Through the breaker, or how long it still rests: zero while another call is trying the host out.
    fn enter(line: Arc<Line>) -> Result<Self, Duration> {
        let breaker = lock(&line.breaker);
        let rest = match breaker.permit() {
            Permit::All => None,
            Permit::One => (line.under_way.load(Ordering::SeqCst) > 0).then_some(Duration::ZERO),
            Permit::NoneFor(rest) => Some(rest),
        };
        if let Some(rest) = rest {
            return Err(rest);
        }
        // Under the lock, so that two cannot both be the one.
        line.under_way.fetch_add(1, Ordering::SeqCst);
        drop(breaker);
        Ok(Self(line))
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticket {
    /// The host answered as one that is well.
    pub(super) fn succeeded(&self) {
        if let Some(Passage(line)) = &self.passage {
            lock(&line.breaker).succeeded();
        }
    }

    /// The host failed.
    pub(super) fn failed(&self) {
        if let Some(Passage(line)) = &self.passage {
            lock(&line.breaker).failed();
        }
    }
}

fn semaphore(places: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
}

/// Nothing is left half done under these locks, so a panic of a holder spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lines(in_flight_max: usize, host_in_flight_max: usize) -> Lines {
        let breaker = BreakerSettings { failures_max: 2, open_for: SECOND * 10 };
        Lines::new(&OutboundSettings { in_flight_max, host_in_flight_max, breaker, ..OutboundSettings::default() })
    }

    async fn enter(lines: &Lines, host: &str) -> Result<Ticket, OutboundError> {
        lines.enter(host, &Limits::OfHost, Instant::now() + SECOND * 60).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_host_makes_others_wait_for_it_and_for_no_other_host() {
        let lines = lines(10, 1);
        let first = enter(&lines, "a").await.unwrap();
        let other = enter(&lines, "b").await;
        let began = Instant::now();
        assert_eq!(enter(&lines, "a").await.unwrap_err().to_string(), "no free place for a call to a");
        assert_eq!(began.elapsed(), SECOND);
        let (waited, ()) = tokio::join!(enter(&lines, "a"), async {
            tokio::time::sleep(SECOND / 2).await;
            drop(first);
        });
        assert!(waited.is_ok() && other.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_cap_on_all_holds_for_whoever_counts_by_itself_too() {
        let lines = lines(1, 10);
        let _one = lines.enter("a", &Limits::None, Instant::now() + SECOND).await.unwrap();
        let began = Instant::now();
        let late = lines.enter("b", &Limits::None, Instant::now() + SECOND / 10).await;
        assert!(matches!(late, Err(OutboundError::Busy { .. })));
        assert_eq!(began.elapsed(), SECOND / 10, "nobody waits beyond its deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_failed_too_often_rests_and_then_one_call_tries_it_out() {
        let lines = lines(10, 10);
        for _ in 0..2 {
            enter(&lines, "a").await.unwrap().failed();
        }
        let refused = enter(&lines, "a").await.unwrap_err();
        assert!(matches!(refused, OutboundError::Open { rest, .. } if rest == SECOND * 10), "{refused}");
        assert!(enter(&lines, "b").await.is_ok());
        tokio::time::advance(SECOND * 10).await;
        let probe = enter(&lines, "a").await.unwrap();
        let refused = enter(&lines, "a").await.unwrap_err();
        assert!(matches!(refused, OutboundError::Open { rest: Duration::ZERO, .. }), "{refused}");
        drop(probe);
        let probe = enter(&lines, "a").await.unwrap();
        probe.succeeded();
        assert!(enter(&lines, "a").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_has_limits_of_its_own() {
        let lines = lines(10, 1);
        let of_key = |key: &str| Limits::OfKey(key.to_owned());
        let until = Instant::now() + SECOND / 10;
        let _one = lines.enter("a", &of_key("x"), until).await.unwrap();
        assert!(lines.enter("a", &of_key("y"), until).await.is_ok());
        assert!(lines.enter("a", &of_key("x"), until).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_not_remembered_without_end() {
        let lines = lines(10, 10);
        let _held = enter(&lines, "held").await.unwrap();
        for n in 0..IDLE_LINES_MAX * 2 {
            let ticket = enter(&lines, &n.to_string()).await.unwrap();
            ticket.failed();
            ticket.failed();
        }
        let kept = lock(&lines.by_key);
        assert!(kept.len() <= IDLE_LINES_MAX && kept.contains_key("held"), "{}", kept.len());
    }
}
