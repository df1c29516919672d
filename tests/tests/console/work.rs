//! What the service works on, as the console shows it: jobs, sockets, what goes on now, what is logged.

use reqwest::Method;
use serde_json::{Value, json};
use tests::browser::DARK;
use tests::client::send;
use tests::{Answer, Browser, Service};

use super::{at, listening, panicked_job};

#[tokio::test]
async fn the_dead_jobs_of_a_tenant_are_shown_with_their_reasons_and_their_traces() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let incident = panicked_job(&service).await;
    let job = incident["detail"][0][1].as_str().unwrap();
    service.job_in(job, "dead").await;
    let schedule =
        json!({ "kind": "publish", "payload": { "topic": "a", "data": 1 }, "cron": "0 5 * * *", "time_zone": "UTC" });
    service.api().post("/v1/schedules", &schedule).await.expect(201);
    service.webhook("http://127.0.0.1:9/hook").await;
    browser.go(&at(&service, "/console/jobs")).await;
    browser.text(".counts", "dead").await;
    browser.type_into("input[name=tenant]", "demo").await;
    browser.click("form.search button").await;
    browser.text(&format!("[data-id='{job}'] .reason"), "did as it was told").await;
    browser.picture("jobs").await;
    browser.click(&format!("[data-id='{job}'] a")).await;
    browser.text("h3", "What followed from it").await;
    browser.text(".trace-line", "job.run").await;
    for (show, told) in [("schedules", "0 5 * * * UTC"), ("channels", "127.0.0.1:9/hook")] {
        browser.go(&at(&service, &format!("/console/jobs?tenant=demo&show={show}"))).await;
        browser.text(".card", told).await;
        browser.picture(show).await;
    }
    browser.go(&at(&service, "/console/health")).await;
    browser.text(".card", "store").await;
    browser.use_screen(DARK).await;
    browser.picture("health-dark").await;
    assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_span_that_fails_while_one_looks_at_its_trace_is_opened() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let job = json!({ "kind": "sleep", "payload": { "ms": 60_000 }, "timeout_ms": 5_000, "max_attempts": 1 });
    service.api().post("/v1/jobs", &job).await.expect(201);
    browser.go(&at(&service, "/console/now")).await;
    browser.text(".open-spans", "job.kind=sleep").await;
    let run = browser.run("return document.querySelector('.open-spans a').getAttribute('href').split('?')[0]").await;
    browser.go(&at(&service, run.as_str().unwrap())).await;
    browser.text(".span.open .line", "job.run").await;
    browser.text(".span.failed.chosen .detail", "failed").await;
    browser.close().await;
}

#[tokio::test]
async fn what_goes_on_now_who_listens_and_who_has_the_most_to_do_is_seen() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    panicked_job(&service).await;
    let (job, _stream) = (service.enqueue("sleep", json!({ "ms": 60_000 })).await, listening(&service).await);
    browser.go(&at(&service, "/console/now")).await;
    browser.text(".open-spans", &job).await;
    browser.text(".facts", "% now").await;
    browser.text("main li", "of scheduler.claimer").await;
    browser.use_screen(DARK).await;
    browser.picture("now-dark").await;
    browser.click(".open-spans a").await;
    browser.text(".span.open.chosen .line", "job.run").await;

    browser.go(&at(&service, "/console/jobs")).await;
    browser.text("[data-tenant=demo]", "0 queued, 1 running, 1 dead").await;
    browser.picture("backlog-dark").await;
    browser.click("[data-tenant=demo] a[href*=dead]").await;
    browser.text(".reason", "did as it was told").await;

    browser.go(&at(&service, "/console/sockets?tenant=demo")).await;
    browser.text(".card", "news").await;
    service.admin().post("/admin/tenants/demo/disable", &Value::Null).await.expect(200);
    browser.text(".card", "its key opens nothing any more").await;
    browser.picture("sockets-dark").await;
    assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn what_is_logged_is_changed_for_a_while_and_back() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console/logs?level=warn")).await;
    browser.text(".panel", "As configured.").await;
    assert_eq!(browser.run("return document.querySelector('select').value").await, "warn");
    browser.run("document.querySelector('input[name=filter]').value = ''").await;
    browser.type_into("input[name=filter]", "info,scheduler=debug").await;
    browser.click(".panel button.primary").await;
    browser.text(".panel", "Back to info").await;
    let now: Answer = send(service.admin().request(Method::GET, "/admin/log-filter")).await;
    assert_eq!(now.json()["filter"], "info,scheduler=debug");
    browser.click(".panel button:not(.primary)").await;
    browser.text(".panel", "As configured.").await;
    browser.run("document.querySelector('input[name=filter]').value = ''").await;
    browser.type_into("input[name=filter]", "info,x=loud").await;
    browser.click(".panel button.primary").await;
    browser.text(".panel [role=alert]", "filter").await;
    browser.close().await;
}
