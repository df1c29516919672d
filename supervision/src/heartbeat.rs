//! Heartbeats: what a loop proves by beating, and what an actor is doing right now.
//!
//! A loop beats at the *end of useful work*. Answering a query proves nothing, so handled messages are kept apart
//! (`Activity`). Both are plain atomics: a beat is one clock read and one store.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    ops::Bound,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use crate::{Busy, Path, StuckIn, activity::Activity, node::millis, watchdog::Watch};

/// A loop without a tick for this many intervals is stale.
pub const STALE_AFTER_INTERVALS: u32 = 2;

/// Children looked at under one lock.
const SCANNED_AT_ONCE: usize = 1024;

/// Every heartbeat of a tree. Cheap to clone; all clones see the same beats.
#[derive(Clone, Debug)]
pub struct Heartbeats(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    epoch: Instant,
    /// Woken when there is something to look after.
    watched: Notify,
    loops: Mutex<BTreeMap<(Path, &'static str), Arc<Beat>>>,
    actors: Mutex<BTreeMap<Path, Arc<Activity>>>,
    watch: Watch,
}

#[derive(Debug)]
struct Beat {
    epoch: Instant,
    interval: Duration,
    registered: Instant,
    /// Nanoseconds since the epoch, plus one; 0 means never.
    last_tick: AtomicU64,
    /// Nanoseconds since the epoch until which long work is expected.
    protected_until: AtomicU64,
    /// False once the incarnation that registered it is gone.
    alive: AtomicBool,
}

/// One loop's right to beat. Made by [`ChildContext::heartbeat`](crate::ChildContext::heartbeat).
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Beat>);

impl Heartbeat {
    /// The end of useful work: moves `last_tick_at` to now.
    pub fn beat(&self) {
        self.0.last_tick.store(stamp(self.0.epoch).get(), Relaxed);
    }

    /// Marks work that is known to take long: until the guard is dropped, but for `limit` at most, the loop is not
    /// stale.
    #[must_use = "the protection ends when the guard is dropped"]
    pub fn protect(&self, limit: Duration) -> Protected {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let until = nanos_since(self.0.epoch).saturating_add(limit);
        self.0.protected_until.store(until, Relaxed);
        Protected(Arc::clone(&self.0))
    }
}

/// Guard of [`Heartbeat::protect`].
#[derive(Debug)]
pub struct Protected(Arc<Beat>);

impl Drop for Protected {
    fn drop(&mut self) {
        self.0.protected_until.store(0, Relaxed);
    }
}

/// What a look at all loops and actors finds.
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    pub(crate) stuck: BTreeMap<Path, StuckIn>,
    /// The shortest interval that anyone promised; none if there is nothing to look after.
    pub(crate) shortest: Option<Duration>,
}

impl Stuck {
    fn shortest_of(&mut self, interval: Duration) {
        self.shortest = Some(self.shortest.map_or(interval, |shortest| shortest.min(interval)));
    }
}

/// What a loop looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BeatState {
    /// It has not ticked yet, and need not have.
    Starting,
    /// It ticks.
    Beating,
    /// It does work that is known to take long.
    Protected,
    /// No tick for [`STALE_AFTER_INTERVALS`] intervals: alive, but stuck.
    Stale,
    /// Its incarnation is gone; the next one has not registered yet.
    Waiting,
}

/// One loop, as of now.
#[derive(Clone, Debug, Serialize)]
pub struct HeartbeatSnapshot {
    /// The child.
    pub path: Path,
    /// The loop within the child.
    pub loop_name: &'static str,
    /// The declared interval in milliseconds.
    pub interval_ms: u64,
    /// The last tick in milliseconds since the Unix epoch; none before the first.
    pub last_tick_at_ms: Option<i64>,
    /// Seconds since the last tick, or since it was registered.
    pub seconds_ago: f64,
    /// The last message its actor finished, in milliseconds since the Unix epoch.
    pub last_message_at_ms: Option<i64>,
    /// The message in hand, if the child is an actor and busy.
    pub busy: Option<Busy>,
    /// The verdict.
    pub state: BeatState,
}

impl Heartbeats {
    /// An empty registry.
    pub fn new() -> Self {
        let (loops, actors, watch) = (Mutex::default(), Mutex::default(), Watch::default());
        Self(Arc::new(Registry { epoch: Instant::now(), watched: Notify::new(), loops, actors, watch }))
    }

    /// Every loop, sorted by path.
    pub fn snapshot(&self) -> Vec<HeartbeatSnapshot> {
        let actors = lock(&self.0.actors).clone();
        let loops = lock(&self.0.loops);
        loops.iter().map(|((path, name), beat)| beat.snapshot(path, name, actors.get(path))).collect()
    }

    /// True if every loop of each of `paths`, and below it, has ticked within `threshold` (or is younger than that).
    pub fn is_healthy(&self, paths: &[&str], threshold: Duration) -> bool {
        let below = |path: &Path, name: &str| {
            path.as_str().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let loops = lock(&self.0.loops);
        loops
            .iter()
            .filter(|((path, _), _)| paths.iter().any(|name| below(path, name)))
            .all(|(_, beat)| beat.alive.load(Relaxed) && beat.age() <= threshold)
    }

    pub(crate) fn register(&self, path: &Path, name: &'static str, interval: Duration) -> Heartbeat {
        let beat = Arc::new(Beat {
            epoch: self.0.epoch,
            interval,
            registered: Instant::now(),
            last_tick: AtomicU64::new(0),
            protected_until: AtomicU64::new(0),
            alive: AtomicBool::new(true),
        });
        lock(&self.0.loops).insert((path.clone(), name), Arc::clone(&beat));
        self.0.watched.notify_one();
        Heartbeat(beat)
    }

    pub(crate) fn activity(
        &self,
        path: &Path,
        message_type: &'static str,
        message_limit: Option<Duration>,
    ) -> Arc<Activity> {
        let activity = Arc::new(Activity::new(self.0.epoch, message_type, message_limit));
        lock(&self.0.actors).insert(path.clone(), Arc::clone(&activity));
        if message_limit.is_some() {
            self.0.watched.notify_one();
        }
        activity
    }

    /// Resolves when something was registered since it resolved last.
    pub(crate) async fn until_watched(&self) {
        self.0.watched.notified().await;
    }

    /// All children that are stuck now, each with the first place that was found.
    pub(crate) fn stuck(&self) -> Stuck {
        let mut found = Stuck::default();
        for ((path, name), beat) in lock(&self.0.loops).iter() {
            found.shortest_of(beat.interval);
            if beat.state() == BeatState::Stale {
                let for_ms = millis(beat.age());
                found.stuck.entry(path.clone()).or_insert(StuckIn::Loop { name, for_ms });
            }
        }
        for (path, activity) in lock(&self.0.actors).iter() {
            let Some(limit) = activity.message_limit() else { continue };
            found.shortest_of(limit);
            if let Some(busy) = activity.busy().filter(|busy| u128::from(busy.for_ms) > limit.as_millis()) {
                let Busy { message_type, for_ms } = busy;
                found.stuck.entry(path.clone()).or_insert(StuckIn::Message { message_type, for_ms });
            }
        }
        found
    }

    /// The children whose callback is being polled right now. The lock is held for a part of them at a time.
    pub(crate) fn polled(&self) -> Vec<(Path, Arc<Activity>)> {
        let (mut polled, mut after) = (Vec::new(), Bound::Unbounded);
        loop {
            let actors = lock(&self.0.actors);
            let mut last = None;
            for (path, activity) in actors.range((after.clone(), Bound::Unbounded)).take(SCANNED_AT_ONCE) {
                if activity.is_polled() {
                    polled.push((path.clone(), Arc::clone(activity)));
                }
                last = Some(path);
            }
            match last {
                Some(path) => after = Bound::Excluded(path.clone()),
                None => return polled,
            }
        }
    }

    pub(crate) fn the_watch(&self) -> &Watch {
        &self.0.watch
    }

    /// The incarnation at `path` is gone; its loops wait for the next one.
    pub(crate) fn incarnation_ended(&self, path: &Path) {
        lock(&self.0.actors).remove(path);
        for ((owner, _), beat) in lock(&self.0.loops).range((path.clone(), "")..) {
            if owner != path {
                break;
            }
            beat.alive.store(false, Relaxed);
        }
    }

    /// The child at `path` is not coming back, nor is anything below it.
    pub(crate) fn forget(&self, path: &Path) {
        lock(&self.0.actors).remove(path);
        let mut loops = lock(&self.0.loops);
        let own: Vec<_> = loops
            .range((path.clone(), "")..)
            .map(|(key, _)| key.clone())
            .take_while(|(owner, _)| owner == path)
            .collect();
        own.iter().for_each(|key| drop(loops.remove(key)));
        drop(loops);
        self.forget_below(path);
    }

    /// What was below `path` has gone with its incarnation.
    pub(crate) fn forget_below(&self, path: &Path) {
        let below = if path.is_root() { String::new() } else { format!("{path}.") };
        let first = Path::from_below(&below);
        let mut loops = lock(&self.0.loops);
        let keys = loops.range((first.clone(), "")..).map(|(key, _)| key.clone());
        let gone: Vec<_> = keys.take_while(|(owner, _)| owner.as_str().starts_with(&below)).collect();
        gone.iter().for_each(|key| drop(loops.remove(key)));
        let mut actors = lock(&self.0.actors);
        let keys = actors.range(first..).map(|(key, _)| key.clone());
        let gone: Vec<_> = keys.take_while(|owner| owner.as_str().starts_with(&below)).collect();
        gone.iter().for_each(|key| drop(actors.remove(key)));
    }
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self::new()
    }
}

impl Beat {
    fn age(&self) -> Duration {
        instant_of(self.epoch, self.last_tick.load(Relaxed)).unwrap_or(self.registered).elapsed()
    }

    fn state(&self) -> BeatState {
        if !self.alive.load(Relaxed) {
            BeatState::Waiting
        } else if self.protected_until.load(Relaxed) > nanos_since(self.epoch) {
            BeatState::Protected
        } else if self.age() > self.interval.saturating_mul(STALE_AFTER_INTERVALS) {
            BeatState::Stale
        } else if self.last_tick.load(Relaxed) == 0 {
            BeatState::Starting
        } else {
            BeatState::Beating
        }
    }

    fn snapshot(&self, path: &Path, name: &'static str, activity: Option<&Arc<Activity>>) -> HeartbeatSnapshot {
        HeartbeatSnapshot {
            path: path.clone(),
            loop_name: name,
            interval_ms: millis(self.interval),
            last_tick_at_ms: instant_of(self.epoch, self.last_tick.load(Relaxed)).map(unix_millis),
            seconds_ago: self.age().as_secs_f64(),
            last_message_at_ms: activity.and_then(|activity| activity.last_message()).map(unix_millis),
            busy: activity.and_then(|activity| activity.busy()),
            state: self.state(),
        }
    }
}

/// Now, in nanoseconds since the epoch, plus one, because 0 means never. Good for 584 years.
#[inline]
pub(crate) fn stamp(epoch: Instant) -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(nanos_since(epoch))
}

/// The instant of a stamp; none if it is 0.
pub(crate) fn instant_of(epoch: Instant, stamp: u64) -> Option<Instant> {
    Some(epoch + Duration::from_nanos(stamp.checked_sub(1)?))
}

#[inline]
fn nanos_since(epoch: Instant) -> u64 {
    let since = Instant::now().saturating_duration_since(epoch);
    since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
}

/// The wall-clock time of an instant in the past.
pub(crate) fn unix_millis(at: Instant) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_sub(at.elapsed()).as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
