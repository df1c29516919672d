//! Incidents in Sentry: what arrives there, and that it costs the service nothing if the receiver fails, refuses or hangs.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::receiver::{Call, Reply};
use tests::{Envelope, Receiver, Service, Setup, binary, eventually};

const SOON: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const KEY: &str = "5eca11ed0badc0de";

/// The service that tells the receiver; none if it was not built.
fn telling(receiver: &Receiver) -> Option<Setup> {
    let dsn = receiver.url("/42").replace("http://", &format!("http://{KEY}@"));
    Some(Service::setup().fast_backoff().executable(&binary::app_with_features()?).set("telemetry.sentry.dsn", dsn))
}

async fn break_a_job(service: &Service) -> String {
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 1});
    let request = service.api().request(Method::POST, "/v1/jobs").json(&body);
    let answer = send(request.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))).await.expect(201);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    service.job_in(&id, "dead").await;
    id
}

async fn reports(service: &Service, outcome: &str) -> f64 {
    let labels = [("reporter", "sentry"), ("outcome", outcome)];
    service.metrics().await.value("incident_reports_total", &labels).unwrap()
}

async fn reported(service: &Service, outcome: &str, count: f64) {
    eventually(&format!("{count} reports are {outcome}"), SOON, || async {
        (reports(service, outcome).await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_panic_is_one_event_with_all_that_is_known_of_it() {
    let receiver = Receiver::start().await;
    let Some(setup) = telling(&receiver) else { return };
    let service = setup.set("telemetry.sentry.environment", "staging").start().await;
    assert_eq!(reports(&service, "sent").await, 0.0, "every counter is born at 0");
    let job = break_a_job(&service).await;
    let call = receiver.await_calls(1, SOON).await.remove(0);
    reported(&service, "sent", 1.0).await;
    let list = service.admin().get("/admin/incidents").await.expect(200).json();
    let incident = list["items"][0].clone();

    is_addressed(&call);
    let envelope = Envelope::of(&call);
    let id = incident["id"].as_str().unwrap();
    assert_eq!(envelope.header["event_id"].as_str().unwrap().replace('-', ""), id.replace('-', ""));
    assert_eq!(envelope.item["type"], "event");
    let event = &envelope.event;
    assert_eq!(
        (&event["environment"], &event["level"]),
        (&json!("staging"), &Value::Null),
        "an error, if it is not said"
    );
    assert_eq!(event["release"], format!("perennial@{}", env!("CARGO_PKG_VERSION")));
    let exception = envelope.exception();
    assert_eq!((&exception["type"], &exception["value"]), (&json!("panic"), &incident["message"]));
    let frames = exception["stacktrace"]["frames"].as_array().unwrap();
    let last = frames.last().unwrap();
    assert_eq!((&last["filename"], &last["in_app"]), (&json!("panic.rs"), &json!(true)), "{frames:#?}");
    assert!(last["abs_path"].as_str().unwrap().contains("actors/src/jobs/panic.rs") && last["lineno"].is_u64());
    assert!(frames.iter().any(|frame| frame["in_app"] == false), "what others wrote is told apart: {frames:#?}");
    let tags = ["component", "actor", "policy", "kind", "tenant"].map(|name| envelope.tag(name));
    assert_eq!(tags, ["scheduler", "scheduler.runners", "keep_running", "panic", "demo"]);
    assert_eq!([envelope.tag("job.id"), envelope.tag("job.kind"), envelope.tag("incident.id")], [&job, "panic", id]);
    let trace = &event["contexts"]["trace"];
    assert_eq!((&trace["trace_id"], &trace["span_id"]), (&incident["trace_id"], &incident["span_id"]));
    let more = &event["contexts"]["incident"];
    assert!(more["outcome"].as_str().unwrap().starts_with("the job is dead: "), "{more:#}");

    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(!ended.log().contains(KEY), "the key is a secret");
    assert_eq!(receiver.calls().len(), 1, "once");
}

fn is_addressed(call: &Call) {
    assert_eq!(
        (call.path.as_str(), call.header("content-type")),
        ("/api/42/envelope/", "application/x-sentry-envelope")
    );
    let auth = call.header("x-sentry-auth");
    assert!(auth.starts_with("Sentry ") && auth.contains(&format!("sentry_key={KEY}")), "{auth}");
}

#[tokio::test]
async fn who_gave_up_is_an_event_too() {
    let receiver = Receiver::start().await;
    let Some(setup) = telling(&receiver) else { return };
    let service = setup.set("health_sweep.restart.intensity", 1).start().await;
    for incarnation in 1..=2 {
        eventually("it is up", SOON, || async {
            let node = service.node("health_sweep").await;
            (node["status"] == "up" && node["incarnation"] == incarnation).then_some(())
        })
        .await;
        service.make_panic("health_sweep").await;
    }
    let events: Vec<Envelope> = receiver.await_calls(3, SOON).await.iter().map(Envelope::of).collect();
    let mut kinds: Vec<&str> = events.iter().map(|event| event.tag("kind")).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["gave_up", "panic", "panic"]);
    let gave_up = events.iter().find(|event| event.tag("kind") == "gave_up").unwrap();
    let exception = gave_up.exception();
    assert_eq!((&exception["type"], &exception["stacktrace"]), (&json!("gave_up"), &Value::Null));
    assert_eq!((gave_up.tag("component"), gave_up.tag("policy")), ("health_sweep", "degrade"));
}

#[tokio::test]
async fn who_is_stuck_is_an_event_too() {
    let receiver = Receiver::start().await;
    let Some(setup) = telling(&receiver) else { return };
    let service = setup.start().await;
    service.make_hang("broadcaster.reaper").await;
    let event = Envelope::of(&receiver.await_calls(1, SOON).await.remove(0));
    assert_eq!([event.tag("kind"), event.tag("actor")], ["stuck", "broadcaster.reaper"]);
    assert!(event.exception()["value"].as_str().unwrap().contains("stuck"), "{:#}", event.exception());
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_the_next_one_and_one_that_wants_peace_is_left_alone() {
    let receiver = Receiver::start().await;
    let Some(setup) = telling(&receiver) else { return };
    receiver.script([Reply::Status(500), Reply::Status(200), Reply::Wait(429, 3_600, "")]);
    let service = setup.start().await;
    for (outcome, count) in [("failed", 1.0), ("sent", 1.0), ("failed", 2.0), ("failed", 3.0)] {
        break_a_job(&service).await;
        reported(&service, outcome, count).await;
    }
    assert_eq!(receiver.calls().len(), 3, "the fourth was not even tried");
    service.admin().get("/readyz").await.expect(200);
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    let complaints = ended.stderr.iter().filter(|line| line.contains("the error reporter fails"));
    assert_eq!(complaints.count(), 2, "once for each time that it broke: {}", ended.log());
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_neither_the_work_nor_the_end() {
    let receiver = Receiver::start().await;
    let Some(setup) = telling(&receiver) else { return };
    receiver.script([Reply::Late(Duration::from_secs(600), 200); 10]);
    let service = setup.start().await;
    // Each of them is waited for, 3 s long; nobody else waits.
    for _ in 0..9 {
        break_a_job(&service).await;
    }
    receiver.await_calls(1, SOON).await;
    let job = service.enqueue("publish", json!({"topic": "hello", "data": 1})).await;
    service.job_in(&job, "done").await;
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
    assert!(ended.log().contains("incidents not reported: out of time"), "{}", ended.log());
}

#[tokio::test]
async fn a_dsn_is_checked_at_the_boot_and_never_shown() {
    let Some(app) = binary::app_with_features() else { return };
    let check = |dsn: &str, command: &str| {
        let setup = Setup::bare().executable(&app).set("telemetry.sentry.dsn", dsn).arg("config");
        if command.is_empty() { setup } else { setup.arg(command) }
    };
    let ended = check("https://o1.ingest.sentry.io/42", "check").run().await;
    assert_eq!(ended.code, 78, "{ended:?}");
    let fault = "telemetry.sentry.dsn = [hidden] (environment variable APP__TELEMETRY__SENTRY__DSN): must be the DSN of a \
        project: username is empty";
    assert!(ended.log().contains(fault), "{}", ended.log());
    let local = check(&format!("http://{KEY}@127.0.0.1/42"), "check").env("APP__PROFILE", "production");
    let ended = local.set("otel.endpoint", "off").run().await;
    assert!(ended.code == 78 && ended.log().contains("must not be on loopback in production"), "{}", ended.log());
    let ended = check(&format!("https://{KEY}@o1.ingest.sentry.io/42"), "").run().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    let shown = ended.stdout.join("\n");
    assert!(shown.contains("telemetry.sentry.dsn = [hidden]") && !shown.contains(KEY), "{shown}");
}
