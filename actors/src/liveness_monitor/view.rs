//! Who beats, who is late, who hangs: the heartbeats of the whole tree as one picture.
//!
//! The picture is computed when somebody asks, from the registry of heartbeats itself. So `/admin/liveness` and
//! `/healthz` tell the truth even while the liveness monitor is the one that hangs.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use supervision::{BeatState, Busy, HeartbeatSnapshot, Heartbeats, STALE_AFTER_INTERVALS};

use crate::model::Millis;

/// The state of a loop or of a whole subsystem, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It ticks.
    Beating,
    /// It does work that is known to take long.
    Protected,
    /// It has not ticked yet, and need not have.
    Starting,
    /// Its incarnation is gone and the next one has not registered yet.
    Waiting,
    /// No tick for twice its interval: late, shown, counted, alerted on.
    Stale,
    /// No tick, or one message in hand, for so long that only a restart of the process may help.
    Wedged,
}

impl State {
    /// The name, as in the JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beating => "beating",
            Self::Protected => "protected",
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Stale => "stale",
            Self::Wedged => "wedged",
        }
    }
}

/// One loop.
#[derive(Debug, Clone, Serialize)]
pub struct Loop {
    /// The child it belongs to, in dots: `scheduler.claimer`.
    pub path: String,
    /// Its name within the child.
    pub name: &'static str,
    /// How often it promises to tick.
    pub interval_ms: u64,
    /// RFC 3339; absent before the first tick.
    pub last_tick_at: Option<String>,
    /// Since the last tick, or since it was registered.
    pub seconds_ago: f64,
    /// RFC 3339: when its actor last finished a message. That proves nothing, so it is kept apart.
    pub last_message_at: Option<String>,
    /// The message in hand, if there is one.
    pub busy: Option<Busy>,
    /// The verdict.
    pub state: State,
}

/// One direct child of the root; it stands as its worst loop does.
#[derive(Debug, Clone, Serialize)]
pub struct Subsystem {
    /// Its name in the tree.
    pub name: String,
    /// RFC 3339; the last tick of its worst loop.
    pub last_tick_at: Option<String>,
    /// Since the last tick of its worst loop; absent while it has no loop.
    pub seconds_ago: Option<f64>,
    /// The state of its worst loop; `waiting` while it has none.
    pub state: State,
    /// All its loops.
    pub loops: Vec<Loop>,
}

/// The whole picture.
#[derive(Debug, Clone, Serialize)]
pub struct Liveness {
    /// The worst state of all.
    pub state: State,
    /// By name.
    pub subsystems: Vec<Subsystem>,
}

/// Where the picture is taken from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LivenessView {
    heartbeats: Heartbeats,
    wedged_after: Duration,
    expected: Vec<String>,
}

impl LivenessView {
    /// A loop without a tick for `wedged_after` is wedged, unless it promised to tick even more rarely. The subsystems
    /// in `expected` are shown even while they have no loop.
    pub fn new<N: Into<String>>(
        heartbeats: Heartbeats,
        wedged_after: Duration,
        expected: impl IntoIterator<Item = N>,
    ) -> Self {
        Self { heartbeats, wedged_after, expected: expected.into_iter().map(Into::into).collect() }
    }

    /// The picture as of now.
    #[must_use]
    pub fn snapshot(&self) -> Liveness {
        let mut by_name: BTreeMap<String, Vec<Loop>> =
            self.expected.iter().map(|name| (name.clone(), Vec::new())).collect();
        for beat in self.heartbeats.snapshot() {
            let name = beat.path.component().to_owned();
            by_name.entry(name).or_default().push(self.judge(beat));
        }
        let subsystems: Vec<_> = by_name.into_iter().map(|(name, loops)| subsystem(name, loops)).collect();
        let state = subsystems.iter().map(|part| part.state).max().unwrap_or(State::Beating);
        Liveness { state, subsystems }
    }

    /// After how long without a sign of life only a restart of the process may help.
    pub fn wedged_after(&self) -> Duration {
        self.wedged_after
    }

    /// The children whose callback has kept its thread for `limit` at least, each with for how long: nothing in the process
    /// can end it.
    pub fn not_yielding(&self, limit: Duration) -> Vec<String> {
        let found = self.heartbeats.not_yielding().into_iter();
        let long = found.filter(|child| Duration::from_millis(child.for_ms) >= limit);
        long.map(|child| format!("{} has not yielded for {} ms", child.path, child.for_ms)).collect()
    }

    fn judge(&self, beat: HeartbeatSnapshot) -> Loop {
        let state = self.state(&beat);
        Loop {
            path: beat.path.to_string(),
            name: beat.loop_name,
            interval_ms: beat.interval_ms,
            last_tick_at: rfc3339(beat.last_tick_at_ms),
            seconds_ago: beat.seconds_ago,
            last_message_at: rfc3339(beat.last_message_at_ms),
            busy: beat.busy,
            state,
        }
    }

    fn state(&self, beat: &HeartbeatSnapshot) -> State {
        let stale_after = Duration::from_millis(beat.interval_ms) * STALE_AFTER_INTERVALS;
        let limit = self.wedged_after.max(stale_after);
        let hangs = |busy: &Busy| Duration::from_millis(busy.for_ms) >= limit;
        match beat.state {
            BeatState::Waiting => State::Waiting,
            BeatState::Protected => State::Protected,
            _ if beat.seconds_ago >= limit.as_secs_f64() => State::Wedged,
            _ if beat.busy.as_ref().is_some_and(hangs) => State::Wedged,
            BeatState::Stale => State::Stale,
            BeatState::Starting => State::Starting,
            BeatState::Beating => State::Beating,
        }
    }
}

impl Liveness {
    /// The loops of `subsystems` that are wedged, as `path/loop`. Not empty for a critical subsystem means that
    /// `/healthz` fails.
    #[must_use]
    pub fn wedged(&self, subsystems: &[&str]) -> Vec<String> {
        self.subsystems
            .iter()
            .filter(|part| subsystems.contains(&part.name.as_str()))
            .flat_map(|part| &part.loops)
            .filter(|each| each.state == State::Wedged)
            .map(|each| format!("{}/{}", each.path, each.name))
            .collect()
    }
}

fn subsystem(name: String, loops: Vec<Loop>) -> Subsystem {
    let late = |each: &Loop| each.seconds_ago * 1_000.0 / each.interval_ms.max(1) as f64;
    let worst = loops.iter().max_by(|a, b| a.state.cmp(&b.state).then(late(a).total_cmp(&late(b))));
    Subsystem {
        name,
        last_tick_at: worst.and_then(|worst| worst.last_tick_at.clone()),
        seconds_ago: worst.map(|worst| worst.seconds_ago),
        state: worst.map_or(State::Waiting, |worst| worst.state),
        loops,
    }
}

fn rfc3339(at_ms: Option<Millis>) -> Option<String> {
    at_ms.and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok()).map(|at| at.to_string())
}
