//! What is around every view: the stream that keeps it live, the token, its address, the menu, and where the focus is.

use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use reqwest::Url;
use serde_json::{Value, json};
use tests::browser::{ELSEWHERE, PHONE};
use tests::{Browser, Service, eventually};

use super::{SOON, TOKEN, at, panicked_job};

/// Waits until the head says that it is live.
async fn is_live(browser: &Browser) {
    browser.text(".health > .quiet", "live").await;
}

#[tokio::test]
async fn the_page_says_when_it_is_not_live_and_is_live_again_by_itself() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console")).await;
    is_live(&browser).await;
    browser.text("[data-path=admin]", "life 1").await;
    // Its own listener: the stream is cut, and the next one is of another incarnation.
    service.make_panic("admin").await;
    browser.text(".health", "not live").await;
    browser.text("[data-path=admin]", "life 2").await;
    is_live(&browser).await;
    browser.close().await;
}

#[tokio::test]
async fn a_process_that_stands_still_is_said_to_be_silent_and_is_live_again_when_it_goes_on() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console")).await;
    is_live(&browser).await;
    service.process().signal(Signal::SIGSTOP);
    browser.text(".health", "nothing heard for 5 s").await;
    browser.text(".health > .off", "ready").await;
    browser.picture("silent").await;
    service.process().signal(Signal::SIGCONT);
    is_live(&browser).await;
    service.make_panic("broadcaster").await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 2").await;
    browser.close().await;
}

/// A browser has six connections for a host. A page kept for the way back must not keep one.
#[tokio::test]
async fn a_page_that_was_left_keeps_no_connection_and_is_live_again_when_one_comes_back() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let views = ["", "/incidents", "/traces", "/logs"].map(|view| at(&service, &format!("/console{view}")));
    for view in views.iter().cycle().take(13) {
        tokio::time::timeout(SOON, browser.go(view)).await.expect("a connection is free");
        is_live(&browser).await;
    }
    browser.go("about:blank").await;
    browser.back().await;
    browser.text("[data-path=broadcaster]", "life 1").await;
    service.make_panic("broadcaster").await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 2").await;
    browser.close().await;
}

#[tokio::test]
async fn of_many_tabs_only_the_one_in_front_keeps_a_connection() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let turned = "document.dispatchEvent(new Event('visibilitychange'))";
    let away = format!("Object.defineProperty(document, 'hidden', {{ value: true, configurable: true }}); {turned}");
    let back = format!("delete document.hidden; {turned}");
    for _ in 0..7 {
        browser.new_tab().await;
        tokio::time::timeout(SOON, browser.go(&at(&service, "/console"))).await.expect("a connection is free");
        is_live(&browser).await;
        // Without a screen no tab is behind another: the browser has to be told.
        browser.run(&away).await;
        browser.text(".health", "not live: nobody looks").await;
    }
    browser.run(&back).await;
    is_live(&browser).await;
    // But of a window that is put away it knows by itself.
    browser.put_away().await;
    browser.text(".health", "not live: nobody looks").await;
    browser.take_up().await;
    is_live(&browser).await;
    service.make_panic("broadcaster").await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 2").await;
    browser.close().await;
}

#[tokio::test]
async fn a_stop_is_watched_to_its_end_and_not_held_up_by_who_watches() {
    let service = Service::start().await;
    let mut stream = reqwest::get(at(&service, "/admin/live")).await.unwrap().bytes_stream();
    assert!(stream.next().await.unwrap().is_ok());
    let watched = async {
        let mut all = String::new();
        while let Some(event) = stream.next().await {
            all += std::str::from_utf8(&event.expect("an end, and no cut")).unwrap();
        }
        all
    };
    let (ended, seen) = tokio::join!(service.stop(), watched);
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(!ended.log().contains("not finished in time"), "{}", ended.log());
    let last: Value = serde_json::from_str(seen.trim_end().rsplit_once("data: ").unwrap().1).unwrap();
    let api = last["tree"]["children"].as_array().unwrap().iter().find(|child| child["id"] == "api").unwrap();
    assert_eq!((&last["draining"], &api["status"]), (&json!(true), &json!("down")), "{last:#}");
}

/// Slower than a view is asked for again.
#[tokio::test]
async fn over_a_slow_link_the_views_that_renew_themselves_come_all_the_same() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console")).await;
    is_live(&browser).await;
    browser.slow_link(Duration::from_secs(4)).await;
    for (view, selector, text) in [("now", "h3", "Runtime"), ("sockets", "h3", "Open"), ("health", ".card", "store")] {
        browser.click(&format!("nav a[href='/console/{view}']")).await;
        browser.text(selector, text).await;
    }
    browser.close().await;
}

#[tokio::test]
async fn the_page_asks_for_the_token_shows_nothing_without_it_and_all_with_it() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::setup().set("admin.token", TOKEN).start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("form.token", "admin.token").await;
    assert_eq!(browser.texts(".tree").await, Vec::<String>::new());
    assert_eq!(browser.texts("form.token [role=alert]").await, Vec::<String>::new(), "none was given yet");
    browser.type_into("input[name=token]", "a guess").await;
    browser.click("form.token button").await;
    browser.text("form.token [role=alert]", "This token was refused.").await;
    browser.picture("token").await;
    browser.type_into("input[name=token]", TOKEN).await;
    browser.click("form.token button").await;
    browser.text("[data-path=scheduler][data-status=up]", "life 1").await;
    browser.click("[aria-label='restart broadcaster']").await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 2").await;
    browser.go(&at(&service, "/console/incidents")).await;
    browser.text(".empty", "Nothing has gone wrong").await;
    assert_eq!(browser.complaints(&["401"]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_refusal_that_comes_late_takes_no_newer_token_away() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::setup().set("admin.token", TOKEN).start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("form.token", "admin.token").await;
    let late = format!(
        "const {{ send, use_token }} = await import('/console/assets/api.js');
        sessionStorage.setItem('admin.token', 'an old one');
        const refused = send('/admin/tree').catch((error) => error.status);
        use_token('{TOKEN}');
        return [await refused, sessionStorage.getItem('admin.token')];"
    );
    assert_eq!(browser.run(&format!("return (async () => {{ {late} }})()")).await, json!([401, TOKEN]));
    browser.text("[data-path=scheduler][data-status=up]", "life 1").await;
    browser.close().await;
}

#[tokio::test]
async fn an_address_with_a_slash_or_a_fault_at_its_end_leads_to_a_page_too() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console/")).await;
    browser.text("[data-path=broadcaster]", "life 1").await;
    browser.go(&at(&service, "/console/traces/%zz")).await;
    browser.text(".path", "%zz").await;
    browser.text(".wrong", "Not shown").await;
    browser.close().await;
}

/// Over plain HTTP a browser gives a page of another host no clipboard.
#[tokio::test]
async fn what_is_copied_is_copied_over_plain_http_too_or_said_not_to_be() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::setup().set("admin.token", TOKEN).start().await;
    service.enqueue("panic", json!({})).await;
    let mut elsewhere: Url = at(&service, "/console").parse().unwrap();
    elsewhere.set_host(Some(ELSEWHERE)).unwrap();
    browser.go(elsewhere.as_str()).await;
    browser.type_into("input[name=token]", TOKEN).await;
    browser.click("form.token button").await;
    browser.click("[data-path='scheduler.runners'] a").await;
    let location = browser.text("[data-location]", "jobs/panic.rs:").await;
    assert_eq!(browser.run("return [isSecureContext, navigator.clipboard ?? null]").await, json!([false, null]));
    browser.click(".where button").await;
    browser.text(".where [role=status]", "Copied").await;
    browser.run("document.execCommand = () => false").await;
    browser.click(".where button").await;
    browser.text(".where [role=status]", "Not copied: the browser lets no page on plain HTTP copy").await;

    browser.go(&at(&service, "/console")).await;
    browser.allow_the_clipboard().await;
    assert_eq!(browser.run("return navigator.clipboard.readText()").await, location);
    browser.close().await;
}

/// It is an hour ahead of the service.
#[tokio::test]
async fn ages_are_right_on_a_computer_whose_clock_is_wrong() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    panicked_job(&service).await;
    browser.run_first("const right = Date.now; Date.now = () => right() + 3_600_000;").await;
    browser.go(&at(&service, "/console/incidents")).await;
    eventually("it is not an hour ago", SOON, || async {
        let ages = browser.texts(".card time").await;
        (!ages.is_empty() && !ages[0].contains(" h ago")).then_some(())
    })
    .await;
    browser.close().await;
}

#[tokio::test]
async fn another_view_is_seen_from_its_beginning_and_has_the_focus() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.use_screen(PHONE).await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path=broadcaster]", "life 1").await;
    browser.run("document.querySelector('main').style.minHeight = '4000px'; scrollTo(0, 400)").await;
    browser.run("document.querySelector(\"nav a[href='/console/logs']\").click()").await;
    browser.text("h2", "Logs").await;
    assert_eq!(browser.run("return [scrollY, document.activeElement.id]").await, json!([0, "main"]));
    browser.close().await;
}

#[tokio::test]
async fn on_a_phone_the_menu_is_one_line_and_shows_where_one_is() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.use_screen(PHONE).await;
    for view in ["/console/logs", "/console", "/console/jobs"] {
        browser.go(&at(&service, view)).await;
        is_live(&browser).await;
        let lines =
            "new Set([...document.querySelectorAll('nav[aria-label=Views] a')].map((each) => each.offsetTop)).size";
        assert_eq!(browser.run(&format!("return {lines}")).await, 1, "{view}");
        let at = "document.querySelector('nav [aria-current]').getBoundingClientRect()";
        let seen = browser.run(&format!("const at = {at}; return at.left >= 0 && at.right <= 360")).await;
        assert_eq!(seen, true, "{view}");
    }
    browser.picture("menu-phone").await;
    browser.close().await;
}
