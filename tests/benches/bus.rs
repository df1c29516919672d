//! The Redis bus beside bare pub/sub of the same client library on the same server: how fast it is back after Redis was
//! killed, how long an event takes from its publisher to a subscriber's outbox in another process's hub, and how many go
//! through. Both replicas live in this process; the server is a real one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::broadcast::{Batch, Hub, HubSettings, Limits, OutboxLimits, Step, Subscriber, Topic};
use actors::bus::{Bus, RedisBus, RedisBusSettings};
use actors::model::{Event, TenantId, TraceContext, new_id, now_ms};
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tests::bench::{self, median, ns_each};
use tests::{Redis, eventually};
use tokio::time::timeout;

const ROUNDS: usize = 7;
const EVENTS: usize = 3_000;
const BURST: usize = 30_000;
/// Who publish at a time in a burst.
const PUBLISHERS: usize = 64;
const SOON: Duration = Duration::from_secs(30);
/// As long as one of our messages with such an event.
const BARE_BYTES: usize = 380;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(redis) = Redis::start().await else { return };
        let (a, b) = (replica(&redis).await, replica(&redis).await);
        let mut ours = hub_of(&b);
        let mut bare = Bare::open(&redis).await;
        bench::head();
        latency(&a, &mut ours, &mut bare).await;
        throughput(&a, &mut ours, &mut bare).await;
        bench::aim_row("bus.redis.back_after_restart", back_ms(&redis, &a, &mut ours).await, 2_000.0, "ms");
    });
}

async fn replica(redis: &Redis) -> Arc<RedisBus> {
    let bus = RedisBus::new(RedisBusSettings::new(redis.url().into())).unwrap();
    let carried = Arc::clone(&bus);
    tokio::spawn(async move { carried.carry().await });
    eventually("connected", SOON, || async { bus.ping(Duration::from_secs(1)).await.ok() }).await;
    bus
}

/// A subscriber behind a hub whose crank is turned without a pause.
fn hub_of(bus: &Arc<RedisBus>) -> Subscriber {
    // Nothing is to be cut off as too slow here.
    let outbox = OutboxLimits { bytes_max: 1 << 30, frames_max: 1 << 20, ..OutboxLimits::default() };
    let hub = Hub::new(HubSettings { outbox, ..HubSettings::default() }, &**bus);
    let subscriber = hub.connect(tenant(), &[Topic::new("t").unwrap()], Limits::default()).unwrap();
    tokio::spawn(async move {
        loop {
            hub.arrival().await;
            while hub.step() != Step::Idle {
                tokio::task::yield_now().await;
            }
        }
    });
    subscriber
}

/// Two connections of the client library as they are, without delay.
struct Bare {
    publisher: MultiplexedConnection,
    heard: std::pin::Pin<Box<dyn Stream<Item = redis::Msg> + Send>>,
}

impl Bare {
    async fn open(redis: &Redis) -> Bare {
        let info = redis::IntoConnectionInfo::into_connection_info(redis.url().as_str()).unwrap();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = redis::Client::open(info.set_tcp_settings(tcp)).unwrap();
        let mut heard = client.get_async_pubsub().await.unwrap();
        heard.subscribe("bare").await.unwrap();
        let publisher = client.get_multiplexed_async_connection().await.unwrap();
        Bare { publisher, heard: Box::pin(heard.into_on_message()) }
    }

    async fn publish(mut publisher: MultiplexedConnection) {
        let _: i64 = publisher.publish("bare", "x".repeat(BARE_BYTES)).await.unwrap();
    }
}

/// One event at a time, both ways by turns, so that both meet the same machine.
async fn latency(bus: &RedisBus, ours: &mut Subscriber, bare: &mut Bare) {
    let (mut our_us, mut bare_us) = (Vec::new(), Vec::new());
    for _ in 0..EVENTS {
        let began = Instant::now();
        let (published, _) = tokio::join!(bus.publish(event()), take(ours, 1));
        published.unwrap();
        our_us.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        tokio::join!(Bare::publish(bare.publisher.clone()), bare.heard.next());
        bare_us.push(began.elapsed().as_secs_f64() * 1e6);
    }
    for (name, share, goal) in [("p50", 0.5, 2.0), ("p99", 0.99, 3.0)] {
        let (ours, bare) = (quantile(&mut our_us, share), quantile(&mut bare_us, share));
        let name = format!("bus.redis.latency.{name}");
        bench::ratio_row(&name, &format!("{ours:.0} us"), &format!("{bare:.0} us"), ours / bare, goal);
    }
}

/// Many publishers at once, until the last event is there.
async fn throughput(bus: &Arc<RedisBus>, ours: &mut Subscriber, bare: &mut Bare) {
    let (mut our_ns, mut bare_ns) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let began = Instant::now();
        let publishers = (0..PUBLISHERS).map(|_| {
            let bus = Arc::clone(bus);
            tokio::spawn(async move {
                for _ in 0..BURST / PUBLISHERS {
                    bus.publish(event()).await.unwrap();
                }
            })
        });
        let sent = BURST / PUBLISHERS * PUBLISHERS;
        tokio::join!(join_all(publishers), take(ours, sent));
        our_ns.push(ns_each(began.elapsed(), sent));
        let began = Instant::now();
        let publishers = (0..PUBLISHERS).map(|_| {
            let publisher = bare.publisher.clone();
            tokio::spawn(async move {
                for _ in 0..BURST / PUBLISHERS {
                    Bare::publish(publisher.clone()).await;
                }
            })
        });
        let hearing = async {
            for _ in 0..sent {
                bare.heard.next().await.unwrap();
            }
        };
        tokio::join!(join_all(publishers), hearing);
        bare_ns.push(ns_each(began.elapsed(), sent));
    }
    let (ours, bare) = (median(our_ns), median(bare_ns));
    let shown = |ns: f64| format!("{:.0} events/s", 1e9 / ns);
    bench::ratio_row("bus.redis.throughput", &shown(ours), &shown(bare), ours / bare, 2.0);
}

/// From the moment when Redis answers again to the first event that gets through.
async fn back_ms(redis: &Redis, bus: &RedisBus, ours: &mut Subscriber) -> f64 {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        redis.kill().await;
        tokio::time::sleep(Duration::from_millis(1_000 + 300 * round as u64)).await;
        redis.restart().await;
        let began = Instant::now();
        // The other replica may be back later, and then it is told by a gap; only what comes through counts.
        while !matches!(timeout(Duration::from_millis(20), take(ours, 1)).await, Ok(1..)) {
            // Refused for as long as this one is not back.
            let _ = bus.publish(event()).await;
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        // What is still on its way belongs to this round.
        while timeout(Duration::from_millis(100), take(ours, 1)).await.is_ok() {}
    }
    median(times)
}

/// Waits for so many events, or a gap; returns how many events came.
async fn take(subscriber: &mut Subscriber, count: usize) -> usize {
    let mut taken = 0;
    while taken < count {
        let Batch::Frames(frames) = subscriber.next_batch().await else { continue };
        let events = frames.iter().filter(|frame| frame.len() > 100).count();
        if events == 0 && !frames.is_empty() {
            return taken;
        }
        taken += events;
    }
    taken
}

fn event() -> Event {
    let (id, data) = (new_id(), serde_json::json!({"text": "x".repeat(64)}));
    Event { id, tenant: tenant(), topic: "t".to_owned(), data, context: TraceContext::default(), at_ms: now_ms() }
}

fn tenant() -> TenantId {
    TenantId::new("demo").unwrap()
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
