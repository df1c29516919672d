//! When a schedule fires: every so often, or by a cron pattern in a time zone.
//!
//! A cadence is pure: it knows no clock and no store. What a cron pattern does around a change of the clocks is said in
//! [`cron`](super::cron).

use jiff::tz::TimeZone;

use super::cron::CronLine;
use crate::model::Millis;

/// Most frequent cadence, in milliseconds. A schedule is a row and a transaction for each fire.
pub const EVERY_MIN_MS: u64 = 1_000;
/// Least frequent cadence of the plain kind, in milliseconds: 366 days.
pub const EVERY_MAX_MS: u64 = 366 * 24 * 3_600 * 1_000;
/// Longest cron pattern, in bytes.
pub const PATTERN_MAX: usize = 200;

/// When a schedule fires.
#[derive(Debug, Clone, PartialEq)]
pub enum Cadence {
    /// At fixed distances from an anchor. See [`Cadence::every`].
    Every {
        /// The distance.
        every_ms: u64,
    },
    /// By the wall clock of a place. See [`Cadence::cron`].
    Cron(Box<CronLine>),
}

/// Why a cadence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CadenceError {
    /// Too often or too seldom.
    #[error("every {every_ms} ms is outside {EVERY_MIN_MS} to {EVERY_MAX_MS} ms")]
    Every {
        /// What was given.
        every_ms: u64,
    },
    /// Not a cron pattern, or one that two readers would take for two things.
    #[error("not a cron pattern: {pattern:?}: {why}")]
    Pattern {
        /// What was given, at most [`PATTERN_MAX`] bytes of it.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a time zone of the IANA database.
    #[error("not a time zone: {time_zone:?}, expected a name such as \"Europe/Berlin\" or \"UTC\"")]
    TimeZone {
        /// What was given.
        time_zone: String,
    },
    /// A pattern that no date matches, such as the 30th of February.
    #[error("the cron pattern {pattern:?} never fires")]
    Never {
        /// What was given.
        pattern: String,
    },
}

/// The time zone of that name.
///
/// # Errors
/// [`CadenceError::TimeZone`] if the IANA database has none.
pub fn time_zone(name: &str) -> Result<TimeZone, CadenceError> {
    TimeZone::get(name).map_err(|_| CadenceError::TimeZone { time_zone: name.to_owned() })
}

impl Cadence {
    /// Fires at once, and then at this distance.
    ///
    /// # Errors
    /// [`CadenceError::Every`] outside [`EVERY_MIN_MS`] to [`EVERY_MAX_MS`].
    pub fn every(every_ms: u64) -> Result<Self, CadenceError> {
        if !(EVERY_MIN_MS..=EVERY_MAX_MS).contains(&every_ms) {
            return Err(CadenceError::Every { every_ms });
        }
        Ok(Self::Every { every_ms })
    }

    /// Fires by a pattern of 5 fields, or of 6 with seconds in front, or of 7 with the year at the end. One that does not
    /// fire within [`HORIZON_YEARS`](super::cron::HORIZON_YEARS) from now is refused.
    ///
    /// # Errors
    /// [`CadenceError`] names what is wrong.
    pub fn cron(pattern: &str, time_zone: &str, now_ms: Millis) -> Result<Self, CadenceError> {
        let cadence = Self::cron_unchecked(pattern, time_zone)?;
        match cadence.at_or_after(now_ms, now_ms) {
            Some(_) => Ok(cadence),
            None => Err(CadenceError::Never { pattern: pattern.to_owned() }),
        }
    }

    /// A cron cadence that was checked when it was first made.
    pub(crate) fn cron_unchecked(pattern: &str, time_zone: &str) -> Result<Self, CadenceError> {
        Ok(Self::Cron(Box::new(CronLine::parse(pattern, time_zone)?)))
    }

    /// The first fire of a schedule that is made or resumed now, and may not fire before `start_ms`: of the plain kind at
    /// once, of the other the next one. `None` if there never will be one.
    pub fn first(&self, now_ms: Millis, start_ms: Option<Millis>) -> Option<Millis> {
        let start_ms = start_ms.unwrap_or(Millis::MIN);
        match self {
            Self::Every { .. } => Some(now_ms.max(start_ms)),
            Self::Cron(line) => line.at_or_after(now_ms.saturating_add(1).max(start_ms)),
        }
    }

    /// The first fire at or after a time. Fires of the plain kind lie at distances from `anchor_ms`, also before it.
    pub fn at_or_after(&self, anchor_ms: Millis, at_ms: Millis) -> Option<Millis> {
        match self {
            Self::Every { every_ms } => {
                let every = i128::from(*every_ms).max(1);
                let distance = i128::from(at_ms) - i128::from(anchor_ms);
                let steps = distance.div_euclid(every) + i128::from(distance.rem_euclid(every) > 0);
                i64::try_from(i128::from(anchor_ms) + steps * every).ok()
            }
            Self::Cron(line) => line.at_or_after(at_ms),
        }
    }

    /// Fires from a time on, in their order, each within the horizon of the one before.
    pub fn from(&self, anchor_ms: Millis, at_ms: Millis) -> impl Iterator<Item = Millis> + '_ {
        std::iter::successors(self.at_or_after(anchor_ms, at_ms), move |fire| {
            self.at_or_after(anchor_ms, fire.checked_add(1)?)
        })
    }

    /// How many fires there are from a time to another, both included. Costs nothing for each fire, and little for each
    /// day.
    pub fn count(&self, anchor_ms: Millis, from_ms: Millis, to_ms: Millis) -> u64 {
        match self {
            Self::Every { every_ms } => match self.at_or_after(anchor_ms, from_ms) {
                Some(first) if first <= to_ms => to_ms.abs_diff(first) / (*every_ms).max(1) + 1,
                _ => 0,
            },
            Self::Cron(line) => line.count(from_ms, to_ms),
        }
    }

    /// From where on there are `most` fires at most, up to `to_ms` and that included; not before `from_ms`.
    pub fn start_of_last(&self, most: u64, anchor_ms: Millis, from_ms: Millis, to_ms: Millis) -> Millis {
        let fits = |from: Millis| self.count(anchor_ms, from, to_ms) <= most;
        if fits(from_ms) {
            return from_ms;
        }
        // The count falls as the begin comes nearer to the end: bisect.
        let (mut many, mut few) = (from_ms, to_ms.saturating_add(1));
        while few - many > 1 {
            let middle = many + (few - many) / 2;
            if fits(middle) { few = middle } else { many = middle }
        }
        few
    }

    /// The distance in milliseconds, if it is of the plain kind.
    pub fn every_ms(&self) -> Option<u64> {
        match self {
            Self::Every { every_ms } => Some(*every_ms),
            Self::Cron(_) => None,
        }
    }

    /// The pattern and the time zone, if it goes by a wall clock.
    pub fn cron_line(&self) -> Option<(&str, &str)> {
        match self {
            Self::Every { .. } => None,
            Self::Cron(line) => Some(line.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_from_its_anchor_in_both_directions_and_does_not_drift() {
        let cadence = Cadence::every(1_000).unwrap();
        assert_eq!((cadence.first(500, None), cadence.first(500, Some(900))), (Some(500), Some(900)));
        for (at, fire) in [(500, 500), (501, 1_500), (4_499, 4_500), (-1_600, -1_500), (-1_500, -1_500)] {
            assert_eq!(cadence.at_or_after(500, at), Some(fire));
        }
        assert_eq!(cadence.from(500, 501).take(3).collect::<Vec<_>>(), [1_500, 2_500, 3_500]);
        assert_eq!(cadence.at_or_after(500, i64::MAX), None);
    }

    #[test]
    fn fires_are_counted_without_looking_at_each() {
        let cadence = Cadence::every(1_000).unwrap();
        let counted = |from, to| cadence.count(500, from, to);
        assert_eq!([counted(500, 499), counted(500, 500), counted(501, 1_499), counted(500, 4_500)], [0, 1, 0, 5]);
        assert_eq!(counted(500, 500 + 1_000 * 1_000_000_000), 1_000_000_001);
    }

    #[test]
    fn the_last_fires_begin_where_there_are_no_more_than_wanted() {
        let every = Cadence::every(1_000).unwrap();
        let cron = Cadence::cron("* * * * * *", "UTC", 0).unwrap();
        for cadence in [every, cron] {
            for most in [0, 1, 7, 60] {
                let from = cadence.start_of_last(most, 0, 3_000, 62_500);
                let fires: Vec<_> = cadence.from(0, from).take_while(|fire| *fire <= 62_500).collect();
                assert_eq!((fires.len() as u64, fires.last().copied()), (most, (most > 0).then_some(62_000)));
            }
            assert_eq!(cadence.start_of_last(61, 0, 3_000, 62_500), 3_000);
        }
    }

    #[test]
    fn a_distance_out_of_bounds_is_refused() {
        assert!(Cadence::every(999).is_err() && Cadence::every(EVERY_MAX_MS + 1).is_err());
    }
}
