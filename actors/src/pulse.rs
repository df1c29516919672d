//! Beats for an actor that end with its incarnation, as ractor's own timers do not.

use std::time::Duration;

use ractor::{ActorRef, Message, RpcReplyPort, rpc::CallResult};
use supervision::ChildContext;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Sends `message` to `actor` now and then every `period`, each time waiting for the answer. An actor that is busy
/// finds one message when it is done, not a pile. Ends with the incarnation.
///
/// ractor's own `send_interval` outlives the actor by a period and bursts after a busy spell.
pub(crate) fn pulse<M: Message>(
    context: &ChildContext,
    name: &'static str,
    actor: ActorRef<M>,
    period: Duration,
    message: impl Fn(RpcReplyPort<()>) -> M + Send + Sync + 'static,
) {
    let tasks = context.tasks();
    let token = tasks.token();
    tasks.spawn(name, async move {
        let beats = async {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if !matches!(actor.call(&message, None).await, Ok(CallResult::Success(()))) {
                    return;
                }
            }
        };
        token.run_until_cancelled(beats).await;
    });
}

/// Sends `message` to `actor` once, after `wait`, unless the incarnation has ended by then.
///
/// The timer of ractor's own `send_after` lives on without its actor.
pub(crate) fn after<M: Message>(context: &ChildContext, actor: ActorRef<M>, wait: Duration, message: fn() -> M) {
    let tasks = context.tasks();
    let token = tasks.token();
    tasks.spawn("after", async move {
        if token.run_until_cancelled(sleep(wait)).await.is_some() {
            // Nobody to wake if the actor is gone.
            let _ = actor.cast(message());
        }
    });
}
