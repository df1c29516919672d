//! What healthy children feel of a storm: the 99th percentile of calls to them in quiet, and while 1000 others of the same
//! tree panic at a steady 1000 a second. Rounds of both alternate, the row shows the medians. All that a service has on is
//! on: many threads, telemetry, and a log of errors, which goes where stderr goes.
//!
//! In quiet the same 1000 children are sent a message that they handle, at the same pace, so that both rounds wake as many
//! tasks and differ by the panics alone.

use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{Address, Backoff, ChildSpec, Heartbeats, Intensity, Strategy, SupervisorSpec, Tree};
use telemetry::export::{self, Endpoint, LogFormat};
use tests::bench::{self, median};
use tokio::time::MissedTickBehavior;

const ROW: &str = "supervision.storm.healthy_p99";

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
/// Between two panics, and between two calls of one caller.
const PACE: Duration = Duration::from_millis(1);
const FRAIL: usize = 1000;
const HEALTHY: usize = 8;
const CALL: Duration = Duration::from_secs(10);

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if wanted.is_some_and(|wanted| !ROW.contains(&wanted)) {
        return;
    }
    start_telemetry();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let row = runtime.spawn(async {
        let (tree, children) = tree().await;
        // The first panic of a place has its backtrace resolved at leisure.
        round(&children, || Message::Panic).await;
        let (mut quiet, mut storm) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            quiet.push(round(&children, || Message::Nothing).await);
            storm.push(round(&children, || Message::Panic).await);
        }
        let panics: u64 = tree.snapshot().walk().iter().map(|child| child.restarts).sum();
        tree.stop().await;
        (median(storm), median(quiet), panics)
    });
    let (storm, quiet, panics) = runtime.block_on(row).unwrap();
    let expected = (ROUNDS + 1) as u128 * ROUND.as_millis() / PACE.as_millis();
    assert!(u128::from(panics) * 10 > expected * 9, "{panics} panics are not the storm of {expected}");
    bench::head();
    bench::ratio_row(ROW, &format!("{storm:.0} us"), &format!("{quiet:.0} us"), storm / quiet, 2.0);
}

/// For as long as the process lives: nothing is flushed.
fn start_telemetry() {
    let settings = export::Settings {
        service_name: "bench".into(),
        service_version: "0".into(),
        instance_id: "bench".into(),
        environment: "development".into(),
        endpoint: Endpoint::Off,
        log_filter: "error".into(),
        log_format: LogFormat::Text,
        sample_ratio: Some(0.0),
        recorder: telemetry::recorder::RecorderSettings { enabled: false, ..Default::default() },
    };
    std::mem::forget(export::start(settings).unwrap());
    telemetry::panic::install_hook();
}

enum Message {
    Nothing,
    Call(RpcReplyPort<()>),
    Panic,
}

struct Child;

impl Actor for Child {
    type Msg = Message;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Message>, message: Message, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Nothing => {}
            // Nobody waits for the answer any more if it cannot be sent.
            Message::Call(reply) => drop(reply.send(())),
            Message::Panic => panic!("of the benchmark"),
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Children {
    healthy: Vec<Address<Message>>,
    frail: Vec<Address<Message>>,
}

async fn tree() -> (Tree, Children) {
    let addresses = |count: usize, kind: &'static str| -> Vec<_> { (0..count).map(|_| Address::new(kind)).collect() };
    let children = Children { healthy: addresses(HEALTHY, "healthy"), frail: addresses(FRAIL, "frail") };
    let spec = SupervisorSpec::new("bench", Strategy::OneForOne)
        .child(ChildSpec::supervisor(group("healthy", &children.healthy)))
        .child(ChildSpec::supervisor(group("frail", &children.frail)));
    (Tree::start(spec, Heartbeats::new()).await.unwrap(), children)
}

/// Each of the two is a component of the service, by which its log is limited.
fn group(name: &'static str, addresses: &[Address<Message>]) -> SupervisorSpec {
    let often = Intensity::new(u32::MAX, Duration::from_secs(60));
    let children = addresses.iter().enumerate().map(|(number, address)| {
        let child = ChildSpec::actor(format!("child-{number}"), address, |_| (Child, ()));
        child.label("child").backoff(Backoff::NONE)
    });
    SupervisorSpec::new(name, Strategy::OneForOne).intensity(often).with_children(children)
}

/// The 99th percentile of the calls of one round, in us.
async fn round(children: &Children, to_the_frail: impl Fn() -> Message) -> f64 {
    let callers: Vec<_> = children.healthy.iter().cloned().map(|healthy| tokio::spawn(calls(healthy))).collect();
    let (until, mut pace) = (Instant::now() + ROUND, tokio::time::interval(PACE));
    // A late tick is made up for: the storm is of so many a second.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for address in children.frail.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        pace.tick().await;
        // One that is restarting has no need to be told to panic.
        drop(address.try_send(to_the_frail()));
    }
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1e6
}

async fn calls(healthy: Address<Message>) -> Vec<Duration> {
    let (until, mut pace) = (Instant::now() + ROUND, tokio::time::interval(PACE));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::new();
    while Instant::now() < until {
        pace.tick().await;
        let began = Instant::now();
        healthy.call(Message::Call, CALL).await.unwrap();
        times.push(began.elapsed());
    }
    times
}
