use super::*;
use crate::incidents;
use crate::testing::{Recording, attribute, scrape};
use opentelemetry::trace::{Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::Sampler;
use std::sync::Mutex;
use std::time::Duration;
use tracing::info_span;

fn site<'a>(component: &'a str, actor: &'a str) -> PanicSite<'a> {
    PanicSite {
        component,
        actor,
        policy: Policy::Restart,
        phase: "handle",
        message_type: Some("Tick"),
        incarnation: 3,
        tenant: Some("acme"),
        detail: vec![("job".into(), "17".into())],
    }
}

/// The hook and the incidents are of the process, so these tests take turns.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    install_hook();
    crate::lock(&TURN)
}

fn settled() {
    assert!(settle(Duration::from_secs(30)));
}

/// Runs a future that never waits.
fn block<F: Future>(future: F) -> F::Output {
    futures_util::FutureExt::now_or_never(future).unwrap_or_else(|| panic!("it waits"))
}

/// Panics in a span of its own, on the line it tells.
fn break_wheel(line: &mut u32) {
    let _inner = info_span!("inner").entered();
    *line = line!() + 1;
    panic!("the {} broke", "wheel");
}

#[test]
fn a_panic_is_told_exactly_once_as_metric_event_log_and_incident() {
    let _alone = alone();
    let recording = Recording::new();
    let mut line = 0;
    let caught = recording.run(|| info_span!("tick").in_scope(|| catch_sync(|| break_wheel(&mut line))));
    let panic = caught.unwrap_err();
    assert_eq!(panic.message, "the wheel broke");
    let id = record(site("once", "once.wheel"), panic);
    settled();

    let span = recording.span("inner");
    assert_eq!(span.status, Status::error("the wheel broke"));
    assert_eq!(attribute(&span.attributes, "error.type").as_deref(), Some("panic"));
    let [event] = span.events.events.as_slice() else { panic!("events: {:?}", span.events) };
    assert_eq!(event.name, "panic.recovered");
    let value = |key| attribute(&event.attributes, key).unwrap_or_else(|| panic!("no {key}"));
    assert_eq!((value("exception.type"), value("exception.message")), ("panic".into(), "the wheel broke".into()));
    assert_eq!(
        (value("component"), value("actor"), value("policy")),
        ("once".into(), "once.wheel".into(), "restart".into())
    );
    assert_eq!((value("message_type"), value("incarnation")), ("Tick".into(), "3".into()));
    let stack = value("exception.stacktrace");
    assert!(stack.contains(&format!("panic/tests.rs:{line}:")), "{stack}");
    let first_place = stack.lines().nth(1).unwrap();
    assert!(first_place.contains(&format!("panic/tests.rs:{line}:")), "the panicking line is not on top: {stack}");
    assert!(!stack.contains("/rustc/"), "{stack}");

    let trace_id = span.span_context.trace_id().to_string();
    assert_eq!(recording.logs(), [(Some("panic.recovered"), Some(trace_id.clone()))]);
    let text = scrape();
    let counted = "panic_recovered_total{actor=\"once.wheel\",component=\"once\",policy=\"restart\"} 1";
    assert!(text.contains(counted), "{text}");

    let incident = incidents::get(id).unwrap();
    assert_eq!(incident.backtrace.as_deref(), Some(stack.as_str()));
    assert_eq!(incident.trace_id.as_deref(), Some(trace_id.as_str()));
    assert!(incident.location.as_deref().unwrap().contains(&format!("panic/tests.rs:{line}:")));
    assert_eq!(incidents::recent(256).iter().filter(|incident| incident.component == "once").count(), 1);
    assert!(incidents::amend(id, "restarted"));
    let json = serde_json::to_value(&*incidents::get(id).unwrap()).unwrap();
    assert_eq!((json["outcome"].as_str(), json["tenant"].as_str()), (Some("restarted"), Some("acme")));
}

/// In a trace the cause would stand behind its effect otherwise.
#[test]
fn the_log_record_of_a_panic_bears_the_time_of_the_panic_and_not_that_of_its_backtrace() {
    let _alone = alone();
    let recording = Recording::new();
    let panic = recording.run(|| catch_sync(|| panic!("at its time"))).unwrap_err();
    let at = panic.at;
    record(site("time", "time"), panic);
    settled();
    let (happened, written) = recording.log_times();
    assert_eq!(happened, at.into());
    assert!(written > happened);
}

#[test]
fn what_an_assertion_saw_reaches_incident_span_event_and_log() {
    let _alone = alone();
    let recording = Recording::new();
    let work = || crate::ensure!(1 > 2, "the sum is off"; total = 7, names = ?["a", "b"], actor = "mine");
    let panic = recording.run(|| info_span!("sum").in_scope(|| catch_sync(work))).unwrap_err();
    let id = record(site("sum", "sum"), panic);
    settled();

    let incident = incidents::get(id).unwrap();
    assert_eq!(incident.message, "the sum is off");
    let detail: Vec<_> = incident.detail.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let seen = [("condition", "1 > 2"), ("total", "7"), ("names", "[\"a\", \"b\"]"), ("actor", "mine")];
    assert_eq!(detail, [&[("job", "17")], seen.as_slice()].concat());
    assert!(incident.backtrace.as_deref().unwrap().lines().nth(1).unwrap().contains("panic/tests.rs:"), "{incident:?}");

    let event = recording.span("sum").events.events[0].clone();
    let value = |key| attribute(&event.attributes, key).unwrap_or_else(|| panic!("no {key}"));
    assert_eq!((value("exception.message"), value("panic.condition")), ("the sum is off".into(), "1 > 2".into()));
    assert_eq!((value("panic.context.total"), value("panic.context.actor")), ("7".into(), "mine".into()));
    assert_eq!(value("actor"), "sum", "a field of the same name hides nothing");
    assert_eq!(value("panic.detail"), "job=17", "what it worked on, and not what the assertion saw");
    assert_eq!(recording.log_field("panic.detail").as_deref(), Some("job=17"));
    assert_eq!(recording.log_field("panic.condition").as_deref(), Some("1 > 2"));
    assert_eq!(recording.log_field("exception.message").as_deref(), Some("the sum is off"));
    let line = r#"total=7 names="[\"a\", \"b\"]" actor=mine"#;
    assert_eq!(recording.log_field("panic.context").as_deref(), Some(line));
}

#[test]
fn an_assertion_that_other_code_swallows_keeps_its_values_to_itself() {
    let _alone = alone();
    let swallowing = || {
        drop(std::panic::catch_unwind(|| crate::ensure!(false, "swallowed assertion"; stale = 1)));
        panic!("the one that is caught")
    };
    let id = record(site("stale", "stale"), catch_sync(swallowing).unwrap_err());
    settled();
    assert_eq!(incidents::get(id).unwrap().detail, [("job".to_owned(), "17".to_owned())]);
    let swallowed = incidents::recent(256).into_iter().find(|incident| incident.message == "swallowed assertion");
    let detail = swallowed.unwrap().detail.clone();
    assert_eq!(detail, [("condition".into(), "false".into()), ("stale".to_owned(), "1".to_owned())]);
}

#[test]
fn a_panic_in_a_later_poll_of_a_future_is_caught() {
    let _alone = alone();
    let recording = Recording::new();
    let panic = recording.run(|| {
        let mut polls = 0;
        let future = std::future::poll_fn(move |_| {
            polls += 1;
            if polls == 2 {
                panic!("second poll")
            }
            std::task::Poll::<()>::Pending
        });
        let mut caught = std::pin::pin!(catch(future));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(caught.as_mut().poll(&mut context).is_pending());
        let std::task::Poll::Ready(Err(panic)) = caught.as_mut().poll(&mut context) else { panic!("not caught") };
        panic
    });
    assert_eq!(panic.message, "second poll");
    assert!(panic.location.as_deref().is_some_and(|location| location.contains("panic/tests.rs:")));
    record(site("poll", "poll"), panic);
    settled();
}

#[test]
fn a_panic_outside_any_span_gets_one_of_its_own() {
    let _alone = alone();
    let recording = Recording::new();
    let panic = recording.run(|| catch_sync(|| panic!("nowhere"))).unwrap_err();
    record(site("nowhere", "nowhere"), panic);
    settled();
    let span = recording.span("panic.recovered");
    assert_eq!(span.events.events[0].name, "panic.recovered");
    assert_eq!(span.parent_span_id, opentelemetry::trace::SpanId::INVALID);
}

#[test]
fn a_panic_under_a_caller_whose_span_is_elsewhere_links_to_it() {
    let _alone = alone();
    let recording = Recording::new();
    let remote =
        crate::context::TraceContext::from_parts(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), None);
    let work = crate::context::as_child(tracing::debug_span!("invisible"), &remote, catch(async { panic!("below") }));
    let result: Result<(), _> = recording.run(|| block(work));
    record(site("below", "below"), result.unwrap_err());
    settled();
    let span = recording.span("panic.recovered");
    assert_eq!(span.links.links[0].span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[test]
fn a_panic_in_a_trace_that_is_not_sampled_is_still_logged_counted_and_kept() {
    let _alone = alone();
    let recording = Recording::sampled(Sampler::AlwaysOff);
    let caught = recording.run(|| info_span!("unsampled").in_scope(|| catch_sync(|| panic!("unseen"))));
    let id = record(site("unsampled", "unsampled"), caught.unwrap_err());
    settled();
    assert!(recording.spans().is_empty());
    let incident = incidents::get(id).unwrap();
    assert!(incident.trace_id.is_some());
    assert_eq!(recording.logs(), [(Some("panic.recovered"), incident.trace_id.clone())]);
    assert!(
        scrape().contains("panic_recovered_total{actor=\"unsampled\",component=\"unsampled\",policy=\"restart\"} 1")
    );
}

#[test]
fn a_panic_in_a_span_of_the_opentelemetry_api_is_told_there() {
    let _alone = alone();
    let recording = Recording::new();
    let tracer = recording.provider.tracer("api");
    let span = tracer.start("api");
    let context = opentelemetry::Context::new().with_span(span);
    let caught = recording.run(|| {
        catch_sync(|| {
            let _attached = context.attach();
            panic!("in the api")
        })
    });
    record(site("api", "api"), caught.unwrap_err());
    settled();
    assert_eq!(recording.span("api").events.events[0].name, "panic.recovered");
    assert_eq!(recording.names(), ["api"]);
}

#[test]
fn a_panic_that_other_code_swallows_is_noticed_when_the_scope_ends() {
    let _alone = alone();
    let recording = Recording::new();
    recording.run(|| {
        let fine = catch_sync(|| drop(std::panic::catch_unwind(|| panic!("swallowed by a library"))));
        assert!(fine.is_ok());
    });
    settled();
    let found =
        incidents::recent(256).into_iter().find(|incident| incident.message == "swallowed by a library").unwrap();
    assert_eq!((found.kind, found.phase.as_str()), ("panic.uncaught", "caught by other code"));
    assert_eq!(recording.logs()[0].0, Some("panic.uncaught"));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the thread plays foreign code")]
fn a_panic_on_a_foreign_thread_is_kept_as_an_incident_by_the_hook() {
    let _alone = alone();
    let recording = Recording::new();
    let dispatch = recording.dispatch.clone();
    let thread = std::thread::Builder::new().name("foreign".into());
    let ended = thread.spawn(move || tracing::dispatcher::with_default(&dispatch, || panic!("on a foreign thread")));
    assert!(ended.unwrap().join().is_err());
    settled();
    let found = incidents::recent(256).into_iter().find(|incident| incident.message == "on a foreign thread").unwrap();
    assert_eq!((found.kind, found.thread.as_str(), found.policy), ("panic.uncaught", "foreign", "none"));
    assert!(found.backtrace.as_deref().unwrap().contains("panic/tests.rs:"), "{found:?}");
    assert_eq!(recording.logs()[0].0, Some("panic.uncaught"));
}

#[test]
fn a_panic_resumed_from_elsewhere_is_caught_without_a_place() {
    let _alone = alone();
    let panic = catch_sync(|| std::panic::resume_unwind(Box::new("from a join handle"))).unwrap_err();
    assert_eq!((panic.message.as_str(), &panic.location), ("from a join handle", &None));
    let id = record(site("resumed", "resumed"), panic);
    settled();
    assert!(incidents::get(id).unwrap().backtrace.as_deref().unwrap().starts_with("no backtrace"));
}

#[test]
fn what_is_left_of_a_panicked_future_is_dropped_inside_the_scope() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("dropped")
            }
        }
    }
    let _alone = alone();
    let kept = PanicsInDrop;
    let mut kept = Some(kept);
    let result: Result<(), _> = block(catch(std::future::poll_fn(move |_| {
        let _still_here = kept.as_mut();
        panic!("polled")
    })));
    assert_eq!(result.unwrap_err().message, "polled");
    settled();
    assert!(incidents::recent(256).iter().any(|incident| incident.message == "dropped"));
}

#[test]
fn a_storm_is_counted_in_full_and_logged_in_part() {
    let _alone = alone();
    let recording = Recording::new();
    for _ in 0..400 {
        let panic = recording.run(|| catch_sync(|| panic!("again"))).unwrap_err();
        record(site("storm", "storm"), panic);
    }
    settled();
    assert_eq!(recording.spans().len(), 400);
    assert!(recording.spans().iter().all(|span| span.events.len() == 1));
    assert!(recording.logs().len() <= 20, "{}", recording.logs().len());
    assert!(scrape().contains("panic_recovered_total{actor=\"storm\",component=\"storm\",policy=\"restart\"} 400"));
}

#[test]
fn under_the_crash_policy_all_is_said_before_record_returns() {
    let _alone = alone();
    let recording = Recording::new();
    let panic = recording.run(|| catch_sync(|| panic!("half done"))).unwrap_err();
    record(PanicSite { policy: Policy::CrashProcess, ..site("crash", "crash") }, panic);
    assert_eq!(recording.logs().len(), 1);
    assert_eq!(recording.span("panic.recovered").events.len(), 1);
}
