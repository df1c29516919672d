//! `cargo xtask otlp`, running.

use std::time::Duration;

use crate::process::Process;
use crate::{binary, eventually};

/// The first start builds it.
const BUILD: Duration = Duration::from_secs(900);
const SOON: Duration = Duration::from_secs(60);

/// The command, and where it listens.
pub struct Viewer {
    /// The command itself.
    pub process: Process,
    /// Where it takes OTLP over HTTP.
    pub http: String,
    /// Where it takes OTLP over gRPC.
    pub grpc: String,
}

impl Viewer {
    /// Starts it on free ports.
    pub async fn start() -> Viewer {
        let mut command = binary::cargo();
        command.args(["xtask", "otlp", "--http-port", "0", "--grpc-port", "0"]);
        let process = Process::spawn(command);
        let line = process.line("OTLP over HTTP on ", BUILD).await;
        let mut addresses = line.split([' ', ',']).filter(|word| word.starts_with("http://")).map(str::to_owned);
        let (http, grpc) = (addresses.next().unwrap(), addresses.next().unwrap());
        Viewer { process, http, grpc }
    }

    /// All it has printed once that has all of `words`, each behind the one before.
    pub async fn shows(&self, words: &[&str]) -> String {
        eventually(&format!("{words:?} in this order"), SOON, || async {
            let text = self.process.stdout().join("\n");
            let mut rest = text.as_str();
            for word in words {
                rest = rest.split_once(word)?.1;
            }
            Some(text)
        })
        .await
    }
}
