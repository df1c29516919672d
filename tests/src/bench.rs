//! The rows that every benchmark prints: `name | ours | reference | ratio | goal | ok`.

use std::time::{Duration, Instant};

/// Prints the head of the table.
pub fn head() {
    println!("name | ours | reference | ratio | goal | ok");
}

/// One row: `ours` must be at most `goal` times `reference`.
pub fn ratio_row(name: &str, ours: &str, reference: &str, ratio: f64, goal: f64) {
    println!("{name} | {ours} | {reference} | {ratio:.2} | {goal:.2} | {}", verdict(ratio <= goal));
}

/// One row: `ours` must be at least `goal` times `reference`.
pub fn at_least_row(name: &str, ours: &str, reference: &str, ratio: f64, goal: f64) {
    println!("{name} | {ours} | {reference} | {ratio:.2} | {goal:.2} | {}", verdict(ratio >= goal));
}

/// One row without a goal, and without a ratio if that is no number.
pub fn figure_row(name: &str, ours: &str, reference: &str, ratio: f64) {
    let ratio = if ratio.is_nan() { "-".to_owned() } else { format!("{ratio:.2}") };
    println!("{name} | {ours} | {reference} | {ratio} | - | -");
}

/// One row for information: `ours` is aimed to be at most `aim`, both in `unit`.
pub fn aim_row(name: &str, ours: f64, aim: f64, unit: &str) {
    let ratio = ours / aim;
    println!("{name} | {ours:.1} {unit} | - | {ratio:.2} | {aim:.1} {unit} | {}", verdict(ours <= aim));
}

fn verdict(reached: bool) -> &'static str {
    if reached { "ok" } else { "SHORT" }
}

/// The middle of `values`.
///
/// # Panics
///
/// If there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for each of `count` operations that took `elapsed` together.
pub fn ns_each(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_secs_f64() * 1e9 / count as f64
}

/// Nanoseconds of CPU that this process has used on all its threads, for figures that a busy machine must not blur.
pub fn cpu_now() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    Duration::from(now)
}

/// Time and CPU of one piece of work.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// By the wall clock.
    pub wall: Duration,
    /// On all threads of this process.
    pub cpu: Duration,
}

/// Measures one piece of work.
pub async fn cost(work: impl Future<Output = ()>) -> Cost {
    let (wall, cpu) = (Instant::now(), cpu_now());
    work.await;
    Cost { wall: wall.elapsed(), cpu: cpu_now().saturating_sub(cpu) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_not_the_mean() {
        assert_eq!(median(vec![9.0, 1.0, 2.0, 100.0, 3.0]), 3.0);
    }

    #[tokio::test]
    async fn work_is_seen_in_cpu_and_a_sleep_is_not() {
        let slept = cost(tokio::time::sleep(Duration::from_millis(50))).await;
        assert!(slept.wall >= Duration::from_millis(50) && slept.cpu < slept.wall, "{slept:?}");
    }
}
