//! What a schedule does about fires that were missed, and about jobs of earlier fires that have not ended; in the words of
//! [Temporal's schedules](https://docs.temporal.io/schedule).
//!
//! All decisions are here, and pure: a backend reads a row, asks [`Schedule::plan`] what is due, reads in its transaction
//! how the schedule stands, asks [`Standing::meet`] what follows, and writes that down.

use std::str::FromStr;

use super::Schedule;
use crate::model::Millis;

/// Fires that one schedule makes up for at most, whatever it wants.
pub const MISFIRE_MAX: u32 = 1_000;
/// How late a fire may be and still count as on time, for a schedule that makes up for none. Quartz's threshold.
pub const ON_TIME_MS: u64 = 60_000;

/// The policies of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// Which missed fires are made up for.
    pub misfire: Misfire,
    /// Those that are older than this are not, in any case; `None` is the scheduler's own setting.
    pub catch_up_window_ms: Option<u64>,
    /// What a fire does while the job of an earlier one has not ended.
    pub overlap: Overlap,
    /// It does not fire before this time.
    pub start_at_ms: Option<Millis>,
    /// It does not fire after this time.
    pub end_at_ms: Option<Millis>,
    /// How many more times it fires. What a tenant asks for itself is not counted, nor is what is skipped.
    pub remaining_fires: Option<u64>,
}

/// Which fires are made up for that were missed while nobody was there to fire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Misfire {
    /// None: only the latest, and only if it is not later than [`ON_TIME_MS`].
    Skip,
    /// The latest.
    #[default]
    Latest,
    /// The latest `max`, oldest first; from 1 to [`MISFIRE_MAX`].
    All {
        /// How many.
        max: u32,
    },
}

impl Misfire {
    /// Its name, as in the HTTP surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Latest => "latest",
            Self::All { .. } => "all",
        }
    }

    /// How many at most, if it says so.
    pub fn max(self) -> Option<u32> {
        match self {
            Self::All { max } => Some(max),
            Self::Skip | Self::Latest => None,
        }
    }

    /// The one of this name. `max` is for `all`, whose default is [`MISFIRE_MAX`].
    ///
    /// # Errors
    /// Which names there are.
    pub fn from_parts(name: &str, max: Option<u32>) -> Result<Self, String> {
        match name {
            "skip" => Ok(Self::Skip),
            "latest" => Ok(Self::Latest),
            "all" => Ok(Self::All { max: max.unwrap_or(MISFIRE_MAX) }),
            _ => Err("must be one of: skip, latest, all".to_owned()),
        }
    }
}

/// What a fire does while the job of an earlier fire of its schedule is not final: it waits, runs, or waits to be tried
/// again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It makes no job.
    #[default]
    Skip,
    /// It makes its job when the other has ended. One fire waits at most: the first that had to.
    BufferOne,
    /// It makes its job all the same.
    Allow,
    /// It cancels all such jobs, for good, and makes its own. Of several fires at once only the last makes one.
    CancelPrevious,
}

impl Overlap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Skip, Self::BufferOne, Self::Allow, Self::CancelPrevious];

    /// Its name, as in the HTTP surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::BufferOne => "buffer_one",
            Self::Allow => "allow",
            Self::CancelPrevious => "cancel_previous",
        }
    }
}

impl FromStr for Overlap {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|overlap| overlap.as_str() == name);
        found.ok_or_else(|| format!("must be one of: {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl Policies {
    /// A fire, unless the schedule has ended by then.
    pub(crate) fn allowed(&self, fire: Option<Millis>) -> Option<Millis> {
        let is_left = self.remaining_fires != Some(0);
        fire.filter(|fire| is_left && self.end_at_ms.is_none_or(|end| *fire <= end))
    }
}

/// What a due schedule is to do. It was thought out before any row was locked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Fires to make now, oldest first.
    pub(crate) fires: Vec<Millis>,
    /// Fires that are not made up for.
    pub(crate) missed: u64,
    /// When it is due next, at once if there was too much to make up for.
    pub(crate) next: Option<Millis>,
}

/// What a plan goes by beside its schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) now: Millis,
    /// The catch-up window of schedules without their own.
    pub(crate) catch_up_window_ms: u64,
    /// Fires to make now, at most and at least one; what is left is due again at once.
    pub(crate) most: usize,
    /// Whether all fires are missed, because the tenant is disabled.
    pub(crate) rests: bool,
}

/// Fires of a past range that are made at once at most.
pub const BACKFILL_MAX: u64 = 1_000;

impl Schedule {
    /// Its fires from a time to another, both included, between its start and its end.
    ///
    /// # Errors
    /// Their number, if it is more than [`BACKFILL_MAX`].
    pub fn fires_between(&self, from_ms: Millis, to_ms: Millis) -> Result<Vec<Millis>, u64> {
        let from = from_ms.max(self.policies.start_at_ms.unwrap_or(Millis::MIN));
        let to = to_ms.min(self.policies.end_at_ms.unwrap_or(Millis::MAX));
        match self.cadence.count(self.anchor_ms, from, to) {
            0 => Ok(Vec::new()),
            count if count > BACKFILL_MAX => Err(count),
            _ => Ok(self.cadence.from(self.anchor_ms, from).take_while(|fire| *fire <= to).collect()),
        }
    }

    /// When it is due next, and its anchor, if it is changed into `new` now.
    pub(crate) fn changed_to(&self, new: &super::NewSchedule, now: Millis) -> (Option<Millis>, Millis) {
        let is_same = self.cadence == new.cadence && self.policies.start_at_ms == new.policies.start_at_ms;
        let next = match self.next_fire_at_ms {
            _ if self.paused_at_ms.is_some() => None,
            _ if !is_same => new.first_fire(now),
            // It may have ended, and go on now.
            None => self.cadence.at_or_after(self.anchor_ms, now.saturating_add(1)),
            due => due,
        };
        let next = new.policies.allowed(next);
        (next, if is_same { self.anchor_ms } else { next.unwrap_or(now) })
    }

    /// What it is to do if it is due.
    pub(crate) fn plan(&self, terms: Terms) -> Plan {
        let Some(due) = self.next_fire_at_ms.filter(|due| *due <= terms.now) else {
            return Plan { next: self.next_fire_at_ms, ..Plan::default() };
        };
        let until = self.policies.end_at_ms.map_or(terms.now, |end| end.min(terms.now));
        let begin = if terms.rests { until.saturating_add(1) } else { self.make_up_from(due, until, terms) };
        let mut fires: Vec<Millis> =
            self.cadence.from(due, begin).take_while(|fire| *fire <= until).take(terms.most.max(1) + 1).collect();
        let more = if fires.len() > terms.most.max(1) { fires.pop() } else { None };
        let next = more.or_else(|| self.cadence.at_or_after(due, terms.now.saturating_add(1)));
        let missed = self.cadence.count(due, due, begin.saturating_sub(1).min(until));
        Plan { fires, missed, next: self.policies.allowed(next) }
    }

    /// Fires from here on are made up for; those from `due` on that lie before are missed.
    fn make_up_from(&self, due: Millis, until: Millis, terms: Terms) -> Millis {
        let Policies { misfire, catch_up_window_ms, .. } = self.policies;
        let window = catch_up_window_ms.unwrap_or(terms.catch_up_window_ms);
        let (window, most) = match misfire {
            Misfire::Skip => (window.min(ON_TIME_MS), 1),
            Misfire::Latest => (window, 1),
            Misfire::All { max } => (window, max),
        };
        let oldest = terms.now.saturating_sub(i64::try_from(window).unwrap_or(i64::MAX)).max(due);
        self.cadence.start_of_last(most.into(), due, oldest, until)
    }
}

/// How a schedule stands, as its row says inside the transaction that fires it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether a job of an earlier fire is not final.
    pub(crate) is_live: bool,
    /// The fire that waits for the end of such a job.
    pub(crate) buffered: Option<Millis>,
    /// How many more times it may fire.
    pub(crate) remaining: Option<u64>,
}

/// What follows from some fires.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// The live jobs of the schedule are cancelled first.
    pub(crate) cancels: bool,
    /// Fires that make a job.
    pub(crate) starts: Vec<Millis>,
    /// The fire that waits from now on.
    pub(crate) buffered: Option<Millis>,
    /// Whether it is one of these fires.
    pub(crate) is_newly_buffered: bool,
    /// How many make none.
    pub(crate) overlapped: u64,
    /// How many more times the schedule may fire.
    pub(crate) remaining: Option<u64>,
}

impl Meeting {
    /// When the schedule is due next, if its plan said `planned`: never once it has fired as often as it may.
    pub(crate) fn next(&self, planned: Option<Millis>) -> Option<Millis> {
        planned.filter(|_| self.remaining != Some(0))
    }
}

impl Standing {
    /// As [`Standing::meet`] for a tenant that may have `room` more jobs: fires beyond that are missed, and so is one that
    /// waited. With their number.
    pub(crate) fn meet_within(mut self, room: usize, fires: &[Millis], overlap: Overlap) -> (Meeting, u64) {
        let starts_buffered = !self.is_live && self.buffered.is_some();
        let is_lost = starts_buffered && room == 0;
        self.buffered = self.buffered.filter(|_| !is_lost);
        let room = room.saturating_sub(usize::from(starts_buffered));
        let (fit, full) = fires.split_at(fires.len().min(room));
        (self.meet(fit, overlap), full.len() as u64 + u64::from(is_lost))
    }

    /// What becomes of `fires`, in their order, under a policy. A buffered fire that need not wait goes first.
    pub(crate) fn meet(self, fires: &[Millis], overlap: Overlap) -> Meeting {
        let of_all = fires.len();
        let mut meeting = Meeting { buffered: self.buffered, remaining: self.remaining, ..Meeting::default() };
        if !self.is_live {
            meeting.starts.extend(meeting.buffered.take());
        }
        // A job that would be cancelled by the next fire of the same moment is not made at all.
        let is_last_only = overlap == Overlap::CancelPrevious;
        let fires = if is_last_only { &fires[fires.len().saturating_sub(1)..] } else { fires };
        for fire in fires {
            if meeting.remaining == Some(0) {
                break;
            }
            let is_live = self.is_live || !meeting.starts.is_empty();
            let counts = match overlap {
                Overlap::Skip if is_live => false,
                Overlap::BufferOne if is_live && meeting.buffered.is_some() => false,
                Overlap::BufferOne if is_live => {
                    (meeting.buffered, meeting.is_newly_buffered) = (Some(*fire), true);
                    true
                }
                Overlap::CancelPrevious => {
                    meeting.cancels = self.is_live;
                    meeting.overlapped += std::mem::replace(&mut meeting.starts, vec![*fire]).len() as u64;
                    true
                }
                Overlap::Allow | Overlap::Skip | Overlap::BufferOne => {
                    meeting.starts.push(*fire);
                    true
                }
            };
            meeting.overlapped += u64::from(!counts);
            meeting.remaining = meeting.remaining.map(|left| left.saturating_sub(u64::from(counts)));
        }
        meeting.overlapped += (of_all - fires.len()) as u64;
        meeting
    }
}

#[cfg(test)]
mod tests;
