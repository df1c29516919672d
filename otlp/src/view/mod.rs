//! Traces in a terminal: what arrives by OTLP, as trees, when it is complete.

mod draw;
mod pending;
mod tree;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval};

use self::pending::{Pending, Trace};
use otlp::{Protocol, Refused, Sink, Telemetry};

/// How often it is looked whether a trace is complete.
const LOOK: Duration = Duration::from_millis(100);

/// Receives OTLP and prints each trace as a tree when it is complete, those with errors first, with the logs of each span.
/// Metrics are taken and not shown.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask otlp")]
pub struct Arguments {
    /// Where OTLP over HTTP is taken (protobuf or JSON, gzip or not); 0 is any free port
    #[arg(long, default_value_t = 4318)]
    http_port: u16,
    /// Where OTLP over gRPC is taken; 0 is any free port
    #[arg(long, default_value_t = 4317)]
    grpc_port: u16,
    /// The address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
}

/// Receives and prints, until a signal or until nobody reads any more.
///
/// # Errors
/// A port is taken, or a listener failed.
pub async fn run(arguments: &Arguments) -> Result<(), String> {
    let (http, grpc) =
        (bind(arguments.host, arguments.http_port).await?, bind(arguments.host, arguments.grpc_port).await?);
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let (at_http, at_grpc) = (address(&http)?, address(&grpc)?);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let kept = Arc::new(Kept::default());
    let begun = format!("OTLP over HTTP on http://{at_http}, over gRPC on http://{at_grpc}\n");
    if print(&begun).is_err() {
        return Ok(());
    }
    let ended = tokio::select! {
        served = otlp::http(http, Arc::clone(&kept)) => served.map_err(|error| error.to_string()),
        served = otlp::grpc(grpc, Arc::clone(&kept)) => served.map_err(|error| error.to_string()),
        _ = kept.show() => return Ok(()),
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| error.to_string()),
    };
    let rest = kept.pending().all();
    // Who has closed the other end does not want to read it.
    let _ = show(&rest);
    ended
}

async fn bind(host: IpAddr, port: u16) -> Result<TcpListener, String> {
    TcpListener::bind((host, port)).await.map_err(|error| format!("{host}:{port}: {error}"))
}

/// Colours go where they are understood: not into files or pipes, and not where `NO_COLOR` says so.
fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn show(traces: &[Trace]) -> io::Result<()> {
    traces.iter().try_for_each(|trace| print(&draw::trace(trace)))
}

/// What has come and was not shown yet.
#[derive(Default)]
struct Kept(Mutex<Pending>);

impl Kept {
    /// Nothing here can panic half-way through a change.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what is complete, for as long as somebody reads.
    async fn show(&self) -> io::Result<()> {
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            let complete = self.pending().complete(Instant::now());
            show(&complete)?;
        }
    }
}

impl Sink for Kept {
    async fn take(&self, telemetry: Telemetry, _: Protocol) -> Result<(), Refused> {
        let now = Instant::now();
        let mut pending = self.pending();
        if pending.is_full() {
            return Err(Refused);
        }
        match telemetry {
            Telemetry::Spans(spans) => spans.into_iter().for_each(|span| pending.span(span, now)),
            Telemetry::Logs(logs) => logs.into_iter().for_each(|log| pending.log(log, now)),
            Telemetry::Points(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that is told nothing sends there.
    #[test]
    fn it_listens_where_otlp_is_sent_by_default_and_to_this_machine_only() {
        let default = Arguments::parse_from(["otlp"]);
        assert_eq!((default.http_port, default.grpc_port, default.host.is_loopback()), (4318, 4317, true));
    }
}
