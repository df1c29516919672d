//! What the service tells, read by programs that know nothing of us: another decoder of OTLP, and Prometheus.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::process::Process;
use tests::{Port, Prometheus, Service, Setup, eventually, tools};
use tokio::net::TcpStream;

/// The programs are started by a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);

async fn listens(port: &Port) {
    eventually("somebody listens on the port", SOON, || async {
        TcpStream::connect(port.address()).await.ok().map(drop)
    })
    .await;
}

/// A decoder that prints all it hears, and ends with 0 when it has seen what `awaited` asks for.
async fn oteltap(port: &Port, awaited: &[&str]) -> Option<Process> {
    let mut command = Command::new(tools::find("oteltap")?);
    command.args(["--port", &port.number().to_string()]).args(awaited).env("PYTHONUNBUFFERED", "1");
    let process = Process::spawn(command);
    listens(port).await;
    Some(process)
}

fn sending_to(port: &Port) -> Setup {
    let setup = Service::setup().env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", port.address()));
    setup.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf").env("OTEL_BSP_SCHEDULE_DELAY", 100)
}

#[tokio::test]
async fn another_decoder_sees_the_span_of_a_job() {
    let port = Port::take();
    let Some(tap) = oteltap(&port, &["--await-span", "^job\\.run$"]).await else { return };
    let service = sending_to(&port).start().await;
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    service.job_in(&id, "done").await;
    let ended = tap.wait(SOON).await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(ended.stdout.iter().any(|line| line.contains(&id)), "its attributes can be read: {:#?}", ended.stdout);
}

#[tokio::test]
async fn another_decoder_sees_a_panic_that_was_recovered() {
    let port = Port::take();
    let Some(tap) = oteltap(&port, &[]).await else { return };
    let service = sending_to(&port).env("OTEL_BLRP_SCHEDULE_DELAY", 100).start().await;
    service.make_panic("health_sweep").await;
    eventually("the event on its span, and the log record of its name", SOON, || async {
        let heard = tap.stdout();
        let has = |words: [&str; 2]| heard.iter().any(|line| words.iter().all(|word| line.contains(word)));
        let is_told = has(["\"name\":\"panic.recovered\"", "exception.stacktrace"])
            && has(["panic.recovered: injected panic", "exception.message"]);
        is_told.then_some(())
    })
    .await;
}

#[tokio::test]
async fn promtool_finds_nothing_to_say_against_the_metrics() {
    let Some(promtool) = tools::find("promtool") else { return };
    let service = Service::start().await;
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    service.job_in(&id, "done").await;
    let page = service.home().path().join("metrics.txt");
    std::fs::write(&page, service.metrics().await.text()).unwrap();
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(std::fs::File::open(&page).unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[tokio::test]
async fn prometheus_scrapes_the_service_and_counts_its_panics() {
    let service = Service::start().await;
    let Some(prometheus) = Prometheus::start(&service).await else { return };
    let counted = async |expected: &str| {
        let query = "panic_recovered_total{component=\"health_sweep\",policy=\"restart\"}";
        eventually(&format!("{expected} panics are counted"), SOON, || async {
            (prometheus.ask(query).await == [expected]).then_some(())
        })
        .await;
    };
    counted("0").await;
    service.make_panic("health_sweep").await;
    counted("1").await;
    let metadata = prometheus.get("metadata?metric=panic_recovered_total").await;
    let known: &Value = &metadata["panic_recovered_total"][0];
    assert_eq!((&known["type"], &known["help"]), (&json!("counter"), &json!("Panics that were caught and recorded.")));
}
