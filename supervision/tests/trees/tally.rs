//! Counts what the events say, to be compared with what the tree says of itself; and keeps an eye on the budgets.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use supervision::{Event, EventKind, Exit, Intensity, NodeSnapshot, Restart};
use tokio::time::Instant;

use super::case::{Case, Pace};

/// Events kept to be shown.
const LOG_MAX: usize = 60;

/// Restarts that any tally of this process has seen.
pub static RESTARTS_SEEN: AtomicU64 = AtomicU64::new(0);

pub struct Tally {
    case: Case,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, Counts>,
    /// The restarts of a supervisor's children, since it started itself.
    restarts: BTreeMap<String, Vec<(Instant, String)>>,
    log: VecDeque<String>,
    faults: Vec<String>,
    root_gave_up: bool,
    has_given_up: bool,
}

#[derive(Default)]
struct Counts {
    incarnation: u64,
    restarts: u64,
    failures: BTreeMap<&'static str, u64>,
    /// An end that becomes a failure if a restart, or giving up, follows.
    pending: Option<&'static str>,
    is_stuck: bool,
}

impl Tally {
    pub fn new(case: &Case) -> Arc<Self> {
        Arc::new(Self { case: case.clone(), seen: Mutex::default() })
    }

    pub fn observe(&self, event: &Event) {
        let (path, now) = (event.path.as_str(), Instant::now());
        let mut seen = self.seen();
        if seen.log.len() == LOG_MAX {
            seen.log.pop_front();
        }
        seen.log.push_back(format!("{}#{} {:?}", event.path, event.incarnation, event.kind));
        match &event.kind {
            EventKind::Started { .. } => self.begins(&mut seen, path, event.incarnation),
            EventKind::StartFailed { exit, .. } => {
                self.begins(&mut seen, path, event.incarnation);
                seen.ended(path);
                seen.counts(path).pending = Some(exit.cause());
            }
            EventKind::Exited { exit } => {
                seen.ended(path);
                seen.counts(path).exited(exit);
            }
            EventKind::Stopped { .. } => {
                seen.ended(path);
                let counts = seen.counts(path);
                counts.pending = std::mem::take(&mut counts.is_stuck).then_some("stuck");
            }
            EventKind::Stuck { .. } => seen.counts(path).is_stuck = true,
            EventKind::Unstuck => seen.counts(path).is_stuck = false,
            EventKind::RestartScheduled { .. } => {
                RESTARTS_SEEN.fetch_add(1, Relaxed);
                seen.counts(path).restarts += 1;
                seen.counts(path).settle();
                self.restart(&mut seen, path, now);
            }
            EventKind::GaveUp { child, .. } => {
                seen.root_gave_up |= event.path.is_root();
                seen.has_given_up = true;
                seen.counts(child.as_str()).settle();
                self.gave_up(&mut seen, path, child.as_str(), now);
            }
            EventKind::Ignored | EventKind::Degraded | EventKind::Recovered | EventKind::LeakEnded => {}
        }
    }

    pub fn root_gave_up(&self) -> bool {
        self.seen().root_gave_up
    }

    /// Whether any supervisor gave up: during a boot, that fails the start of those above it.
    pub fn has_given_up(&self) -> bool {
        self.seen().has_given_up
    }

    pub fn faults(&self) -> Vec<String> {
        self.seen().faults.clone()
    }

    /// The latest events.
    pub fn log(&self) -> Vec<String> {
        self.seen().log.iter().cloned().collect()
    }

    /// Where a node's own counters differ from what was seen of it.
    pub fn differences(&self, snapshot: &NodeSnapshot) -> Vec<String> {
        let mut seen = self.seen();
        // A child that was forgotten and is declared anew has nothing to remember, also if its start was cut short.
        let is_new = |node: &NodeSnapshot| node.incarnation <= 1 && self.may_be_forgotten(node.path.as_str());
        let nodes = snapshot.walk().into_iter().filter(|node| !node.path.is_root() && !is_new(node));
        let differs = nodes.filter_map(|node| {
            let counts = seen.counts(node.path.as_str());
            let same = (node.restarts, &node.failures) == (counts.restarts, &counts.failures);
            let said = format!("{} restarts, {:?}", node.restarts, node.failures);
            (!same).then(|| format!("{}: says {said}, seen {} and {:?}", node.path, counts.restarts, counts.failures))
        });
        differs.collect()
    }

    /// Incarnations count up, but for those of a child that was forgotten and is declared anew.
    fn begins(&self, seen: &mut Seen, path: &str, incarnation: u64) {
        let before = seen.counts(path).incarnation;
        let starts_over = before > 0 && incarnation <= before;
        if starts_over && self.may_be_forgotten(path) {
            seen.counts.remove(path);
        } else if incarnation <= before {
            seen.faults.push(format!("{path}: incarnation {incarnation} came after {before}"));
        }
        seen.counts(path).incarnation = incarnation;
    }

    fn may_be_forgotten(&self, path: &str) -> bool {
        let number = self.case.at(path).map_or(0, |node| node.number);
        let deleted = |above: usize| self.case.deletes(above);
        self.case
            .lineage(number)
            .into_iter()
            .any(|above| deleted(above) || self.case.node(above).is_some_and(|node| node.restart == Restart::Temporary))
    }

    fn restart(&self, seen: &mut Seen, path: &str, now: Instant) {
        let (Some(limit), parent) = (self.shared_limit(path), parent_of(path)) else { return };
        seen.restarts.entry(parent.to_owned()).or_default().push((now, path.to_owned()));
        let within = seen.restarts_within(parent, None, limit.period, now);
        if self.case.pace == Pace::Paused && within > limit.restarts as usize {
            seen.faults.push(format!("{parent}: {within} restarts of its children, though its limit is {limit:?}"));
        }
    }

    fn gave_up(&self, seen: &mut Seen, path: &str, child: &str, now: Instant) {
        let Some(node) = self.case.at(child).filter(|_| self.case.pace == Pace::Paused) else { return };
        let used_up = |limit: &Intensity, of: Option<&str>| {
            seen.restarts_within(path, of, limit.period, now) >= limit.restarts as usize
        };
        let shared = self.case.rules(node.parent).and_then(|rules| rules.intensity);
        let own = node.intensity.filter(|_| node.degrades.is_none());
        if !shared.is_some_and(|limit| used_up(&limit, None)) && !own.is_some_and(|limit| used_up(&limit, Some(child)))
        {
            seen.faults
                .push(format!("{path}: gave up on {child}, whose budgets {own:?} and {shared:?} are not used up"));
        }
    }

    /// What the supervisor of this child allows; as good as no limit if it has none.
    fn shared_limit(&self, path: &str) -> Option<Intensity> {
        let parent = self.case.at(path)?.parent;
        let none = Intensity::new(u32::MAX, Duration::from_secs(60));
        Some(self.case.rules(parent)?.intensity.unwrap_or(none))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn counts(&mut self, path: &str) -> &mut Counts {
        self.counts.entry(path.to_owned()).or_default()
    }

    /// If it was a supervisor, it begins anew with all its budgets.
    fn ended(&mut self, path: &str) {
        self.restarts.remove(path);
    }

    fn restarts_within(&self, parent: &str, of: Option<&str>, period: Duration, now: Instant) -> usize {
        let counts =
            |(at, child): &&(Instant, String)| now.duration_since(*at) <= period && of.is_none_or(|of| of == child);
        self.restarts.get(parent).map_or(0, |restarts| restarts.iter().filter(counts).count())
    }
}

impl Counts {
    /// What is no orderly end is a failure, whatever follows.
    fn exited(&mut self, exit: &Exit) {
        self.pending = Some(exit.cause());
        if !exit.is_orderly() {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if let Some(cause) = self.pending.take() {
            *self.failures.entry(cause).or_default() += 1;
        }
    }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}
