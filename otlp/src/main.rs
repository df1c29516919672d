//! `cargo xtask otlp`.

mod view;

use std::process::ExitCode;

use clap::Parser;

use self::view::Arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match view::run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("otlp: {reason}");
            ExitCode::FAILURE
        }
    }
}
