//! No overlap, no loss, no leak: trees of up to 200 children on three levels, to which everything happens at random.
//!
//! The seed is fresh in each run and printed. What fails is made smaller, and printed with the line that plays it again:
//! `PACE=Paused SEED=7 NODES=0,3 DEEDS=1,4 cargo test -p supervision --test random_trees`.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod measure;
mod trees;

use std::{
    collections::BTreeSet,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{LazyLock, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use measure::Metrics;
use tokio::{runtime::Builder, time::Instant};
use trees::{
    case::{Case, Pace},
    drive,
    generate::generate,
    shrink::shrink,
    tally::RESTARTS_SEEN,
};

/// What one case may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Held by the one test that plays: the counters are of the process.
static METRICS: LazyLock<Mutex<Metrics>> = LazyLock::new(|| Mutex::new(Metrics::install()));

#[test]
fn whatever_happens_nothing_overlaps_is_lost_or_leaks() {
    play_many(Pace::Paused, 200, Duration::from_secs(60));
}

#[test]
fn nor_with_real_threads_and_real_time() {
    play_many(Pace::Real, 30, Duration::from_secs(20));
}

fn play_many(pace: Pace, cases: u64, within: Duration) {
    telemetry::panic::install_hook();
    let metrics = METRICS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(seed) = variable("SEED").and_then(|seed| seed.parse().ok()) {
        let asked_for = variable("PACE").is_none_or(|name| name == format!("{pace:?}"));
        return if asked_for {
            check(&chosen(generate(seed, pace)))
        };
    }
    let (first, began) = (fastrand::u64(0..1 << 48), Instant::now());
    let mut played = 0;
    println!("{pace:?}: seeds from {first}");
    while played < cases && began.elapsed() < within {
        check(&generate(first + played, pace));
        played += 1;
    }
    assert_eq!(metrics.sum("supervisor.restarts"), RESTARTS_SEEN.load(Relaxed));
    println!("{pace:?}: seeds to {}", first + played - 1);
}

/// The part of the case that the environment names.
fn chosen(case: Case) -> Case {
    let numbers = |name: &str| -> Option<BTreeSet<usize>> {
        Some(variable(name)?.split(',').filter_map(|number| number.parse().ok()).collect())
    };
    let nodes = numbers("NODES").unwrap_or_else(|| case.nodes.iter().map(|node| node.number).collect());
    let deeds = numbers("DEEDS").unwrap_or_else(|| case.deeds.iter().map(|deed| deed.number).collect());
    case.only(&nodes, &deeds)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn check(case: &Case) {
    let faults = faults_of(case);
    if faults.is_empty() {
        return;
    }
    println!("SEED={} fails:\n{}\nit is made smaller now ...", case.seed, faults.join("\n"));
    // A smaller case is to fail for the same reason, whoever it strikes there; with real threads not each time.
    let kind = |faults: &[String]| faults.first().map(|fault| fault.replace(|c: char| c.is_ascii_digit(), ""));
    let (began, tries) = (Instant::now(), if case.pace == Pace::Real { 3 } else { 1 });
    let fails = |smaller: &Case| (0..tries).any(|_| kind(&faults_of(smaller)) == kind(&faults));
    let smallest = shrink(case, |smaller| began.elapsed() < PATIENCE && fails(smaller));
    let left = faults_of(&smallest);
    panic!("SEED={} fails; smallest:\n{smallest}\n{}", case.seed, left.join("\n"));
}

/// Plays the case on a runtime of its own.
fn faults_of(case: &Case) -> Vec<String> {
    // Backoffs draw from this thread's generator.
    fastrand::seed(case.seed);
    let runtime = match case.pace {
        Pace::Paused => Builder::new_current_thread().enable_all().start_paused(true).build().unwrap(),
        Pace::Real => Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap(),
    };
    let played = catch_unwind(AssertUnwindSafe(|| runtime.block_on(drive::play(case))));
    runtime.shutdown_timeout(PATIENCE);
    played.unwrap_or_else(|_| vec!["the test itself panicked".to_owned()])
}
