//! `kameo`: the mailbox survives a restart; a group is stopped all at once.

use std::time::Instant;

use kameo::Actor;
use kameo::actor::{ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::mailbox;
use kameo::message::{Context, Message};
use kameo::supervision::SupervisionStrategy;

use crate::measure::{
    Arrivals, BATCH, BATCHES, CALLS, CRASHES, Measure, System, WARM_CRASHES, WINDOW, cost, percentiles, resident_bytes,
    runtime,
};

/// With its default features.
pub struct Kameo;

impl System for Kameo {
    fn measure(&self, measure: Measure) -> Option<Vec<f64>> {
        std::panic::set_hook(Box::new(|_| {}));
        runtime().block_on(async {
            match measure {
                Measure::Message => {
                    let (_supervisor, counter) = one().await;
                    cost(flood(&counter)).await.ns_each(BATCHES * BATCH)
                }
                Measure::Call => {
                    let (_supervisor, counter) = one().await;
                    let calls = async {
                        for _ in 0..CALLS {
                            counter.ask(Total).await.unwrap();
                        }
                    };
                    cost(calls).await.ns_each(CALLS)
                }
                Measure::Crash | Measure::CrashLoaded => crashes(measure.restarts_before()).await,
                Measure::Start(children) => {
                    let supervisor = Separate::spawn(());
                    let cost = cost(async { drop(start(&supervisor, children, &Arrivals::default()).await) }).await;
                    cost.us_each(children)
                }
                Measure::OneForAll(children) => one_for_all(children).await,
                Measure::Memory(children) => memory(children).await,
                Measure::MessageMetered | Measure::Stop(_) => None,
            }
        })
    }
}

struct Counter(u64);

impl Actor for Counter {
    type Args = Arrivals;
    type Error = Infallible;

    async fn on_start(arrivals: Arrivals, _: ActorRef<Self>) -> Result<Self, Infallible> {
        arrivals.arrived();
        Ok(Self(0))
    }
}

struct Add(u64);
struct Total;
struct Crash;

impl Message<Add> for Counter {
    type Reply = ();

    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self, ()>) {
        self.0 += n;
    }
}

impl Message<Total> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Total, _: &mut Context<Self, u64>) -> u64 {
        self.0
    }
}

impl Message<Crash> for Counter {
    type Reply = ();

    async fn handle(&mut self, _: Crash, _: &mut Context<Self, ()>) {
        panic!("of the benchmark")
    }
}

/// A supervisor whose children fail each for itself.
struct Separate;

impl Actor for Separate {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// A supervisor whose children fail together.
struct Together;

impl Actor for Together {
    type Args = ();
    type Error = Infallible;

    fn supervision_strategy() -> SupervisionStrategy {
        SupervisionStrategy::OneForAll
    }

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// Starts children; they are up when it returns.
async fn start<S: Actor>(supervisor: &ActorRef<S>, children: usize, arrivals: &Arrivals) -> Vec<ActorRef<Counter>> {
    arrivals.expect(children);
    let mut started = Vec::with_capacity(children);
    for _ in 0..children {
        let child = Counter::supervise(supervisor, arrivals.clone()).restart_limit(u32::MAX, WINDOW);
        started.push(child.spawn().await);
    }
    arrivals.all().await;
    started
}

/// A child whose mailbox takes a whole batch, and its supervisor, which ends when nobody holds it.
async fn one() -> (ActorRef<Separate>, ActorRef<Counter>) {
    let supervisor = Separate::spawn(());
    let child = Counter::supervise(&supervisor, Arrivals::default()).restart_limit(u32::MAX, WINDOW);
    let child = child.spawn_with_mailbox(mailbox::bounded(2 * BATCH)).await;
    (supervisor, child)
}

async fn flood(counter: &ActorRef<Counter>) {
    for _ in 0..BATCHES {
        for n in 0..BATCH {
            counter.tell(Add(n as u64)).try_send().unwrap();
        }
        counter.ask(Total).await.unwrap();
    }
}

async fn crashes(before: usize) -> Option<Vec<f64>> {
    let (_supervisor, counter) = one().await;
    let before = before.max(WARM_CRASHES);
    let mut times = Vec::new();
    for _ in 0..before + CRASHES {
        let began = Instant::now();
        counter.tell(Crash).try_send().unwrap();
        until_served(&counter).await;
        times.push(began.elapsed());
    }
    percentiles(times.split_off(before))
}

async fn until_served(counter: &ActorRef<Counter>) {
    while counter.ask(Total).await.is_err() {
        tokio::task::yield_now().await;
    }
}

async fn one_for_all(children: usize) -> Option<Vec<f64>> {
    let (supervisor, arrivals) = (Together::spawn(()), Arrivals::default());
    let started = start(&supervisor, children, &arrivals).await;
    let cost = cost(async {
        arrivals.expect(children);
        started[children / 2].tell(Crash).try_send().unwrap();
        arrivals.all().await;
        until_served(&started[children - 1]).await;
    });
    cost.await.ms()
}

async fn memory(children: usize) -> Option<Vec<f64>> {
    let supervisor = Separate::spawn(());
    let _few = start(&supervisor, 10, &Arrivals::default()).await;
    let before = resident_bytes();
    let _many = start(&supervisor, children, &Arrivals::default()).await;
    Some(vec![(resident_bytes() - before) / children as f64])
}
