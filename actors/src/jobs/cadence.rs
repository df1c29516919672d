//! When a schedule fires: every so often, or by a cron pattern in a time zone.
//!
//! A cadence is pure: it knows no clock and no store. Around a change of the clocks a pattern with one fixed time of day
//! fires once: after the gap if its time does not exist that day, the first time if it comes twice. A pattern with lists,
//! ranges or steps in its hours, minutes or seconds follows the wall clock: nothing in the gap, again in the overlap.

use croner::Cron;
use croner::parser::CronParser;
use jiff::Timestamp;
use jiff::tz::TimeZone;

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
    /// At fixed distances from its first fire. See [`Cadence::every`].
    Every {
        /// The distance.
        every_ms: u64,
    },
    /// By the wall clock of a place. See [`Cadence::cron`].
    Cron(Box<CronLine>),
}

/// A cron pattern and the place whose clock it goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct CronLine {
    pattern: String,
    time_zone: String,
    parsed: Cron,
    zone: TimeZone,
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
    /// Not a cron pattern.
    #[error("not a cron pattern: {pattern:?}: {why}")]
    Pattern {
        /// What was given, at most [`PATTERN_MAX`] bytes of it.
        pattern: String,
        /// What the parser said.
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

/// What a due schedule does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The latest fire that is not after now. Those before it were missed.
    pub latest_ms: Millis,
    /// The next fire; `None` if there never will be one.
    pub next_ms: Option<Millis>,
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

    /// Fires by a pattern of 5 fields, or of 6 with seconds in front, or of 7 with the year at the end.
    ///
    /// A pattern that never fires is refused here, because looking for its next fire is expensive each time.
    ///
    /// # Errors
    /// [`CadenceError`] names what is wrong.
    pub fn cron(pattern: &str, time_zone: &str, now_ms: Millis) -> Result<Self, CadenceError> {
        let cadence = Self::cron_unchecked(pattern, time_zone)?;
        match cadence.next_after(now_ms) {
            Some(_) => Ok(cadence),
            None => Err(CadenceError::Never { pattern: pattern.to_owned() }),
        }
    }

    /// A cron cadence that was checked when it was first made.
    pub(crate) fn cron_unchecked(pattern: &str, time_zone: &str) -> Result<Self, CadenceError> {
        if pattern.len() > PATTERN_MAX {
            let pattern = pattern.chars().take(20).collect();
            return Err(CadenceError::Pattern { pattern, why: format!("longer than {PATTERN_MAX} bytes") });
        }
        let refused = |error: croner::errors::CronError| CadenceError::Pattern {
            pattern: pattern.to_owned(),
            why: error.to_string(),
        };
        let parsed = CronParser::new().parse(pattern).map_err(refused)?;
        let zone = self::time_zone(time_zone)?;
        let (pattern, time_zone) = (pattern.to_owned(), time_zone.to_owned());
        Ok(Self::Cron(Box::new(CronLine { pattern, time_zone, parsed, zone })))
    }

    /// The first fire of a schedule that is made now; `None` if there never will be one.
    pub fn first(&self, now_ms: Millis) -> Option<Millis> {
        match self {
            Self::Every { .. } => Some(now_ms),
            Self::Cron(_) => self.next_after(now_ms),
        }
    }

    /// The next `count` fires of a schedule that is made now: what a tenant wants to see before it trusts a pattern.
    pub fn upcoming(&self, now_ms: Millis, count: usize) -> Vec<Millis> {
        std::iter::successors(self.first(now_ms), |at| self.next_after(*at)).take(count).collect()
    }

    /// What to do with a fire that came due at `due_ms`, which is not after `now_ms`.
    pub fn advance(&self, due_ms: Millis, now_ms: Millis) -> Advance {
        match self {
            Self::Every { every_ms } => {
                let every = i64::try_from(*every_ms).unwrap_or(i64::MAX).max(1);
                let latest_ms = due_ms + (now_ms - due_ms).max(0) / every * every;
                Advance { latest_ms, next_ms: latest_ms.checked_add(every) }
            }
            Self::Cron(line) => {
                // The search backwards may not step before the fire that is due: that one has not happened yet.
                let latest_ms = line.latest(now_ms).map_or(due_ms, |latest| latest.max(due_ms));
                Advance { latest_ms, next_ms: line.next(now_ms) }
            }
        }
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
            Self::Cron(line) => Some((&line.pattern, &line.time_zone)),
        }
    }

    fn next_after(&self, after_ms: Millis) -> Option<Millis> {
        match self {
            Self::Every { every_ms } => after_ms.checked_add(i64::try_from(*every_ms).ok()?),
            Self::Cron(line) => line.next(after_ms),
        }
    }
}

impl CronLine {
    fn next(&self, after_ms: Millis) -> Option<Millis> {
        let after = Timestamp::from_millisecond(after_ms).ok()?.to_zoned(self.zone.clone());
        let next = self.parsed.find_next_occurrence(&after, false).ok()?;
        Some(next.timestamp().as_millisecond())
    }

    fn latest(&self, until_ms: Millis) -> Option<Millis> {
        let until = Timestamp::from_millisecond(until_ms).ok()?.to_zoned(self.zone.clone());
        let latest = self.parsed.find_previous_occurrence(&until, true).ok()?;
        Some(latest.timestamp().as_millisecond().min(until_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn fires(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cadence = Cadence::cron(pattern, zone, at(from)).unwrap();
        let fires = cadence.upcoming(at(from), count);
        fires.into_iter().map(|ms| Timestamp::from_millisecond(ms).unwrap().to_string()).collect()
    }

    #[test]
    fn a_daily_fire_keeps_its_wall_clock_time_over_both_changes() {
        let spring = fires("0 3 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
        assert_eq!(spring, ["2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]);
        let autumn = fires("0 3 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3);
        assert_eq!(autumn, ["2026-10-24T01:00:00Z", "2026-10-25T02:00:00Z", "2026-10-26T02:00:00Z"]);
    }

    #[test]
    fn a_time_in_the_gap_fires_once_that_day() {
        // 02:30 does not exist in Berlin on 29 March: the clocks jump from 02:00 to 03:00, which is 01:00 UTC.
        let berlin = fires("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(berlin, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let new_york = fires("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2);
        assert_eq!(new_york, ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
        // Lord Howe changes by half an hour: 02:00 to 02:30 is missing on 4 October.
        let lord_howe = fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2);
        assert_eq!(lord_howe, ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]);
    }

    #[test]
    fn a_time_that_comes_twice_fires_the_first_time_only() {
        let berlin = fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(berlin, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let new_york = fires("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2);
        assert_eq!(new_york, ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
        let lord_howe = fires("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2);
        assert_eq!(lord_howe, ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
    }

    #[test]
    fn an_hourly_fire_follows_the_wall_clock_through_the_overlap() {
        let berlin = fires("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 4);
        assert_eq!(
            berlin,
            ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00Z"]
        );
    }

    #[test]
    fn every_fire_of_a_year_is_its_own_latest_a_moment_later() {
        for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"] {
            for pattern in ["30 2 * * *", "30 1 * * *", "15 */2 * * *", "0 0 29 * *"] {
                let cadence = Cadence::cron(pattern, zone, at("2026-01-01T00:00:00Z")).unwrap();
                for fire in cadence.upcoming(at("2026-01-01T00:00:00Z"), 370) {
                    let advance = cadence.advance(fire, fire + 1_500);
                    assert_eq!(advance.latest_ms, fire, "{pattern} {zone}");
                    assert!(advance.next_ms.unwrap() > fire + 1_500, "{pattern} {zone}");
                }
            }
        }
    }

    #[test]
    fn after_a_long_sleep_only_the_latest_fire_counts() {
        let cadence = Cadence::cron("0 * * * *", "UTC", at("2026-01-01T00:00:00Z")).unwrap();
        let advance = cadence.advance(at("2026-01-01T01:00:00Z"), at("2026-01-03T07:20:00Z"));
        assert_eq!(advance.latest_ms, at("2026-01-03T07:00:00Z"));
        assert_eq!(advance.next_ms, Some(at("2026-01-03T08:00:00Z")));
    }

    #[test]
    fn a_distance_counts_from_the_first_fire_and_does_not_drift() {
        let cadence = Cadence::every(1_000).unwrap();
        assert_eq!(cadence.first(500), Some(500));
        assert_eq!(cadence.advance(500, 500), Advance { latest_ms: 500, next_ms: Some(1_500) });
        assert_eq!(cadence.advance(500, 4_499), Advance { latest_ms: 3_500, next_ms: Some(4_500) });
    }

    #[test]
    fn a_pattern_that_never_fires_is_refused() {
        for pattern in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 1 1 * 2020"] {
            let refused = Cadence::cron(pattern, "UTC", at("2026-01-01T00:00:00Z")).unwrap_err();
            assert_eq!(refused, CadenceError::Never { pattern: pattern.to_owned() });
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let now = at("2026-01-01T00:00:00Z");
        let long = "1,".repeat(PATTERN_MAX);
        for pattern in ["", "* * * *", "61 * * * *", "x * * * *", "* * * * * * * *", &long] {
            let refused = Cadence::cron(pattern, "UTC", now).unwrap_err();
            assert!(matches!(refused, CadenceError::Pattern { .. }), "{pattern:?}: {refused}");
        }
        let refused = Cadence::cron("* * * * *", "Europe/Atlantis", now).unwrap_err();
        assert!(refused.to_string().starts_with("not a time zone: \"Europe/Atlantis\""), "{refused}");
        assert!(Cadence::every(999).is_err() && Cadence::every(EVERY_MAX_MS + 1).is_err());
    }
}
