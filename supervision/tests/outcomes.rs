//! Whatever goes wrong with a child is on record, together with what its supervisor did about it.

mod common;

use std::{sync::Arc, time::Duration};

use common::{Journal, Message, SECOND, address, settle, start, worker};
use supervision::{
    Backoff, ChildContext, ChildSpec, GuardSite, Intensity, OnGiveUp, OnStuck, Restart, Strategy, SupervisorSpec, guard,
};
use telemetry::incidents::{self, Incident};
use telemetry::panic::Policy;

/// What is on record of the child `actor`, oldest first. Each test has names of its own.
fn of(actor: &str) -> Vec<Arc<Incident>> {
    let mut found = incidents::recent(incidents::KEPT_MAX);
    found.retain(|incident| incident.actor == actor);
    found.reverse();
    found
}

fn outcome(actor: &str, kind: &str) -> String {
    let incident = of(actor).into_iter().rfind(|incident| incident.kind == kind);
    incident.unwrap_or_else(|| panic!("no {kind} of {actor}")).outcome.clone().unwrap_or_default()
}

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new("root", Strategy::OneForOne)
}

fn after(delay: Duration) -> Backoff {
    Backoff { base: delay, jitter: 0.0, ..Backoff::default() }
}

#[tokio::test(start_paused = true)]
async fn a_panic_says_when_it_is_started_again_and_then_as_what() {
    let (journal, a) = (Journal::default(), address("restarted"));
    let tree = start(one_for_one().child(worker("restarted", &journal, &a).backoff(after(2 * SECOND)))).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(outcome("restarted", "panic"), "it is started again in 2000 ms");
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(outcome("restarted", "panic"), "restarted as incarnation 2 after 2000 ms");
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_child_that_does_not_come_back_says_so() {
    let (journal, a) = (Journal::default(), address("temporary"));
    let tree = start(one_for_one().child(worker("temporary", &journal, &a).restart(Restart::Temporary))).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    assert_eq!(outcome("temporary", "panic"), "it is not started again");
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_is_on_record_and_is_followed_up_to_whoever_decides() {
    let (journal, a) = (Journal::default(), address("failing"));
    let inner = SupervisorSpec::new("giving_up", Strategy::OneForOne).intensity(Intensity::new(0, SECOND));
    let inner = ChildSpec::supervisor(inner.child(worker("failing", &journal, &a))).backoff(Backoff::NONE);
    let tree = start(one_for_one().child(inner)).await;
    a.try_send(Message::Panic).unwrap();
    settle().await;
    let gave_up = of("giving_up").pop().unwrap();
    assert_eq!((gave_up.kind, gave_up.policy, gave_up.incarnation), ("gave_up", "escalate", 1));
    assert_eq!(gave_up.message, "gave up on giving_up.failing, which panicked: asked to panic");
    assert_eq!(gave_up.outcome.as_deref(), Some("restarted as incarnation 2 after 0 ms"));
    let told = outcome("giving_up.failing", "panic");
    assert_eq!(told, format!("its supervisor gave up, see incident {}", gave_up.id));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_without_a_budget_left_is_on_record_as_degraded_until_it_serves_again() {
    let (journal, a) = (Journal::default(), address("degraded"));
    let retry = 10 * SECOND;
    let child = worker("degraded", &journal, &a).intensity(Intensity::new(0, SECOND)).backoff(Backoff::NONE);
    let tree = start(one_for_one().child(child.on_give_up(OnGiveUp::Degrade { retry }))).await;
    a.try_send(Message::Fail).unwrap();
    settle().await;
    let incident = of("degraded").pop().unwrap();
    assert_eq!((incident.kind, incident.policy), ("gave_up", "degrade"), "an error, not a panic");
    assert!(outcome("degraded", "gave_up").starts_with("it is degraded, and tried again in "));
    tokio::time::sleep(retry).await;
    assert!(outcome("degraded", "gave_up").starts_with("restarted as incarnation 2 after "));
    tree.stop().await;
}

/// Beats each second, but for one pause in its first life.
fn pausing(id: &str, rule: OnStuck, pause: Duration) -> ChildSpec {
    ChildSpec::task(id, move |context: ChildContext| async move {
        let beat = context.heartbeat("rounds", SECOND);
        for round in 0_u64.. {
            beat.beat();
            let is_long = round == 2 && context.incarnation() == 1;
            tokio::time::sleep(if is_long { pause } else { SECOND }).await;
        }
        Ok(())
    })
    .backoff(Backoff::NONE)
    .on_stuck(rule)
}

#[tokio::test(start_paused = true)]
async fn a_stuck_child_is_on_record_with_what_was_done_about_it() {
    let day = Duration::from_secs(86_400);
    let children =
        [pausing("left_alone", OnStuck::Report, 60 * SECOND), pausing("started_anew", OnStuck::Restart, day)];
    let tree = start(one_for_one().with_children(children)).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(outcome("left_alone", "stuck"), "it is left alone");
    assert_eq!(outcome("started_anew", "stuck"), "restarted as incarnation 2 after 0 ms");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(outcome("left_alone", "stuck"), "it went on by itself");
    tree.stop().await;
}

#[tokio::test]
async fn work_that_is_given_up_says_so_unless_its_caller_knows_better() {
    let site = |actor| GuardSite {
        component: "guarded",
        actor,
        policy: Policy::KeepRunning,
        phase: "request",
        tenant: None,
        detail: Vec::new(),
    };
    guard(site("nobody"), async { panic!("oh") as () }).await.unwrap_err();
    assert_eq!(outcome("nobody", "panic"), "this request was given up, all else goes on");
    guard(site("caller"), async { panic!("oh") as () }).await.unwrap_err().outcome("answered 500");
    assert_eq!(outcome("caller", "panic"), "answered 500");
}
