//! Wake-up calls between processes by `NOTIFY` and `LISTEN`, both on one connection of their own.
//!
//! `NOTIFY` takes a lock of the whole server when its transaction commits, so it stands in none that does other work, and
//! what comes within [`APART`] goes together. What is lost with the connection is found by the poll.

use std::io;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, sleep_until};

use super::PostgresStore;
use crate::store::error::{Inner, Trouble};
use crate::store::{Hear, Result, Wakeups};

telemetry::declare_metrics! {
    /// Queues told to the other processes that share the store.
    pub static TOLD: Counter = ("store.wakeup.told", "{queue}");
    /// Queues that other processes have told.
    pub static HEARD: Counter = ("store.wakeup.heard", "{queue}");
}

/// One for all queues: the payload is the queue.
const CHANNEL: &str = "perennial_jobs";
/// By which an operator knows the connection in `pg_stat_activity`.
const APPLICATION: &str = "perennial listener";
/// Between two calls of this process.
const APART: Duration = Duration::from_millis(50);
/// So often a connection that is silent has to show that there is still a server behind it.
const SIGN_EVERY: Duration = Duration::from_secs(15);

const NOTIFY: &str = "SELECT pg_notify($1, queue) FROM unnest($2::text[]) AS told (queue)";

pub(super) async fn exchange(store: &PostgresStore, told: &Wakeups, hear: Hear<'_>) -> Result<()> {
    let (mut listener, own) = store.within("listen", listen(store)).await?;
    // What was told before was told to nobody here.
    hear(Wakeups::ALL);
    let (mut may_tell, mut sign) = (Instant::now(), Instant::now() + SIGN_EVERY);
    loop {
        tokio::select! {
            heard = listener.try_recv() => match heard {
                // This process has poked its own claimer already.
                Ok(Some(call)) if call.process_id() == own => {}
                Ok(Some(call)) => {
                    HEARD.add(1, ());
                    hear(call.payload());
                }
                Ok(None) => return Err(lost().of("listen")),
                Err(error) => return Err(Trouble::Sql(error).of("listen")),
            },
            queues = next(told, may_tell) => {
                tell(store, &mut listener, told, &queues).await?;
                may_tell = Instant::now() + APART;
            }
            () = sleep_until(sign) => {
                store.within("notify", notify(&mut listener, &[])).await?;
                sign = Instant::now() + SIGN_EVERY;
            }
        }
    }
}

/// A connection that listens, and how its own calls are known.
async fn listen(store: &PostgresStore) -> Inner<(PgListener, u32)> {
    let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
    let pool = pool.connect_with(store.connect.clone().application_name(APPLICATION)).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    // Whoever waits for calls is told that some were lost, and decides when to try again.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut listener).await?;
    TOLD.born(());
    HEARD.born(());
    Ok((listener, own.cast_unsigned()))
}

/// Tells these queues; what could not be told waits for the next connection.
async fn tell(store: &PostgresStore, listener: &mut PgListener, told: &Wakeups, queues: &[String]) -> Result<()> {
    let answer = store.within("notify", notify(listener, queues)).await;
    if answer.is_err() {
        queues.iter().for_each(|queue| told.tell(queue));
    }
    answer
}

async fn notify(listener: &mut PgListener, queues: &[String]) -> Inner<()> {
    sqlx::query(NOTIFY).bind(CHANNEL).bind(queues).execute(listener).await?;
    TOLD.add(queues.len() as u64, ());
    Ok(())
}

/// What is to be told, but not before that time.
async fn next(told: &Wakeups, not_before: Instant) -> Vec<String> {
    sleep_until(not_before).await;
    told.next().await
}

fn lost() -> Trouble {
    Trouble::Sql(sqlx::Error::Io(io::ErrorKind::ConnectionAborted.into()))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::task::yield_now;

    use super::*;
    use crate::store::Store;
    use crate::store::postgres::tests::open_real;

    /// So often the other process hears of it here.
    const TIMES: u32 = 4;

    /// All schemas of the server share the channel: the other tests are heard too.
    async fn until_heard(queue: &str, heard: &mut UnboundedReceiver<String>) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            match heard.recv().await.unwrap() {
                call if call == queue => return before,
                other => before.push(other),
            }
        }
    }

    #[tokio::test]
    async fn others_hear_a_queue_once_for_many_calls_and_the_teller_does_not() {
        let Some(store) = open_real().await else { return };
        let (mine, enough) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
        let (one, two) = (Wakeups::new(), Wakeups::new());
        let ((at_one, mut heard_by_one), (at_two, mut heard_by_two)) = (unbounded_channel(), unbounded_channel());
        let hear_one = |queue: &str| at_one.send(queue.to_owned()).unwrap();
        let hear_two = |queue: &str| at_two.send(queue.to_owned()).unwrap();
        let telling = async {
            until_heard(Wakeups::ALL, &mut heard_by_one).await;
            until_heard(Wakeups::ALL, &mut heard_by_two).await;
            let (began, mut calls) = (Instant::now(), 0);
            for _ in 0..TIMES {
                let heard = until_heard(&mine, &mut heard_by_two);
                tokio::pin!(heard);
                while futures_util::poll!(&mut heard).is_pending() {
                    one.tell(&mine);
                    calls += 1;
                    yield_now().await;
                }
            }
            assert!(calls > TIMES, "{calls} calls were heard one by one");
            assert!(began.elapsed() >= APART * (TIMES - 1), "heard {TIMES} times within {:?}", began.elapsed());
            two.tell(&enough);
            let told = until_heard(&enough, &mut heard_by_one).await;
            assert!(!told.contains(&mine), "told to itself");
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                () = telling => Ok(()),
                broken = store.exchange(&one, &hear_one) => broken,
                broken = store.exchange(&two, &hear_two) => broken,
            }
        });
        ended.await.unwrap().unwrap();
    }
}
