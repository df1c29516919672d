use super::*;
use crate::testing::{Recording, attribute};
use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use tracing::{debug_span, info_span};

const REMOTE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const REMOTE_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Runs a future that never waits.
fn block<F: Future>(future: F) -> F::Output {
    futures_util::FutureExt::now_or_never(future).unwrap_or_else(|| panic!("it waits"))
}

#[test]
fn a_child_is_in_the_trace_of_its_sender() {
    let recording = Recording::new();
    let parent = TraceContext::from_parts(Some(REMOTE), None);
    let inside = recording.run(|| block(as_child(info_span!("receive"), &parent, async { TraceContext::current() })));
    let span = recording.span("receive");
    assert_eq!(span.span_context.trace_id().to_string(), REMOTE_TRACE);
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(inside.span_id(), Some(span.span_context.span_id().to_string()));
    assert_eq!(inside.origin().as_deref(), Some(REMOTE_TRACE));
}

#[test]
fn what_is_told_later_within_a_context_is_told_of_its_span_and_leaves_nothing_behind() {
    let context = TraceContext::from_parts(Some(REMOTE), None);
    assert_eq!(context.scope(TraceContext::current).trace_id().as_deref(), Some(REMOTE_TRACE));
    assert!(TraceContext::current().is_empty());
}

#[test]
fn a_follower_is_a_new_root_that_links_back_and_names_the_origin() {
    let recording = Recording::new();
    let origin = TraceContext::from_parts(Some(REMOTE), None);
    let inside = recording
        .run(|| block(as_follower(info_span!(parent: None, "job"), &origin, async { TraceContext::current() })));
    let span = recording.span("job");
    assert_ne!(span.span_context.trace_id().to_string(), REMOTE_TRACE);
    assert_eq!(span.parent_span_id, opentelemetry::trace::SpanId::INVALID);
    assert_eq!(span.links.links[0].span_context.trace_id().to_string(), REMOTE_TRACE);
    assert_eq!(attribute(&span.attributes, ORIGIN_TRACE_ID).as_deref(), Some(REMOTE_TRACE));
    assert_eq!(inside.trace_id(), Some(span.span_context.trace_id().to_string()));
    assert_eq!(inside.origin().as_deref(), Some(REMOTE_TRACE));
}

#[test]
fn the_first_origin_is_kept_through_nested_spans_and_further_followers() {
    let recording = Recording::new();
    let request = TraceContext::from_parts(Some(REMOTE), None);
    let job = async {
        let nested = info_span!("nested").in_scope(TraceContext::current);
        let row = serde_json::to_string(&nested).unwrap();
        let stored: TraceContext = serde_json::from_str(&row).unwrap();
        as_follower(info_span!(parent: None, "delivery"), &stored, async {
            as_child(info_span!("send"), &TraceContext::current(), async { TraceContext::current() }).await
        })
        .await
    };
    let last = recording.run(|| block(as_follower(info_span!(parent: None, "job"), &request, job)));
    assert_eq!(last.origin().as_deref(), Some(REMOTE_TRACE));
    let (job, delivery) = (recording.span("job"), recording.span("delivery"));
    assert_eq!(delivery.links.links[0].span_context.trace_id(), job.span_context.trace_id());
    assert_eq!(attribute(&delivery.attributes, ORIGIN_TRACE_ID).as_deref(), Some(REMOTE_TRACE));
    assert_eq!(recording.span("send").span_context.trace_id(), delivery.span_context.trace_id());
}

#[test]
fn a_span_that_is_filtered_out_hands_its_parent_on() {
    let recording = Recording::new();
    let parent = TraceContext::from_parts(Some(REMOTE), None);
    recording.run(|| {
        block(as_child(debug_span!("invisible"), &parent, async { info_span!("below").in_scope(|| ()) }));
    });
    let below = recording.span("below");
    assert_eq!(recording.names(), ["below"]);
    assert_eq!(below.parent_span_id.to_string(), "00f067aa0ba902b7");
}

#[test]
fn a_follower_that_is_filtered_out_still_hands_the_origin_on() {
    let recording = Recording::new();
    let origin = TraceContext::from_parts(Some(REMOTE), None);
    let inside = recording
        .run(|| block(as_follower(debug_span!(parent: None, "invisible"), &origin, async { TraceContext::current() })));
    assert_eq!((inside.trace_id(), inside.origin().as_deref()), (None, Some(REMOTE_TRACE)));
}

#[test]
fn without_any_subscriber_the_sender_is_still_known() {
    let parent = TraceContext::from_parts(Some(REMOTE), Some("00000000000000000000000000000001"));
    let inside = block(as_child(info_span!("nobody listens"), &parent, async { TraceContext::current() }));
    assert_eq!(inside, parent);
}

#[test]
fn a_span_made_with_the_opentelemetry_api_is_current_too() {
    let recording = Recording::new();
    let tracer = recording.provider.tracer("api");
    let (inside, below) = recording.run(|| {
        tracer.in_span("api", |context| {
            let below = info_span!("below").in_scope(TraceContext::current);
            assert_eq!(TraceContext::of(&context), TraceContext::current());
            (TraceContext::current(), below)
        })
    });
    assert_eq!(inside.trace_id(), below.trace_id());
    assert_eq!(recording.span("below").parent_span_id.to_string(), inside.span_id().unwrap());
}

#[test]
fn a_request_id_reaches_children_and_followers_through_rows_and_needs_no_trace() {
    let recording = Recording::new();
    let request = TraceContext::default().with_request_id(RequestId::parse("order-7"));
    let job = async {
        let row = serde_json::to_string(&TraceContext::current()).unwrap();
        let stored: TraceContext = serde_json::from_str(&row).unwrap();
        as_follower(info_span!(parent: None, "delivery"), &stored, async { TraceContext::current() }).await
    };
    let inside = recording.run(|| block(as_child(info_span!("request"), &request, job)));
    assert_eq!(inside.request_id().map(RequestId::as_str), Some("order-7"));
    let nobody_listens = block(as_child(info_span!("request"), &request, async { TraceContext::current() }));
    assert_eq!(nobody_listens, request);
}

#[test]
fn what_cannot_be_read_from_a_row_is_empty() {
    let context = TraceContext::from_parts(Some("nonsense"), Some("short"));
    assert!(context.is_empty());
    assert_eq!((context.traceparent(), context.origin()), (None, None));
    assert_eq!(serde_json::to_string(&context).unwrap(), "{}");
    let insane: TraceContext = serde_json::from_str(r#"{"request_id":"a b"}"#).unwrap();
    assert!(insane.is_empty());
}
