//! The tree, and what an operator does to it: by mouse, by keyboard, and in development also a panic.

use serde_json::{Value, json};
use tests::browser::{DARK, Key, LIGHT};
use tests::{Browser, Service, eventually};

use super::{SOON, at};

#[tokio::test]
async fn a_panic_made_from_the_page_is_watched_in_the_tree_and_followed_to_its_incident_and_its_trace() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::setup().set("broadcaster.backoff.base_ms", 3000).start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 1").await;
    browser.click("[aria-label='panic broadcaster']").await;
    browser.text("[data-path=broadcaster][data-status=waiting]", "starts again in").await;
    let shown = browser.text("[data-path='broadcaster.relay'][data-status=down]", "life 1").await;
    assert!(!shown.contains('♥') && !shown.contains('✉'), "what is not there neither beats nor waits: {shown}");
    browser.picture("tree-waiting").await;
    let shown = browser.text("[data-path=broadcaster][data-status=up]", "1 restart").await;
    assert!(shown.contains("life 2"), "{shown}");
    let age = browser.text("[data-path=broadcaster] time", "").await;
    assert!(age.ends_with("ago") || age == "just now", "{age}");
    browser.picture("tree-panicked-light").await;
    browser.use_screen(DARK).await;
    browser.picture("tree-panicked-dark").await;
    browser.use_screen(LIGHT).await;

    browser.click("[data-path=broadcaster] a").await;
    browser.text(".facts", "broadcaster, life 1").await;
    let incident = browser.path().await;
    let incidents = service.admin().get("/admin/incidents").await.expect(200).json();
    let ours = incidents["items"].as_array().unwrap().iter().find(|each| each["actor"] == "broadcaster").unwrap();
    assert_eq!(incident, format!("/console/incidents/{}", ours["id"].as_str().unwrap()));
    browser.click("a.button.primary").await;
    browser.text(".span.failed.chosen .detail", "panic.recovered").await;
    let trace = browser.path().await;
    assert!(trace.starts_with(&format!("/console/traces/{}", ours["trace_id"].as_str().unwrap())), "{trace}");
    browser.click(&format!(".detail a[href='{incident}']")).await;
    browser.text(".facts", "broadcaster, life 1").await;
    assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn in_production_the_page_has_nothing_to_break_it_with() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::setup().set("profile", "production").set("otel.endpoint", "off").start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 1").await;
    let verbs = browser.texts("[data-path=broadcaster] button").await;
    assert_eq!(verbs, ["restart", "stop"]);
    browser.close().await;
}

#[tokio::test]
async fn what_takes_its_time_is_seen_to_be_under_way_and_is_not_begun_twice() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 1").await;
    // Deaf to the wish to stop, it is only gone when its time is over.
    service.make_hang("broadcaster").await;
    browser.click("[aria-label='restart broadcaster']").await;
    browser.text("[aria-label='restart broadcaster'][aria-disabled=true]", "restart …").await;
    browser.picture("tree-busy").await;
    browser.click("[aria-label='restart broadcaster']").await;
    browser.click("[aria-label='stop broadcaster']").await;
    assert_eq!(browser.texts("dialog").await, Vec::<String>::new());
    browser.text("[data-path=broadcaster][data-status=up]", "life 2").await;
    browser.text("[aria-label='restart broadcaster'][aria-disabled=false]", "restart").await;
    let asked =
        "return performance.getEntriesByType('resource').filter((each) => each.name.includes('/restart/')).length";
    assert_eq!(browser.run(asked).await, 1);
    browser.close().await;
}

/// A supervisor shows so many of its children, those in trouble first; there are services with more.
#[tokio::test]
async fn of_children_that_are_not_shown_it_is_said_how_many_are_not_well() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let crowded = "const [real, of] = [fetch, '\"left_off\":0,\"left_off_troubled\":'];
        const crowd = { transform: (text, to) => to.enqueue(text.replaceAll(of + '0', '\"left_off\":36,\"left_off_troubled\":6')) };
        window.fetch = async (path, options) => {
            const answer = await real(path, options);
            if (path !== '/admin/live') return answer;
            const texts = answer.body.pipeThrough(new TextDecoderStream());
            return new Response(texts.pipeThrough(new TransformStream(crowd)).pipeThrough(new TextEncoderStream()));
        };";
    browser.run_first(crowded).await;
    browser.go(&at(&service, "/console")).await;
    browser.text(".left-off", "and 36 children more, 6 of them not well").await;
    browser.close().await;
}

/// What has the focus: its label, and how it is marked.
async fn focus(browser: &Browser) -> Value {
    let script =
        "const at = document.activeElement; return [at.ariaLabel || at.textContent, getComputedStyle(at).outlineStyle]";
    browser.run(script).await
}

/// Presses Tab until what has the focus bears this label; it must be seen to have it.
async fn tab_to(browser: &Browser, label: &str) {
    for _ in 0..200 {
        browser.press(Key::Tab).await;
        let focus = focus(browser).await;
        if focus[0] == label {
            assert_eq!(focus[1], "solid", "whoever uses the keyboard sees where they are");
            return;
        }
    }
    panic!("Tab does not lead to {label}");
}

#[tokio::test]
async fn with_the_keyboard_alone_a_child_is_stopped_after_a_question_and_started_again() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 1").await;
    tab_to(&browser, "stop broadcaster").await;
    browser.press(Key::Enter).await;
    browser.text("dialog", "Stop broadcaster?").await;
    browser.picture("confirm").await;
    browser.press(Key::Escape).await;
    is_answered(&browser).await;
    browser.press(Key::Enter).await;
    browser.text("dialog", "Stop broadcaster?").await;
    tab_to(&browser, "Cancel").await;
    browser.press(Key::Enter).await;
    is_answered(&browser).await;
    assert_eq!(focus(&browser).await, json!(["stop broadcaster", "solid"]));
    assert_eq!(service.node("broadcaster").await["status"], "up", "nothing was done");
    browser.press(Key::Enter).await;
    browser.text("dialog", "Stop broadcaster?").await;
    tab_to(&browser, "Stop it").await;
    browser.press(Key::Enter).await;
    browser.text("[data-path=broadcaster][data-status=stopped_by_hand]", "stopped").await;
    assert_eq!(focus(&browser).await, json!(["start broadcaster", "solid"]), "it is where it was");
    browser.text("[aria-label='start broadcaster'][aria-disabled=false]", "start").await;
    browser.press(Key::Enter).await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 2").await;
    browser.close().await;
}

async fn is_answered(browser: &Browser) {
    eventually("the question is gone", SOON, || async { browser.texts("dialog").await.is_empty().then_some(()) }).await;
}
