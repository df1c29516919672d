//! `actix`: its supervisor starts again what stopped itself; a panic ends the whole thread. Its crash is therefore a stop.

use std::time::Instant;

use actix::prelude::{Actor, Addr, Context, Handler, Message, Supervised, System as Runtime};
use actix::{ActorContext, Supervisor};

use crate::measure::{
    Arrivals, BATCH, BATCHES, CALLS, CRASHES, Measure, System, WARM_CRASHES, cost, percentiles, resident_bytes,
};

/// It has supervised actors, but no supervisor of many.
pub struct Actix;

impl System for Actix {
    fn measure(&self, measure: Measure) -> Option<Vec<f64>> {
        Runtime::new().block_on(async {
            match measure {
                Measure::Message => {
                    let counter = one();
                    cost(flood(&counter)).await.ns_each(BATCHES * BATCH)
                }
                Measure::Call => {
                    let counter = one();
                    let calls = async {
                        for _ in 0..CALLS {
                            counter.send(Total).await.unwrap();
                        }
                    };
                    cost(calls).await.ns_each(CALLS)
                }
                // It has no window.
                Measure::Crash => crashes().await,
                Measure::Start(children) => {
                    let cost = cost(async { drop(start(children).await) }).await;
                    cost.us_each(children)
                }
                Measure::Memory(children) => {
                    let _few = start(10).await;
                    let before = resident_bytes();
                    let _many = start(children).await;
                    Some(vec![(resident_bytes() - before) / children as f64])
                }
                Measure::MessageMetered | Measure::CrashLoaded | Measure::Stop(_) | Measure::OneForAll(_) => None,
            }
        })
    }
}

struct Counter {
    total: u64,
    arrivals: Arrivals,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.arrivals.arrived();
    }
}

impl Supervised for Counter {}

#[derive(Message)]
#[rtype(result = "()")]
struct Add(u64);

#[derive(Message)]
#[rtype(result = "u64")]
struct Total;

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl Handler<Add> for Counter {
    type Result = ();

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) {
        self.total += n;
    }
}

impl Handler<Total> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Total, _: &mut Context<Self>) -> u64 {
        self.total
    }
}

impl Handler<Crash> for Counter {
    type Result = ();

    fn handle(&mut self, _: Crash, context: &mut Context<Self>) {
        context.stop();
    }
}

fn one() -> Addr<Counter> {
    Supervisor::start(|_| Counter { total: 0, arrivals: Arrivals::default() })
}

/// Starts children; they are up when it returns.
async fn start(children: usize) -> Vec<Addr<Counter>> {
    let arrivals = Arrivals::default();
    arrivals.expect(children);
    let mut started = Vec::with_capacity(children);
    for _ in 0..children {
        let arrivals = arrivals.clone();
        started.push(Supervisor::start(move |_| Counter { total: 0, arrivals }));
    }
    arrivals.all().await;
    started
}

async fn flood(counter: &Addr<Counter>) {
    for _ in 0..BATCHES {
        for n in 0..BATCH {
            // Past the limit of the mailbox, which is 16.
            counter.do_send(Add(n as u64));
        }
        counter.send(Total).await.unwrap();
    }
}

async fn crashes() -> Option<Vec<f64>> {
    let counter = one();
    let mut times = Vec::new();
    for _ in 0..WARM_CRASHES + CRASHES {
        let began = Instant::now();
        counter.do_send(Crash);
        while counter.send(Total).await.is_err() {
            tokio::task::yield_now().await;
        }
        times.push(began.elapsed());
    }
    percentiles(times.split_off(WARM_CRASHES))
}
