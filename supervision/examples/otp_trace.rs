//! Plays scenario files on our supervisor and prints what happened, in the format in which Erlang/OTP's own traces are
//! recorded.
//!
//! ```text
//! cargo run -p supervision --example otp_trace -- FILE...
//! ```
//!
//! Exit code 0: all were played; 1: one could not be played to its end; 2: a file is missing or not understood.

use std::process::ExitCode;

#[path = "../tests/otp/mod.rs"]
#[expect(dead_code, reason = "the model, the generator and the comparison are for the tests")]
mod otp;

use otp::{parse, player, scenario::Scenario};

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: otp_trace FILE...");
        return ExitCode::from(2);
    }
    // All files are read before the first scenario is played.
    match files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>() {
        Ok(scenarios) => print_all(scenarios.iter().flatten()),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

fn read(file: &str) -> Result<Vec<Scenario>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    parse::parse(&text).map_err(|error| format!("{file}: {error}"))
}

fn print_all<'a>(scenarios: impl Iterator<Item = &'a Scenario>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for scenario in scenarios {
        match player::play(scenario) {
            Ok(trace) => print!("{trace}"),
            Err(error) => {
                eprintln!("{error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
