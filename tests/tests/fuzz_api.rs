//! The document of the API against the API itself, by tools that know nothing of us: a validator of OpenAPI, and
//! schemathesis, which makes requests of the document, right ones and wrong ones, and holds the answers against it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::process::{Ended, Process};
use tests::{Client, DEMO_KEY, Service, tools};

/// For each operation and phase. About 2,000 requests in all.
const EXAMPLES: &str = "60";

/// The same run every time; `FUZZ_SEED` chooses another one.
const SEED: &str = "1";

/// On a machine that is busy with everything else. A free one needs a tenth.
const WITHIN: Duration = Duration::from_secs(240);

/// All that there are, but for one: what the schema allows may still make no sense (a job of a kind that nobody runs), and
/// is then 422. That it is documented is checked.
const CHECKS: [&str; 4] = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"];

async fn run(mut command: Command, folder: &Path) -> Ended {
    command.current_dir(folder).env("NO_COLOR", "1").env("COLUMNS", "160");
    Process::spawn(command).wait(WITHIN).await
}

async fn document(service: &Service) -> Value {
    service.api().get("/openapi.json").await.expect(200).json()
}

/// Paths whose answers have no end: no tool can wait for one.
fn endless(document: &Value) -> Vec<&str> {
    let streams = |item: &Value| item.to_string().contains("\"text/event-stream\"");
    let paths = document["paths"].as_object().unwrap();
    paths.iter().filter(|(_, item)| streams(item)).map(|(path, _)| path.as_str()).collect()
}

#[tokio::test]
async fn the_document_is_openapi_3_1() {
    let Some(validator) = tools::find("openapi-spec-validator") else { return };
    let service = Service::start().await;
    let document = document(&service).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    let file = service.home().path().join("openapi.json");
    fs::write(&file, document.to_string()).unwrap();
    let mut command = Command::new(validator);
    command.arg(&file);
    let said = run(command, service.home().path()).await;
    assert_eq!(said.code, 0, "{}\n{}", said.stdout.join("\n"), said.log());
}

#[tokio::test]
async fn no_request_right_or_wrong_is_answered_otherwise_than_the_document_says() {
    let Some(schemathesis) = tools::find("schemathesis") else { return };
    // Otherwise it would soon see nothing but 429.
    let roomy = Service::setup().set("tenants.requests_per_s", 100_000).set("tenants.requests_burst", 100_000);
    let service = roomy.set("limits.auth_failures_per_min", 100_000).start().await;
    let document = document(&service).await;
    let seed = std::env::var("FUZZ_SEED").unwrap_or_else(|_| SEED.to_owned());
    let mut command = Command::new(schemathesis);
    command.args(["run", "--seed", &seed, "--max-examples", EXAMPLES, "--continue-on-failure", "--warnings", "off"]);
    command.args(CHECKS).args(["--header", &format!("Authorization: Bearer {DEMO_KEY}"), "--request-timeout", "30"]);
    command.args(endless(&document).iter().flat_map(|path| ["--exclude-path", path]));
    let shown = format!("{command:?} http://127.0.0.1:8080/openapi.json");
    command.arg(format!("{}/openapi.json", service.api().base()));
    println!("to see it again: `cargo run`, and\n  {shown}");

    let said = run(command, service.home().path()).await;
    let output = said.stdout.join("\n");
    assert_eq!(said.code, 0, "{output}\n{}", said.log());
    assert!(output.contains("Test cases:"), "it has tried something: {output}");
    is_well(&service, &output).await;
}

/// Still ready, and nothing panicked on the way.
async fn is_well(service: &Service, output: &str) {
    Client::new(service.api().base()).get("/readyz").await.expect(200);
    let metrics = service.metrics().await;
    assert_eq!(
        metrics.value("panic_recovered_total", &[]),
        Some(0.0),
        "{}\n{output}",
        service.process().stderr().join("\n")
    );
    let incidents = service.admin().get("/admin/incidents").await.expect(200).json();
    assert_eq!(incidents["items"], serde_json::json!([]), "{output}");
}
