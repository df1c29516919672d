//! What `supervision` costs beside its peers and beside Erlang/OTP, in one run: see `README.md`.
//!
//! Every measure of every system runs in a process of its own, and the systems take turns in each round: none finds the
//! heap, the panic hook or the registry of another, and a slow minute of the machine hits all. The rows show the least of
//! the rounds, for what disturbs a measure only ever adds to it.
//!
//! An argument chooses rows: those whose name contains it.

mod actix;
mod bare;
mod counter;
mod kameo;
mod measure;
mod otp;
mod ours;
#[cfg(feature = "ractor-supervisor")]
mod ractor_supervisor;
mod rows;

use std::collections::HashMap;
use std::process::{Command, ExitCode, Stdio};

use measure::{Measure, System};
use rows::Value;

const OURS: &str = "ours";
const OTP: &str = "OTP";

/// The one whose rows these are, the others, and how each is measured.
const SYSTEMS: &[(&str, &dyn System)] = &[
    (OURS, &ours::Ours),
    ("bare ractor", &bare::Bare),
    #[cfg(feature = "ractor-supervisor")]
    ("ractor-supervisor", &ractor_supervisor::RactorSupervisor),
    ("kameo", &kameo::Kameo),
    ("actix", &actix::Actix),
];

/// What is measured, how often, and what comes out.
const PLAN: &[(Measure, usize, &[Value])] = &[
    (Measure::Message, 5, &[value("message", "ns", None, &[("bare ractor", 1.10)])]),
    (Measure::MessageMetered, 5, &[value("message.metered", "ns", None, &[])]),
    (Measure::Call, 5, &[value("call", "ns", None, &[])]),
    (Measure::Crash, 5, &[value("crash.p50", "us", Some(20.0), &[(OTP, 1.0)]), value("crash.p99", "us", None, &[])]),
    (
        Measure::CrashLoaded,
        2,
        &[value("crash.loaded.p50", "us", Some(20.0), &[(OTP, 1.0)]), value("crash.loaded.p99", "us", None, &[])],
    ),
    (Measure::Start(1000), 5, &[value("start.1000", "us", Some(8.0), &[(OTP, 1.0)])]),
    (Measure::Start(100_000), 3, &[value("start.100000", "us", Some(8.0), &[(OTP, 1.0)])]),
    (Measure::Stop(10_000), 5, &[value("stop.10000", "us", Some(8.0), &[(OTP, 1.0)])]),
    (
        Measure::OneForAll(1000),
        5,
        &[
            value("one_for_all.1000.wall", "ms", None, &[]),
            value("one_for_all.1000.cpu", "ms", Some(12.0), &[(OTP, 1.0)]),
        ],
    ),
    (Measure::Memory(20_000), 1, &[value("idle_child", "B", Some(10_240.0), &[])]),
];

/// Pairs of rows of which the first is to be hardly larger than the second.
const GROWTH: &[(&str, &str, &str)] = &[
    ("crash: 20,000 restarts in the window to none", "crash.loaded.p50", "crash.p50"),
    ("start: each of 100,000 to each of 1,000", "start.100000", "start.1000"),
];
const FLAT: f64 = 1.25;

const fn value(
    name: &'static str,
    unit: &'static str,
    aim: Option<f64>,
    goals: &'static [(&'static str, f64)],
) -> Value {
    Value { name, unit, aim, goals }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--one", system, name, count] => one(system, name, count),
        arguments => all(arguments.iter().find(|argument| !argument.starts_with('-')).copied()),
    }
}

/// The process of one measure: prints its values on a line, an empty one if the system has no such thing.
fn one(system: &str, name: &str, count: &str) -> ExitCode {
    let known = SYSTEMS.iter().find(|(known, _)| *known == system);
    let (Some((_, system)), Some(measure)) = (known, Measure::from_words(name, count)) else {
        eprintln!("peers: no system {system} or no measure {name} {count}");
        return ExitCode::FAILURE;
    };
    let values = system.measure(measure).unwrap_or_default();
    println!("{}", values.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    ExitCode::SUCCESS
}

/// Takes all measures whose rows are wanted, and prints them as they come.
fn all(wanted: Option<&str>) -> ExitCode {
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| name.contains(wanted));
    let mut systems: Vec<&str> = SYSTEMS.iter().map(|(name, _)| *name).collect();
    match otp::is_installed() {
        true => systems.push(OTP),
        false => println!("no escript on this machine: skipped OTP (Debian's package is erlang-base)"),
    }
    rows::head();
    let mut least: HashMap<(&str, &str), f64> = HashMap::new();
    for (measure, rounds, values) in PLAN {
        let values: Vec<(usize, Value)> =
            values.iter().copied().enumerate().filter(|(_, value)| is_wanted(value.name)).collect();
        if values.is_empty() {
            continue;
        }
        for _ in 0..*rounds {
            for system in &systems {
                let taken = match take(system, *measure) {
                    Ok(taken) => taken,
                    Err(reason) => {
                        eprintln!("peers: {system}, {measure:?}: {reason}");
                        return ExitCode::FAILURE;
                    }
                };
                for (index, value) in values.iter().filter(|(index, _)| *index < taken.len()) {
                    least
                        .entry((value.name, system))
                        .and_modify(|it| *it = it.min(taken[*index]))
                        .or_insert(taken[*index]);
                }
            }
        }
        for (_, value) in values {
            print(value, &systems, &least);
        }
    }
    for (name, large, small) in GROWTH {
        for system in &systems {
            if let (Some(large), Some(small)) = (least.get(&(*large, *system)), least.get(&(*small, *system))) {
                rows::growth_row(name, system, "us", (*large, *small), (*system == OURS).then_some(FLAT));
            }
        }
    }
    ExitCode::SUCCESS
}

fn print(value: Value, systems: &[&str], least: &HashMap<(&str, &str), f64>) {
    let Some(ours) = least.get(&(value.name, OURS)) else { return };
    rows::aim_row(value, *ours);
    for peer in systems.iter().filter(|system| **system != OURS) {
        rows::peer_row(value, *ours, peer, least.get(&(value.name, *peer)).copied());
    }
}

/// Takes one measure of one system in a process of its own.
fn take(system: &str, measure: Measure) -> Result<Vec<f64>, String> {
    let mut command = match system {
        OTP => match otp::command(measure) {
            Some(command) => command,
            None => return Ok(Vec::new()),
        },
        system => {
            let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
            command.args(["--one", system]).args(measure.words());
            command
        }
    };
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("ended with {}: {text}", output.status));
    }
    text.split_whitespace().map(|word| word.parse().map_err(|_| format!("not a number: {text}"))).collect()
}
