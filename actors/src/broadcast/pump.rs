//! The crank: takes events off the bus, encodes each once, and puts the frames into the outboxes of all who listen.
//!
//! It is made of steps that neither wait nor allocate much, and between two steps everything is in the hub: what was
//! read ahead, and the run in hand with the place it has reached. So whoever turns the crank may be stopped, killed or
//! restarted between any two steps, and nothing is lost or sent twice.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use telemetry::{
    context::follow,
    panic::{PanicSite, Policy},
    spans::{Shown, shown},
};
use tokio::time::Instant;
use tracing::Span;
use uuid::Uuid;

use super::{
    CloseReason, DELIVERED, EVENTS, FANOUT_LATENCY, Frame, GAPS, Hub, POISONED, frame, outbox::Pushed,
    registry::Connection,
};
use crate::{
    bus::{BusItem, BusReceiver},
    model::{Event, Millis, now_ms},
    seam::seam,
};

/// Frames put into outboxes by one [`Hub::step`], unless one event has more for a single subscriber; about 25 us.
pub const SENDS_PER_STEP: usize = 256;

/// Events of one topic that are handed to each subscriber together.
const RUN_EVENTS_MAX: usize = 64;

/// Bytes of one run, so that a burst of large events is never mistaken for a slow subscriber.
const RUN_BYTES_MAX: usize = 64 << 10;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do; wait for [`Hub::arrival`].
    Idle,
    /// There may be more; yield, and step again.
    Busy,
    /// This probe came through the bus and the ingress, after everything that was published before it.
    Probe(Uuid),
}

/// What is on its way.
pub(super) struct Pump {
    subscription: BusReceiver,
    /// Read from the bus to see whether it continues a run, and not taken yet. At most one item.
    ahead: Option<BusItem>,
    run: Option<Run>,
}

/// Consecutive events of one (tenant, topic) on their way to everyone who listens.
#[derive(Default)]
struct Run {
    frames: Vec<Frame>,
    bytes: usize,
    published_at: Vec<Millis>,
    /// One for each traced event; they end with the run.
    spans: Vec<Span>,
    /// Still to be served, last first.
    targets: Vec<Arc<Connection>>,
}

impl Pump {
    pub(super) fn new(subscription: BusReceiver) -> Self {
        Self { subscription, ahead: None, run: None }
    }

    fn next_item(&mut self) -> Option<BusItem> {
        self.ahead.take().or_else(|| self.subscription.try_recv())
    }

    /// The next item if it is an event of the same tenant and topic.
    fn next_alike(&mut self, first: &Event) -> Option<Arc<Event>> {
        match self.next_item()? {
            BusItem::Event(event) if event.tenant == first.tenant && event.topic == first.topic => Some(event),
            other => {
                self.ahead = Some(other);
                None
            }
        }
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.run.is_none() && self.ahead.is_none() {
            self.ahead = match self.subscription.poll_recv(cx) {
                Poll::Ready(item) => Some(item),
                Poll::Pending => return Poll::Pending,
            };
        }
        Poll::Ready(())
    }
}

impl Hub {
    /// Resolves when there is something for [`Hub::step`] to do. Safe to cancel.
    pub async fn arrival(&self) {
        poll_fn(|cx| self.pump().poll_arrival(cx)).await;
    }

    /// Turns the crank once: serves the next subscribers of the run in hand, or takes the next run.
    pub fn step(&self) -> Step {
        let mut pump = self.pump();
        if let Some(run) = &mut pump.run {
            if self.serve(run) {
                pump.run.take().unwrap_or_default().end();
            }
            return Step::Busy;
        }
        match pump.next_item() {
            None => Step::Idle,
            Some(BusItem::Probe(id)) => Step::Probe(id),
            Some(BusItem::Gap { missed }) => {
                pump.run = Some(self.gap_run(missed));
                Step::Busy
            }
            Some(BusItem::Event(first)) => {
                let run = self.event_run(&mut pump, first);
                pump.run = Some(run);
                Step::Busy
            }
        }
    }

    /// Everyone is told that something is missing, because nobody knows whose it was.
    fn gap_run(&self, missed: u64) -> Run {
        GAPS.add(1, ());
        tracing::warn!(missed, "events were lost on the bus, every subscriber is told");
        let mut run = Run { targets: self.registry().all(), ..Run::default() };
        run.add(frame::gap());
        run
    }

    fn event_run(&self, pump: &mut Pump, first: Arc<Event>) -> Run {
        let mut run = Run { targets: self.index().listeners(&first.tenant, &first.topic), ..Run::default() };
        let (mut next, mut taken) = (Some(Arc::clone(&first)), 0);
        while let Some(event) = next {
            taken += 1;
            if !run.targets.is_empty() {
                self.encode_into(&mut run, &event);
            }
            let is_full = taken == RUN_EVENTS_MAX || run.bytes >= RUN_BYTES_MAX;
            next = if is_full { None } else { pump.next_alike(&first) };
        }
        EVENTS.add(taken as u64, ());
        run
    }

    /// Adds an event to the run, unless it is poison: then it is given up, recorded, and nothing else happens.
    fn encode_into(&self, run: &mut Run, event: &Event) {
        let span = deliver_span(event, run.targets.len());
        match span.in_scope(|| self.encode(event)) {
            Ok(frame) => {
                run.add(frame);
                run.published_at.push(event.at_ms);
                run.spans.push(span);
            }
            Err(why) => {
                POISONED.add(1, ());
                span.in_scope(|| tracing::warn!(tenant = %event.tenant, topic = event.topic, event = %event.id, why, "event given up"));
            }
        }
    }

    fn encode(&self, event: &Event) -> Result<Frame, String> {
        let encoded = telemetry::panic::catch_sync(|| {
            seam!("inside_encode");
            self.encoder().encode(event)
        });
        match encoded {
            Ok(Ok(text)) if text.len() > self.outbox_limits().bytes_max => Err("it is larger than an outbox".into()),
            Ok(Ok(text)) if text.contains(['\n', '\r']) => Err("it is more than one line".into()),
            Ok(Ok(text)) => Ok(Frame::event(event.id, &text)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => {
                let incident = telemetry::panic::record(encode_site(event), panic);
                telemetry::incidents::amend(incident, "the event was given up, those behind it go on");
                Err(format!("its encoder panicked, incident {incident}"))
            }
        }
    }

    /// Serves the next few targets. True if that were all.
    fn serve(&self, run: &mut Run) -> bool {
        if run.frames.is_empty() {
            return true;
        }
        let now = Instant::now();
        let mut delivered = 0;
        for _ in 0..(SENDS_PER_STEP / run.frames.len()).max(1) {
            // Taken before it is served: whatever happens, nobody is served twice.
            let Some(target) = run.targets.pop() else { break };
            match target.outbox.push(&run.frames, now) {
                Pushed::Queued => delivered += run.frames.len() as u64,
                Pushed::Overflowed { dropped } => self.closed(&target, CloseReason::Slow, dropped),
                Pushed::Closed => {}
            }
        }
        DELIVERED.add(delivered, ());
        run.targets.is_empty()
    }
}

impl Run {
    fn add(&mut self, frame: Frame) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    /// The spans end here, with the last outbox.
    fn end(self) {
        let now = now_ms();
        for published_at in &self.published_at {
            FANOUT_LATENCY.record((now - published_at).max(0) as f64 / 1_000.0, ());
        }
    }
}

telemetry::declare_spans! {
    /// One event on its way from the bus into the outboxes of all its subscribers.
    struct DeliverSpan<'a> = ("event.deliver", internal, follower) {
        tenant: &'a str,
        topic: &'a str,
        #[name = "event.id"]
        event: Shown<'a, Uuid>,
        subscribers: i64,
    }
}

/// A new root, linked to the producer. An event that nobody traced gets none: a span costs more than many sends.
fn deliver_span(event: &Event, subscribers: usize) -> Span {
    if !event.context.is_recorded() {
        return Span::none();
    }
    let span = DeliverSpan {
        tenant: event.tenant.as_str(),
        topic: &event.topic,
        event: shown(&event.id),
        subscribers: subscribers as i64,
    };
    let span = span.open();
    follow(&span, &event.context);
    span
}

fn encode_site(event: &Event) -> PanicSite<'_> {
    PanicSite {
        component: "broadcaster",
        actor: "broadcaster.relay",
        policy: Policy::KeepRunning,
        phase: "encode",
        message_type: Some("Event"),
        // The pump outlives the relay, so no incarnation is to blame.
        incarnation: 0,
        tenant: Some(event.tenant.as_str()),
        detail: vec![("topic".into(), event.topic.clone()), ("event".into(), event.id.to_string())],
    }
}
