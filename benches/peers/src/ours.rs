//! `supervision`.

use std::time::Instant;

use supervision::{Address, Backoff, ChildSpec, Heartbeats, Intensity, Strategy, SupervisorSpec, Tree};

use crate::counter::{Counter, Message, calls, flood, until_served};
use crate::measure::{
    Arrivals, BATCH, BATCHES, CALLS, CRASHES, Measure, System, WARM_CRASHES, WINDOW, cost, percentiles, resident_bytes,
    runtime,
};

const LONG: std::time::Duration = std::time::Duration::from_secs(60);

/// It records every panic with its backtrace, as it always does.
pub struct Ours;

impl System for Ours {
    fn measure(&self, measure: Measure) -> Option<Vec<f64>> {
        telemetry::panic::install_hook();
        runtime().block_on(async {
            match measure {
                Measure::Message => messages(false).await,
                Measure::MessageMetered => messages(true).await,
                Measure::Call => {
                    let (tree, addresses) = tree(1, Strategy::OneForOne, &Arrivals::default(), false).await;
                    let cost = cost(calls(|message| addresses[0].try_send(message).is_ok())).await;
                    tree.stop().await;
                    cost.ns_each(CALLS)
                }
                Measure::Crash | Measure::CrashLoaded => crashes(measure.restarts_before()).await,
                Measure::Start(children) => starts(children).await,
                Measure::Stop(children) => stops(children).await,
                Measure::OneForAll(children) => one_for_all(children).await,
                Measure::Memory(children) => memory(children).await,
            }
        })
    }
}

async fn messages(metered: bool) -> Option<Vec<f64>> {
    let (tree, addresses) = tree(1, Strategy::OneForOne, &Arrivals::default(), metered).await;
    let cost = cost(flood(|message| addresses[0].try_send(message).is_ok())).await;
    tree.stop().await;
    cost.ns_each(BATCHES * BATCH)
}

async fn crashes(before: usize) -> Option<Vec<f64>> {
    let (tree, addresses) = tree(1, Strategy::OneForOne, &Arrivals::default(), true).await;
    crash(&addresses[0]).await;
    settle();
    for _ in 0..before.max(WARM_CRASHES) {
        crash(&addresses[0]).await;
    }
    settle();
    let mut times = Vec::new();
    for _ in 0..CRASHES {
        let began = Instant::now();
        crash(&addresses[0]).await;
        times.push(began.elapsed());
    }
    tree.stop().await;
    percentiles(times)
}

async fn crash(address: &Address<Message>) {
    address.try_send(Message::Panic).unwrap();
    until_served(|message| address.try_send(message).is_ok()).await;
}

/// What was recorded so far must not weigh on what comes.
fn settle() {
    assert!(telemetry::panic::settle(LONG), "a record takes its time, but not that long");
}

async fn starts(children: usize) -> Option<Vec<f64>> {
    let (spec, _addresses) = spec(children, Strategy::OneForOne, &Arrivals::default(), true);
    let mut tree = None;
    let cost = cost(async { tree = Some(Tree::start(spec, Heartbeats::new()).await.unwrap()) }).await;
    tree?.stop().await;
    cost.us_each(children)
}

async fn stops(children: usize) -> Option<Vec<f64>> {
    let (tree, _addresses) = tree(children, Strategy::OneForOne, &Arrivals::default(), true).await;
    let cost = cost(async { assert!(tree.stop().await.is_clean()) }).await;
    cost.us_each(children)
}

async fn one_for_all(children: usize) -> Option<Vec<f64>> {
    let arrivals = Arrivals::default();
    let (tree, addresses) = tree(children, Strategy::OneForAll, &arrivals, true).await;
    let round = async || {
        arrivals.expect(children);
        addresses[children / 2].try_send(Message::Panic).unwrap();
        arrivals.all().await;
        until_served(|message| addresses[children - 1].try_send(message).is_ok()).await;
    };
    // The first panic of a place has its backtrace resolved at leisure, which is CPU too.
    round().await;
    settle();
    let cost = cost(round()).await;
    tree.stop().await;
    cost.ms()
}

async fn memory(children: usize) -> Option<Vec<f64>> {
    tree(10, Strategy::OneForOne, &Arrivals::default(), true).await.0.stop().await;
    let before = resident_bytes();
    let (_tree, _addresses) = tree(children, Strategy::OneForOne, &Arrivals::default(), true).await;
    Some(vec![(resident_bytes() - before) / children as f64])
}

async fn tree(
    children: usize,
    strategy: Strategy,
    arrivals: &Arrivals,
    metered: bool,
) -> (Tree, Vec<Address<Message>>) {
    let (spec, addresses) = spec(children, strategy, arrivals, metered);
    (Tree::start(spec, Heartbeats::new()).await.unwrap(), addresses)
}

/// Children that may fail as often as they like and are started again at once. All share one name in the metrics, as
/// children do that are many.
fn spec(
    children: usize,
    strategy: Strategy,
    arrivals: &Arrivals,
    metered: bool,
) -> (SupervisorSpec, Vec<Address<Message>>) {
    let mut addresses = Vec::new();
    let mut spec = SupervisorSpec::new("bench", strategy).intensity(Intensity::new(u32::MAX, WINDOW));
    for number in 0..children {
        let address = Address::with_capacity("counter", 2 * BATCH);
        let arrivals = arrivals.clone();
        let child = ChildSpec::actor(format!("counter-{number}"), &address, move |_| (Counter(arrivals.clone()), ()))
            .backoff(Backoff::NONE)
            .label("counter");
        spec = spec.child(if metered { child } else { child.unmetered() });
        addresses.push(address);
    }
    (spec, addresses)
}
