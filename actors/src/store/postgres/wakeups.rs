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
                    HEARD.add(1, &[]);
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
    TOLD.born(&[]);
    HEARD.born(&[]);
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
    TOLD.add(queues.len() as u64, &[]);
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
    use std::sync::Mutex;

    use super::*;
    use crate::store::Store;
    use crate::store::postgres::Run;
    use crate::store::postgres::tests::open_real;

    /// How many calls are told one after another here.
    const CALLS: u32 = 40;

    #[tokio::test]
    async fn others_hear_a_queue_once_for_many_calls_and_the_teller_does_not() {
        let Some(store) = open_real().await else { return };
        // All schemas of the server share the channel: the other tests are heard too.
        let mine = uuid::Uuid::new_v4().to_string();
        let (one, two) = (Wakeups::new(), Wakeups::new());
        let (heard_by_one, heard_by_two) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let hear = |list: &Mutex<Vec<String>>, queue: &str| list.lock().unwrap().push(queue.to_owned());
        let calls = |list: &Mutex<Vec<String>>| list.lock().unwrap().iter().filter(|queue| **queue == mine).count();
        let (hear_one, hear_two) = (|queue: &str| hear(&heard_by_one, queue), |queue: &str| hear(&heard_by_two, queue));
        let began = Instant::now();
        let telling = async {
            while [&heard_by_one, &heard_by_two].iter().any(|list| list.lock().unwrap().is_empty()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for _ in 0..CALLS {
                one.tell(&mine);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            two.tell("enough");
            while !heard_by_one.lock().unwrap().contains(&"enough".to_owned()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                () = telling => Ok(()),
                broken = store.exchange(&one, &hear_one) => broken,
                broken = store.exchange(&two, &hear_two) => broken,
            }
        });
        ended.await.unwrap().unwrap();
        assert_eq!(calls(&heard_by_one), 0, "told to itself");
        let most = usize::try_from(began.elapsed().as_millis() / APART.as_millis()).unwrap() + 1;
        let told = calls(&heard_by_two);
        assert!((1..=most.min(CALLS as usize - 1)).contains(&told), "{told} calls, {most} at most");
    }

    #[tokio::test]
    async fn what_could_not_be_told_waits_for_the_next_connection() {
        let Some(store) = open_real().await else { return };
        let (mut listener, own) = listen(&store).await.unwrap();
        let cut = sqlx::query("SELECT pg_terminate_backend($1, 20000)").bind(own.cast_signed());
        store.session().await.unwrap().execute(cut).await.unwrap();
        let told = Wakeups::new();
        let error = tell(&store, &mut listener, &told, &["default".to_owned()]).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(told.next().await, ["default"]);
    }
}
