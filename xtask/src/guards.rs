//! `cargo xtask guards`: what must never be among the dependencies. Each guard must find nothing; what it finds is shown.

use std::process::ExitCode;

use crate::run::{Outcome, captured, cargo};

/// A question to `cargo tree`, and which of its lines are a fault.
struct Guard {
    /// What would go wrong.
    reason: &'static str,
    arguments: &'static [&'static str],
    is_fault: fn(&str) -> bool,
}

const GUARDS: [Guard; 6] = [
    Guard {
        reason: "two versions of one telemetry crate have two global providers: half of the spans would be lost",
        arguments: &["tree", "--workspace", "--target", "all", "--duplicates", "--edges", "normal", "--depth", "0"],
        is_fault: |line| starts_with_any(line, &["opentelemetry", "tonic", "tracing-opentelemetry"]),
    },
    Guard {
        reason: "an asynchronous client on the exporter's thread kills it: only reqwest-blocking-client may be on",
        arguments: &["tree", "--workspace", "--target", "all", "--edges", "features", "--invert", "opentelemetry-otlp"],
        is_fault: |line| contains_any(line, &["reqwest-client", "hyper-client"]),
    },
    Guard {
        reason: "ractor's span propagation puts the sender's span in place of the actor's: our wrapper carries the context",
        arguments: &["tree", "--workspace", "--target", "all", "--edges", "features", "--invert", "ractor"],
        is_fault: |line| line.contains("message_span"),
    },
    Guard {
        reason: "with two TLS providers in the graph rustls panics at first use: ring is the one",
        arguments: &["tree", "--workspace", "--target", "all", "--prefix", "none", "--format", "{p}"],
        is_fault: |line| starts_with_any(line, &["aws-lc-rs ", "aws-lc-sys ", "native-tls ", "openssl "]),
    },
    Guard {
        reason: "with the battery every callback of every actor looks for a fault: it is for tests",
        arguments: &["tree", "--workspace", "--target", "all", "--edges", "features,no-dev", "--invert", "supervision"],
        is_fault: |line| line.contains("supervision feature \"battery\""),
    },
    Guard {
        reason: "what tells Sentry is in a build only for those who ask for it",
        arguments: &["tree", "--package", "app", "--edges", "normal", "--prefix", "none", "--format", "{p}"],
        is_fault: |line| line.starts_with("sentry"),
    },
];

/// Asks every guard, shows every finding, and fails if there is one.
pub fn run() -> Outcome {
    let mut faults = 0;
    for guard in GUARDS {
        let tree = captured(&mut cargo(guard.arguments))?;
        let found: Vec<&str> = tree.lines().filter(|line| (guard.is_fault)(line)).collect();
        if !found.is_empty() {
            faults += 1;
            println!("cargo {}\n  {}\n  {}", guard.arguments.join(" "), guard.reason, found.join("\n  "));
        }
    }
    match faults {
        0 => Ok(ExitCode::SUCCESS),
        faults => Err(format!("{faults} of {} guards found what must not be there", GUARDS.len())),
    }
}

fn starts_with_any(line: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| line.starts_with(start))
}

fn contains_any(line: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| line.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guard_sees_its_fault_and_lets_the_rest_pass() {
        let faults = [
            "opentelemetry v0.32.0",
            "│   ├── opentelemetry-otlp feature \"reqwest-client\"",
            "├── ractor feature \"message_span_propogation\"",
            "aws-lc-rs v1.13.0",
            "├── supervision feature \"battery\"",
            "sentry_reporter v0.1.0",
        ];
        let fine = [
            "tokio-tungstenite v0.29.0",
            "│   ├── opentelemetry-otlp feature \"reqwest-blocking-client\"",
            "├── ractor feature \"tokio_runtime\"",
            "ring v0.17.14",
            "├── supervision feature \"default\"",
            "serde v1.0.0",
        ];
        for ((guard, fault), fine) in GUARDS.iter().zip(faults).zip(fine) {
            assert!((guard.is_fault)(fault), "{fault}");
            assert!(!(guard.is_fault)(fine), "{fine}");
        }
    }
}
