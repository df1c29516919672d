//! When a cron pattern fires on the clock of a place.
//!
//! croner reads the pattern and knows what a day is (`L`, `W`, `#`); the search is ours, because croner 4.0 takes a list of
//! hours for a wildcard at a change of the clocks, and needs 31 ms to see that a pattern never fires. The rule is that of
//! vixie's cron (`cron(8)`), without its limit of three hours:
//!
//! - A pattern with a `*` in its seconds, minutes or hours (`*/5` too) follows the wall clock: nothing in a gap, and what
//!   comes twice fires twice.
//! - Any other names its times, also by lists and ranges. Each fires once a day: those in a gap together at its end, those
//!   that come twice the first time.
//!
//! Between two changes of its offset the clock of a place is arithmetic. So the search goes from change to change, and in
//! between from day to day, whole months that do not match at once.

use croner::parser::CronParser;
use croner::{Cron, Weekday};
use jiff::civil::{Date, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan};

use super::{CadenceError, PATTERN_MAX};
use crate::model::Millis;

/// How far a search looks, in years. The longest wait of a pattern that fires again and again is 40 years: for a 29th of
/// February on a certain weekday, around a year such as 2100.
pub const HORIZON_YEARS: i64 = 50;

const HORIZON_S: i64 = HORIZON_YEARS * 366 * DAY_S;
const DAY_S: i64 = 24 * 3_600;

/// The names that croner replaces, whatever field they stand in.
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"];
const OF_DAYS: [&str; 3] = ["L", "W", "LW"];

/// A cron pattern and the place whose clock it goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct CronLine {
    pattern: String,
    time_zone: String,
    parsed: Cron,
    zone: TimeZone,
    times: Times,
    manner: Manner,
}

/// What a pattern does when the clocks change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It names its times.
    Fixed,
    /// It has a wildcard, and follows the wall clock.
    Wildcard,
}

/// The times of day of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Times {
    hours: Vec<i64>,
    minutes: Vec<i64>,
    seconds: Vec<i64>,
}

/// A time in which the clock of a place is arithmetic: wall clock = UTC + `offset`. All in seconds.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    offset: i64,
    /// Wall clock times to look at, the second one excluded.
    from: i64,
    until: i64,
    /// Wall clock times that were skipped just before; they count at `from`.
    gap: Option<(i64, i64)>,
}

impl CronLine {
    /// Reads a pattern of 5 fields, or of 6 with seconds in front, or of 7 with the year at the end.
    pub(super) fn parse(pattern: &str, time_zone: &str) -> Result<Self, CadenceError> {
        if pattern.len() > PATTERN_MAX {
            let pattern = pattern.chars().take(20).collect();
            return Err(CadenceError::Pattern { pattern, why: format!("longer than {PATTERN_MAX} bytes") });
        }
        let refused = |why: String| CadenceError::Pattern { pattern: pattern.to_owned(), why };
        let parsed = CronParser::new().parse(pattern).map_err(|error| refused(error.to_string()))?;
        let zone = super::time_zone(time_zone)?;
        let manner = check_fields(pattern, &parsed).map_err(refused)?;
        let values = |values: Vec<u16>| values.into_iter().map(i64::from).collect();
        let times = Times {
            hours: values(parsed.pattern.hours.values()),
            minutes: values(parsed.pattern.minutes.values()),
            seconds: values(parsed.pattern.seconds.values()),
        };
        Ok(Self { pattern: pattern.to_owned(), time_zone: time_zone.to_owned(), parsed, zone, times, manner })
    }

    /// What it was read from.
    pub(super) fn text(&self) -> (&str, &str) {
        (&self.pattern, &self.time_zone)
    }

    /// The first fire at or after a time, and within [`HORIZON_YEARS`] of it.
    pub(super) fn at_or_after(&self, at_ms: Millis) -> Option<Millis> {
        let from = at_ms.div_euclid(1_000) + i64::from(at_ms.rem_euclid(1_000) > 0);
        let first = self.stretches(from, from.saturating_add(HORIZON_S)).find_map(|stretch| self.first_in(&stretch));
        first?.checked_mul(1_000)
    }

    /// How many fires there are from a time to another, both included.
    pub(super) fn count(&self, from_ms: Millis, to_ms: Millis) -> u64 {
        let from = from_ms.div_euclid(1_000) + i64::from(from_ms.rem_euclid(1_000) > 0);
        let until = to_ms.div_euclid(1_000).saturating_add(1);
        self.stretches(from, until).map(|stretch| self.count_in(&stretch)).sum()
    }

    /// The stretches from a second of UTC to another, the second one excluded.
    fn stretches(&self, from: i64, until: i64) -> impl Iterator<Item = Stretch> + '_ {
        let mut at = from;
        // Wall clock times before this one have been already, for a pattern whose times come once.
        let mut seen = match self.manner {
            Manner::Fixed => self.change_before(from).unwrap_or(i64::MIN),
            Manner::Wildcard => i64::MIN,
        };
        // A gap that ends just where the search begins counts there.
        let mut before = self.offset_at(from - 1);
        std::iter::from_fn(move || {
            if at >= until {
                return None;
            }
            let offset = self.offset_at(at);
            let end = self.next_change(at).unwrap_or(i64::MAX).min(until);
            let first = at + offset;
            let is_fixed = self.manner == Manner::Fixed;
            let gap = (is_fixed && offset > before).then_some((at + before, first));
            let stretch = Stretch { offset, from: first.max(seen), until: end + offset, gap };
            if is_fixed {
                seen = seen.max(stretch.until);
            }
            (at, before) = (end, offset);
            Some(stretch)
        })
    }

    /// Up to where the wall clock had come before the last change of the offset at or before a time.
    fn change_before(&self, at: i64) -> Option<i64> {
        let change = self.zone.preceding(timestamp(at.checked_add(1)?)?).next()?.timestamp().as_second();
        Some(change + self.offset_at(change - 1))
    }

    fn next_change(&self, at: i64) -> Option<i64> {
        Some(self.zone.following(timestamp(at)?).next()?.timestamp().as_second())
    }

    fn offset_at(&self, at: i64) -> i64 {
        timestamp(at).map_or(0, |at| i64::from(self.zone.to_offset(at).seconds()))
    }

    /// The first fire of a stretch, in seconds of UTC.
    fn first_in(&self, stretch: &Stretch) -> Option<i64> {
        if self.is_skipped(stretch) {
            return stretch.gap.map(|(_, end)| end - stretch.offset);
        }
        let mut days = self.days(stretch.from, stretch.until);
        let first = days.find_map(|day| self.times.first(stretch.from - day).map(|time| day + time))?;
        (first < stretch.until).then_some(first - stretch.offset)
    }

    fn count_in(&self, stretch: &Stretch) -> u64 {
        let of_day = |day| self.times.before(stretch.until - day) - self.times.before(stretch.from - day);
        let named: i64 = self.days(stretch.from, stretch.until).map(of_day).sum();
        // What was skipped counts at the same second as a time that is named right after the gap: once.
        let is_named_too = || self.first_in(&Stretch { until: stretch.from + 1, gap: None, ..*stretch }).is_some();
        let skipped = self.is_skipped(stretch) && !is_named_too();
        named.max(0) as u64 + u64::from(skipped)
    }

    /// Whether the pattern names a time that the clock skipped just before this stretch.
    fn is_skipped(&self, stretch: &Stretch) -> bool {
        stretch.gap.is_some_and(|(from, until)| {
            self.days(from, until).any(|day| self.times.first(from - day).is_some_and(|time| day + time < until))
        })
    }

    /// The midnights of matching days, in seconds of the wall clock, of all days that reach into a stretch.
    fn days(&self, from: i64, until: i64) -> impl Iterator<Item = i64> + '_ {
        let mut next = (from < until).then(|| date_of(from)).flatten();
        std::iter::from_fn(move || {
            loop {
                let date = next?;
                if midnight(date) >= until {
                    return None;
                }
                let skip = self.days_to_skip(date);
                next = date.checked_add(skip.max(1).days()).ok();
                if skip == 0 {
                    return Some(midnight(date));
                }
            }
        })
    }

    /// 0 if the day matches, otherwise to which day one may go on.
    fn days_to_skip(&self, date: Date) -> i64 {
        let pattern = &self.parsed.pattern;
        let (year, month, day) = (i32::from(date.year()), date.month() as u32, date.day() as u32);
        // croner errs about dates that do not exist only.
        if !pattern.year_match(year).unwrap_or(false) {
            return i64::from(date.days_in_year() - date.day_of_year()) + 1;
        }
        if !pattern.month_match(month).unwrap_or(false) {
            return i64::from(date.days_in_month() - date.day()) + 1;
        }
        let weekday = Weekday::from_days_from_sunday(date.weekday().to_sunday_zero_offset() as u32);
        i64::from(!pattern.day_match(year, month, day, weekday).unwrap_or(false))
    }
}

impl Times {
    /// The first time of day at or after a second of the day, which may lie before or behind it.
    fn first(&self, from: i64) -> Option<i64> {
        let from = from.max(0);
        for hour in self.hours.iter().filter(|hour| **hour >= from / 3_600) {
            for minute in self.minutes.iter().filter(|minute| *hour * 3_600 + **minute * 60 + 59 >= from) {
                let start = hour * 3_600 + minute * 60;
                if let Some(second) = self.seconds.iter().find(|second| start + **second >= from) {
                    return Some(start + second);
                }
            }
        }
        None
    }

    /// How many times of day there are before a second of the day, which may lie before or behind it.
    fn before(&self, until: i64) -> i64 {
        let until = until.clamp(0, DAY_S);
        let below = |values: &[i64], limit| values.partition_point(|value| *value < limit);
        let (hour, minute, second) = (until / 3_600, until / 60 % 60, until % 60);
        let (minutes, seconds) = (self.minutes.len(), self.seconds.len());
        let mut count = below(&self.hours, hour) * minutes * seconds;
        if self.hours.binary_search(&hour).is_ok() {
            count += below(&self.minutes, minute) * seconds;
            if self.minutes.binary_search(&minute).is_ok() {
                count += below(&self.seconds, second);
            }
        }
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

fn timestamp(at: i64) -> Option<Timestamp> {
    Timestamp::from_second(at).ok()
}

fn date_of(wall: i64) -> Option<Date> {
    Some(Offset::UTC.to_datetime(timestamp(wall)?).date())
}

fn midnight(date: Date) -> i64 {
    // A date that fits into no timestamp is behind all that is looked for.
    Offset::UTC.to_timestamp(date.to_datetime(Time::midnight())).map_or(i64::MAX, Timestamp::as_second)
}

/// What croner lets pass though two readers would take it for two things.
fn check_fields(given: &str, parsed: &Cron) -> Result<Manner, String> {
    let text = parsed.pattern.to_string();
    let fields: Vec<&str> = text.split_whitespace().collect();
    let with_seconds = usize::from(fields.len() > 5);
    if fields.iter().any(|field| field.trim_start_matches('+').split(',').any(str::is_empty)) {
        return Err("a list has an empty place".to_owned());
    }
    // A nickname such as @daily has no fields of its own.
    if !given.contains('@') {
        let given = given.to_uppercase();
        for (position, field) in given.split_whitespace().enumerate() {
            check_names(field, position.wrapping_sub(with_seconds))?;
        }
    }
    let (days, weekdays) = (fields[with_seconds + 2], fields[with_seconds + 4]);
    let star = |field: &str| field.starts_with(['*', '?', '+']);
    if (star(days) || star(weekdays)) && !is_any(days) && !is_any(weekdays) && !weekdays.starts_with('+') {
        let why = "both the day and the weekday are restricted, one of them by a step over *: programs disagree on what \
                   that means; write the days as a list, or a + before the weekdays for days that match both";
        return Err(why.to_owned());
    }
    let has_star = fields[..with_seconds + 2].iter().any(|field| field.contains('*'));
    Ok(if has_star { Manner::Wildcard } else { Manner::Fixed })
}

fn is_any(field: &str) -> bool {
    matches!(field, "*" | "?" | "+*" | "+?")
}

/// Names stand where they belong only. `position` counts from the minutes, so that seconds are far behind.
fn check_names(field: &str, position: usize) -> Result<(), String> {
    let known: &[&str] = match position {
        2 => &OF_DAYS,
        3 => &MONTHS,
        4 => &WEEKDAYS,
        _ => &[],
    };
    // The last of a weekday may be named with it: FRIL.
    let is_known = |name: &str| {
        let weekday = name.strip_suffix('L').filter(|_| position == 4);
        known.contains(&name) || weekday.is_some_and(|weekday| known.contains(&weekday))
    };
    let mut names = field.split(|letter: char| !letter.is_alphabetic()).filter(|name| !name.is_empty());
    if let Some(name) = names.find(|name| !is_known(name)) {
        return Err(format!("{name:?} does not belong into the field {field:?}"));
    }
    let is_twofold = |item: &str| item.matches('#').count() > 1 || (item.contains('#') && item.contains('L'));
    match field.split(',').find(|item| is_twofold(item)) {
        Some(item) => Err(format!("{item:?} says twice which weekday of the month")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
