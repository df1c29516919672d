//! `cargo xtask otlp`: the package `otlp`, reading JSON too.

use std::process::ExitCode;

use crate::run::{Outcome, cargo, shown};

/// Receives and prints until it is told to stop.
pub fn run(arguments: &[String]) -> Outcome {
    let mut command = cargo(&["run", "--quiet", "--package", "otlp", "--features", "json", "--"]);
    let status = shown(command.args(arguments))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
