//! The service. This file is its table of contents.

mod audit;
mod banner;
mod cli;
mod exit;
mod http;
mod jobs;
mod parts;
mod reporters;
mod run;
mod settings;
mod shutdown;
mod tree;

use std::process::ExitCode;

use clap::Parser;

/// Some 40 % more requests than with glibc's, and it remembers who holds memory, for `/debug/pprof/heap`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let began = tokio::time::Instant::now();
    let cli = cli::Cli::parse();
    let loaded = match cli.load() {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{faults}");
            return exit::CONFIGURATION.into();
        }
    };
    // One provider of TLS for the whole process, chosen before anything dials. A second call would be the only failure.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("could not start: the runtime: {error}");
            return exit::UNAVAILABLE.into();
        }
    };
    let code = runtime.block_on(async {
        match cli::answer(&cli.command(), &loaded).await {
            Some(code) => code,
            None => run::run(&loaded, began).await,
        }
    });
    // What leaked was reported; the process does not wait for it.
    runtime.shutdown_background();
    code.into()
}
