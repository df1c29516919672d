//! `kill -9` again and again, at random moments amid random work, and then the verdict: what was accepted has happened,
//! once, whatever died meanwhile.
//!
//! `KILL_SEED` repeats a run (what is asked, not the moments); `KILL_ROUNDS_SQLITE`, `KILL_ROUNDS_POSTGRES` and
//! `KILL_ROUNDS_SERVER` make it longer.

use std::env;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use tests::receiver::Reply;
use tests::{Books, Database, Home, Postgres, Trial, eventually};

/// Rounds with one store; more begin with another, so that what fails is small.
const ROUNDS_AT_ONCE: u64 = 20;

/// How long the processes of a round live together, in milliseconds.
const LIFE_MS: Range<u64> = 50..1_200;

/// How long the server is away.
const AWAY_MS: Range<u64> = 0..3_000;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn sqlite_keeps_what_was_accepted_through_random_kills() {
    for rounds in hunts(told("KILL_ROUNDS_SQLITE", 20)) {
        hunt(Books::File(Home::empty()), 1, rounds).await;
    }
}

#[tokio::test]
async fn two_replicas_on_postgres_keep_what_was_accepted_through_random_kills() {
    for rounds in hunts(told("KILL_ROUNDS_POSTGRES", 5)) {
        let Some(database) = Database::empty().await else { return };
        hunt(Books::Server(database), 2, rounds).await;
    }
}

/// The server dies, of either death, and recovers; the processes stay, and so do their actors.
#[tokio::test]
async fn two_replicas_keep_what_was_accepted_while_their_postgres_is_killed_again_and_again() {
    let seed = told("KILL_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let Some(postgres) = Postgres::start().await else { return };
    let trial = Trial::begin(Books::Server(postgres.database()), 2, seed).await;
    for round in 1..=told("KILL_ROUNDS_SERVER", 5) {
        tokio::time::sleep(Duration::from_millis(random.u64(LIFE_MS) + 500)).await;
        let before = trial.ledger.accepted_count();
        match random.bool() {
            true => postgres.quit().await,
            false => postgres.kill().await,
        }
        tokio::time::sleep(Duration::from_millis(random.u64(AWAY_MS))).await;
        postgres.restart().await;
        eventually("jobs are accepted again", SOON, || async {
            (trial.ledger.accepted_count() > before).then_some(())
        })
        .await;
        println!("round {round}: {} accepted", trial.ledger.accepted_count());
    }
    trial.end().await;
}

fn told<T: FromStr>(name: &str, otherwise: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// So many rounds, as the rounds of each hunt.
fn hunts(rounds: u64) -> impl Iterator<Item = u64> {
    (0..rounds.div_ceil(ROUNDS_AT_ONCE)).map(move |hunt| ROUNDS_AT_ONCE.min(rounds - hunt * ROUNDS_AT_ONCE))
}

async fn hunt(books: Books, replicas: usize, rounds: u64) {
    let seed = told("KILL_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut trial = Trial::begin(books, replicas, seed).await;
    for round in 1..=rounds {
        trial.receiver.script([Reply::Status(503), Reply::Late(Duration::from_millis(300), 200)]);
        tokio::time::sleep(Duration::from_millis(random.u64(LIFE_MS))).await;
        let victim = random.usize(0..replicas);
        trial.services[victim].process().kill9().await;
        if random.u32(0..8) == 0 {
            // And once more, while it starts.
            let starting = trial.setup().spawn();
            tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
            starting.kill9().await;
        }
        trial.services[victim] = trial.setup().start().await;
        trial.turn_to_all();
        println!("round {round}: {} accepted", trial.ledger.accepted_count());
    }
    trial.end().await;
}
