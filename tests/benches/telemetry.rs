//! What telemetry costs: a span, a log line, a number; the flight recorder on and off; its memory; and the service with
//! all of it.
//!
//! Telemetry starts once in a process, so each figure is taken in processes of its own, which take turns.

#[path = "telemetry/service.rs"]
mod service;
#[path = "telemetry/worker.rs"]
mod worker;

use std::collections::HashMap;
use std::process::{Command, Stdio};

use tests::bench::{self, median};

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Turns of each kind of process.
const TURNS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == worker::WORKER) {
        return worker::run(&arguments[at + 1]);
    }
    let wanted = |part: &str| arguments.iter().all(|argument| argument.starts_with('-') || argument == part);
    bench::head();
    if wanted("calls") {
        calls();
    }
    if wanted("memory") {
        memory();
    }
    if wanted("service") {
        service::rows();
    }
}

/// Nanoseconds of CPU for each call.
fn calls() {
    let mut of: [HashMap<String, Vec<f64>>; 2] = Default::default();
    for _ in 0..TURNS {
        for (figures, mode) in of.iter_mut().zip(["off", "on"]) {
            for (name, value) in figures_of(mode) {
                figures.entry(name).or_default().push(value);
            }
        }
    }
    let [off, on] =
        of.map(|all| all.into_iter().map(|(name, values)| (name, median(values))).collect::<HashMap<_, _>>());
    for name in ["span", "span_by_api", "log"] {
        let (ours, reference) = (format!("{:.0} ns", on[name]), format!("{:.0} ns without", off[name]));
        bench::figure_row(&format!("telemetry.{name}.recorder"), &ours, &reference, on[name] / off[name]);
    }
    let bound =
        ["counter", "up_down_counter", "gauge", "histogram"].map(|name| [name.to_owned(), format!("{name}_bound")]);
    for name in bound.as_flattened().iter().map(String::as_str).chain(["observable_gauge"]) {
        bench::figure_row(&format!("telemetry.{name}"), &format!("{:.0} ns", on[name]), "-", f64::NAN);
    }
}

/// What a full recorder takes, beside what it may take.
fn memory() {
    let figures: HashMap<String, f64> = figures_of("memory").into_iter().collect();
    let (taken, limit) = (figures["taken_mib"], figures["limit_mib"]);
    let held = format!("{limit:.0} MiB of limits, {:.0} MiB as estimated", figures["held_mib"]);
    bench::ratio_row("telemetry.recorder.memory", &format!("{taken:.0} MiB"), &held, taken / limit, 1.2);
}

/// What a worker says: a name and a number in each line.
fn figures_of(mode: &str) -> Vec<(String, f64)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // Its log is a part of the figures, and goes where it costs the least.
    let output = command.args([worker::WORKER, mode]).stderr(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "the worker for {mode} ended with {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let read = |line: &str| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    text.lines().filter_map(read).collect()
}
