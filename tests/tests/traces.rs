//! The flight recorder, from outside: from an incident to its trace, from a request to what followed, without a collector.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::{Collector, Protocol, Service, eventually};

const SOON: Duration = Duration::from_secs(30);

async fn ask(service: &Service, path: &str) -> Value {
    service.admin().get(path).await.expect(200).json()
}

/// The trace, when `is_whole` says so: a span is there when it has ended, a panic when its backtrace is resolved.
async fn trace(service: &Service, id: &str, is_whole: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/admin/traces/{id}");
    eventually(&format!("trace {id} is whole"), SOON, || async {
        let answer = service.admin().get(&path).await;
        (answer.status == 200).then(|| answer.json()).filter(&is_whole)
    })
    .await
}

fn spans(trace: &Value) -> impl Iterator<Item = &Value> {
    trace["items"].as_array().unwrap().iter()
}

/// The span in which the panic happened.
fn panicked(trace: &Value) -> Option<&Value> {
    spans(trace).find(|span| span["events"].as_array().unwrap().iter().any(|event| event["name"] == "panic.recovered"))
}

/// The incident of `actor`, when it says what became of it.
async fn incident(service: &Service, actor: &str, outcome: &str) -> Value {
    eventually(&format!("an incident of {actor}: {outcome}"), SOON, || async {
        let list = ask(service, "/admin/incidents").await;
        let is_it =
            |item: &&Value| item["actor"] == actor && item["outcome"].as_str().is_some_and(|o| o.contains(outcome));
        list["items"].as_array().unwrap().iter().find(is_it).cloned()
    })
    .await
}

#[tokio::test]
async fn an_incident_says_what_became_of_it_and_leads_to_its_trace_with_the_log() {
    let service = Service::setup().fast_backoff().start().await;
    service.make_panic("scheduler.claimer").await;
    let incident = incident(&service, "scheduler.claimer", "restarted as incarnation 2 after ").await;
    let trace = trace(&service, incident["trace_id"].as_str().unwrap(), |trace| panicked(trace).is_some()).await;
    let span = panicked(&trace).unwrap();
    assert_eq!((&span["span_id"], &span["status"]["code"]), (&incident["span_id"], &json!("error")));
    assert_eq!(
        (&trace["ring"], &trace["error"], &trace["components"]),
        (&json!("kept"), &json!(true), &json!(["scheduler"]))
    );
    let log = eventually("its log record", SOON, || async {
        let id = trace["trace_id"].as_str().unwrap();
        let logs = ask(&service, &format!("/admin/logs?trace_id={id}&level=error")).await;
        logs["items"].as_array().unwrap().iter().find(|log| log["event"] == "panic.recovered").cloned()
    })
    .await;
    assert_eq!((&log["span_id"], &log["attributes"]["incident.id"]), (&span["span_id"], &incident["id"]));
    let failed = ask(&service, "/admin/traces?errors=true").await;
    assert!(failed["items"].as_array().unwrap().iter().any(|item| item["trace_id"] == trace["trace_id"]), "{failed:#}");
}

#[tokio::test]
async fn the_incident_of_a_job_says_that_it_is_tried_again_and_then_that_it_is_dead() {
    let service = Service::setup().set("scheduler.retry_base_ms", 1).set("scheduler.retry_cap_ms", 1).start().await;
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 2});
    service.api().post("/v1/jobs", &body).await.expect(201);
    let first = eventually("it is dead", SOON, || async {
        let list = ask(&service, "/admin/incidents").await;
        let items: Vec<Value> = list["items"].as_array().unwrap().clone();
        let says = |item: &Value, what: &str| item["outcome"].as_str().is_some_and(|outcome| outcome.starts_with(what));
        items.iter().find(|item| says(item, "the job is dead: "))?;
        items.iter().find(|item| says(item, "the job is tried again in ")).cloned()
    })
    .await;
    assert_eq!((&first["phase"], &first["tenant"]), (&json!("job"), &json!("demo")));
    let trace = trace(&service, first["trace_id"].as_str().unwrap(), |trace| panicked(trace).is_some()).await;
    assert_eq!((&trace["name"], &trace["tenant"]), (&json!("job.run"), &json!("demo")));
}

/// Its handler has ended well: what became of it is decided later, elsewhere.
#[tokio::test]
async fn the_trace_of_a_job_says_that_its_effect_was_refused() {
    let service = Service::start().await;
    let nowhere = json!({"channel": "018f0000-0000-7000-8000-000000000000", "text": "hi"});
    let id = service.enqueue("notify", nowhere).await;
    service.job_in(&id, "dead").await;
    let refused = |log: &&Value| log["message"] == "a job is dead: its effect was refused";
    let run = eventually("the trace of the run", SOON, || async {
        let list = ask(&service, "/admin/traces?name=job.run").await;
        list["items"].as_array().unwrap().first().cloned()
    })
    .await;
    let run = trace(&service, run["trace_id"].as_str().unwrap(), |trace| {
        spans(trace).any(|span| span["logs"].as_array().unwrap().iter().any(|log| refused(&log)))
    })
    .await;
    assert!(spans(&run).any(|span| span["attributes"]["job.id"] == id), "{run:#}");
}

#[tokio::test]
async fn a_request_leads_to_what_followed_from_it() {
    let service = Service::start().await;
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
    let answer = service.api().post("/v1/jobs", &body).await.expect(201);
    let id = answer.header("x-trace-id").to_owned();
    let is_whole = |trace: &Value| trace["followers"].as_array().unwrap().iter().any(|next| next["name"] == "job.run");
    let request = trace(&service, &id, is_whole).await;
    assert_eq!(
        (&request["name"], &request["tenant"], &request["open"]),
        (&json!("POST /v1/jobs"), &json!("demo"), &json!(0))
    );
    let next = request["followers"].as_array().unwrap().iter().find(|next| next["name"] == "job.run").unwrap();
    assert_eq!(next["origin_trace_id"], id);
    let otlp = service.admin().get(&format!("/admin/traces/{id}/otlp")).await.expect(200);
    let exported: ExportTraceServiceRequest = serde_json::from_str(&otlp.body).unwrap();
    let exported: Vec<_> =
        exported.resource_spans.iter().flat_map(|one| &one.scope_spans).flat_map(|one| &one.spans).collect();
    assert_eq!(exported.len() as u64, request["spans"]);
    assert!(exported.iter().any(|span| span.name == "POST /v1/jobs"));
}

#[tokio::test]
async fn with_a_sampler_that_drops_all_everything_is_recorded_and_nothing_exported() {
    let collector = Collector::start().await;
    let setup = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).env("OTEL_TRACES_SAMPLER", "always_off");
    let service = setup.start().await;
    let answer = service.api().get("/v1/jobs").await.expect(200);
    let trace = trace(&service, answer.header("x-trace-id"), |trace| trace["spans"] != 0).await;
    assert!(spans(&trace).all(|span| span["sampled"] == false), "{trace:#}");
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
    collector.log("of a trace that is not exported", SOON, |log| log.trace_id.len() == 32).await;
}

#[tokio::test]
async fn with_the_recorder_off_its_views_say_so() {
    let service = Service::setup().set("telemetry.recorder.enabled", false).start().await;
    let answer = service.admin().get("/admin/traces").await.expect(404);
    assert!(answer.body.contains("telemetry.recorder.enabled"), "{}", answer.body);
    service.admin().get("/debug/tasks").await.expect(200);
}

#[tokio::test]
async fn whatever_a_client_sends_comes_through_as_plain_text() {
    let service = Service::start().await;
    let evil = "<script>alert(\"1\")</script>";
    let request = service.api().request(Method::GET, "/v1/jobs").header("user-agent", evil);
    let answer = send(request).await.expect(200);
    let trace = trace(&service, answer.header("x-trace-id"), |trace| trace["spans"] != 0).await;
    let agents: Vec<_> = spans(&trace).map(|span| &span["attributes"]["user_agent.original"]).collect();
    assert!(agents.contains(&&json!(evil)), "{agents:?}");
    let shown = service.admin().get(&format!("/admin/traces/{}", answer.header("x-trace-id"))).await;
    assert_eq!(shown.header("content-type"), "application/json");
}

#[tokio::test]
async fn what_runs_is_seen_until_it_has_ended() {
    let service = Service::start().await;
    let id = service.enqueue("sleep", json!({"ms": 60_000})).await;
    let of_job = |list: &Value| {
        let items = list["items"].as_array().or(list["open_spans"].as_array()).unwrap();
        items.iter().find(|span| span["attributes"]["job.id"] == id).cloned()
    };
    let open = eventually("it runs", SOON, || async { of_job(&ask(&service, "/admin/spans/open").await) }).await;
    assert_eq!((&open["name"], &open["kind"]), (&json!("job.run"), &json!("consumer")));
    let tasks = ask(&service, "/debug/tasks").await;
    assert_eq!(of_job(&tasks).unwrap()["span_id"], open["span_id"]);
    assert!(tasks["runtime"]["alive_tasks"].as_u64().unwrap() > 10, "{tasks:#}");
    let named = tasks["tasks"].as_array().unwrap();
    assert!(named.iter().any(|task| task["path"] == "api" && task["count"].as_u64() > Some(0)), "{tasks:#}");
    service.api().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await.expect(200);
    eventually("it has ended", SOON, || async {
        of_job(&ask(&service, "/admin/spans/open").await).is_none().then_some(())
    })
    .await;
    let trace = trace(&service, open["trace_id"].as_str().unwrap(), |trace| trace["open"] == 0).await;
    assert!(spans(&trace).any(|span| span["attributes"]["job.outcome"].is_string()), "{trace:#}");
}

#[tokio::test]
async fn who_watches_the_traces_does_not_fill_them() {
    let service = Service::start().await;
    for _ in 0..20 {
        ask(&service, "/admin/traces?name=/admin").await;
        ask(&service, "/admin/tree").await;
    }
    assert_eq!(ask(&service, "/admin/traces?name=/admin").await["items"], json!([]));
}
