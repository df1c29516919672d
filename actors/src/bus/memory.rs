//! The bus within one process: a shared ring, and nothing else.
//!
//! It is made before the tree starts, so it survives the restart of every actor: an event published while the relay
//! is being restarted waits in the ring.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Bus, BusError, BusItem, BusReceiver, EVENT_BYTES_MAX, PUBLISHED, REFUSED, Refusal, Ring, RingLimits, measure,
};
use crate::model::Event;

/// The limits of a [`MemoryBus`].
#[derive(Debug, Clone, Copy)]
pub struct MemoryBusLimits {
    /// Events held for the slowest receiver. 16,384 is 1.6 s at 10,000 events/s, more than a first restart takes.
    pub events_max: usize,
    /// Bytes held for the slowest receiver; 32 MiB.
    pub bytes_max: usize,
    /// Bytes of one event, data and all; [`EVENT_BYTES_MAX`].
    pub event_bytes_max: usize,
}

impl Default for MemoryBusLimits {
    fn default() -> Self {
        Self { events_max: 16_384, bytes_max: 32 << 20, event_bytes_max: EVENT_BYTES_MAX }
    }
}

/// Carries events within this process. Clone-free: share it as `Arc<dyn Bus>`.
pub struct MemoryBus {
    ring: Ring,
    event_bytes_max: usize,
}

impl MemoryBus {
    /// A bus without subscribers.
    pub fn new(limits: MemoryBusLimits) -> Arc<Self> {
        let MemoryBusLimits { events_max, bytes_max, event_bytes_max } = limits;
        Arc::new(Self { ring: Ring::new(RingLimits { items_max: events_max, bytes_max }), event_bytes_max })
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        let bytes =
            measure(&event, self.event_bytes_max).inspect_err(|refused| REFUSED.add(1, Refusal { reason: refused }))?;
        self.ring.push(BusItem::Event(Arc::new(event)), bytes);
        PUBLISHED.add(1, ());
        Ok(())
    }

    fn subscribe(&self) -> BusReceiver {
        self.ring.subscribe()
    }

    async fn probe(&self, id: Uuid) -> Result<(), BusError> {
        self.ring.push(BusItem::Probe(id), size_of::<BusItem>());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broadcast::testing::event, bus::contract};

    #[tokio::test(start_paused = true)]
    async fn the_memory_bus_keeps_the_contract_of_every_bus() {
        let limits = MemoryBusLimits { events_max: contract::HELD_MAX, ..MemoryBusLimits::default() };
        contract::holds(async || MemoryBus::new(limits)).await;
    }

    #[tokio::test]
    async fn an_event_above_the_limit_is_refused_and_reaches_nobody() {
        let bus = MemoryBus::new(MemoryBusLimits { event_bytes_max: 1_000, ..MemoryBusLimits::default() });
        let mut receiver = bus.subscribe();
        let refused = bus.publish(event("demo", "a", &"x".repeat(2_000))).await.unwrap_err();
        assert!(matches!(refused, BusError::TooLarge { bytes_max: 1_000, .. }), "{refused}");
        assert_eq!(receiver.try_recv(), None);
    }

    #[tokio::test]
    async fn a_slow_receiver_bounds_the_bytes_held_whatever_the_number_of_events() {
        let bus = MemoryBus::new(MemoryBusLimits { bytes_max: 100_000, ..MemoryBusLimits::default() });
        let mut slow = bus.subscribe();
        for _ in 0..50 {
            bus.publish(event("demo", "a", &"x".repeat(10_000))).await.unwrap();
        }
        assert!(bus.ring.held().1 <= 100_000);
        assert!(matches!(slow.try_recv(), Some(BusItem::Gap { missed: 41 })));
    }
}
