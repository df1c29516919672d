//! One incident as an event.

use std::borrow::Cow;
use std::time::SystemTime;

use sentry::protocol::value::{Map as Object, Value};
use sentry::protocol::{
    ClientSdkInfo, Context, Event, Exception, Frame, Level, Map, Mechanism, Stacktrace, Thread, ThreadId, TraceContext,
};
use telemetry::incidents::Incident;
use telemetry::panic::frames;

/// Details of an incident by which one searches, and which therefore become tags.
const TAGS: [&str; 3] = ["job.id", "job.kind", "request_id"];

/// Longer tags are refused.
const TAG_MAX: usize = 200;

/// The event that tells of an incident.
pub fn of(incident: &Incident, release: &str, environment: &str) -> Event<'static> {
    Event {
        // The id of the one is the id of the other.
        event_id: incident.id.to_string().parse().unwrap_or_default(),
        timestamp: SystemTime::from(incident.at),
        level: if incident.policy == "crash_process" { Level::Fatal } else { Level::Error },
        platform: Cow::Borrowed("native"),
        logger: Some("telemetry::incidents".to_owned()),
        culprit: Some(incident.actor.clone()),
        release: Some(Cow::Owned(release.to_owned())),
        environment: Some(Cow::Owned(environment.to_owned())),
        tags: tags(incident),
        contexts: contexts(incident),
        exception: vec![exception(incident)].into(),
        threads: vec![thread(incident)].into(),
        sdk: Some(Cow::Owned(sdk())),
        ..Event::default()
    }
}

fn exception(incident: &Incident) -> Exception {
    let stack = incident.backtrace.as_deref().map(frames).unwrap_or_default();
    Exception {
        ty: incident.kind.to_owned(),
        value: Some(incident.message.clone()),
        stacktrace: Stacktrace::from_frames_reversed(stack.into_iter().map(frame).collect()),
        thread_id: Some(ThreadId::from(incident.thread.as_str())),
        mechanism: Some(Mechanism {
            ty: incident.kind.to_owned(),
            handled: Some(incident.policy != "crash_process" && incident.kind != "panic.uncaught"),
            ..Mechanism::default()
        }),
        ..Exception::default()
    }
}

fn frame(frame: telemetry::panic::Frame<'_>) -> Frame {
    let file = frame.file;
    Frame {
        function: Some(frame.function.to_owned()),
        filename: file.map(|path| path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned()),
        abs_path: file.map(str::to_owned),
        lineno: frame.line.map(u64::from),
        colno: frame.column.map(u64::from),
        in_app: Some(file.is_some_and(is_ours)),
        ..Frame::default()
    }
}

/// Neither of the standard library nor of a dependency.
fn is_ours(file: &str) -> bool {
    !["/rustc/", "/registry/src/", "/git/checkouts/"].iter().any(|elsewhere| file.contains(elsewhere))
}

fn thread(incident: &Incident) -> Thread {
    Thread {
        id: Some(ThreadId::from(incident.thread.as_str())),
        name: Some(incident.thread.clone()),
        crashed: incident.kind.starts_with("panic"),
        current: true,
        ..Thread::default()
    }
}

fn tags(incident: &Incident) -> Map<String, String> {
    let mut tags = Map::new();
    let mut tag = |key: &str, value: &str| {
        let end = value.floor_char_boundary(TAG_MAX);
        tags.insert(key.to_owned(), value[..end].replace('\n', " "));
    };
    tag("component", &incident.component);
    tag("actor", &incident.actor);
    tag("policy", incident.policy);
    tag("kind", incident.kind);
    tag("phase", &incident.phase);
    tag("incident.id", &incident.id.to_string());
    let told =
        [("tenant", &incident.tenant), ("message_type", &incident.message_type), ("trace_id", &incident.trace_id)];
    for (key, value) in told {
        value.iter().for_each(|value| tag(key, value));
    }
    for (key, value) in incident.detail.iter().filter(|(key, _)| TAGS.contains(&key.as_str())) {
        tag(key, value);
    }
    tags
}

fn contexts(incident: &Incident) -> Map<String, Context> {
    let mut told: Object<String, Value> =
        incident.detail.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    told.insert("incarnation".to_owned(), incident.incarnation.into());
    let more = [("location", &incident.location), ("outcome", &incident.outcome)];
    told.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into()))));
    let mut contexts = Map::from([("incident".to_owned(), Context::Other(told.into_iter().collect()))]);
    if let Some(trace) = trace(incident) {
        contexts.insert("trace".to_owned(), trace.into());
    }
    contexts
}

fn trace(incident: &Incident) -> Option<TraceContext> {
    let trace_id = incident.trace_id.as_deref()?.parse().ok()?;
    let span_id = incident.span_id.as_deref()?.parse().ok()?;
    Some(TraceContext { trace_id, span_id, ..TraceContext::default() })
}

fn sdk() -> ClientSdkInfo {
    ClientSdkInfo {
        name: "sentry.rust.perennial".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        integrations: Vec::new(),
        packages: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn incident(policy: &'static str, backtrace: &str) -> Incident {
        Incident {
            id: "0193a4c0-0000-7000-8000-000000000007".parse().unwrap(),
            at: jiff::Timestamp::UNIX_EPOCH,
            kind: "panic",
            component: "store".to_owned(),
            actor: "store".to_owned(),
            policy,
            phase: "prepare".to_owned(),
            incarnation: 1,
            message_type: None,
            message: "half the table is written".to_owned(),
            location: None,
            thread: "main".to_owned(),
            backtrace: Some(backtrace.to_owned()),
            trace_id: None,
            span_id: None,
            tenant: Some("ä".repeat(300)),
            detail: vec![("job.id".to_owned(), "a\nb".to_owned()), ("rows".to_owned(), "7".to_owned())],
            outcome: None,
        }
    }

    fn event(policy: &'static str, backtrace: &str) -> Value {
        serde_json::to_value(of(&incident(policy, backtrace), "perennial@1", "production")).unwrap()
    }

    #[test]
    fn what_costs_the_process_is_fatal_and_was_not_handled() {
        let event = event("crash_process", "");
        assert_eq!(event["level"], "fatal");
        let exception = &event["exception"]["values"][0];
        assert_eq!((&exception["mechanism"]["handled"], &exception["stacktrace"]), (&json!(false), &Value::Null));
        assert_eq!(event["event_id"].as_str().unwrap().replace('-', ""), "0193a4c0000070008000000000000007");
    }

    #[test]
    fn a_stack_begins_with_the_caller_and_tells_ours_from_others() {
        let stack = "   0: app::f\n             at /src/app/src/f.rs:7:13\n   1: dep::g\n             at \
            /root/.cargo/registry/src/index.crates.io-1/dep-1/src/g.rs:9\n";
        let event = event("restart", stack);
        let frames = &event["exception"]["values"][0]["stacktrace"]["frames"];
        let told = |n: usize| (frames[n]["filename"].as_str().unwrap(), &frames[n]["lineno"], &frames[n]["in_app"]);
        assert_eq!(told(0), ("g.rs", &json!(9), &json!(false)));
        assert_eq!(told(1), ("f.rs", &json!(7), &json!(true)));
    }

    #[test]
    fn a_tag_is_one_line_and_not_too_long_and_what_is_no_tag_is_told_all_the_same() {
        let event = event("restart", "");
        let tags = &event["tags"];
        assert_eq!((tags["tenant"].as_str().unwrap().len(), &tags["job.id"]), (TAG_MAX, &json!("a b")));
        assert_eq!((&tags["rows"], &event["contexts"]["incident"]["rows"]), (&Value::Null, &json!("7")));
        assert_eq!(event["contexts"]["trace"], Value::Null);
    }
}
