//! A storm of panics must not flood the log. The metric stays exact; the log says how much it left out.

use crate::lock;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Mutex;

/// Log records for each place in each window.
const RECORDS_MAX: u32 = 10;
/// Length of a window, seconds.
const WINDOW_S: i64 = 10;
/// Places remembered; beyond that all are forgotten, which costs some records too many.
const PLACES_MAX: usize = 1024;

/// Counts log records for each place, in fixed windows.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    places: Mutex<HashMap<String, Window>>,
}

#[derive(Debug)]
struct Window {
    began_s: i64,
    records: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether to log now: `Some` with how many records of this place were left out since the last one, or `None`.
    pub(super) fn admit(&self, place: String, now: Timestamp) -> Option<u64> {
        let mut places = lock(&self.places);
        if places.len() >= PLACES_MAX && !places.contains_key(&place) {
            places.clear();
        }
        let began_s = now.as_second();
        let window = places.entry(place).or_insert(Window { began_s, records: 0, suppressed: 0 });
        if began_s - window.began_s >= WINDOW_S {
            window.began_s = began_s;
            window.records = 0;
        }
        if window.records >= RECORDS_MAX {
            window.suppressed += 1;
            return None;
        }
        window.records += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
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
        let admitted = (0..1000).filter(|_| limit.admit("here".into(), at(100)).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit("here".into(), at(109)), None);
        assert_eq!(limit.admit("here".into(), at(110)), Some(991));
        assert_eq!(limit.admit("here".into(), at(110)), Some(0));
    }

    #[test]
    fn a_storm_at_one_place_does_not_silence_another() {
        let limit = LogLimit::default();
        assert_eq!((0..1000).filter_map(|_| limit.admit("here".into(), at(100))).count(), 10);
        assert_eq!(limit.admit("there".into(), at(100)), Some(0));
    }

    #[test]
    fn places_are_not_remembered_without_end() {
        let limit = LogLimit::default();
        assert!((0..5000).all(|place| limit.admit(place.to_string(), at(100)).is_some()));
        assert!(lock(&limit.places).len() <= PLACES_MAX);
    }
}
