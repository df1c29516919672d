//! What a broken assertion leaves behind, under each policy that goes on.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{
    Address, Backoff, ChildSpec, GuardSite, Heartbeats, Policy, Status, Strategy, SupervisorSpec, TaskGroup, Tree,
    ensure, ensure_eq, guard, unreachable_state,
};
use telemetry::incidents::Incident;

struct Account;

enum Message {
    Book(i64),
    /// A library asserts, and catches it itself; then something else breaks.
    Swallow,
    Total(RpcReplyPort<i64>),
}

impl Actor for Account {
    type Msg = Message;
    type State = i64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<i64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Message>, message: Message, total: &mut i64) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Book(amount) => {
                *total += amount;
                ensure!(*total >= 0, "the account is overdrawn"; total, amount);
            }
            Message::Swallow => {
                drop(std::panic::catch_unwind(|| ensure!(false, "swallowed"; stale = 1)));
                panic!("the one that ends the account");
            }
            Message::Total(reply) => drop(reply.send(*total)),
        }
        Ok(())
    }
}

async fn start(id: &str) -> (Tree, Address<Message>) {
    telemetry::panic::install_hook();
    let address = Address::new(id);
    let child = ChildSpec::actor(id, &address, |_| (Account, ())).backoff(Backoff::NONE);
    let root = SupervisorSpec::new("root", Strategy::OneForOne).child(child);
    (Tree::start(root, Heartbeats::new()).await.unwrap(), address)
}

/// The incidents of this component. There are other tests in the process.
fn incidents(component: &str) -> Vec<Arc<Incident>> {
    telemetry::incidents::recent(256).into_iter().filter(|incident| incident.component == component).collect()
}

fn detail(incident: &Incident) -> Vec<(&str, &str)> {
    incident.detail.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_whose_assertion_breaks_starts_anew_and_the_incident_says_what_it_saw() {
    let (tree, address) = start("overdrawn").await;
    address.try_send(Message::Book(5)).unwrap();
    address.try_send(Message::Book(-7)).unwrap();
    settle().await;
    assert_eq!(address.call(Message::Total, Duration::from_secs(1)).await, Ok(0));

    let incidents = incidents("overdrawn");
    let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
    assert_eq!((incident.message.as_str(), incident.phase.as_str()), ("the account is overdrawn", "handle"));
    let seen = [("path", "overdrawn"), ("condition", "*total >= 0"), ("total", "-2"), ("amount", "-7")];
    assert_eq!(detail(incident), seen);
    let node = tree.snapshot().find("overdrawn").unwrap().clone();
    assert_eq!((node.status, node.incarnation), (Status::Up, 2));
    assert_eq!(node.history[0].exit, supervision::Exit::Panic("the account is overdrawn".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_a_swallowed_assertion_saw_does_not_stick_to_the_panic_after_it() {
    let (_tree, address) = start("swallowing").await;
    address.try_send(Message::Swallow).unwrap();
    settle().await;
    let incidents = incidents("swallowing");
    let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
    assert_eq!(incident.message, "the one that ends the account");
    assert_eq!(detail(incident), [("path", "swallowing")]);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_assertion_breaks_is_an_error_to_its_caller_and_no_more() {
    telemetry::panic::install_hook();
    let site = GuardSite {
        component: "asserting_api",
        actor: "asserting_api",
        policy: Policy::KeepRunning,
        phase: "request",
        tenant: Some("demo"),
        detail: vec![("request_id".to_owned(), "r1".to_owned())],
    };
    let broken = guard(site.clone(), async { ensure_eq!(2 + 2, 5, "sums"; of = "two") }).await.unwrap_err();
    assert_eq!(broken.message, "sums");
    let incident = telemetry::incidents::get(broken.incident.parse().unwrap()).unwrap();
    assert_eq!((incident.policy, incident.tenant.as_deref()), ("keep_running", Some("demo")));
    let seen = [("request_id", "r1"), ("condition", "2 + 2 == 5"), ("left", "4"), ("right", "5"), ("of", "two")];
    assert_eq!(detail(&incident), seen);
    assert_eq!(guard(site, async { 7 }).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_task_may_break_and_the_task_goes_on() {
    telemetry::panic::install_hook();
    let recovering = ChildSpec::task("recovering", |context| async move {
        let socket = 7;
        let broken = context.run_with_recover("sweep", async { unreachable_state!("a third state"; socket) }).await;
        let broken: Result<(), _> = broken;
        assert!(broken.is_err());
        context.cancelled().cancelled().await;
        Ok(())
    });
    let root = SupervisorSpec::new("root", Strategy::OneForOne).child(recovering);
    let tree = Tree::start(root, Heartbeats::new()).await.unwrap();
    settle().await;
    let node = tree.snapshot().find("recovering").unwrap().clone();
    assert_eq!((node.status, node.incarnation), (Status::Up, 1));
    let incidents = incidents("recovering");
    let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
    assert_eq!((incident.phase.as_str(), incident.policy), ("sweep", "keep_running"));
    assert_eq!(detail(incident), [("path", "recovering"), ("socket", "7")]);
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_task_of_a_group_whose_assertion_breaks_is_named_in_the_incident() {
    telemetry::panic::install_hook();
    let group = TaskGroup::new("asserting_group");
    group.spawn("connection 7", async { ensure!("closed" == "open", "not open") });
    assert!(group.wait(Duration::from_secs(1)).await.is_empty());
    let incidents = incidents("asserting_group");
    assert_eq!(detail(&incidents[0]), [("task", "connection 7"), ("condition", "\"closed\" == \"open\"")]);
}
