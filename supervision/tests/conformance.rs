//! What Erlang/OTP's supervisor did in 296 recorded scenarios, and what follows from its rules in any other.

mod otp;

use std::collections::{BTreeMap, BTreeSet};

use otp::{
    check::{self, Fault},
    generate::{Feature, generate},
    model,
    parse::{self, Problem},
    player,
    scenario::{Action, Scenario},
    shrink::shrink,
    trace::{Comparison, Reasons, Trace},
};

/// The recorded scenarios, each with what happened.
const VECTORS: [(&str, &str); 2] = [
    (include_str!("otp/vectors/conformance.txt"), include_str!("otp/vectors/conformance.trace")),
    (include_str!("otp/vectors/random_1.txt"), include_str!("otp/vectors/random_1.trace")),
];

/// How many random scenarios are played.
const RANDOM_SCENARIOS: u64 = 2000;

/// How many random scenarios are played on our supervisor.
const PLAYED_SCENARIOS: u64 = 1000;

fn vectors() -> Vec<(Scenario, Trace)> {
    let pairs = VECTORS.iter().flat_map(|(scenarios, traces)| {
        let scenarios = parse::parse(scenarios).unwrap_or_else(|error| panic!("{error}"));
        let traces = Trace::parse_all(traces).unwrap_or_else(|line| panic!("no trace in line {line}"));
        assert_eq!(scenarios.len(), traces.len());
        scenarios.into_iter().zip(traces)
    });
    pairs.collect()
}

fn only(text: &str) -> Scenario {
    parse::parse(text).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

#[test]
fn the_model_gives_the_recorded_trace_of_every_vector_to_the_letter() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 296);
    let differences: Vec<String> = vectors
        .iter()
        .filter_map(|(scenario, trace)| Comparison::EXACT.difference(trace, &model::play(scenario)))
        .map(|difference| difference.to_string())
        .collect();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn every_vector_prints_back_to_what_it_was_parsed_from() {
    for (scenario, trace) in vectors() {
        assert_eq!(scenario.name, trace.name);
        assert_eq!(only(&scenario.to_string()), scenario);
        assert_eq!(Trace::parse_all(&trace.to_string()), Ok(vec![trace]));
    }
}

#[test]
fn a_start_is_held_in_only_those_vectors_that_plan_it() {
    let vectors = vectors();
    assert_eq!(vectors.iter().filter(|(scenario, _)| scenario.has_holds()).count(), 54);
    assert!(vectors.iter().all(|(scenario, trace)| scenario.has_holds() || !trace.is_held()));
}

#[test]
fn a_file_that_is_not_understood_is_refused_with_the_line() {
    for (text, expected) in [
        ("sup /", "line 1: `sup` stands before the first scenario"),
        ("scenario", "line 1: the name is missing"),
        ("scenario a b", "line 1: `b` is one word too many"),
        ("# nothing\n\nscenario a\nsup / strategy=none", "line 4: `none` is no value of strategy"),
        ("scenario a\nsup /\nchild a=b", "line 3: `a=b` is no path"),
        ("scenario a\nsup /\nchild a b", "line 3: `b` is not of the form KEY=VALUE"),
        ("scenario a\nsup /\nchild a stop=slow:x", "line 3: `x` is no value of stop"),
        ("scenario a\nsup /\nchild a speed=9", "line 3: there is no option `speed` here"),
        ("scenario a\nsup /\nchild a stop=bad stop=bad", "line 3: the option `stop` is given twice"),
        ("scenario a\nsup /\nsup s shutdown=100", "line 3: `100` is no value of shutdown"),
        ("scenario a\nsup /\nchild a start=ok*,fail", "line 3: `ok*` is no value of start"),
        ("scenario a\nsup /\ncrash", "line 3: the path is missing"),
        ("scenario a\nsup /\nexit a", "line 3: the reason is missing"),
        ("scenario a\nsup /\nadvance soon", "line 3: `soon` is no value of advance"),
        ("scenario a\nsup /\nstop now", "line 3: `now` is one word too many"),
        ("scenario a\nsup /\nrun a", "line 3: `run` is neither a declaration nor an action"),
        ("scenario a\nsup /\n\nscenario b\nchild c", "line 4: there is no `sup /`"),
    ] {
        assert_eq!(parse::parse(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn a_scenario_whose_outcome_is_a_race_is_refused() {
    for (body, what) in [
        ("sup / restart=transient", "nobody's child"),
        ("sup /\nchild a\nchild a", "declared twice"),
        ("sup /\nchild a\nchild a.b", "below what is no supervisor"),
        ("sup / strategy=simple_one_for_one", "exactly one child"),
        ("sup /\nsup s strategy=simple_one_for_one\nchild s.t", "is the root"),
        ("sup / period=0", "at least 1 s"),
        ("sup /\nchild a start=hold_ok", "never the first"),
        ("sup /\nsup s\nchild s.x start=ok,hold_ok", "only starts of the root's children"),
        ("sup /\nchild a shutdown=infinity stop=hang", "hangs"),
        ("sup /\nsup s\nkill s", "is a supervisor"),
        ("sup /\nterminate /", "is a supervisor"),
        ("sup /\nchild a\ncrash a a", "different workers"),
        ("sup /\nsup s\nchild s.x\nchild a\ncrash a s.x", "of one supervisor"),
        ("sup /\nspawn a", "cannot be spawned"),
        ("sup / strategy=simple_one_for_one\nchild t\nadd a", "not added"),
        ("sup / period=3\nadvance 1500\nadvance 2000", "a gap of 3500 ms may lie inside or outside of a period of 3 s"),
    ] {
        let error = parse::parse(&format!("scenario race\n{body}")).unwrap_err();
        assert_eq!(error.line, 1);
        assert!(
            matches!(&error.problem, Problem::Unsound(fault) if fault.to_string().contains(what)),
            "{body}: {error}"
        );
    }
}

#[test]
fn a_difference_shows_what_came_before_it() {
    let trace = |lines: &[&str]| Trace { name: "t".into(), lines: lines.iter().map(|line| line.to_string()).collect() };
    let (expected, actual) = (trace(&["> start", "start /#1 ok"]), trace(&["> start", "= error fail"]));
    let difference = Comparison::EXACT.difference(&expected, &actual).unwrap();
    assert_eq!(difference.to_string(), "== t\n    > start\n  - start /#1 ok\n  + = error fail");
    let shorter = Comparison::EXACT.difference(&expected, &trace(&["> start"])).unwrap();
    assert_eq!(shorter.to_string(), "== t\n    > start\n  - start /#1 ok\n  + (end)");
}

#[test]
fn what_does_not_count_is_no_difference() {
    let trace = |text: &str| Trace { name: "t".into(), lines: text.lines().map(str::to_owned).collect() };
    let (expected, actual) =
        (trace("exit a#1 crash\n! / child_terminated a crash\n~ / a=up#2"), trace("exit a#1 panic"));
    assert!(Comparison::EXACT.difference(&expected, &actual).is_some());
    let lenient = Comparison::EXACT.ignoring(&['!', '~']);
    assert!(lenient.difference(&expected, &actual).is_some());
    let kinds = lenient.reasons(Reasons::Kinds);
    assert_eq!(kinds.difference(&expected, &actual), None);
    assert!(kinds.difference(&expected, &trace("exit a#1 killed")).is_some());
    assert!(kinds.difference(&expected, &trace("exit a#1 shutdown:why")).is_some());
}

#[test]
fn random_scenarios_are_allowed_and_have_every_feature_that_was_asked_for_and_no_other() {
    let mut seen = BTreeSet::new();
    for seed in 0..RANDOM_SCENARIOS {
        for features in [&Feature::ALL[..], &[]] {
            let scenario = generate(seed, features);
            assert_eq!(check::check(&scenario), Ok::<(), Fault>(()), "{scenario}");
            assert_eq!(only(&scenario.to_string()), scenario);
            assert_eq!(generate(seed, features), scenario);
            let found = features_of(&scenario);
            assert!(
                found.iter().all(|name| features.iter().any(|feature| format!("{feature:?}") == *name)),
                "{scenario}"
            );
            seen.extend(found);
        }
    }
    let all: BTreeSet<String> = Feature::ALL.iter().map(|feature| format!("{feature:?}")).collect();
    assert_eq!(seen, all);
}

/// By name.
fn features_of(scenario: &Scenario) -> BTreeSet<String> {
    let has = |part: &str| scenario.to_string().contains(part);
    let at_once = |action: &Action| matches!(action, Action::Crash(places) if places.len() > 1);
    let found = [
        (Feature::Nested, has("sup s")),
        (Feature::Simple, has("simple_one_for_one")),
        (Feature::Hold, scenario.has_holds()),
        (Feature::Simul, scenario.actions.iter().any(at_once)),
        (Feature::Time, has("period=3\n") || has("period=3 ")),
        (Feature::Auto, has("auto_shutdown")),
    ];
    found.into_iter().filter(|(_, is_there)| *is_there).map(|(feature, _)| format!("{feature:?}")).collect()
}

#[test]
fn in_any_scenario_incarnations_follow_each_other_and_nobody_outlives_the_root() {
    let first = fastrand::u64(..u64::MAX - RANDOM_SCENARIOS);
    println!("seeds from {first}");
    for seed in first..first + RANDOM_SCENARIOS {
        let scenario = generate(seed, &Feature::ALL);
        if violation(&model::play(&scenario)).is_some() {
            let smallest = shrink(&scenario, |scenario| violation(&model::play(scenario)).is_some());
            let trace = model::play(&smallest);
            panic!("{}\n{smallest}\n{trace}", violation(&trace).unwrap_or_default());
        }
    }
}

/// What must not happen, if it does.
fn violation(trace: &Trace) -> Option<String> {
    let (mut up, mut last) = (BTreeSet::new(), BTreeMap::new());
    for line in &trace.lines {
        let words: Vec<&str> = line.split(' ').collect();
        let incarnation = words.get(1).and_then(|name| name.split_once('#'));
        match (words.as_slice(), incarnation) {
            (["start", _, "ok"], Some((path, number))) => {
                let number: u64 = number.parse().ok()?;
                if !up.insert(path.to_owned()) {
                    return Some(format!("{line}: while another was up"));
                }
                if last.insert(path.to_owned(), number).unwrap_or(0) + 1 != number {
                    return Some(format!("{line}: not the next"));
                }
            }
            (["exit", _, _], Some((path, number))) => {
                if !up.remove(path) || last.get(path).map(u64::to_string).as_deref() != Some(number) {
                    return Some(format!("{line}: was not up"));
                }
                if path == "/" && !up.is_empty() {
                    return Some(format!("{line}: {up:?} are still up"));
                }
            }
            _ => {}
        }
    }
    (!trace.lines.iter().any(|line| line.starts_with("exit /#1 ")) && !up.is_empty() && is_stopped(trace))
        .then(|| format!("{up:?} are up after the end"))
}

/// Whether the root was told to stop, and no start is held that it would have to wait for.
fn is_stopped(trace: &Trace) -> bool {
    trace.lines.iter().rev().take_while(|line| *line != "> stop").all(|line| line != "= held")
        && trace.lines.iter().any(|line| line == "> stop")
}

#[test]
fn a_violation_is_seen() {
    let trace = |text: &str| Trace { name: "t".into(), lines: text.lines().map(str::to_owned).collect() };
    for (text, what) in [
        ("start a#1 ok\nstart a#2 ok", Some("start a#2 ok: while another was up")),
        ("start a#1 ok\nexit a#1 crash\nstart a#3 ok", Some("start a#3 ok: not the next")),
        ("exit a#1 crash", Some("exit a#1 crash: was not up")),
        ("start a#1 ok\nstart /#1 ok\nexit /#1 shutdown", Some("exit /#1 shutdown: {\"a\"} are still up")),
        ("start a#1 ok\n> stop", Some("{\"a\"} are up after the end")),
        ("start a#1 ok\nstart /#1 ok\n> stop\nexit a#1 shutdown\nexit /#1 shutdown", None),
    ] {
        assert_eq!(violation(&trace(text)).as_deref(), what, "{text}");
    }
}

#[test]
fn a_failing_scenario_is_shrunk_to_what_it_takes() {
    let gives_up = |scenario: &Scenario| {
        model::play(scenario).lines.iter().any(|line| line.ends_with("reached_max_restart_intensity"))
    };
    let failing: Vec<Scenario> =
        (0..RANDOM_SCENARIOS).map(|seed| generate(seed, &Feature::ALL)).filter(gives_up).take(100).collect();
    assert_eq!(failing.len(), 100);
    for scenario in failing {
        let smallest = shrink(&scenario, gives_up);
        assert!(gives_up(&smallest) && check::check(&smallest).is_ok(), "{smallest}");
        for index in 0..smallest.actions.len() {
            let mut less = smallest.clone();
            less.actions.remove(index);
            assert!(!gives_up(&less), "action {index} is not needed in\n{smallest}");
        }
        assert!(smallest.declarations.len() <= 4 && smallest.actions.len() <= 4, "{scenario}\nto\n{smallest}");
    }
}

#[test]
fn nothing_that_a_failure_needs_is_shrunk_away() {
    let scenario = only(
        "scenario large\nsup / strategy=one_for_all intensity=3 period=9\nchild a restart=transient\nsup s\nchild s.x\n\
         child b stop=slow:20 start=ok,fail,ok\ncrash s.x\ncrash b\nadd m stop=bad\nterminate b\nstop",
    );
    let smallest = shrink(&scenario, |scenario| {
        let trace = model::play(scenario);
        ["start s#2 ok", "start b error", "start b#2 ok"]
            .iter()
            .all(|wanted| trace.lines.iter().any(|line| line == wanted))
    });
    let expected = "scenario large\nsup / strategy=one_for_all intensity=3\nsup s\nchild b start=ok,fail\ncrash b\n";
    assert_eq!(smallest.to_string(), expected);
}

/// Where the player's trace differs from the expected one, or why there is none.
fn played_otherwise(scenario: &Scenario, expected: &Trace, comparison: Comparison) -> Option<String> {
    match player::play(scenario) {
        Ok(played) => comparison.difference(expected, &played).map(|difference| difference.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn assert_played(vectors: Vec<(Scenario, Trace)>, comparison: Comparison) {
    let differences: Vec<String> =
        vectors.into_iter().filter_map(|(scenario, trace)| played_otherwise(&scenario, &trace, comparison)).collect();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn our_supervisor_does_to_the_letter_what_otp_did() {
    assert_played(vectors(), Comparison::EXACT);
}

#[test]
fn our_supervisor_does_what_the_model_says_in_random_scenarios() {
    let otherwise = |scenario: &Scenario| played_otherwise(scenario, &model::play(scenario), Comparison::EXACT);
    let first = fastrand::u64(..u64::MAX - PLAYED_SCENARIOS);
    println!("seeds from {first}");
    // Not both at once: the player hears of a nested supervisor's end from the root, which hears nothing while it is held.
    let held = Feature::ALL.into_iter().filter(|feature| *feature != Feature::Nested).collect::<Vec<_>>();
    let nested = Feature::ALL.into_iter().filter(|feature| *feature != Feature::Hold).collect::<Vec<_>>();
    for seed in first..first + PLAYED_SCENARIOS {
        let scenario = generate(seed, if seed % 2 == 0 { &held } else { &nested });
        if otherwise(&scenario).is_some() {
            let smallest = shrink(&scenario, |scenario| otherwise(scenario).is_some());
            panic!("{smallest}\n{}", otherwise(&smallest).unwrap_or_default());
        }
    }
}

#[test]
fn an_end_that_a_group_restart_consumed_is_not_taken_for_that_of_a_later_incarnation() {
    let scenario = only(
        "scenario stale_end
         sup / strategy=rest_for_one intensity=6
         child a
         child b
         child c start=ok,hold_fail,hold_fail
         crash b
         crash a
         crash b
         release
         crash b
         release",
    );
    let difference = played_otherwise(&scenario, &model::play(&scenario), Comparison::EXACT);
    assert_eq!(difference, None);
}

#[test]
fn what_we_cannot_play_is_refused() {
    let error = player::play(&only("scenario planned\nsup /\nsup s start=ok,fail\nchild s.x")).unwrap_err();
    assert_eq!(error.to_string(), "planned: the start of s, a supervisor, cannot be planned");
}
