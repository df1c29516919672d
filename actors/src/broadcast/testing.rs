//! What the tests of bus, engine and broadcaster share.

use std::sync::Arc;

use serde_json::Value;

use super::{Batch, Encoder, Hub, HubSettings, JsonEncoder, Limits, OutboxLimits, Step, Subscriber, Topic};
use crate::{
    bus::{Bus, MemoryBus, MemoryBusLimits},
    model::{Event, TenantId, TraceContext, new_id, now_ms},
};

/// An event whose data is one text.
pub fn event(tenant_id: &str, topic: &str, data: &str) -> Event {
    Event {
        id: new_id(),
        tenant: tenant(tenant_id),
        topic: topic.into(),
        data: data.into(),
        context: TraceContext::default(),
        at_ms: now_ms(),
    }
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub fn topics<const N: usize>(names: [&str; N]) -> Vec<Topic> {
    names.map(topic).to_vec()
}

/// The data of the events in a batch; another kind of frame appears as `<type>`.
pub fn texts(batch: &Batch) -> Vec<String> {
    let Batch::Frames(frames) = batch else { panic!("frames were expected, not {batch:?}") };
    let text = |frame: &super::Frame| {
        let frame: Value = serde_json::from_slice(&frame.clone().into_text()).unwrap();
        match frame["type"].as_str() {
            Some("event") => frame["data"].as_str().unwrap().to_owned(),
            other => format!("<{}>", other.unwrap_or("?")),
        }
    };
    frames.iter().map(text).collect()
}

/// A bus and a hub, with the crank in the test's hand.
pub struct House {
    pub bus: Arc<MemoryBus>,
    pub hub: Arc<Hub>,
}

impl House {
    pub fn new() -> Self {
        Self::with(MemoryBusLimits::default(), OutboxLimits::default(), JsonEncoder)
    }

    pub fn with(bus: MemoryBusLimits, outbox: OutboxLimits, encoder: impl Encoder) -> Self {
        let bus = MemoryBus::new(bus);
        let hub = Hub::with_encoder(HubSettings { outbox, ..HubSettings::default() }, &*bus, encoder);
        Self { bus, hub }
    }

    pub fn connect<const N: usize>(&self, tenant_id: &str, names: [&str; N]) -> Subscriber {
        self.hub.connect(tenant(tenant_id), &topics(names), Limits::default()).unwrap()
    }

    pub async fn publish(&self, tenant_id: &str, topic: &str, data: &str) {
        self.bus.publish(event(tenant_id, topic, data)).await.unwrap();
    }

    /// Turns the crank until there is nothing left to do.
    pub fn pump(&self) {
        while self.hub.step() != Step::Idle {}
    }

    pub fn sweep(&self) {
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.hub.sweep(from);
        }
    }
}

/// What a subscriber has waiting now, as [`texts`]; empty if nothing.
pub async fn taken(subscriber: &mut Subscriber) -> Vec<String> {
    let waiting = tokio::time::timeout(std::time::Duration::ZERO, subscriber.next_batch()).await;
    waiting.map(|batch| texts(&batch)).unwrap_or_default()
}
