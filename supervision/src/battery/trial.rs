//! The checks, one function each.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Check,
    report::Trouble,
    stand::{Stand, Verdict},
    subject::Posted,
};
use crate::{Exit, Kind, Shutdown, StartError, Status, StopOutcome, door};

/// The stop budget of a child that hangs.
const HANG_BUDGET: Duration = Duration::from_millis(200);

/// What the supervisor may take to act on the end of a budget, on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// The longest wait for a message that the child sends itself.
const OWN_MESSAGE_WITHIN: Duration = Duration::from_secs(5);

/// A flood that was never refused by then is not bounded.
const FLOOD_MAX: usize = 1 << 20;

pub(super) async fn carry_out(check: Check, stand: &mut Stand) -> Verdict {
    if stand.kind == Kind::Supervisor {
        return Err(Trouble::Failed("a supervisor is not tested, its children are".to_owned()));
    }
    if let Some(kind) = check.only_for().filter(|kind| *kind != stand.kind) {
        return skip(format!("only for the kind {kind:?}"));
    }
    match check {
        Check::StartsAndStops => starts_and_stops(stand).await,
        Check::StoppedBeforeItsStart => stopped_before_its_start(stand).await,
        Check::StoppedWhileItStarts => stopped_while_it_starts(stand).await,
        Check::StoppedTwice => stopped_twice(stand).await,
        Check::StoppedByHandAndStarted => stopped_by_hand_and_started(stand).await,
        Check::Killed => killed(stand, 1).await,
        Check::KilledAgainAndAgain => killed(stand, 5).await,
        Check::PanicAtFirstStart => panic_at_first_start(stand).await,
        Check::PanicAtRestart => panic_at_restart(stand).await,
        Check::PanicInPostStart => panic_in_post_start(stand).await,
        Check::PanicInHandle => panic_in_handle(stand).await,
        Check::PanicInHandleSupervisorEvt => panic_in_handle_supervisor_evt(stand).await,
        Check::PanicInPostStop => panic_in_post_stop(stand).await,
        Check::PanicInTask => panic_in_task(stand).await,
        Check::HangsAtItsStop => hangs_at_its_stop(stand).await,
        Check::HangsInPostStop => hangs_in_post_stop(stand).await,
        Check::Flooded => flooded(stand).await,
    }
}

async fn starts_and_stops(stand: &mut Stand) -> Verdict {
    stand.start().await?;
    stand.up(1).await?;
    stand.answers().await?;
    stops_cleanly(stand).await
}

async fn stopped_before_its_start(stand: &mut Stand) -> Verdict {
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    match stand.try_start(cancelled).await {
        Err(StartError::Cancelled) => Ok(()),
        // Its start was complete before the order was looked at.
        Ok(()) => stops_cleanly(stand).await,
        Err(other) => fail(format!("its start was to be cancelled, but {other}")),
    }
}

async fn stopped_while_it_starts(stand: &mut Stand) -> Verdict {
    let phase = if stand.kind == Kind::Actor { "pre_start" } else { "ready" };
    stand.probe.hold_in(phase);
    let (probe, cancelled) = (stand.probe.clone(), CancellationToken::new());
    let order = cancelled.clone();
    let cancel = async move {
        let limit = Instant::now() + OWN_MESSAGE_WITHIN;
        while !probe.is_holding() && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        order.cancel();
        probe.is_holding()
    };
    match tokio::join!(stand.try_start(cancelled), cancel) {
        (Err(StartError::Cancelled), true) => Ok(()),
        (_, false) if stand.kind == Kind::Task => skip("its start is complete when it is spawned"),
        (Err(other), _) => fail(format!("its start was to be cancelled, but {other}")),
        (Ok(()), _) => fail("it was started although it was told to stop"),
    }
}

async fn stopped_twice(stand: &mut Stand) -> Verdict {
    stand.start().await?;
    stand.up(1).await?;
    let (tree, id) = (stand.tree()?, stand.id.as_str());
    // The stop by hand may be carried out, or find that the tree is stopping.
    let (first, second, _by_hand) = tokio::join!(tree.stop(), tree.stop(), tree.stop_child(id));
    let third = tree.stop().await;
    for report in [&first, &second, &third] {
        stopped(&stand.line(report)?.outcome)?;
    }
    Ok(())
}

async fn stopped_by_hand_and_started(stand: &mut Stand) -> Verdict {
    stand.start().await?;
    stand.up(1).await?;
    let (tree, id) = (stand.tree()?, stand.id.as_str());
    tree.stop_child(id).await.map_err(|error| format!("it could not be stopped by hand: {error}"))?;
    if stand.node()?.status != Status::StoppedByHand {
        return fail(format!("after a stop by hand it is {:?}", stand.node()?.status));
    }
    if let Some(beat) = tree.heartbeats().snapshot().first() {
        return fail(format!("its loop {} is not forgotten", beat.loop_name));
    }
    tree.start_child(id).await.map_err(|error| format!("it could not be started again: {error}"))?;
    stand.up(2).await?;
    stops_cleanly(stand).await
}

async fn killed(stand: &mut Stand, times: u64) -> Verdict {
    stand.start().await?;
    for incarnation in 1..=times {
        stand.up(incarnation).await?;
        if !stand.probe.kill() {
            return fail("there is nothing to kill");
        }
    }
    comes_back(stand, times + 1, &Exit::Killed).await
}

async fn panic_at_first_start(stand: &mut Stand) -> Verdict {
    let phase = first_phase(stand);
    stand.panic_in(phase);
    match stand.try_start(CancellationToken::new()).await {
        Err(StartError::Child { cause: Exit::Panic(_), .. }) => Ok(()),
        // A task that is not asked whether it is ready has started by then.
        Ok(()) if stand.kind == Kind::Task => comes_back(stand, 2, &panic()).await,
        Ok(()) => fail("it was started although it panicked"),
        Err(other) => fail(format!("its start failed with {other}")),
    }
}

async fn panic_at_restart(stand: &mut Stand) -> Verdict {
    stand.start().await?;
    stand.up(1).await?;
    let phase = first_phase(stand);
    stand.panic_in(phase);
    if !stand.probe.kill() {
        return fail("there is nothing to kill");
    }
    comes_back(stand, 3, &panic()).await
}

async fn panic_in_post_start(stand: &mut Stand) -> Verdict {
    stand.panic_in("post_start");
    stand.start().await?;
    comes_back(stand, 2, &panic()).await
}

async fn panic_in_handle(stand: &mut Stand) -> Verdict {
    stand.panic_in("handle");
    stand.start().await?;
    if !until_a_message(stand, |stand| stand.probe.has_struck()).await {
        stand.call_off();
        return skip("no message came; give it one");
    }
    comes_back(stand, 2, &panic()).await
}

async fn panic_in_handle_supervisor_evt(stand: &mut Stand) -> Verdict {
    stand.start().await?;
    stand.up(1).await?;
    stand.panic_in("handle_supervisor_evt");
    let Some(actor) = stand.probe.actor() else { return fail("it has no actor") };
    let (other, ended) = door::spawn_actor(Passing, ()).await.map_err(|error| error.to_string())?;
    other.get_cell().link(actor);
    other.stop(None);
    // It ends, whatever becomes of the event.
    let _ = ended.await;
    comes_back(stand, 2, &panic()).await
}

async fn panic_in_post_stop(stand: &mut Stand) -> Verdict {
    stand.start().await?;
    stand.up(1).await?;
    stand.panic_in("post_stop");
    let restarted = stand.tree()?.restart(stand.id.as_str()).await;
    restarted.map_err(|error| format!("it could not be restarted: {error}"))?;
    stand.up(2).await?;
    stops_cleanly(stand).await
}

async fn panic_in_task(stand: &mut Stand) -> Verdict {
    stand.start().await?;
    stand.up(1).await?;
    stand.expect_panic("task", format!("injected panic: {} was asked to", stand.id));
    let injected = stand.tree()?.inject_panic(stand.id.as_str()).await;
    injected.map_err(|error| format!("it could not be made to panic: {error}"))?;
    comes_back(stand, 2, &panic()).await
}

async fn hangs_at_its_stop(stand: &mut Stand) -> Verdict {
    stand.change(|spec| spec.stop_within(Shutdown::Within(HANG_BUDGET)));
    if stand.kind == Kind::Task {
        stand.start().await?;
        stand.up(1).await?;
        let injected = stand.tree()?.inject_hang(stand.id.as_str()).await;
        injected.map_err(|error| format!("it could not be made to hang: {error}"))?;
    } else {
        stand.probe.hold_in("handle");
        stand.start().await?;
        if !until_a_message(stand, |stand| stand.probe.is_holding()).await {
            stand.call_off();
            return skip("no message came; give it one");
        }
    }
    is_killed_at_its_budget(stand).await
}

async fn hangs_in_post_stop(stand: &mut Stand) -> Verdict {
    stand.change(|spec| spec.stop_within(Shutdown::Within(HANG_BUDGET)));
    stand.start().await?;
    stand.up(1).await?;
    stand.probe.hold_in("post_stop");
    is_killed_at_its_budget(stand).await
}

async fn flooded(stand: &mut Stand) -> Verdict {
    let Some(post) = stand.post.take() else { return skip("it was given no message") };
    stand.probe.hold_in("handle");
    stand.start().await?;
    stand.up(1).await?;
    if post.send() != Posted::Taken {
        return fail("it does not take the first message");
    }
    stand.until("it has the first message in hand", || stand.probe.is_holding()).await?;
    let taken = (0..=FLOOD_MAX).take_while(|_| post.send() == Posted::Taken).count();
    if taken > FLOOD_MAX {
        return fail(format!("its mailbox took {FLOOD_MAX} messages and was never full"));
    }
    let others: Vec<Posted> =
        (0..4 * taken + 100).map(|_| post.send()).filter(|posted| *posted != Posted::Full).collect();
    if !others.is_empty() {
        return fail(format!("{} messages of the flood did not come back as full: {:?}", others.len(), others[0]));
    }
    if post.waiting() > taken + 1 {
        return fail(format!("{} messages wait in a mailbox that took {taken}", post.waiting()));
    }
    stand.probe.release();
    stand.until("it has handled the flood", || post.waiting() == 0).await?;
    stand.answers().await?;
    stand.up(1).await?;
    stops_cleanly(stand).await
}

/// The phase in which a start can panic.
fn first_phase(stand: &Stand) -> &'static str {
    if stand.kind == Kind::Actor { "pre_start" } else { "task" }
}

fn panic() -> Exit {
    Exit::Panic(String::new())
}

/// It failed in this way, is up again as this incarnation, serves, and stops.
async fn comes_back(stand: &mut Stand, incarnation: u64, after: &Exit) -> Verdict {
    stand.up(incarnation).await?;
    let cause = stand.node()?.history.last().map(|incident| incident.exit.cause());
    if cause != Some(after.cause()) {
        return fail(format!("it failed by {cause:?}, not by {}", after.cause()));
    }
    stand.answers().await?;
    stops_cleanly(stand).await
}

async fn stops_cleanly(stand: &Stand) -> Verdict {
    stopped(&stand.stop().await?.outcome)
}

fn stopped(outcome: &StopOutcome) -> Verdict {
    match outcome {
        StopOutcome::Stopped => Ok(()),
        other => fail(format!("its stop is reported as {other:?}")),
    }
}

async fn is_killed_at_its_budget(stand: &Stand) -> Verdict {
    let line = stand.stop().await?;
    if line.outcome != StopOutcome::Killed {
        return fail(format!("it hangs, and its stop is reported as {:?}", line.outcome));
    }
    match line.took {
        took if took < HANG_BUDGET => fail(format!("it was killed after {took:?}, before its budget")),
        took if took > HANG_BUDGET + SLACK => fail(format!("it was killed after {took:?}, long after its budget")),
        _ => Ok(()),
    }
}

/// Sends the message it was given, or waits for one of the child's own, until it has come about.
async fn until_a_message(stand: &Stand, has_come: impl Fn(&Stand) -> bool) -> bool {
    let limit = Instant::now() + OWN_MESSAGE_WITHIN;
    let mut is_sent = false;
    while !has_come(stand) && Instant::now() < limit {
        if let Some(post) = stand.post.as_ref().filter(|_| !is_sent) {
            is_sent = post.send() == Posted::Taken;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    has_come(stand)
}

fn fail(why: impl Into<String>) -> Verdict {
    Err(Trouble::Failed(why.into()))
}

fn skip(why: impl Into<String>) -> Verdict {
    Err(Trouble::Skipped(why.into()))
}

/// An actor whose end is an event for another.
struct Passing;

impl Actor for Passing {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}
