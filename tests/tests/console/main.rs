//! The console in a real browser: from "something panicked" to the line of code, by mouse, by keyboard, on a phone.

mod frame;
mod trace;
mod tree;
mod work;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::browser::{DARK, LIGHT, PHONE};
use tests::client::send;
use tests::poison::{self, HOSTILE};
use tests::stream::EventStream;
use tests::{Browser, Service, eventually};

const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-token-of-our-own";

fn at(service: &Service, path: &str) -> String {
    format!("{}{path}", service.admin().base())
}

/// A job that panics once, and what was recorded of it.
async fn panicked_job(service: &Service) -> Value {
    let job = json!({ "kind": "panic", "payload": {}, "max_attempts": 1 });
    let id = service.api().post("/v1/jobs", &job).await.expect(201).json()["id"].clone();
    eventually("the incident of the job, with its backtrace", SOON, || async {
        let incidents = service.admin().get("/admin/incidents").await.expect(200).json();
        let all = incidents["items"].as_array().unwrap().clone();
        all.into_iter().find(|each| each["detail"][0] == json!(["job.id", id]) && each["backtrace"].is_string())
    })
    .await
}

/// A subscriber that takes what comes.
async fn listening(service: &Service) -> EventStream {
    EventStream::open(service.api(), &["news"]).await
}

#[tokio::test]
async fn the_panic_of_a_job_is_followed_to_its_line_and_to_its_trace() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path='scheduler.claimer']", "0 waiting").await;
    panicked_job(&service).await;
    let shown = browser.text("[data-path='scheduler.runners'] a", "did as it was told").await;
    assert!(shown.starts_with("panic: "), "{shown}");
    for (name, screen) in [("tree-dark", DARK), ("tree-light", LIGHT)] {
        browser.use_screen(screen).await;
        browser.picture(name).await;
    }

    browser.click("[data-path='scheduler.runners'] a").await;
    let location = browser.text("[data-location]", "jobs/panic.rs:").await;
    let ours = browser.texts(".backtrace .ours").await;
    assert!(ours[0].contains(&location) && ours[0].contains("ours: "), "{ours:?}");
    browser.text(".facts", "demo").await;
    let incident = browser.path().await;
    browser.use_screen(DARK).await;
    browser.picture("incident-dark").await;
    browser.use_screen(LIGHT).await;
    browser.picture("incident-light").await;

    browser.click("a.button.primary").await;
    browser.text(".span.failed.chosen .line", "job.run").await;
    browser.text(".span.failed.chosen .detail", "panic.recovered").await;
    browser.text(".span.failed.chosen .logs [data-level=ERROR]", "did as it was told").await;
    browser.picture("trace-light").await;
    browser.use_screen(DARK).await;
    browser.picture("trace-dark").await;
    browser.click(&format!(".detail a[href='{incident}']")).await;
    browser.text("[data-location]", "jobs/panic.rs:").await;
    assert_eq!(browser.path().await, incident, "and back from its trace");

    browser.go(&at(&service, &incident)).await;
    browser.text("[data-location]", "jobs/panic.rs:").await;
    assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn traces_are_searched_and_one_is_zoomed_and_copied_as_a_collector_takes_it() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let incident = panicked_job(&service).await;
    let trace = incident["trace_id"].as_str().unwrap();
    browser.go(&at(&service, "/console/traces")).await;
    browser.text(".trace-line", "boot").await;
    browser.type_into("input[name=name]", "job.run").await;
    browser.type_into("input[name=tenant]", "demo").await;
    browser.click("input[name=errors]").await;
    browser.click("form.search button").await;
    browser.text(".trace-line", "failure").await;
    assert_eq!(
        browser.path().await,
        "/console/traces?name=job.run&tenant=demo&errors=true",
        "it has a link of its own"
    );
    assert!(browser.texts(".trace-line").await.iter().all(|line| line.contains("job.run")));
    browser.picture("traces").await;

    browser.click(&format!(".trace-line[href='/console/traces/{trace}']")).await;
    browser.text(".span.failed", "job.run").await;
    let ruler = browser.texts(".tick").await;
    browser.click("[aria-label='Zoom in']").await;
    eventually("the ruler shows less", SOON, || async { (browser.texts(".tick").await != ruler).then_some(()) }).await;
    browser.run("document.querySelector('.span .line').focus()").await;
    browser.press('0').await;
    eventually("and the whole again", SOON, || async { (browser.texts(".tick").await == ruler).then_some(()) }).await;

    browser.allow_the_clipboard().await;
    browser.click("article .actions button").await;
    browser.text("article .actions [role=status]", "Copied").await;
    let copied = browser.run("return navigator.clipboard.readText()").await;
    let document: Value = serde_json::from_str(copied.as_str().unwrap()).unwrap();
    let span = &document["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], trace, "{document}");
    assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn what_tenants_and_panics_say_is_shown_as_it_is_and_never_runs() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let incident = panicked_job(&service).await;
    let (id, trace) = (incident["id"].as_str().unwrap(), incident["trace_id"].as_str().unwrap());
    let filter = service.admin().request(Method::PUT, "/admin/log-filter").json(&json!({ "filter": "info" }));
    send(filter).await.expect(200);
    let (_job, _stream) = (service.enqueue("sleep", json!({ "ms": 60_000 })).await, listening(&service).await);
    let schedule =
        json!({ "kind": "publish", "payload": { "topic": "a", "data": 1 }, "cron": "0 5 * * *", "time_zone": "UTC" });
    service.api().post("/v1/schedules", &schedule).await.expect(201);
    service.webhook("http://127.0.0.1:9/hook").await;
    let base = poison::double(&service).await;
    let views = [
        ("/console".to_owned(), ".tree"),
        ("/console/incidents".to_owned(), ".cards"),
        (format!("/console/incidents/{id}"), ".incident"),
        (format!("/console/incidents/{id}"), ".backtrace"),
        ("/console/traces".to_owned(), ".cards"),
        (format!("/console/traces/{trace}"), ".detail"),
        ("/console/now".to_owned(), ".open-spans"),
        ("/console/jobs".to_owned(), "[data-tenant]"),
        ("/console/jobs?tenant=demo".to_owned(), ".reason"),
        ("/console/jobs?tenant=demo&show=schedules".to_owned(), ".card"),
        ("/console/jobs?tenant=demo&show=channels".to_owned(), ".card"),
        ("/console/sockets".to_owned(), ".card"),
        ("/console/health".to_owned(), ".cards"),
        ("/console/logs".to_owned(), ".logs"),
        ("/console/logs".to_owned(), ".panel"),
        (format!("/console/traces/{}", HOSTILE.replace('/', "%2F").replace(' ', "%20")), ".path"),
        ("/console/traces?name=%3Cscript%3E&tenant=%22%3E%3Cscript%3E".to_owned(), "form"),
    ];
    for (path, selector) in views {
        browser.go(&format!("{base}{path}")).await;
        browser.text(selector, if selector == "form" { "Search" } else { HOSTILE }).await;
        let ran = browser.run("return [document.documentElement.dataset.ran ?? null, document.querySelectorAll('img[src=x], body script').length]");
        assert_eq!(ran.await, json!([null, 0]), "{path}");
    }
    browser.go(&format!("{base}/console/incidents/{id}")).await;
    browser.text(".incident", HOSTILE).await;
    browser.picture("hostile").await;
    assert_eq!(browser.complaints(&["404"]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn on_a_phone_no_view_is_wider_than_the_screen() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let incident = panicked_job(&service).await;
    let (id, trace) = (incident["id"].as_str().unwrap(), incident["trace_id"].as_str().unwrap());
    let (_job, _stream) = (service.enqueue("sleep", json!({ "ms": 60_000 })).await, listening(&service).await);
    browser.use_screen(PHONE).await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path='scheduler.runners']", "").await;
    let widen = "const wide = document.createElement('p'); wide.style.width = '600px'; wide.textContent = 'wide'; document.querySelector('main').append(wide)";
    browser.run(widen).await;
    assert!(browser.overflow().await >= 240, "what is wider than the screen is seen to be");
    let views = [
        ("tree", "/console".to_owned(), "[data-path='scheduler.runners']"),
        ("incidents", "/console/incidents".to_owned(), ".cards"),
        ("incident", format!("/console/incidents/{id}"), ".backtrace"),
        ("traces", "/console/traces".to_owned(), ".cards"),
        ("trace", format!("/console/traces/{trace}"), ".detail .logs"),
        ("now", "/console/now".to_owned(), ".open-spans"),
        ("backlog", "/console/jobs".to_owned(), "[data-tenant=demo]"),
        ("jobs", "/console/jobs?tenant=demo".to_owned(), ".reason"),
        ("sockets", "/console/sockets".to_owned(), ".card"),
        ("health", "/console/health".to_owned(), ".checks"),
        ("logs", "/console/logs".to_owned(), ".logs"),
    ];
    for (name, path, selector) in views {
        browser.go(&at(&service, &path)).await;
        browser.text(selector, "").await;
        assert_eq!(browser.overflow().await, 0, "{name}");
        browser.picture(&format!("{name}-phone")).await;
    }
    browser.close().await;
}

#[tokio::test]
async fn what_is_being_typed_survives_what_happens_meanwhile() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::setup().set("broadcaster.backoff.base_ms", 5000).start().await;
    for (view, field) in [("traces", "name"), ("logs", "filter"), ("jobs", "tenant")] {
        let field = format!("input[name={field}]");
        browser.go(&at(&service, &format!("/console/{view}"))).await;
        browser.text(".health", "ready").await;
        browser.type_into(&field, "half a w").await;
        service.make_panic("broadcaster").await;
        browser.text(".health", "degraded").await;
        let typed = browser.run(&format!("return document.querySelector('{field}').value")).await;
        assert!(typed.as_str().unwrap().ends_with("half a w"), "{view}: {typed}");
        browser.text(".health", "ready").await;
    }
    browser.close().await;
}
