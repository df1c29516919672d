//! The oracle knows nothing of the search nor of croner: it reads the fields of a pattern itself, asks jiff for the wall
//! clock of every second or minute of UTC, and says what should have fired by the rule in words.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use jiff::civil::{Date, DateTime};

use super::super::*;
use super::line;

const PLACES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];

/// Fields of the oracle: what each matches, written down a second time.
struct Expected {
    seconds: BTreeSet<i8>,
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    days: String,
    months: BTreeSet<i8>,
    weekdays: String,
    has_star: bool,
    /// What it has said about days before: a day has many minutes.
    known_days: RefCell<HashMap<Date, bool>>,
}

impl Expected {
    fn of(pattern: &str) -> Self {
        let mut fields: Vec<&str> = pattern.split(' ').collect();
        if fields.len() == 5 {
            fields.insert(0, "0");
        }
        Self {
            seconds: numbers(fields[0], 0, 59),
            minutes: numbers(fields[1], 0, 59),
            hours: numbers(fields[2], 0, 23),
            days: fields[3].to_owned(),
            months: numbers(fields[4], 1, 12),
            weekdays: fields[5].to_owned(),
            has_star: fields[..3].iter().any(|field| field.contains('*')),
            known_days: RefCell::default(),
        }
    }

    fn names(&self, wall: DateTime) -> bool {
        self.seconds.contains(&wall.second())
            && self.minutes.contains(&wall.minute())
            && self.hours.contains(&wall.hour())
            && self.months.contains(&wall.month())
            && *self.known_days.borrow_mut().entry(wall.date()).or_insert_with(|| self.is_day(wall))
    }

    fn is_day(&self, wall: DateTime) -> bool {
        let by_day = self.days.split(',').any(|item| match item {
            "L" => wall.day() == wall.days_in_month(),
            _ if item.ends_with('W') => wall.day() == nearest_workday(wall, item.trim_end_matches('W')),
            _ => numbers(item, 1, 31).contains(&wall.day()),
        });
        let weekday = wall.weekday().to_sunday_zero_offset();
        let (is_both, weekdays) = match self.weekdays.strip_prefix('+') {
            Some(weekdays) => (true, weekdays),
            None => (false, self.weekdays.as_str()),
        };
        let by_weekday = weekdays.split(',').any(|item| match item.split_once('#') {
            Some((day, nth)) => day == weekday.to_string() && nth == ((wall.day() - 1) / 7 + 1).to_string(),
            None if item.ends_with('L') => item == format!("{weekday}L") && wall.day() + 7 > wall.days_in_month(),
            None => numbers(item, 0, 7).iter().any(|number| number % 7 == weekday),
        });
        match (self.days == "*", weekdays == "*") {
            (true, _) => by_weekday,
            (_, true) => by_day,
            _ if is_both => by_day && by_weekday,
            _ => by_day || by_weekday,
        }
    }

    /// Every fire from `from` on, by looking at every step of the clock.
    fn fires(&self, walk: &Walk) -> BTreeSet<i64> {
        let mut fires = BTreeSet::new();
        // The latest wall clock time that was seen so far: from there a gap begins, and below it all comes a second time.
        let mut latest = walk.clock[0].1;
        for (at, wall) in walk.clock.iter().skip(1) {
            let mut is_fire = (self.has_star || *wall > latest) && self.names(*wall);
            if !self.has_star && *wall > latest {
                let next = |wall: DateTime| wall.checked_add(walk.step.seconds()).unwrap();
                let mut skipped = next(latest);
                while skipped < *wall {
                    is_fire |= self.names(skipped);
                    skipped = next(skipped);
                }
            }
            latest = latest.max(*wall);
            if is_fire && *at >= walk.from {
                fires.insert(*at);
            }
        }
        fires
    }
}

/// The clock of a place at every step from `from` to `until`, and of two days before.
struct Walk {
    place: &'static str,
    clock: Vec<(i64, DateTime)>,
    from: i64,
    until: i64,
    step: i64,
}

impl Walk {
    fn over(place: &'static str, (from, until): (i64, i64), step: i64) -> Self {
        let zone = TimeZone::get(place).unwrap();
        let steps = (from - 2 * DAY_S..until).step_by(step as usize);
        let clock = steps.map(|at| (at, zone.to_datetime(timestamp(at).unwrap()))).collect();
        Self { place, clock, from, until, step }
    }
}

fn nearest_workday(wall: DateTime, day: &str) -> i8 {
    let last = wall.days_in_month();
    let is_workday = |day: i8| {
        let weekday = wall.date().first_of_month().checked_add((i64::from(day) - 1).days()).unwrap().weekday();
        weekday.to_monday_one_offset() <= 5
    };
    let wanted = if day == "L" {
        // The last workday, not the one nearest to the last day.
        return (1..=last).rev().find(|day| is_workday(*day)).unwrap();
    } else {
        day.parse::<i8>().unwrap()
    };
    if wanted > last {
        return 0;
    }
    let near = [wanted, wanted - 1, wanted + 1, wanted - 2, wanted + 2];
    near.into_iter().find(|day| (1..=last).contains(day) && is_workday(*day)).unwrap()
}

/// `*`, `*/n`, `a`, `a-b`, `a-b/n`, and lists of them; what is none of them has none.
fn numbers(field: &str, least: i8, most: i8) -> BTreeSet<i8> {
    let mut found = BTreeSet::new();
    for item in field.split(',') {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
            None if range == "*" => (least, most),
            None => match range.parse() {
                Ok(number) => (number, number),
                Err(_) => continue,
            },
        };
        found.extend((from..=to).step_by(step.parse().unwrap()));
    }
    found
}

/// Compares everything that the search can be asked with what the oracle has walked over.
fn check(pattern: &str, walk: &Walk) {
    let Walk { place, from, until, .. } = *walk;
    let line = line(pattern, place);
    let expected = Expected::of(pattern).fires(walk);
    let mut found = BTreeSet::new();
    let mut next = line.at_or_after(from * 1_000);
    while let Some(fire) = next.filter(|fire| *fire < until * 1_000) {
        assert!(found.insert(fire / 1_000), "{pattern:?} in {place} does not go on after {fire}");
        next = line.at_or_after(fire + 1);
    }
    let told = |set: &BTreeSet<i64>, other: &BTreeSet<i64>| {
        set.difference(other).take(5).map(|at| timestamp(*at).unwrap().to_string()).collect::<Vec<_>>()
    };
    let (more, less) = (told(&found, &expected), told(&expected, &found));
    assert!(more.is_empty() && less.is_empty(), "{pattern:?} in {place}: fires {more:?} too many, not {less:?}");
    // The count over pieces that end anywhere.
    let mut at = from;
    while at < until {
        let end = (at + fastrand::i64(1..2_000_000)).min(until);
        let counted = line.count(at * 1_000, end * 1_000 - 1);
        assert_eq!(counted, expected.range(at..end).count() as u64, "{pattern:?} in {place} from {at} to {end}");
        at = end;
    }
}

fn year(of: i16) -> (i64, i64) {
    (midnight(jiff::civil::date(of, 1, 1)), midnight(jiff::civil::date(of + 1, 1, 1)))
}

#[test]
fn every_minute_of_a_year_in_berlin_fires_as_brute_force_says() {
    check_year_in(PLACES[0]);
}

#[test]
fn every_minute_of_a_year_in_new_york_fires_as_brute_force_says() {
    check_year_in(PLACES[1]);
}

#[test]
fn every_minute_of_a_year_on_lord_howe_fires_as_brute_force_says() {
    check_year_in(PLACES[2]);
}

fn check_year_in(place: &'static str) {
    let patterns = [
        "*/10 * * * *",
        "30 2 * * *",
        "30 1 * * *",
        "30 2,3 * * *",
        "0,30 1-3 * * *",
        "*/7 2 * * *",
        "15 */2 * * *",
        "0 0-23 * * *",
        "0,15,30,45 0-23/3 * * *",
        "59 23 L * *",
        "0 2 15W * *",
        "0 2 1W,LW * *",
        "30 2 * * 0#1,0#2",
        "30 2 * * 0L",
        "0 3 13 * 5",
        "0 3 8-14 * +7",
        "*/5 1-2 29 3,10 *",
        "0 0 1 1 *",
    ];
    let walk = Walk::over(place, year(2026), 60);
    for pattern in patterns {
        check(pattern, &walk);
    }
}

/// The seconds of a quarter of a day before and after each change of a year.
#[test]
fn every_second_around_a_change_fires_as_brute_force_says() {
    for place in PLACES {
        let zone = TimeZone::get(place).unwrap();
        let (from, until) = year(2026);
        let changes = zone.following(timestamp(from).unwrap()).map(|change| change.timestamp().as_second());
        for change in changes.take_while(|change| *change < until) {
            let walk = Walk::over(place, (change - DAY_S / 4, change + DAY_S / 4), 1);
            for pattern in
                ["* * * * * *", "*/20 30 2 * * *", "10,50 59,0 0-3 * * *", "0-59/7 * 1 * * *", "59 59 1 * * *"]
            {
                check(pattern, &walk);
            }
        }
    }
}

fn random_field(random: &mut fastrand::Rng, least: u32, most: u32) -> String {
    let number = |random: &mut fastrand::Rng| random.u32(least..=most);
    match random.u32(0..7) {
        0 | 1 => "*".to_owned(),
        2 => format!("*/{}", random.u32(1..=most)),
        3 => number(random).to_string(),
        4 => format!("{},{},{}", number(random), number(random), number(random)),
        _ => {
            let (one, other) = (number(random), number(random));
            format!("{}-{}/{}", one.min(other), one.max(other), random.u32(1..=4))
        }
    }
}

/// A year of minutes takes the oracle about half a second without optimisation, so there are few rounds; more of them by
/// `CRON_ROUNDS`, another seed by `CRON_SEED`.
#[test]
fn random_patterns_fire_as_brute_force_says() {
    let given = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = given("CRON_SEED").unwrap_or(20_260_329);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..given("CRON_ROUNDS").unwrap_or(6) {
        let field = &mut |least, most| random_field(&mut random, least, most);
        let (minutes, hours, mut days, months) = (field(0, 59), field(0, 23), field(1, 31), field(1, 12));
        let weekdays = field(0, 6);
        if weekdays != "*" && days != "*" && (weekdays.starts_with('*') || days.starts_with('*')) {
            days = "*".to_owned();
        }
        let pattern = format!("{minutes} {hours} {days} {months} {weekdays}");
        let (place, of) = (PLACES[random.usize(..PLACES.len())], random.i16(2024..2032));
        eprintln!("round {round} of the seed {seed}: {pattern:?} in {place} in {of}");
        check(&pattern, &Walk::over(place, year(of), 60));
    }
}
