//! The connections as an operator sees them: those that are open and the furthest behind, and those that we closed last.

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::{CloseReason, Hub, Topic, lock, registry::Connection};
use crate::model::TenantId;

/// Connections that were closed by us and are remembered.
const CLOSED_MAX: usize = 100;

/// Topics that are named of one connection.
const TOPICS_MAX: usize = 8;

/// Connections looked at under one lock.
const STEP: usize = 1_024;

/// A connection that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenConnection {
    /// Whose it is.
    pub tenant: TenantId,
    /// Since when.
    pub open_ms: u64,
    /// How long nothing was heard of it.
    pub silent_ms: u64,
    /// Frames that wait for it, and were not handed out.
    pub waiting_frames: usize,
    /// Bytes that wait for it, or were handed out and are not written yet.
    pub waiting_bytes: usize,
    /// How old the oldest frame is that it has not taken; none if it has taken all.
    pub behind_ms: Option<u64>,
    /// What it listens to: some of it, if it is much.
    pub topics: Vec<Topic>,
    /// Topics that are not named.
    pub topics_left_off: usize,
}

/// A connection that we closed, not its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosedConnection {
    /// When.
    pub at: Timestamp,
    /// Whose it was.
    pub tenant: TenantId,
    /// Why: the reason that the metrics count.
    pub reason: &'static str,
    /// How long it was open.
    pub open_ms: u64,
    /// Frames that waited for it and are lost.
    pub dropped: usize,
}

/// The latest that were closed, newest last.
#[derive(Debug, Default)]
pub(super) struct ClosedLately(VecDeque<ClosedConnection>);

impl ClosedLately {
    pub(super) fn push(&mut self, connection: &Connection, reason: CloseReason, dropped: usize) {
        if self.0.len() == CLOSED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(ClosedConnection {
            at: Timestamp::now(),
            tenant: connection.tenant.clone(),
            reason: reason.name(),
            open_ms: ms(connection.since.elapsed()),
            dropped,
        });
    }
}

impl Hub {
    /// The open connections that are the furthest behind, at most `limit`, of one tenant if it is named. Looks at each once,
    /// without holding up the fan-out.
    pub fn furthest_behind(&self, tenant: Option<&TenantId>, limit: usize) -> Vec<OpenConnection> {
        let (now, mut from, mut found) = (Instant::now(), 0, Vec::new());
        loop {
            let (connections, more) = self.registry().slice(from, STEP);
            let wanted =
                connections.iter().filter(|connection| tenant.is_none_or(|tenant| connection.tenant == *tenant));
            found.extend(wanted.map(|connection| OpenConnection::of(connection, now)));
            found.sort_by_key(|open| Reverse((open.behind_ms, open.waiting_bytes, open.open_ms)));
            found.truncate(limit);
            if !more {
                return found;
            }
            from += STEP;
        }
    }

    /// The connections that we closed last, newest first.
    pub fn closed_lately(&self) -> Vec<ClosedConnection> {
        lock(&self.closed_lately).0.iter().rev().cloned().collect()
    }
}

impl OpenConnection {
    fn of(connection: &Connection, now: Instant) -> Self {
        let held = lock(&connection.topics);
        let mut topics: Vec<Topic> = held.iter().flat_map(|held| held.keys().cloned()).collect();
        drop(held);
        topics.sort_unstable();
        let topics_left_off = topics.len().saturating_sub(TOPICS_MAX);
        topics.truncate(TOPICS_MAX);
        let load = connection.outbox.load();
        Self {
            tenant: connection.tenant.clone(),
            open_ms: ms(now.duration_since(connection.since)),
            silent_ms: ms(now.duration_since(load.heard_at)),
            waiting_frames: load.frames,
            waiting_bytes: load.bytes,
            behind_ms: load.behind_since.map(|since| ms(now.duration_since(since))),
            topics,
            topics_left_off,
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::testing::{House, tenant, topics};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn who_is_the_furthest_behind_comes_first_and_of_one_tenant_if_asked() {
        let house = House::new();
        let _idle = house.connect("a", ["y"]);
        tokio::time::advance(SECOND).await;
        let _late = house.connect("b", ["x", "y"]);
        house.publish("b", "x", "1").await;
        house.pump();
        tokio::time::advance(SECOND).await;
        let seen = house.hub.furthest_behind(None, 9);
        let told = seen.iter().map(|open| (open.tenant.clone(), open.open_ms, open.waiting_frames, open.behind_ms));
        assert_eq!(told.collect::<Vec<_>>(), [(tenant("b"), 1_000, 1, Some(1_000)), (tenant("a"), 2_000, 0, None)]);
        assert_eq!((&seen[0].topics, seen[0].topics_left_off), (&topics(["x", "y"]), 0));
        assert!(seen[0].waiting_bytes > 0 && seen[0].silent_ms == 1_000);
        assert_eq!(house.hub.furthest_behind(Some(&tenant("a")), 9), seen[1..]);
        assert_eq!(house.hub.furthest_behind(None, 1), seen[..1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_we_closed_is_remembered_with_its_reason_and_what_was_lost_but_not_for_ever() {
        let house = House::new();
        let slow = house.connect("a", ["x"]);
        for data in ["1", "2"] {
            house.publish("a", "x", data).await;
        }
        house.pump();
        tokio::time::advance(6 * SECOND).await;
        house.sweep();
        drop(slow);
        drop(house.connect("a", ["x"]));
        let closed = house.hub.closed_lately();
        let told: Vec<_> = closed.iter().map(|one| (&one.tenant, one.reason, one.open_ms, one.dropped)).collect();
        assert_eq!(told, [(&tenant("a"), "slow", 6_000, 2)], "one that its client has closed is not among them");
        let many: Vec<_> = (0..CLOSED_MAX).map(|_| house.connect("b", ["x"])).collect();
        house.hub.revoke(&tenant("b"));
        let closed = house.hub.closed_lately();
        assert_eq!((closed.len(), closed[CLOSED_MAX - 1].reason), (CLOSED_MAX, "revoked"));
        drop(many);
    }
}
