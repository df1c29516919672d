//! A message that bears the trace of its sender, from a request to the actor that handles it, as a collector hears of it.

use std::sync::LazyLock;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervision::{Address, ChildSpec, Heartbeats, Strategy, SupervisorSpec, Traced, Tree};
use telemetry::context::TraceContext;
use telemetry::export::{self, Endpoint, LogFormat, Variables};
use telemetry::incidents;
use telemetry::recorder::RecorderSettings;
use tests::{Collector, Protocol, eventually};

const SOON: Duration = Duration::from_secs(30);

enum Ask {
    Work(TraceContext),
    Panic(TraceContext),
    Untraced,
}

impl Traced for Ask {
    fn trace_context(&self) -> &TraceContext {
        static NONE: LazyLock<TraceContext> = LazyLock::new(TraceContext::default);
        match self {
            Ask::Work(context) | Ask::Panic(context) => context,
            Ask::Untraced => &NONE,
        }
    }
}

struct Worker;

impl Actor for Worker {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Ask>, message: Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        tracing::info_span!("work").in_scope(|| match message {
            Ask::Work(_) => tracing::warn!("done"),
            Ask::Panic(_) => panic!("the message is poison"),
            Ask::Untraced => (),
        });
        Ok(())
    }
}

/// As in the product, in this process.
fn telling(collector: &Collector) -> export::Telemetry {
    let settings = export::Settings {
        service_name: "messages".into(),
        service_version: "0".into(),
        instance_id: "messages".into(),
        environment: "development".into(),
        endpoint: Endpoint::Environment,
        log_filter: "info".into(),
        log_format: LogFormat::Text,
        sample_ratio: None,
        recorder: RecorderSettings::default(),
    };
    let variables = collector.environment(Protocol::HttpProtobuf);
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    export::start_with(settings, &Variables::of_pairs(variables)).unwrap()
}

#[tokio::test]
async fn the_handling_of_a_message_is_a_span_below_the_request_that_sent_it_and_a_panic_is_told_there() {
    let collector = Collector::start().await;
    let telemetry = telling(&collector);
    telemetry::panic::install_hook();
    let address = Address::new("worker");
    let child = ChildSpec::traced_actor("worker", &address, |_| (Worker, ()));
    let tree = Tree::start(SupervisorSpec::new("root", Strategy::OneForOne).child(child), Heartbeats::default());
    let tree = tree.await.unwrap();

    for ask in [Ask::Work as fn(TraceContext) -> Ask, Ask::Panic] {
        let sent = tracing::info_span!("request").in_scope(|| address.try_send(ask(TraceContext::current())).is_ok());
        assert!(sent);
    }
    eventually("it is up again", SOON, || async {
        let node = &tree.snapshot().children[0];
        (node.incarnation == 2).then(|| address.try_send(Ask::Untraced).ok()).flatten()
    })
    .await;
    eventually("the panic is on record", SOON, || async {
        incidents::recent(1).first().and_then(|incident| incident.backtrace.clone())
    })
    .await;
    tree.stop().await;
    let flushed = telemetry.flush_and_stop(Duration::from_secs(5)).await;
    assert!(flushed.is_clean(), "{flushed}");

    let spans = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (requests, handled, works) = (named("request"), named("actor.message"), named("work"));
    assert_eq!((requests.len(), handled.len(), works.len()), (2, 2, 3), "{spans:#?}");
    for (request, handled) in requests.iter().zip(&handled) {
        assert_eq!((&handled.trace_id, &handled.parent_id), (&request.trace_id, &request.span_id));
        assert_eq!((handled.attribute("actor"), handled.attribute("incarnation")), ("worker", "1"));
        assert!(handled.attribute("message_type").ends_with("Ask"), "{handled:#?}");
        assert!(works.iter().any(|work| work.parent_id == handled.span_id), "what it does is below it: {works:#?}");
    }
    assert_eq!(works.iter().filter(|work| work.is_root()).count(), 1, "a message without a trace gets no span");
    let poisoned = spans.iter().find(|span| span.event("panic.recovered").is_some()).unwrap();
    assert!(poisoned.failed && poisoned.trace_id == requests[1].trace_id, "{poisoned:#?}");
    let told = poisoned.event("panic.recovered").unwrap();
    assert_eq!((told.attribute("actor"), told.attribute("phase")), ("worker", "handle"));
    assert!(told.attribute("message_type").ends_with("Ask"), "{told:#?}");
}
