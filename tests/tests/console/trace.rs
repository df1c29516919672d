//! Incidents and traces as the console shows them: at once, as they go on, and so that they can be read.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::browser::{DARK, Key, LIGHT, PHONE};
use tests::client::send;
use tests::receiver::Reply;
use tests::{Browser, Receiver, Service, eventually};

use super::{SOON, at, panicked_job};

/// Texts below `main` of less contrast than 4.5:1 to what lies behind them, each with it.
const UNREADABLE: &str = r#"
    const colour = (text) => {
        const [r, g, b, alpha = 1] = text.match(/[\d.]+(e-\d+)?/g).map(Number);
        const of = text.startsWith("color(") ? 255 : 1;
        return [r * of, g * of, b * of, alpha];
    };
    const over = (top, below, opacity) => below.map((each, at) => top[at] * top[3] * opacity + each * (1 - top[3] * opacity));
    const opacity = (element) => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);
    const light = (colour) => {
        const [r, g, b] = colour.map((each) => (each > 10 ? ((each / 255 + 0.055) / 1.055) ** 2.4 : each / 255 / 12.92));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    // A pattern is several: whatever of it lies behind a letter.
    const behind = (elements) => elements.reverse().reduce((below, element) => {
        const { backgroundColor, backgroundImage } = getComputedStyle(element);
        const pattern = (backgroundImage.match(/(rgba?|color)\([^)]*\)/g) || ["rgba(0, 0, 0, 0)"]).map(colour);
        const plain = below.map((each) => over(colour(backgroundColor), each, opacity(element)));
        return plain.flatMap((each) => pattern.map((stripe) => over(stripe, each, opacity(element))));
    }, [[255, 255, 255]]);
    const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) {
        const [text, element] = [texts.currentNode, texts.currentNode.parentElement];
        if (!text.data.trim() || element.closest("option, .visually-hidden")) continue;
        const range = document.createRange();
        range.selectNodeContents(text);
        scrollBy(0, range.getBoundingClientRect().top - innerHeight / 2);
        const [{ left, top, width, height }] = [...range.getClientRects(), {}];
        const stack = document.elementsFromPoint(left + Math.min(3, width / 2), top + height / 2);
        if (!stack.includes(element)) continue;
        const own = colour(getComputedStyle(element).color);
        const least = Math.min(...behind(stack.slice(stack.indexOf(element))).map((each) => contrast(over(own, each, opacity(element)), each)));
        if (least < 4.5) found.push(`${least.toFixed(2)} ${element.className}: ${text.data.trim()}`);
    }
    return found;
"#;

/// All of the page can be read, by day and by night. Pictures of both are kept.
async fn is_readable(browser: &Browser, name: &str) {
    for (time, screen) in [("light", LIGHT), ("dark", DARK)] {
        browser.use_screen(screen).await;
        assert_eq!(browser.run(UNREADABLE).await, json!([]), "{name} in {time}");
        browser.run("scrollTo(0, 0)").await;
        browser.picture(&format!("{name}-{time}")).await;
    }
}

/// Opens the trace of a job that runs for so long.
async fn trace_of_a_running_job(browser: &Browser, service: &Service) {
    service.enqueue("sleep", json!({ "ms": 60_000 })).await;
    browser.go(&at(service, "/console/now")).await;
    browser.text(".open-spans", "job.kind=sleep").await;
    browser.click(".open-spans a").await;
    browser.text(".span.open.chosen .line", "job.run").await;
}

/// The first resolving of names takes half a second and more, and whoever clicks at once is sooner there.
#[tokio::test]
async fn the_backtrace_of_an_incident_that_is_opened_at_once_appears_by_itself() {
    let Some(browser) = Browser::open().await else { return };
    // Nothing else is to happen to it meanwhile.
    let setup = Service::setup().set("broadcaster.backoff.cap_ms", 600_000);
    let service = setup.set("broadcaster.backoff.base_ms", 600_000).start().await;
    browser.go(&at(&service, "/console")).await;
    browser.text("[data-path=broadcaster][data-status=up]", "life 1").await;
    let click = "new MutationObserver((_, watch) => {
            const link = document.querySelector('[data-path=broadcaster] a[href*=incidents]');
            if (link) { watch.disconnect(); link.click(); }
        }).observe(document.body, { childList: true, subtree: true })";
    browser.run(click).await;
    service.make_panic("broadcaster").await;
    browser.text(".backtrace .ours", "").await;
    browser.close().await;
}

#[tokio::test]
async fn what_is_said_of_incidents_and_traces_can_be_read_by_day_and_by_night() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let incident = panicked_job(&service).await;
    let (id, trace) = (incident["id"].as_str().unwrap(), incident["trace_id"].as_str().unwrap());
    let boots = service.admin().get("/admin/traces?name=boot").await.expect(200).json();
    let boot = boots["items"][0]["trace_id"].as_str().unwrap();
    let views = [
        ("incidents", "/console/incidents".to_owned(), ".card"),
        ("one-incident", format!("/console/incidents/{id}"), ".backtrace .theirs"),
        ("all-traces", "/console/traces".to_owned(), ".trace-line"),
        ("one-trace", format!("/console/traces/{trace}"), ".detail .logs"),
        ("boot", format!("/console/traces/{boot}"), ".span:nth-child(9)"),
    ];
    for (name, path, selector) in views {
        browser.go(&at(&service, &path)).await;
        browser.text(selector, "").await;
        is_readable(&browser, name).await;
    }
    trace_of_a_running_job(&browser, &service).await;
    is_readable(&browser, "trace-open").await;
    browser.close().await;
}

#[tokio::test]
async fn a_trace_of_which_nothing_has_ended_is_listed_and_goes_on_while_one_looks() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    trace_of_a_running_job(&browser, &service).await;
    let trace = browser.path().await.split('?').next().unwrap().to_owned();
    for _ in 0..2 {
        let before = browser.texts(".detail .facts").await;
        eventually("it has taken longer", SOON, || async {
            (browser.texts(".detail .facts").await != before).then_some(())
        })
        .await;
    }
    let head = browser.texts("article > .notes").await.remove(0);
    assert!(head.contains(" s so far") && head.contains("1 open") && !head.contains("0 spans"), "{head}");
    browser.go(&at(&service, "/console/traces?name=job.run")).await;
    browser.text(&format!(".trace-line[href='{trace}']"), "open").await;
    browser.close().await;
}

#[tokio::test]
async fn a_trace_of_which_there_is_too_much_to_be_shown_says_how_much() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console/traces")).await;
    browser.text(".trace-line", "boot").await;
    let more = "const real = fetch;
        window.fetch = async (...asked) => {
            const answer = await real(...asked);
            if (!asked[0].startsWith('/admin/traces/')) return answer;
            return Response.json({ ...(await answer.json()), left_off: { spans: 1, logs: 2, followers: 3000 } });
        }";
    browser.run(more).await;
    browser.click(".trace-line").await;
    browser.text(".span .line", "boot").await;
    let said = browser.texts("article > .quiet").await;
    assert_eq!(
        said,
        ["and 1 span not shown", "and 2 earlier log records not shown", "and 3,000 earlier traces not shown"]
    );
    browser.close().await;
}

#[tokio::test]
async fn a_trace_that_is_gone_is_not_asked_for_again_and_again() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, &format!("/console/traces/{}", "a".repeat(32)))).await;
    browser.text(".wrong", "keeps no such trace").await;
    eventually("three looks at a list would have been taken", SOON, || async {
        service.api().get("/v1/jobs").await.expect(200);
        browser.run("return performance.now() > 8000").await.as_bool().filter(|is_time| *is_time)
    })
    .await;
    let asked =
        "return performance.getEntriesByType('resource').filter(({ name }) => name.includes('/admin/traces/')).length";
    assert_eq!(browser.run(asked).await, 1);
    browser.close().await;
}

#[tokio::test]
async fn a_list_is_followed_until_one_looks_further_back_and_searched_again_with_the_same_words() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let ask = || async { drop(service.api().get("/v1/jobs").await.expect(200)) };
    for _ in 0..60 {
        ask().await;
    }
    let lines = || async { browser.texts(".trace-line").await.len() };
    let follows = || async { browser.run("return document.querySelectorAll('.check input')[1].checked").await };
    let latest = || async { browser.run("return document.querySelector('.trace-line').getAttribute('href')").await };
    let renewed = |before: Value| async move {
        eventually("there is a later one", SOON, || async { Some(latest().await).filter(|now| *now != before) }).await
    };
    browser.go(&at(&service, "/console/traces?name=/v1/jobs")).await;
    eventually("a page of them", SOON, || async { (lines().await == 50).then_some(()) }).await;
    let before = latest().await;
    ask().await;
    renewed(before).await;

    browser
        .run("window.real = fetch; window.fetch = async (path) => { throw new TypeError(`no way to ${path}`) }")
        .await;
    browser.click("main > .actions button").await;
    browser.text(".wrong", "no way to /admin/traces?name=%2Fv1%2Fjobs&cursor=").await;
    browser.run("window.fetch = window.real").await;
    browser.click("main > .actions button").await;
    eventually("more of them", SOON, || async { (lines().await > 60).then_some(()) }).await;
    assert_eq!((follows().await, browser.texts(".wrong").await.len()), (json!(false), 0), "what is read stays");

    let before = latest().await;
    ask().await;
    browser.click("form.search button").await;
    renewed(before).await;
    assert_eq!((follows().await, lines().await), (json!(false), 50));
    browser.click("main > .actions button").await;
    eventually("more of them", SOON, || async { (lines().await > 60).then_some(()) }).await;
    browser.click("form.search .check:last-child").await;
    eventually("the latest only", SOON, || async { (lines().await == 50).then_some(()) }).await;
    let before = latest().await;
    ask().await;
    renewed(before).await;
    browser.close().await;
}

/// The path of the trace of a job that made four calls, of which one is told that there is nothing.
async fn story(service: &Service) -> String {
    let receiver = Receiver::start().await;
    let late = Reply::Late(Duration::from_millis(60), 200);
    receiver.script([late, Reply::Status(404), late, late]);
    let urls = ["a", "b", "c", "d"].map(|path| receiver.url(&format!("/{path}")));
    let job = service.enqueue("check_links", json!({ "urls": urls })).await;
    service.job_in(&job, "done").await;
    let trace = eventually("its run has ended", SOON, || async {
        let list = service.admin().get("/admin/traces?name=job.run").await.expect(200).json();
        list["items"].as_array().unwrap().iter().find(|trace| trace["open"] == 0).cloned()
    });
    format!("/console/traces/{}", trace.await["trace_id"].as_str().unwrap())
}

#[tokio::test]
async fn a_story_of_several_spans_is_narrowed_to_what_failed_and_to_a_part_of_its_time() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, &story(&service).await)).await;
    browser.text(".span.failed.chosen .line", "GET").await;
    is_readable(&browser, "story").await;
    let names = || async { browser.texts(".span .line .clip").await };
    let all = names().await;
    assert!(all.len() >= 5 && all[0].starts_with("job.run"), "{all:?}");
    browser.click(".tools label:last-child").await;
    eventually("what did not fail is left out", SOON, || async { (names().await.len() < all.len()).then_some(()) })
        .await;
    let lines = browser.texts(".span:not(.failed) .line .clip").await;
    assert_eq!(lines, all[..1], "but for what leads to it");
    browser.picture("story-failed-only").await;
    browser.click(".tools label:last-child").await;

    let ticks = || async { browser.texts(".tick").await };
    let other = |than: Vec<String>| async move {
        eventually("the ruler shows another part", SOON, || async { Some(ticks().await).filter(|now| *now != than) })
            .await
    };
    let whole = ticks().await;
    browser.drag(".ruler", 0.5, 0.75).await;
    let part = other(whole.clone()).await;
    assert_eq!(part[0], whole[2], "from where the drag began");
    browser.text(".span.failed .took", "← ").await;
    browser.picture("story-zoomed").await;
    browser.run("document.querySelector('.span .line').focus()").await;
    for key in [Key::Right.into(), '+', '-'] {
        let before = ticks().await;
        browser.press(key).await;
        other(before).await;
    }
    browser.press(Key::Left).await;
    eventually("where it was", SOON, || async { (ticks().await == part).then_some(()) }).await;
    browser.press('0').await;
    eventually("and the whole", SOON, || async { (ticks().await == whole).then_some(()) }).await;
    assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn on_a_phone_the_times_of_a_trace_stand_apart_and_its_names_are_whole() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let incident = panicked_job(&service).await;
    browser.use_screen(PHONE).await;
    let failed = format!("/console/traces/{}", incident["trace_id"].as_str().unwrap());
    for (name, path) in [("failed", failed), ("story", story(&service).await)] {
        browser.go(&at(&service, &path)).await;
        browser.text(".span.failed.chosen .line", "").await;
        let ends = "const texts = (selector) => [...document.querySelectorAll(selector)].map((found) => {
                const range = document.createRange();
                range.selectNodeContents(found.firstElementChild || found);
                return range.getBoundingClientRect();
            }).filter(({ width }) => width > 0).map(({ left, right }) => [left, right]);
            const [ruler] = [...document.querySelectorAll('.ruler')].map((found) => found.getBoundingClientRect().right);
            return { ticks: [...texts('.tick'), [ruler, ruler]] }";
        let ticks: Vec<[f64; 2]> = serde_json::from_value(browser.run(ends).await["ticks"].clone()).unwrap();
        assert!(ticks.len() > 2 && ticks.windows(2).all(|two| two[0][1] <= two[1][0]), "{name}: {ticks:?}");
        let cut = "return [...document.querySelectorAll('.span .name')].filter((name) => {
                const [own, room] = [name.getBoundingClientRect(), name.parentElement.getBoundingClientRect()];
                return own.right > room.right + 1;
            }).map((name) => name.textContent)";
        assert_eq!(browser.run(cut).await, json!([]), "{name}");
        browser.picture(&format!("{name}-phone")).await;
    }
    browser.close().await;
}

/// A client that asks, and asks again a second later.
#[tokio::test]
async fn a_second_of_waiting_between_two_requests_is_squeezed_until_one_wants_to_see_it() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let of_it = |method, path: &str| {
        service.api().request(method, path).header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
    };
    let job = of_it(Method::POST, "/v1/jobs").json(&json!({ "kind": "sleep", "payload": { "ms": 1_000 } }));
    let job = send(job).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    service.job_in(&job, "done").await;
    send(of_it(Method::GET, &format!("/v1/jobs/{job}"))).await.expect(200);
    browser.go(&at(&service, &format!("/console/traces/{trace}"))).await;
    browser.text(".span .line", "GET /v1/jobs/{id}").await;
    let share = || async {
        let share =
            "const sum = (of) => [...document.querySelectorAll(of)].reduce((sum, one) => sum + one.offsetWidth, 0);
            return 2 * sum('.track .bar') / sum('.track')";
        browser.run(share).await.as_f64().unwrap()
    };
    eventually("they take nearly all of the room", SOON, || async { (share().await > 0.9).then_some(()) }).await;
    assert_eq!(browser.texts(".ruler .gap").await.len(), 1);
    is_readable(&browser, "trace-squeezed").await;
    browser.click(".tools label").await;
    eventually("they are small beside it", SOON, || async { (share().await < 0.5).then_some(()) }).await;
    assert_eq!(browser.texts(".ruler .gap").await.len(), 0);
    browser.picture("trace-not-squeezed").await;
    browser.close().await;
}

/// As long as anything else is squeezed, what is long beside the rest is, too.
#[tokio::test]
async fn what_is_waited_for_is_squeezed_by_what_is_left_and_not_by_what_was_there() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.go(&at(&service, "/console")).await;
    let gaps = "const { timeline } = await import('/console/assets/timeline.js');
        const work = [[0, 10], [1010, 1020], [1120, 1130]];
        const line = timeline(work.flat(), work, true);
        return [line.gaps.map(({ ns }) => ns), line.place(10) > 0.2, line.instant(line.place(1015)), timeline(work.flat(), work, false).gaps]";
    let gaps = format!("return (async () => {{ {gaps} }})()");
    assert_eq!(browser.run(&gaps).await, json!([[1000, 100], true, 1015, []]));
    browser.close().await;
}
