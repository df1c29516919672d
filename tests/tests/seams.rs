//! A process that dies exactly between two steps of a job, or of a fire: each seam several times, amid random work.

use std::time::Duration;

use tests::{Books, Database, Home, Trial};

/// Where it dies; `actors/src/seam.rs` tells how.
const SEAMS: [&str; 10] = [
    "after_enqueue",
    "inside_claim",
    "after_claim",
    "after_handler",
    "before_settle",
    "inside_settle",
    "after_settle",
    "inside_cancel",
    "inside_sweep",
    "inside_fire",
];

/// Schedules fire every second, and jobs are asked for and cancelled more often.
const SOON: Duration = Duration::from_secs(30);

/// As a shell tells SIGABRT.
const ABORTED: i32 = 134;

#[tokio::test]
async fn a_death_at_any_seam_with_sqlite_loses_nothing_and_does_nothing_twice() {
    die_at_each_seam(Books::File(Home::empty())).await;
}

#[tokio::test]
async fn a_death_at_any_seam_with_postgres_loses_nothing_and_does_nothing_twice() {
    let Some(database) = Database::empty().await else { return };
    die_at_each_seam(Books::Server(database)).await;
}

async fn die_at_each_seam(books: Books) {
    let mut trial = Trial::begin(books, 1, fastrand::u64(..)).await;
    for seam in SEAMS {
        for times in [1, 2, 5] {
            trial.services[0].process().kill9().await;
            let dying = trial.spawn_and_ask(trial.setup().env("KILL_AT", format!("{seam}:{times}")));
            assert_eq!(dying.wait(SOON).await.code, ABORTED, "{seam}");
            trial.services[0] = trial.setup().start().await;
            trial.turn_to_all();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    trial.end().await;
}
