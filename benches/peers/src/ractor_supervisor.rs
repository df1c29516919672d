//! `ractor-supervisor`: its children have names, and a group is killed and not stopped.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ractor::ActorRef;
use ractor_supervisor::{
    ChildSpec, Restart, SpawnFn, Supervisor, SupervisorArguments, SupervisorOptions, SupervisorStrategy,
};

use crate::counter::{Counter, Message, calls, flood, until_served};
use crate::measure::{
    Arrivals, BATCH, BATCHES, CALLS, CRASHES, Measure, System, WARM_CRASHES, WINDOW, cost, percentiles, resident_bytes,
    runtime,
};

/// As its documentation shows it.
pub struct RactorSupervisor;

impl System for RactorSupervisor {
    fn measure(&self, measure: Measure) -> Option<Vec<f64>> {
        std::panic::set_hook(Box::new(|_| {}));
        runtime().block_on(async {
            let group = Group::default();
            match measure {
                Measure::Message => {
                    group.start(1, SupervisorStrategy::OneForOne).await;
                    cost(flood(|message| group.send(message))).await.ns_each(BATCHES * BATCH)
                }
                Measure::Call => {
                    group.start(1, SupervisorStrategy::OneForOne).await;
                    cost(calls(|message| group.send(message))).await.ns_each(CALLS)
                }
                Measure::Crash | Measure::CrashLoaded => crashes(&group, measure.restarts_before()).await,
                Measure::Start(children) => {
                    let cost = cost(group.start(children, SupervisorStrategy::OneForOne)).await;
                    cost.us_each(children)
                }
                Measure::OneForAll(children) => one_for_all(&group, children).await,
                Measure::Memory(children) => {
                    Group::default().start(10, SupervisorStrategy::OneForOne).await;
                    let before = resident_bytes();
                    group.start(children, SupervisorStrategy::OneForOne).await;
                    Some(vec![(resident_bytes() - before) / children as f64])
                }
                Measure::MessageMetered | Measure::Stop(_) => None,
            }
        })
    }
}

/// Children of one supervisor; the last one is spoken with.
#[derive(Clone, Default)]
struct Group {
    arrivals: Arrivals,
    last: Arc<Mutex<Option<ActorRef<Message>>>>,
}

impl Group {
    async fn start(&self, children: usize, strategy: SupervisorStrategy) {
        let group = self.clone();
        let last = format!("counter-{children}-{}", children - 1);
        let spawn = SpawnFn::new(move |supervisor, id: String| {
            let (group, is_last) = (group.clone(), id == last);
            async move {
                let (child, _) = Supervisor::spawn_linked(id, Counter(group.arrivals.clone()), (), supervisor).await?;
                if is_last {
                    *group.last.lock().unwrap() = Some(child.clone());
                }
                Ok(child.get_cell())
            }
        });
        let child_specs = (0..children)
            .map(|number| ChildSpec {
                id: format!("counter-{children}-{number}"),
                restart: Restart::Permanent,
                spawn_fn: spawn.clone(),
                backoff_fn: None,
                reset_after: None,
            })
            .collect();
        let options = SupervisorOptions { strategy, max_restarts: usize::MAX, max_window: WINDOW, reset_after: None };
        self.arrivals.expect(children);
        let arguments = SupervisorArguments { child_specs, options };
        Supervisor::spawn(format!("bench-{children}"), arguments).await.unwrap();
        self.arrivals.all().await;
        until_served(|message| self.send(message)).await;
    }

    fn send(&self, message: Message) -> bool {
        self.last.lock().unwrap().as_ref().is_some_and(|child| child.send_message(message).is_ok())
    }
}

async fn crashes(group: &Group, before: usize) -> Option<Vec<f64>> {
    group.start(1, SupervisorStrategy::OneForOne).await;
    let before = before.max(WARM_CRASHES);
    let mut times = Vec::new();
    for _ in 0..before + CRASHES {
        let began = Instant::now();
        assert!(group.send(Message::Panic));
        until_served(|message| group.send(message)).await;
        times.push(began.elapsed());
    }
    percentiles(times.split_off(before))
}

async fn one_for_all(group: &Group, children: usize) -> Option<Vec<f64>> {
    group.start(children, SupervisorStrategy::OneForAll).await;
    let cost = cost(async {
        group.arrivals.expect(children);
        assert!(group.send(Message::Panic));
        group.arrivals.all().await;
        until_served(|message| group.send(message)).await;
    });
    cost.await.ms()
}
