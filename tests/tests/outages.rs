//! Random work while the store is away, and while a process is held: nothing is lost, nothing happens twice, and nobody is
//! restarted because of it.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::json;
use tests::{Books, Database, Home, Postgres, Proxy, Service, Store, Trial, eventually};

const SOON: Duration = Duration::from_secs(30);

/// The leases of a trial.
const LEASE: Duration = Duration::from_secs(1);

/// What a process may take to notice that its leases are over: a heartbeat that gets no answer, and a settlement before it.
const MARGIN: Duration = Duration::from_secs(3);

/// How often a process is held until that has cost it jobs three times: which of the two runs a job is left to chance.
const CYCLES_MAX: usize = 12;

/// How many jobs are made for two processes until each of them has some.
const SLOW_MAX: usize = 100;

/// Between two troubles.
const CALM: Duration = Duration::from_secs(2);

#[tokio::test]
async fn sqlite_locked_by_another_process_for_longer_than_the_deadline() {
    let home = Home::empty();
    let trial = Trial::begin(Books::File(home.clone()), 1, fastrand::u64(..)).await;
    for leases in [2, 5] {
        tokio::time::sleep(CALM).await;
        let lock = Store::open(&home).await.lock().await;
        let body = json!({"kind": "sleep", "payload": {"ms": 1}});
        assert_eq!(trial.services[0].api().post("/v1/jobs", &body).await.status, 503);
        tokio::time::sleep(LEASE * leases).await;
        lock.release().await;
    }
    tokio::time::sleep(CALM).await;
    trial.end().await;
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while() {
    let home = Home::empty();
    let Some(disk) = Disk::mounted_below(&home) else { return };
    let trial = Trial::begin(Books::File(home.clone()), 1, fastrand::u64(..)).await;
    for leases in [2, 5] {
        tokio::time::sleep(CALM).await;
        disk.fill();
        let body = json!({"kind": "publish", "payload": {"topic": "t", "data": "x".repeat(100_000)}});
        eventually("there is no room for a job", SOON, || async {
            (trial.services[0].api().post("/v1/jobs", &body).await.status == 503).then_some(())
        })
        .await;
        tokio::time::sleep(LEASE * leases).await;
        disk.clear();
    }
    tokio::time::sleep(CALM).await;
    trial.end().await;
}

#[tokio::test]
async fn postgres_black_holed_for_ten_leases() {
    let Some(postgres) = Postgres::start().await else { return };
    let trial = Trial::begin(Books::Server(postgres.database()), 2, fastrand::u64(..)).await;
    tokio::time::sleep(CALM).await;
    postgres.pause();
    tokio::time::sleep(LEASE * 10).await;
    postgres.resume();
    tokio::time::sleep(CALM).await;
    trial.end().await;
}

#[tokio::test]
async fn postgres_stopped_for_ten_leases() {
    let Some(postgres) = Postgres::start().await else { return };
    let trial = Trial::begin(Books::Server(postgres.database()), 2, fastrand::u64(..)).await;
    tokio::time::sleep(CALM).await;
    postgres.stop().await;
    tokio::time::sleep(LEASE * 10).await;
    postgres.restart().await;
    tokio::time::sleep(CALM).await;
    trial.end().await;
}

/// It cannot know what has become of its jobs: the other has them by then.
#[tokio::test]
async fn a_replica_that_is_cut_off_from_postgres_for_ten_leases_stops_its_jobs_and_comes_back() {
    let Some(postgres) = Postgres::start().await else { return };
    let (proxy, database) = (Proxy::start(postgres.authority()).await, postgres.database());
    let around = database.url().replace(&postgres.authority(), &proxy.address().to_string());
    let trial = Trial::begin_by_way_of(database, &around, fastrand::u64(..)).await;
    let (cut_off, other) = (&trial.services[0], &trial.services[1]);
    cut_off.admin().get("/readyz").await.expect(200);
    let running = async || cut_off.metrics().await.value("job_running", &[]).unwrap();
    let owners =
        "SELECT DISTINCT CAST(owner AS text) FROM jobs WHERE state = 'running' AND kind = 'sleep' AND priority = -100";
    let mut slow = Vec::new();
    // Chance says who claims a job: there are more of them until each of the two has some.
    while slow.len() < 10 || trial.books().texts(owners).await.len() < 2 {
        assert!(slow.len() < SLOW_MAX, "the other has all jobs");
        slow.push(asleep(cut_off, LEASE * 15).await);
    }

    trial.turn_away_from(0);
    let accepted = trial.ledger.accepted_count();
    proxy.swallow();
    let cut = Instant::now();
    eventually("what it ran is cancelled", LEASE + MARGIN, || async { (running().await == 0.0).then_some(()) }).await;
    while cut.elapsed() < LEASE * 10 {
        assert_eq!(running().await, 0.0, "it runs what it cannot have claimed");
        tokio::time::sleep(LEASE / 10).await;
    }
    let unready = cut_off.admin().get("/readyz").await;
    assert!(unready.status == 503 && unready.body.contains("store"), "{} {}", unready.status, unready.body);
    other.admin().get("/readyz").await.expect(200);
    assert!(trial.ledger.accepted_count() > accepted, "the other has not gone on");

    proxy.open();
    eventually("it is ready again", SOON, || async {
        (cut_off.admin().get("/readyz").await.status == 200).then_some(())
    })
    .await;
    trial.turn_to_all();
    let ended = eventually("its jobs have ended", SOON * 2, || async {
        let ended = ended(&trial, &slow).await;
        (ended.len() == slow.len()).then_some(ended)
    })
    .await;
    assert!(ended.iter().all(|job| job[2] == "done"), "{ended:?}");
    assert!(ended.iter().any(|job| job[1] != "1"), "nothing was taken from it: {ended:?}");
    eventually("it runs jobs again", SOON, || async { (running().await > 0.0).then_some(()) }).await;
    trial.end().await;
}

/// A held process knows nothing of the time that passes: what it had begun it ends when it is let go, and tells.
#[tokio::test]
async fn a_process_that_is_held_for_longer_than_its_lease_changes_nothing_afterwards() {
    let Some(database) = Database::empty().await else { return };
    let trial = Trial::begin(Books::Server(database), 2, fastrand::u64(..)).await;
    let mut taken = 0;
    for cycle in 0..CYCLES_MAX {
        let held = cycle % 2;
        let process = trial.services[held].process();
        let mut slow = Vec::new();
        for _ in 0..10 {
            slow.push(slow_and_urgent(&trial.services[held]).await);
        }
        tokio::time::sleep(LEASE / 2).await;
        trial.turn_away_from(held);
        process.signal(Signal::SIGSTOP);
        // Asked of the database: what the held process has locked may cost the other some calls, for one deadline.
        let settled = eventually("the other has ended its jobs", SOON, || async {
            let settled = ended(&trial, &slow).await;
            (settled.len() == slow.len()).then_some(settled)
        })
        .await;
        process.signal(Signal::SIGCONT);
        tokio::time::sleep(LEASE * 2).await;
        assert_eq!(ended(&trial, &slow).await, settled);
        trial.turn_to_all();
        taken += usize::from(settled.iter().any(|job| job[1] != "1"));
        if taken == 3 {
            return trial.end().await;
        }
    }
    panic!("jobs were taken from the held process {taken} times only");
}

/// Nobody else is there who could take its jobs, and it does not take them from itself when it finds its leases over: only
/// if it was caught between keeping them and looking for lost ones.
#[tokio::test]
async fn a_process_that_is_held_alone_for_longer_than_its_lease_keeps_its_jobs() {
    let trial = Trial::begin(Books::File(Home::empty()), 1, fastrand::u64(..)).await;
    let service = &trial.services[0];
    let mut kept = 0;
    for leases in [2, 4, 8] {
        tokio::time::sleep(CALM).await;
        let mut slow = Vec::new();
        for _ in 0..10 {
            slow.push(slow_and_urgent(service).await);
        }
        tokio::time::sleep(LEASE / 2).await;
        service.process().signal(Signal::SIGSTOP);
        tokio::time::sleep(LEASE * leases).await;
        service.process().signal(Signal::SIGCONT);
        let ended = eventually("its jobs have ended", SOON, || async {
            let ended = ended(&trial, &slow).await;
            (ended.len() == slow.len()).then_some(ended)
        })
        .await;
        assert!(ended.iter().all(|job| job[2] == "done"), "{ended:?}");
        kept += usize::from(ended.iter().all(|job| job[1] == "1"));
    }
    assert!(kept >= 2, "it took its own jobs from itself in {} of 3 times", 3 - kept);
    trial.end().await;
}

/// A job that still runs when its process is held, however many others wait.
async fn slow_and_urgent(service: &Service) -> String {
    asleep(service, Duration::from_secs(1)).await
}

/// A job that sleeps for so long, and comes before all others.
async fn asleep(service: &Service, time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap();
    let body = json!({"kind": "sleep", "payload": {"ms": ms}, "priority": -100});
    service.api().post("/v1/jobs", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// How these jobs have ended: all that a late write could change.
async fn ended(trial: &Trial, ids: &[String]) -> Vec<Vec<String>> {
    let query = format!(
        "SELECT CAST(id AS text), CAST(attempt AS text), state, CAST(finished_at_ms AS text), \
         CAST(claimed_at_ms AS text), result, last_error FROM jobs_done WHERE CAST(id AS text) IN ('{}') ORDER BY id",
        ids.join("','")
    );
    trial.books().texts(&query).await
}

/// A small disk for a service's data.
struct Disk(Home);

impl Disk {
    /// One of 64 MiB, more than the traffic writes; none, said aloud, if this user may not mount any.
    fn mounted_below(home: &Home) -> Option<Disk> {
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m", "tests"]).arg(&data);
        if !Uid::effective().is_root() || !mount.status().is_ok_and(|status| status.success()) {
            println!("skipped: this user may not mount a small disk");
            return None;
        }
        Some(Disk(home.clone()))
    }

    /// Leaves no room.
    fn fill(&self) {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        for size in [65_536, 4_096] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Makes room again.
    fn clear(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.0.path().join("data/ballast")
    }
}

impl Drop for Disk {
    /// Also while the service still has files open there: it is on its way out.
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path().join("data")).status();
    }
}
