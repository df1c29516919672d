//! A storm of panics must not flood the log. The metric stays exact; the log says how much it left out.
//!
//! Two limits: one for each actor at each line of code, so that one that fails all the time does not silence its siblings;
//! and one for the line of code, so that a thousand actors which fail at the same one do not write a thousand times as much.

use crate::lock;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Mutex;

/// Log records of one actor at one line of code in each window.
const OF_ACTOR_MAX: u32 = 10;
/// Log records of all actors at one line of code in each window.
const OF_LINE_MAX: u32 = 100;
/// Length of a window, seconds.
const WINDOW_S: i64 = 10;
/// Actors and lines remembered, of each; beyond that all are forgotten, which costs some records too many.
const PLACES_MAX: usize = 1024;

/// Counts log records for each place, in fixed windows.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    actors: HashMap<String, Window>,
    lines: HashMap<String, Line>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began_s: i64,
    records: u32,
}

#[derive(Debug)]
struct Line {
    window: Window,
    suppressed: u64,
}

impl LogLimit {
    /// Whether to log now: `Some` with how many records of this line of code were left out since the last one, or `None`.
    pub(super) fn admit(&self, actor: &str, line: &str, now: Timestamp) -> Option<u64> {
        let mut places = lock(&self.places);
        let Places { actors, lines } = &mut *places;
        let fresh = Window { began_s: now.as_second(), records: 0 };
        let line_of_code = remembered(lines, line.to_owned(), || Line { window: fresh, suppressed: 0 });
        let of_actor = remembered(actors, format!("{actor} {line}"), || fresh);
        of_actor.move_on(now);
        line_of_code.window.move_on(now);
        if of_actor.records >= OF_ACTOR_MAX || line_of_code.window.records >= OF_LINE_MAX {
            line_of_code.suppressed += 1;
            return None;
        }
        of_actor.records += 1;
        line_of_code.window.records += 1;
        Some(std::mem::take(&mut line_of_code.suppressed))
    }
}

impl Window {
    fn move_on(&mut self, now: Timestamp) {
        if now.as_second() - self.began_s >= WINDOW_S {
            *self = Self { began_s: now.as_second(), records: 0 };
        }
    }
}

fn remembered<T>(all: &mut HashMap<String, T>, key: String, fresh: impl FnOnce() -> T) -> &mut T {
    if all.len() >= PLACES_MAX && !all.contains_key(&key) {
        all.clear();
    }
    all.entry(key).or_insert_with(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_storm_at_one_place_is_cut_and_the_next_window_says_by_how_much() {
        let limit = LogLimit::default();
        let admitted = (0..1000).filter(|_| limit.admit("a", "here", at(100)).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit("a", "here", at(109)), None);
        assert_eq!(limit.admit("a", "here", at(110)), Some(991));
        assert_eq!(limit.admit("a", "here", at(110)), Some(0));
    }

    #[test]
    fn a_storm_at_one_place_silences_neither_another_place_nor_another_actor() {
        let limit = LogLimit::default();
        assert_eq!((0..1000).filter_map(|_| limit.admit("a", "here", at(100))).count(), 10);
        assert_eq!(limit.admit("a", "there", at(100)), Some(0));
        assert_eq!(limit.admit("b", "here", at(100)), Some(990));
    }

    #[test]
    fn a_thousand_actors_at_one_place_write_no_more_than_a_few_and_none_of_them_is_forgotten() {
        let limit = &LogLimit::default();
        let storm =
            |second| (0..1000).filter_map(move |actor: u32| limit.admit(&actor.to_string(), "here", at(second)));
        assert_eq!(storm(100).count(), 100);
        let next: Vec<u64> = storm(110).collect();
        assert_eq!((next.len(), next.iter().sum()), (100, 900_u64));
    }

    #[test]
    fn places_are_not_remembered_without_end() {
        let limit = LogLimit::default();
        assert!((0..5000).all(|place| limit.admit("a", &place.to_string(), at(100)).is_some()));
        let places = lock(&limit.places);
        assert!(places.actors.len() <= PLACES_MAX && places.lines.len() <= PLACES_MAX);
    }
}
