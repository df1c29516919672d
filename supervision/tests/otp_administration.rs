//! OTP's test cases about administration, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use common::*;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use supervision::{
    Address, ChildSpec, Exit, OperationError, Restart, StartError, StartOutcome, Status, StopOutcome, Strategy,
    SupervisorSpec, Tree,
};

fn ids(tree: &Tree) -> Vec<String> {
    tree.snapshot().children.into_iter().map(|child| child.id).collect()
}

#[tokio::test(start_paused = true)]
async fn every_operation_says_what_keeps_it_from_being_carried_out_and_stopping_twice_is_no_error() {
    use OperationError::{AlreadyPresent, AlreadyRunning, NotFound, Stopping};
    let tree = start(otp_root(Strategy::OneForOne, 1).child(idle("a"))).await;
    assert!(matches!(tree.add_child("", idle("b")).await, Ok(StartOutcome::Started { incarnation: 1, .. })));
    // Up.
    assert_eq!(tree.add_child("", idle("b")).await, Err(AlreadyRunning));
    assert_eq!(tree.start_child("b").await, Err(AlreadyRunning));
    assert_eq!(tree.delete_child("b").await, Err(AlreadyRunning));
    // Down.
    assert_eq!(tree.stop_child("b").await, Ok(()));
    assert_eq!(tree.stop_child("b").await, Ok(()));
    assert_eq!(status(&tree, "b"), Status::StoppedByHand);
    assert_eq!(tree.add_child("", idle("b")).await, Err(AlreadyPresent));
    assert!(matches!(tree.start_child("b").await, Ok(StartOutcome::Started { incarnation: 2, .. })));
    assert_eq!(ids(&tree), ["a", "b"]);
    tree.stop_child("a").await.unwrap();
    tree.start_child("a").await.unwrap();
    assert_eq!(ids(&tree), ["a", "b"]);
    // Gone.
    tree.stop_child("b").await.unwrap();
    assert_eq!(tree.delete_child("b").await, Ok(()));
    assert_eq!(tree.start_child("b").await, Err(NotFound));
    assert_eq!(tree.stop_child("b").await, Err(NotFound));
    assert_eq!(tree.delete_child("b").await, Err(NotFound));
    assert_eq!(ids(&tree), ["a"]);
    let counts = tree.snapshot().counts();
    assert_eq!((counts.specs, counts.active, counts.supervisors, counts.workers), (1, 1, 0, 1));
    tree.stop().await;
    assert_eq!(tree.stop_child("a").await, Err(Stopping));
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_that_is_stopped_by_hand_is_gone_with_its_spec() {
    let tree = start(root(Strategy::OneForOne).child(idle("a").restart(Restart::Temporary))).await;
    tree.stop_child("a").await.unwrap();
    assert_eq!(tree.stop_child("a").await, Err(OperationError::NotFound));
    tree.add_child("", idle("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dynamic_children_are_addressed_by_their_ids_stopping_is_idempotent_and_start_and_delete_do_not_exist() {
    // OTP's rule: what was stopped is forgotten, so that there is nothing to be started or deleted.
    let tree = start(otp_root(DYNAMIC, 1)).await;
    tree.add_child("", idle("a")).await.unwrap();
    tree.add_child("", idle("b")).await.unwrap();
    assert_eq!(tree.start_child("a").await, Err(OperationError::DynamicChild));
    assert_eq!(tree.delete_child("a").await, Err(OperationError::DynamicChild));
    assert_eq!(tree.stop_child("a").await, Ok(()));
    assert_eq!(tree.stop_child("a").await, Err(OperationError::NotFound));
    assert_eq!((ids(&tree), tree.snapshot().counts().active), (vec!["b".to_owned()], 1));
    // By default it stays, as stopped by hand.
    let tree = start(root(DYNAMIC)).await;
    tree.add_child("", idle("a")).await.unwrap();
    assert_eq!((tree.stop_child("a").await, tree.stop_child("a").await), (Ok(()), Ok(())));
    tree.start_child("a").await.unwrap();
    assert_eq!(status(&tree, "a"), Status::Up);
}

#[tokio::test(start_paused = true)]
async fn a_child_may_hand_a_value_to_whoever_asked_for_its_start() {
    let spec = ChildSpec::task("server", |context| async move {
        context.hand_over(context.incarnation() * 1000);
        context.ready();
        context.cancelled().cancelled().await;
        Ok(())
    })
    .start_when_ready();
    let value = |outcome| match outcome {
        Ok(StartOutcome::Started { handed_over, .. }) => handed_over.take::<u64>(),
        other => panic!("it did not start: {other:?}"),
    };
    let tree = start(root(Strategy::OneForOne)).await;
    assert_eq!(value(tree.add_child("", spec).await), Some(1000));
    tree.stop_child("server").await.unwrap();
    assert_eq!(value(tree.start_child("server").await), Some(2000));
    assert_eq!(value(tree.restart("server").await), Some(3000));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_another_childs_is_an_error_and_no_adoption() {
    let (journal, a) = (Journal::default(), address("desk"));
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(worker("x", &journal, &a));
    let both = root(Strategy::OneForOne).child(worker("a", &journal, &a)).child(ChildSpec::supervisor(inner));
    let refused = Tree::options().start(both).await.err().unwrap();
    assert_eq!(refused.to_string(), "the tree is not sound: child \"inner.x\": its address is that of a");
    assert_eq!(journal.take(), Vec::<String>::new());
    // The same at run time, whichever tree the other child is in.
    let tree = start(root(Strategy::OneForOne).child(worker("a", &journal, &a))).await;
    let exit = Exit::Error("the address desk is that of the child at a".to_owned());
    let added = tree.add_child("", worker("b", &journal, &a)).await;
    assert_eq!(added, Err(OperationError::StartFailed { exit: exit.clone() }));
    assert!(!exists(&tree, "b"));
    let other = Tree::options().start(root(Strategy::OneForOne).child(worker("c", &journal, &a))).await.err();
    assert_eq!(other, Some(StartError::Child { path: "c".into(), cause: exit }));
    // Its holder has not noticed anything.
    assert_eq!((incarnation(&a).await, journal.take()), (1, vec!["start a#1".to_owned()]));
    // It is free again with its child.
    tree.stop_child("a").await.unwrap();
    tree.delete_child("a").await.unwrap();
    tree.add_child("", worker("b", &journal, &a)).await.unwrap();
    assert_eq!(journal.take_only("start"), ["b#1"]);
}

/// An actor that links itself to another one, and cuts the link.
struct Loner;

enum Ask {
    Cell(RpcReplyPort<ActorCell>),
    LinkTo(ActorCell),
    CutLinks,
}

impl Actor for Loner {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Ask>, ask: Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match ask {
            Ask::Cell(reply) => drop(reply.send(myself.get_cell())),
            Ask::LinkTo(other) => myself.link(other),
            Ask::CutLinks => {
                let supervisor = myself.try_get_supervisor().expect("it is linked");
                myself.unlink(supervisor);
            }
        }
        Ok(())
    }

    /// By default ractor ends an actor with whatever was linked to it.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Ask>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_detaches_itself_does_not_hang_its_stop_because_that_watches_the_child_and_no_link() {
    let (a, b) = (Address::new("a"), Address::new("b"));
    let loner = |id: &str, address: &Address<Ask>| ChildSpec::actor(id, address, |_| (Loner, ()));
    let tree = start(root(Strategy::OneForOne).child(loner("a", &a)).child(loner("b", &b))).await;
    let other = a.call(Ask::Cell, SECOND).await.unwrap();
    // Linked to somebody else, or to nobody: neither is the supervisor's business.
    b.try_send(Ask::LinkTo(other)).unwrap();
    settle().await;
    assert_eq!(tree.stop_child("b").await, Ok(()));
    tree.start_child("b").await.unwrap();
    let other = a.call(Ask::Cell, SECOND).await.unwrap();
    b.try_send(Ask::LinkTo(other)).unwrap();
    b.try_send(Ask::CutLinks).unwrap();
    settle().await;
    let report = tree.stop().await;
    assert!(report.children.iter().all(|child| child.outcome == StopOutcome::Stopped), "{report:?}");
    assert!(report.took < SECOND);
}
