//! The one connection: built, used, watched, given up, built anew.

use std::time::Duration;

use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use serde_json::value::RawValue;
use supervision::Backoff;
use telemetry::panic::{PanicSite, Policy};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    CONNECTED, LOST, LossReason, Lost, Outgoing, RedisBus, State,
    inbox::{Inbox, Missing},
    wire::{self, Header, Kind},
};
use crate::seam::seam;

/// Messages that are sent and answered together.
const BATCH_MAX: usize = 128;

/// Beats in the time after which silence counts.
const BEATS: u32 = 3;

/// The pauses between tries. There is no last one.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(50),
    factor: 2.0,
    cap: Duration::from_secs(1),
    jitter: 0.5,
    reset_after: Duration::ZERO,
    first_immediate: false,
};

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("nothing came back for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the connection ended")]
    Closed,
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
    #[error("a message could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("this process has stopped carrying")]
    Stopped,
}

impl Trouble {
    /// The label of a metric. Who stops has lost nothing.
    fn loss(&self) -> Option<LossReason> {
        match self {
            Self::Late(_) | Self::Silent(_) => Some(LossReason::Silent),
            Self::Closed => Some(LossReason::Closed),
            Self::Redis(_) | Self::Encode(_) => Some(LossReason::Refused),
            Self::Stopped => None,
        }
    }
}

pub(super) fn metrics_born() {
    LossReason::ALL.into_iter().for_each(|reason| LOST.born(Lost { reason }));
}

/// Keeps a connection for as long as it is polled. One at a time: a second caller waits for the first.
pub(super) async fn carry(bus: &RedisBus) {
    let mut queue = bus.queue.lock().await;
    let _stopped = Stopped(bus);
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let Err(trouble) = live(bus, &mut queue).await;
        // One that breaks as soon as it is there is no success.
        failures = if began.elapsed() > bus.settings.silent_after { 1 } else { failures + 1 };
        bus.lose(&trouble);
        // Their callers are told that it failed.
        while queue.try_recv().is_ok() {}
        sleep(RETRY.delay(failures, fastrand::f64())).await;
    }
}

/// However carrying ends, nobody is left to believe that we are connected.
struct Stopped<'a>(&'a RedisBus);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.lose(&Trouble::Stopped);
    }
}

/// The life of one connection, which only ever ends in trouble.
async fn live(bus: &RedisBus, queue: &mut Receiver<Outgoing>) -> Result<std::convert::Infallible, Trouble> {
    let is_first = matches!(&*bus.state.borrow(), State::Starting { .. });
    let epoch = bus.inbox.begin(if is_first { Missing::Nothing } else { Missing::Perhaps });
    let closed = CancellationToken::new();
    let within = bus.settings.connect_within;
    let connection = timeout(within, connect(bus, epoch, closed.clone()));
    let connection = connection.await.map_err(|_| Trouble::Late(within))??;
    bus.inbox.subscribed();
    tokio::select! {
        outcome = write(bus, epoch, connection, queue) => outcome,
        silent = watch(&bus.inbox, bus.settings.silent_after) => Err(silent),
        () = closed.cancelled() => Err(Trouble::Closed),
    }
}

async fn connect(bus: &RedisBus, epoch: u64, closed: CancellationToken) -> Result<MultiplexedConnection, Trouble> {
    let inbox = bus.inbox.clone();
    let hear = move |push: PushInfo| -> Result<(), std::convert::Infallible> {
        hear(&inbox, epoch, &closed, push);
        Ok(())
    };
    // No limit of the crate's own on an answer (500 ms by default): our watch sees sooner what is wrong.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let config = config.set_push_sender(hear);
    let mut connection = bus.client.get_multiplexed_async_connection_with_config(&config).await?;
    connection.subscribe(&bus.channel).await?;
    Ok(connection)
}

/// Called by the task of the connection for all that Redis sends unasked.
fn hear(inbox: &Inbox, epoch: u64, closed: &CancellationToken, push: PushInfo) {
    match (push.kind, push.data.as_slice()) {
        (PushKind::Message, [_, Value::BulkString(payload)]) => {
            let taken = telemetry::panic::catch_sync(|| {
                seam!("inside_receive");
                inbox.receive(epoch, payload)
            });
            if let Err(panic) = taken {
                let incident = telemetry::panic::record(SITE, panic);
                telemetry::incidents::amend(incident, "the message was given up, those behind it go on");
            }
        }
        (PushKind::Disconnection | PushKind::Unsubscribe, _) => closed.cancel(),
        _ => {}
    }
}

/// That task belongs to the `redis` crate; a panic in it costs the message in hand.
const SITE: PanicSite<'static> = PanicSite {
    component: "bus",
    actor: "bus",
    policy: Policy::KeepRunning,
    phase: "receive",
    message_type: None,
    incarnation: 0,
    tenant: None,
    detail: Vec::new(),
};

/// Numbers and sends what waits, and a beat whenever one is due.
async fn write(
    bus: &RedisBus,
    epoch: u64,
    mut connection: MultiplexedConnection,
    queue: &mut Receiver<Outgoing>,
) -> Result<std::convert::Infallible, Trouble> {
    let mut beats = interval(bus.settings.silent_after / BEATS);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut n, mut batch) = (0, Vec::with_capacity(BATCH_MAX));
    loop {
        let mut pipeline = redis::pipe();
        let mut add = |header, body: &RawValue| {
            pipeline.publish(&bus.channel, wire::encode(header, body)?).ignore();
            Ok::<_, Trouble>(())
        };
        tokio::select! {
            biased;
            _ = beats.tick() => add(Header { from: bus.me, epoch, n, kind: Kind::Beat }, RawValue::NULL)?,
            _ = queue.recv_many(&mut batch, BATCH_MAX) => {}
        }
        // Whoever was late has been told so, and may have tried again.
        batch.retain(|outgoing| !outgoing.taken.is_closed());
        for Outgoing { kind, body, .. } in &batch {
            n += u64::from(*kind == Kind::Event);
            add(Header { from: bus.me, epoch, n, kind: *kind }, body)?;
        }
        if !pipeline.is_empty() {
            pipeline.exec_async(&mut connection).await?;
            bus.up();
        }
        for outgoing in batch.drain(..) {
            // A caller that is gone needs no answer.
            let _ = outgoing.taken.send(());
        }
    }
}

/// Returns when nothing of our own has come back for too long.
async fn watch(inbox: &Inbox, silent_after: Duration) -> Trouble {
    loop {
        let due = inbox.heard() + silent_after;
        sleep_until(due).await;
        let beat = silent_after / BEATS;
        // Woken late, this process has stood still itself: what came meanwhile is yet to be read, and a beat to be sent.
        if due.elapsed() >= beat {
            sleep(beat).await;
        }
        if inbox.heard() + silent_after <= Instant::now() {
            return Trouble::Silent(silent_after);
        }
    }
}

impl RedisBus {
    /// Redis has taken something: told once for each connection.
    fn up(&self) {
        self.state.send_if_modified(|state| {
            if matches!(state, State::Up) {
                return false;
            }
            CONNECTED.add(1, ());
            tracing::info!(channel = self.channel, "the bus is connected to Redis");
            *state = State::Up;
            true
        });
    }

    /// There is no connection: told when there was one.
    fn lose(&self, trouble: &Trouble) {
        let why = trouble.to_string();
        self.state.send_modify(|state| match state {
            State::Starting { tries, .. } => *state = State::Starting { tries: *tries + 1, why },
            State::Up => {
                CONNECTED.add(-1, ());
                match trouble.loss() {
                    None => tracing::info!("the bus has left Redis"),
                    Some(reason) => {
                        LOST.add(1, Lost { reason });
                        tracing::warn!(
                            why,
                            "the bus has lost its connection to Redis, and tries for ever to get it back"
                        );
                    }
                }
                *state = State::Away { why };
            }
            State::Away { .. } => *state = State::Away { why },
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use uuid::Uuid;

    use super::*;
    use crate::bus::{Ring, RingLimits};

    const SILENT_AFTER: Duration = Duration::from_secs(3);
    const ME: Uuid = Uuid::from_u128(1);

    fn subscribed() -> Inbox {
        let inbox = Inbox::new(Ring::new(RingLimits { items_max: 10, bytes_max: 1 << 20 }), ME, 10_000);
        inbox.begin(Missing::Nothing);
        inbox.subscribed();
        inbox
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_brings_nothing_back_is_silent_in_time() {
        let (inbox, began) = (subscribed(), Instant::now());
        watch(&inbox, SILENT_AFTER).await;
        assert_eq!(began.elapsed(), SILENT_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_of_this_process_is_no_silence_of_redis() {
        let inbox = subscribed();
        let beat = wire::encode(Header { from: ME, epoch: 1, n: 0, kind: Kind::Beat }, RawValue::NULL).unwrap();
        let stalled = async {
            advance(SILENT_AFTER * 2).await;
            // What came meanwhile is read only now.
            inbox.receive(1, beat.as_bytes());
            sleep(SILENT_AFTER / 2).await;
        };
        tokio::select! {
            biased;
            silent = watch(&inbox, SILENT_AFTER) => panic!("{silent}"),
            () = stalled => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_died_in_a_stall_is_silent_a_beat_later() {
        let (inbox, began) = (subscribed(), Instant::now());
        let (_silent, ()) = tokio::join!(watch(&inbox, SILENT_AFTER), advance(SILENT_AFTER * 2));
        assert_eq!(began.elapsed(), SILENT_AFTER * 2 + SILENT_AFTER / 3);
    }
}
