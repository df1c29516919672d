//! OTP's test cases about specs, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use std::time::Duration;

use common::*;
use supervision::{
    AutoShutdown, ChildSpec, Exit, Intensity, Kind, OperationError, Restart, Shutdown, StartError, Strategy,
    SupervisorSpec, Tree,
};

fn reasons(spec: &SupervisorSpec) -> Vec<String> {
    spec.check().err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn by_default_a_child_is_permanent_and_has_5_s_to_stop_a_supervisor_no_limit_and_the_spec_is_read_back_by_id() {
    let inner = ChildSpec::supervisor(SupervisorSpec::new("inner", Strategy::OneForOne));
    let plain = ChildSpec::task("a", |context| async move {
        context.cancelled().cancelled().await;
        Ok(())
    });
    let tree = start(root(Strategy::OneForOne).child(plain).child(inner)).await;
    let (a, inner) = (tree.spec_of("a").unwrap(), tree.spec_of("inner").unwrap());
    assert_eq!((a.kind, a.restart, a.shutdown), (Kind::Task, Restart::Permanent, Shutdown::Within(5 * SECOND)));
    assert!(!a.significant);
    let expected = (Kind::Supervisor, Restart::Permanent, Shutdown::Infinity);
    assert_eq!((inner.kind, inner.restart, inner.shutdown), expected);
    assert_eq!(tree.spec_of("nobody"), None);
}

#[tokio::test(start_paused = true)]
async fn the_spec_of_a_dynamic_instance_can_be_read_back() {
    let tree = start(otp_root(DYNAMIC, 1)).await;
    let spec = idle("a").restart(Restart::Temporary).stop_within(Shutdown::BrutalKill);
    tree.add_child("", spec).await.unwrap();
    let read = tree.spec_of("a").unwrap();
    assert_eq!((read.restart, read.shutdown), (Restart::Temporary, Shutdown::BrutalKill));
    assert_eq!(tree.spec_of("b"), None);
}

#[tokio::test(start_paused = true)]
async fn faulty_specs_are_refused_before_any_child_is_started() {
    let journal = Journal::default();
    for (faulty, reason) in [
        (idle(""), "an id is not empty"),
        (idle("b c"), "an id is not empty and has no dot, slash or white space"),
        (worker("b", &journal, &address("b")).start_when_ready(), "start_when_ready is for tasks only"),
        (idle("b").message_within(SECOND), "message_within is for metered actors only"),
    ] {
        let sound = root(Strategy::OneForOne).child(worker("a", &journal, &address("a")));
        let inner = ChildSpec::supervisor(SupervisorSpec::new("inner", Strategy::OneForOne).child(faulty));
        let Err(StartError::Unsound(faults)) = Tree::options().start(sound.child(inner)).await else {
            panic!("{reason}: it started");
        };
        assert!(faults[0].to_string().contains(reason), "{faults:?}");
        assert_eq!(journal.take(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn duplicate_ids_are_refused_with_the_id_in_the_error_and_checking_needs_no_start() {
    let twice = root(Strategy::OneForOne).child(idle("reader")).child(idle("reader"));
    assert_eq!(reasons(&twice), ["child \"reader\": the id is used twice"]);
    assert_eq!(root(Strategy::OneForOne).child(idle("reader")).child(idle("writer")).check(), Ok(()));
    // The same id in two supervisors is two children.
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(idle("reader"));
    assert_eq!(root(Strategy::OneForOne).child(idle("reader")).child(ChildSpec::supervisor(inner)).check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn contradicting_options_are_refused() {
    let significant = |restart| idle("a").restart(restart).significant();
    let any = || root(Strategy::OneForOne).auto_shutdown(AutoShutdown::AnySignificant);
    assert_eq!(
        reasons(&any().child(significant(Restart::Permanent))),
        ["child \"a\": significant contradicts permanent"]
    );
    for restart in [Restart::Transient, Restart::Temporary] {
        assert_eq!(any().child(significant(restart)).check(), Ok(()), "{restart:?}");
        let never = root(Strategy::OneForOne).child(significant(restart));
        assert_eq!(reasons(&never), ["child \"a\": significant needs auto_shutdown"], "{restart:?}");
    }
    let tree = start(root(Strategy::OneForOne)).await;
    let added = tree.add_child("", significant(Restart::Transient)).await;
    assert_eq!(added, Err(OperationError::BadSpec { reason: "significant needs auto_shutdown".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn an_intensity_is_zero_or_more_and_its_period_more_than_zero() {
    let nonsense = root(Strategy::OneForOne).intensity(Intensity::new(1, Duration::ZERO));
    assert_eq!(reasons(&nonsense), ["child \"\": the period of the intensity is zero"]);
    let of_a_child = idle("a").intensity(Intensity::new(1, Duration::ZERO));
    assert_eq!(
        reasons(&root(Strategy::OneForOne).child(of_a_child)),
        ["child \"a\": the period of the intensity is zero"]
    );
    let (journal, a) = (Journal::default(), address("a"));
    let none = otp_root(Strategy::OneForOne, 0).child(worker("a", &journal, &a));
    let tree = start(none).await;
    tell(&a, Message::Panic).await;
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
    assert_eq!(journal.take_only("start"), ["a#1"]);
}
