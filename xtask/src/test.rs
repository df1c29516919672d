//! `cargo xtask test`: every test of the workspace, unit, outside and documentation, with nextest if it is there and with
//! cargo's own runner if not. The last line is `N passed, N failed`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::postgres::{self, Postgres, Safety};
use crate::report::Report;
use crate::run::{Outcome, cargo, seen, shown, target, workspace};
use crate::tools;

/// How many slow tests are named.
const SLOWEST: usize = 10;

/// Where the outside tests look for the service before they build it themselves.
const BUILT: &str = "APP_UNDER_TEST";

/// Where they look for the same with [`FEATURES`], which they cannot build themselves without losing the other.
const WITH_FEATURES: &str = "APP_WITH_FEATURES";

/// What the service has only for those who ask for it.
const FEATURES: &str = "app/sentry";

/// The tests that need it.
const OF_FEATURES: [&str; 1] = ["sentry"];

/// Runs all tests, or those that `filter` chooses.
pub fn run(filter: &[String]) -> Outcome {
    tools::set_up();
    let with_features = build_the_service(filter)?;
    let server = Postgres::start(Safety::None).inspect_err(|trouble| eprintln!("xtask: {trouble}")).ok();
    let outside = Outside { postgres: server.as_ref().map(Postgres::url), with_features };
    let mut report = if has_nextest() { nextest(filter, &outside)? } else { libtest(filter, &outside)? };
    if filter.is_empty() {
        report.add(documentation()?);
    }
    show(&report);
    let is_good = report.failed + report.skipped.len() == 0 && report.passed > 0;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the tests are told of their surroundings.
struct Outside {
    /// The server that they share; without one they say that they were skipped.
    postgres: Option<String>,
    /// The service with [`FEATURES`].
    with_features: Option<PathBuf>,
}

impl Outside {
    fn tell(&self, command: &mut Command) {
        command.env(BUILT, service()).env(tools::TOOLS, tools::programs());
        command.envs(self.postgres.iter().map(|url| (postgres::SERVER, url)));
        command.envs(self.with_features.iter().map(|path| (WITH_FEATURES, path)));
    }
}

/// The counts stand alone on the last line, for whoever reads only that.
fn show(report: &Report) {
    println!("\nthe slowest:");
    for (name, seconds) in report.slowest(SLOWEST) {
        println!("  {seconds:>7.2} s  {name}");
    }
    for reason in &report.skipped {
        println!("skipped, which counts as failed: {reason}");
    }
    let skipped = report.skipped.len();
    println!("{} passed, {} failed", report.passed.saturating_sub(skipped), report.failed + skipped);
}

/// Builds what the outside tests start, once for all of them: the service as it is, and before it, under another name, the
/// service with all its features, if that may be asked for.
fn build_the_service(filter: &[String]) -> Result<Option<PathBuf>, String> {
    let mut with_features = None;
    if wants_features(filter) {
        build(&["build", "--bin", "app", "--features", FEATURES])?;
        let kept = target().join("debug/app-with-features");
        std::fs::copy(service(), &kept).map_err(|error| format!("keep {}: {error}", kept.display()))?;
        with_features = Some(kept);
    }
    build(&["build", "--bin", "app"])?;
    Ok(with_features)
}

/// Whether a test may run that needs them; a second build of the service is spared the others.
fn wants_features(filter: &[String]) -> bool {
    filter.is_empty()
        || filter == ["-p", "tests"]
        || filter.iter().any(|word| OF_FEATURES.iter().any(|test| word.contains(test)))
}

fn build(arguments: &[&str]) -> Result<(), String> {
    match shown(&mut cargo(arguments))?.success() {
        true => Ok(()),
        false => Err("the service does not build".to_owned()),
    }
}

fn service() -> PathBuf {
    target().join("debug/app")
}

fn has_nextest() -> bool {
    let mut command = cargo(&["nextest", "--version"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// A broken build leaves no report behind, and an old one must not be read in its place.
fn nextest(filter: &[String], outside: &Outside) -> Result<Report, String> {
    // Beside the workspace, wherever what is built goes.
    let file = workspace().join("target/nextest/full/junit.xml");
    let _ = std::fs::remove_file(&file);
    let mut command = cargo(&["nextest", "run", "--profile", "full", "--no-fail-fast"]);
    outside.tell(&mut command);
    let status = shown(command.args(chosen(filter, &["--workspace"])))?;
    let xml = std::fs::read_to_string(&file).map_err(|error| format!("no report of nextest ({status}): {error}"))?;
    let mut report = Report::from_junit(&xml)?;
    count_other_failures(&mut report, status.success());
    Ok(report)
}

fn libtest(filter: &[String], outside: &Outside) -> Result<Report, String> {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    outside.tell(&mut command);
    command.args(chosen(filter, &["--workspace", "--lib", "--bins", "--tests"])).args(["--", "--show-output"]);
    read(&mut command)
}

fn documentation() -> Result<Report, String> {
    read(&mut cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]))
}

/// Runs cargo's own runner and sums what it prints.
fn read(command: &mut Command) -> Result<Report, String> {
    let mut report = Report::default();
    let status = seen(command, |line| report.libtest_line(line))?;
    count_other_failures(&mut report, status.success());
    Ok(report)
}

/// A run that failed without a failed test (it did not compile, or a process was killed) is a failure all the same.
fn count_other_failures(report: &mut Report, succeeded: bool) {
    if !succeeded && report.failed == 0 {
        report.failed = 1;
    }
}

/// What the caller asks for, or all.
fn chosen<'a>(filter: &'a [String], all: &[&'a str]) -> Vec<&'a str> {
    if filter.is_empty() { all.to_vec() } else { filter.iter().map(String::as_str).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_fails_without_a_failed_test_is_a_failure() {
        let mut report = Report { passed: 3, ..Report::default() };
        count_other_failures(&mut report, false);
        assert_eq!(report.failed, 1);
    }

    #[test]
    fn failures_that_were_counted_are_not_counted_again() {
        let mut report = Report { failed: 2, ..Report::default() };
        count_other_failures(&mut report, false);
        count_other_failures(&mut report, true);
        assert_eq!(report.failed, 2);
    }
}
