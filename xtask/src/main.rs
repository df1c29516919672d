//! The project's own commands: `cargo xtask test`, `bench`, `soak`, `otlp`, `guards`. Each needs nothing but Rust, a C compiler
//! and make.

mod bench;
mod guards;
mod otlp;
mod postgres;
mod report;
mod run;
mod soak;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every test there is; a skipped one counts as failed.
    Test {
        /// Handed to the test runner: part of a name, `-p actors`, ...
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filter: Vec<String>,
    },
    /// The benchmarks, or the one named; prints `name | ours | reference | ratio | goal | ok` rows.
    Bench {
        /// A file in `tests/benches`, without its ending.
        name: Option<String>,
    },
    /// Hundreds of random kills, and the random tests again and again, with fresh seeds.
    Soak {
        /// For how long, in minutes; the kills, and a round that has begun, are finished.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
    },
    /// Receives OTLP and prints traces as trees, for a look without a browser.
    Otlp {
        /// Handed on: `--http-port`, `--grpc-port`, `--help`, ...
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// What must never be among the dependencies.
    Guards,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Test { filter } => test::run(&filter),
        Command::Bench { name } => bench::run(name.as_deref()),
        Command::Soak { minutes } => soak::run(minutes),
        Command::Otlp { arguments } => otlp::run(&arguments),
        Command::Guards => guards::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}
