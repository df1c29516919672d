//! What the service works on, as the console shows it: jobs, sockets, what goes on now, what is logged.

use reqwest::Method;
use serde_json::{Value, json};
use tests::browser::{DARK, Key, LIGHT, PHONE};
use tests::client::send;
use tests::stream::EventStream;
use tests::{Answer, Browser, Service, eventually};

use super::{SOON, at, listening, panicked_job};

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9/hook";

/// Logs by `filter` for a while, as another operator would.
async fn log_by(service: &Service, filter: &str, for_ms: u64) {
    let body = json!({ "filter": filter, "for_ms": for_ms });
    send(service.admin().request(Method::PUT, "/admin/log-filter").json(&body)).await.expect(200);
}

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
    service.webhook(NOWHERE).await;
    browser.go(&at(&service, "/console/jobs")).await;
    browser.text(".counts", "dead").await;
    browser.text(".counts", "counted ").await;
    browser.type_into("input[name=tenant]", "demo").await;
    browser.click("form.search button").await;
    browser.text(&format!("[data-id='{job}'] .reason"), "did as it was told").await;
    let heights =
        "return [...document.querySelectorAll('.search label')].map((each) => each.getBoundingClientRect().height)";
    let heights = browser.run(heights).await;
    assert_eq!((heights.as_array().unwrap().len(), &heights[0]), (2, &heights[1]), "its fields stand in one line");
    browser.picture("jobs").await;
    let id = incident["id"].as_str().unwrap();
    browser.click(&format!("[data-id='{job}'] .reason a")).await;
    browser.text("[data-location]", "jobs/panic.rs:").await;
    assert_eq!(browser.path().await, format!("/console/incidents/{id}"), "its reason leads to its incident");
    browser.go(&at(&service, "/console/jobs?tenant=demo")).await;
    browser.click(&format!("[data-id='{job}'] a[href*=traces]")).await;
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

    browser.go(&at(&service, "/console/sockets")).await;
    browser.text(".card", "news").await;
    browser.go(&at(&service, "/console/sockets?tenant=other")).await;
    browser.text(".empty", "Nobody of other is connected").await;
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
    browser.text(".panel", "as configured").await;
    assert_eq!(browser.run("return document.querySelector('select').value").await, "warn");
    browser.run("document.querySelector('input[name=filter]').value = ''").await;
    browser.type_into("input[name=filter]", "info,scheduler=debug").await;
    browser.click(".panel button.primary").await;
    browser.text(".panel", "back to info in").await;
    let now: Answer = send(service.admin().request(Method::GET, "/admin/log-filter")).await;
    assert_eq!(now.json()["filter"], "info,scheduler=debug");
    browser.click(".panel button:not(.primary)").await;
    browser.text(".panel", "as configured").await;
    browser.run("document.querySelector('input[name=filter]').value = ''").await;
    browser.type_into("input[name=filter]", "info,x=loud").await;
    browser.click(".panel button.primary").await;
    browser.text(".panel [role=alert]", "filter").await;
    browser.close().await;
}

#[tokio::test]
async fn lists_of_work_are_renewed_by_themselves_and_say_as_of_when_they_are() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console/jobs")).await;
    browser.text(".empty", "None has any.").await;
    browser.text(".as-of", "As of ").await;
    service.enqueue("sleep", json!({ "ms": 600_000 })).await;
    browser.text("[data-tenant=demo]", "1 running").await;
    browser.go(&at(&service, "/console/jobs?tenant=demo")).await;
    browser.text(".card", "running").await;
    let job = service.enqueue("sleep", json!({ "ms": 600_000 })).await;
    browser.text(&format!("[data-id='{job}'] .state"), "running").await;
    service.api().post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await.expect(200);
    browser.text(&format!("[data-id='{job}'] .state"), "cancelled").await;
    browser.close().await;
}

#[tokio::test]
async fn nothing_is_lost_between_two_pages_of_jobs_when_the_first_is_asked_for_anew() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let enqueue = async |jobs: usize| {
        for _ in 0..jobs {
            service.enqueue("sleep", json!({ "ms": 0 })).await;
        }
    };
    enqueue(55).await;
    let cards = async || {
        let ids = "return [...document.querySelectorAll('[data-id]')].map((each) => each.dataset.id)";
        serde_json::from_value::<Vec<String>>(browser.run(ids).await).unwrap()
    };
    browser.go(&at(&service, "/console/jobs?tenant=demo")).await;
    browser.click(".actions button").await;
    eventually("the second page", SOON, || async { (cards().await.len() == 55).then_some(()) }).await;
    browser.text(".as-of", "As of ").await;
    enqueue(3).await;
    let kept = service.admin().get("/admin/tenants/demo/jobs?limit=200").await.expect(200).json();
    let kept: Vec<_> = kept["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    browser.click("form.search button").await;
    let shown = eventually("the newest job", SOON, || async {
        let shown = cards().await;
        (shown.first().is_some_and(|first| first == kept[0])).then_some(shown)
    })
    .await;
    assert_eq!(shown, kept[..shown.len()], "all of {} are shown, as far as it goes", kept.len());
    browser.close().await;
}

#[tokio::test]
async fn a_filter_of_the_log_is_counted_down_to_its_end_whoever_has_set_it() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let field = async || browser.run("return document.querySelector('input[name=filter]').value").await;
    browser.go(&at(&service, "/console/logs")).await;
    browser.text(".panel", "as configured").await;
    log_by(&service, "info,scheduler=debug", 15_000).await;
    let first = browser.text(".panel p", "back to info in").await;
    assert_eq!(field().await, "info,scheduler=debug");
    browser.use_screen(DARK).await;
    browser.picture("log-filter-dark").await;
    eventually("it is counted down", SOON, || async { (browser.texts(".panel p").await[0] != first).then_some(()) })
        .await;
    browser.text(".panel p", "as configured").await;
    assert_eq!(field().await, "info", "and it is not said to be in force after its end");

    browser.type_into("input[name=filter]", ",half a w").await;
    log_by(&service, "info,channels=debug", 600_000).await;
    browser.text(".panel p", "info,channels=debug").await;
    assert_eq!(field().await, "info,half a w", "what is typed stays");
    browser.close().await;
}

/// A redraw is no new answer: what has not changed since then is not idle.
#[tokio::test]
async fn a_busy_worker_is_said_to_be_busy_until_the_next_answer() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::setup().set("broadcaster.backoff.base_ms", 5000).start().await;
    browser.go(&at(&service, "/console/now")).await;
    browser.text(".facts", "% now").await;
    // From then on there is no next answer.
    let hold = "const ask = window.fetch;
        new MutationObserver(() => {
            const busy = document.querySelector('main').textContent.match(/[2-9]\\d % now|100 % now/);
            if (!busy || document.body.dataset.held) return;
            window.fetch = (path, ...rest) => (path.startsWith('/debug/tasks') ? new Promise(() => {}) : ask(path, ...rest));
            document.body.dataset.held = busy[0];
        }).observe(document.querySelector('main'), { childList: true, subtree: true, characterData: true });";
    browser.run(hold).await;
    service.make_block("broadcaster").await;
    browser.text("body[data-held]", "").await;
    browser.text(".health", "ready").await;
    service.make_panic("broadcaster").await;
    browser.text(".health", "degraded").await;
    let (told, held) = (browser.texts(".facts").await.concat(), browser.run("return document.body.dataset.held").await);
    assert!(told.contains(held.as_str().unwrap()), "{held}: {told}");
    browser.close().await;
}

#[tokio::test]
async fn a_failed_check_of_the_channels_leads_to_those_whose_breaker_is_open() {
    let Some(browser) = Browser::open().await else { return };
    let setup = Service::setup().set("health_sweep.interval_ms", 500).set("health_sweep.probe_timeout_ms", 500);
    let setup = setup.set("channel_manager.breaker_failures_max", 1).set("channel_manager.breaker_open_ms", 600_000);
    let service = setup.start().await;
    let mut channels = Vec::new();
    for _ in 0..5 {
        let (channel, _) = service.webhook(NOWHERE).await;
        service.api().post("/v1/notifications", &json!({ "channel": channel, "text": "hi" })).await.expect(202);
        channels.push(channel);
    }
    browser.go(&at(&service, "/console/health")).await;
    browser.text(".card .reason", "5 of 5 channels in use are failing").await;
    browser.text(".card .state", "unhealthy").await;
    browser.run("document.querySelector('.card:has(.reason) summary').focus()").await;
    browser.press(Key::Enter).await;
    browser.text(".card details[open] li", "5 of 5 channels in use are failing").await;
    let times = "return document.querySelectorAll('details[open] li').length - document.querySelectorAll('details[open] li time').length";
    assert_eq!(browser.run(times).await, 0, "each check has its time");
    for (name, screen) in [("health-failed-light", LIGHT), ("health-failed-dark", DARK), ("health-failed-phone", PHONE)]
    {
        browser.use_screen(screen).await;
        browser.picture(name).await;
    }
    assert_eq!(browser.overflow().await, 0, "on a phone");
    browser.use_screen(DARK).await;
    for channel in &channels {
        browser.text(&format!("[data-channel='{channel}']"), channel).await;
    }
    browser.click(&format!("[data-channel='{}'] a", channels[0])).await;
    browser.text(&format!("[data-id='{}']", channels[0]), &channels[0]).await;
    browser.text(&format!("[data-id='{}'] .state", channels[0]), "breaker open").await;
    browser.picture("channels-open-dark").await;
    assert_eq!(browser.path().await, "/console/jobs?tenant=demo&show=channels");
    assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn on_a_phone_nothing_of_the_work_is_cut_off() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let topic = "orders/".repeat(18);
    let payload = json!({ "topic": "a", "data": 1 });
    let cron = json!({ "kind": "publish", "payload": payload, "cron": "0 5,6,7,8 1,2,3,4,5,6 * 1-5", "time_zone": "America/Argentina/Buenos_Aires" });
    service.api().post("/v1/schedules", &cron).await.expect(201);
    service.webhook(&format!("{NOWHERE}/{topic}")).await;
    let (_job, _stream) =
        (service.enqueue("sleep", json!({ "ms": 1 })).await, EventStream::open(service.api(), &[&topic]).await);
    for (name, path) in [
        ("jobs", "jobs?tenant=demo"),
        ("schedules", "jobs?tenant=demo&show=schedules"),
        ("channels", "jobs?tenant=demo&show=channels"),
        ("sockets", "sockets"),
    ] {
        browser.use_screen(PHONE).await;
        browser.go(&at(&service, &format!("/console/{path}"))).await;
        browser.text(".card", "").await;
        let cut =
            "return [...document.querySelectorAll('.card *')].filter((each) => each.scrollWidth > each.clientWidth
            && getComputedStyle(each).overflowX !== 'visible').map((each) => each.textContent)";
        assert_eq!(browser.run(cut).await, json!([]), "{name}");
        assert_eq!(browser.overflow().await, 0, "{name}");
        browser.picture(&format!("{name}-phone")).await;
        browser.use_screen(LIGHT).await;
        browser.picture(&format!("{name}-light")).await;
    }
    browser.use_screen(DARK).await;
    browser.go(&at(&service, "/console/logs")).await;
    browser.text(".logs", "INFO").await;
    browser.picture("logs-dark").await;
    browser.close().await;
}
