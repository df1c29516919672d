//! The search against named days, and against an oracle that walks over every second or minute of a year.

mod oracle;

use super::*;

fn at(text: &str) -> Millis {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn line(pattern: &str, zone: &str) -> CronLine {
    CronLine::parse(pattern, zone).unwrap()
}

fn fires(pattern: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let line = line(pattern, zone);
    let fires = std::iter::successors(line.at_or_after(at(after) + 1), |fire| line.at_or_after(fire + 1));
    fires.take(count).map(|ms| Timestamp::from_millisecond(ms).unwrap().to_string()).collect()
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
fn all_times_in_the_gap_fire_together_once_also_with_the_one_at_its_end() {
    let line = line("0,20,40 2,3 * * *", "Europe/Berlin");
    let berlin = fires("0,20,40 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3);
    assert_eq!(berlin, ["2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z", "2026-03-29T01:40:00Z"]);
    assert_eq!(line.count(at("2026-03-28T12:00:00Z"), at("2026-03-29T12:00:00Z")), 3);
    assert_eq!(line.count(at("2026-03-29T01:00:00Z"), at("2026-03-29T01:00:00Z")), 1);
}

#[test]
fn a_named_time_that_comes_twice_fires_the_first_time_only() {
    let berlin = fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(berlin, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let new_york = fires("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2);
    assert_eq!(new_york, ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
    let lord_howe = fires("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2);
    assert_eq!(lord_howe, ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
}

#[test]
fn a_list_of_hours_names_its_times_and_is_no_wildcard() {
    let berlin = fires("30 2,3 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3);
    assert_eq!(berlin, ["2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z", "2026-10-26T01:30:00Z"]);
    let gap = fires("30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3);
    assert_eq!(gap, ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
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
fn both_of_day_and_weekday_restricted_means_either_and_with_a_plus_both() {
    let either = fires("0 0 13 * FRI", "UTC", "2026-02-01T00:00:00Z", 4);
    assert_eq!(
        either,
        ["2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z", "2026-02-27T00:00:00Z"]
    );
    let both = fires("0 0 13 * +FRI", "UTC", "2026-02-01T00:00:00Z", 3);
    assert_eq!(both, ["2026-02-13T00:00:00Z", "2026-03-13T00:00:00Z", "2026-11-13T00:00:00Z"]);
}

#[test]
fn the_rarest_pattern_is_found_and_one_that_never_fires_is_seen_at_once() {
    let rare = fires("0 0 29 2 +MON", "Europe/Berlin", "2072-03-01T00:00:00Z", 2);
    assert_eq!(rare, ["2112-02-28T23:00:00Z", "2140-02-28T23:00:00Z"]);
    let began = std::time::SystemTime::now();
    for pattern in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 1 1 * 2020", "* * * 31 2 * 2020"] {
        assert_eq!(line(pattern, "Europe/Berlin").at_or_after(at("2026-01-01T00:00:00Z")), None, "{pattern}");
    }
    // Without optimisation and on a busy machine; with it the four take less than a millisecond together.
    assert!(began.elapsed().unwrap().as_millis() < 500, "{:?}", began.elapsed());
}

#[test]
fn nonsense_and_what_can_be_read_in_two_ways_is_refused_with_the_reason() {
    let long = "1,".repeat(PATTERN_MAX);
    let bad = [
        "",
        "* * * *",
        "61 * * * *",
        "x * * * *",
        "* * * * * * * *",
        &long,
        "1,,2 * * * *",
        "0,5, * * * *",
        ", * * * *",
        "JAN * * * *",
        "0 0 * MON *",
        "0 0 * JANFEB *",
        "0 0 JAN * *",
        "0 0 * * 1#2L",
        "0 0 * * 1#2#3",
        "0 0 L * MAR",
        "0/10 * * * *",
        "@reboot",
        "0 0 */2 * 1",
        "0 0 1 * */2",
        "0 0 5L * *",
        "0 0 * * +",
    ];
    for pattern in bad {
        let refused = CronLine::parse(pattern, "UTC").err().unwrap_or_else(|| panic!("{pattern:?} was not refused"));
        assert!(matches!(refused, CadenceError::Pattern { .. }), "{pattern:?}: {refused}");
    }
    for good in ["@daily", "0 0 L * ?", "0 0 LW,15W * *", "0 0 * jan-mar mon,FRIL,tue#2", "0 0 ? * */2", "0 0 */2 * *"]
    {
        assert!(CronLine::parse(good, "UTC").is_ok(), "{good}: {:?}", CronLine::parse(good, "UTC"));
    }
    let refused = CronLine::parse("* * * * *", "Europe/Atlantis").unwrap_err();
    assert!(refused.to_string().starts_with("not a time zone: \"Europe/Atlantis\""), "{refused}");
}
