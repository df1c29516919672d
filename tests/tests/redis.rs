//! Two replicas and the Redis between them: killed, held, cut off, absent, locked, and talked into.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::wait::never;
use tests::{Client, Proxy, Redis, Service, Setup, Socket, eventually};
use tokio::task::JoinHandle;

/// The promise: back within this, once Redis is.
const BACK: Duration = Duration::from_secs(15);

/// For everything that is not promised a time.
const SOON: Duration = Duration::from_secs(60);

/// What publishing may take, and then some: a missed event may be so much older than its job's end.
const PUBLISHING: i64 = 3_000;

fn replica(bus: &str) -> Setup {
    // Failed jobs come back soon, so that the test does not wait for their backoff.
    Service::setup().set("bus.url", bus).set("scheduler.retry_base_ms", 200).set("scheduler.retry_cap_ms", 1000)
}

/// What a socket saw, in order.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Event { n: i64, at: i64 },
    Gap,
    Closed(u16),
}

/// A socket that is read all the time.
struct Ear {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Ear {
    async fn open(service: &Service) -> Ear {
        let mut socket = Socket::open(service.api(), &["t"]).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let frame = socket.frame().await;
                let (next, is_last) = match &frame {
                    Ok(frame) if frame["type"] == "event" => {
                        let at: jiff::Timestamp = frame["at"].as_str().unwrap().parse().unwrap();
                        (Seen::Event { n: frame["data"].as_i64().unwrap(), at: at.as_millisecond() }, false)
                    }
                    Ok(frame) if frame["type"] == "gap" => (Seen::Gap, false),
                    Ok(frame) => panic!("{frame}"),
                    Err(closed) => (Seen::Closed(closed.code), true),
                };
                kept.lock().unwrap().push(next);
                if is_last {
                    return;
                }
            }
        });
        Ear { seen, task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn gaps(&self) -> usize {
        self.seen().iter().filter(|seen| **seen == Seen::Gap).count()
    }

    fn numbers(&self) -> BTreeSet<i64> {
        self.seen().iter().filter_map(|seen| if let Seen::Event { n, .. } = seen { Some(*n) } else { None }).collect()
    }

    /// Waits for an event that was published after `at`.
    async fn hears_after(&self, at: i64, within: Duration) {
        eventually("an event reaches the socket", within, || async {
            self.seen()
                .iter()
                .any(|seen| matches!(seen, Seen::Event { at: published, .. } if *published > at))
                .then_some(())
        })
        .await;
    }

    /// Whether a gap stands where an event is missing whose job ended at `finished`.
    fn has_gap_around(&self, finished: i64) -> bool {
        let seen = self.seen();
        let published =
            |wanted: &dyn Fn(i64) -> bool, seen: &Seen| matches!(seen, Seen::Event { at, .. } if wanted(*at));
        let from = seen.iter().rposition(|seen| published(&|at| at < finished - PUBLISHING, seen)).unwrap_or(0);
        let to = seen.iter().position(|seen| published(&|at| at > finished, seen)).unwrap_or(seen.len());
        seen[from.min(to)..to].contains(&Seen::Gap)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Posts `publish` jobs with the data 0, 1, 2 ... at a steady pace until it is stopped.
struct Traffic {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<String>>,
}

impl Traffic {
    fn start(api: &Client) -> Traffic {
        let (stop, api) = (Arc::new(AtomicBool::new(false)), api.clone());
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut jobs = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                jobs.push(publish(&api, json!(jobs.len())).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            jobs
        });
        Traffic { stop, task }
    }

    /// The ids of the jobs, by number.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn publish(api: &Client, data: Value) -> String {
    // More attempts than an outage can use up: here the bus is looked at, and not the dead letters.
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": data}, "max_attempts": 100});
    api.post("/v1/jobs", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The incarnation of every node of the tree, by path.
async fn incarnations(service: &Service) -> BTreeMap<String, u64> {
    fn walk(node: &Value, all: &mut BTreeMap<String, u64>) {
        all.extend(node["incarnation"].as_u64().map(|n| (node["path"].to_string(), n)));
        node["children"].as_array().into_iter().flatten().for_each(|child| walk(child, all));
    }
    let mut all = BTreeMap::new();
    walk(&service.admin().get("/admin/tree").await.expect(200).json(), &mut all);
    all
}

/// Two replicas with a socket each, and what must be so however Redis fared.
struct Replicas {
    services: [Service; 2],
    ears: [Ear; 2],
    incarnations: [BTreeMap<String, u64>; 2],
}

impl Replicas {
    async fn start(urls: [&str; 2]) -> Replicas {
        let services: [Service; 2] = tokio::join!(replica(urls[0]).start(), replica(urls[1]).start()).into();
        let ears = [Ear::open(&services[0]).await, Ear::open(&services[1]).await];
        let incarnations = [incarnations(&services[0]).await, incarnations(&services[1]).await];
        Replicas { services, ears, incarnations }
    }

    /// Publishes at the first replica all through an outage and until both hear again; then looks at everything.
    async fn ride_out(&self, outage: impl AsyncFnOnce()) {
        let traffic = Traffic::start(self.services[0].api());
        for ear in &self.ears {
            ear.hears_after(0, SOON).await;
        }
        outage().await;
        let over = now();
        for ear in &self.ears {
            ear.hears_after(over, BACK).await;
        }
        let jobs = traffic.stop().await;
        self.everything_came_or_is_a_gap(&jobs).await;
        self.nobody_was_restarted_or_sent_away().await;
    }

    async fn everything_came_or_is_a_gap(&self, jobs: &[String]) {
        let mut finished = Vec::new();
        for id in jobs {
            let job = self.services[0].job_in(id, "done").await;
            finished.push(job["finished_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond());
        }
        // The last one that came is the last of all: nothing is under way any more.
        let last = publish(self.services[0].api(), json!(jobs.len())).await;
        self.services[0].job_in(&last, "done").await;
        for ear in &self.ears {
            eventually("the last event", SOON, || async { ear.numbers().contains(&(jobs.len() as i64)).then_some(()) })
                .await;
            let numbers = ear.numbers();
            let missing: Vec<i64> = (0..jobs.len() as i64).filter(|n| !numbers.contains(n)).collect();
            let unexplained: Vec<_> = missing.iter().filter(|n| !ear.has_gap_around(finished[**n as usize])).collect();
            println!("{} of {} are missing, {} gaps", missing.len(), jobs.len(), ear.gaps());
            assert!(unexplained.is_empty(), "{unexplained:?} are missing without a gap in {:?}", ear.seen());
        }
    }

    async fn nobody_was_restarted_or_sent_away(&self) {
        for ((service, ear), before) in self.services.iter().zip(&self.ears).zip(&self.incarnations) {
            assert!(!ear.seen().iter().any(|seen| matches!(seen, Seen::Closed(_))), "{:?}", ear.seen());
            assert_eq!(incarnations(service).await, *before);
            let metrics = service.metrics().await;
            assert_eq!(metrics.value("panic_recovered_total", &[]), Some(0.0));
            assert_eq!(metrics.value("supervisor_restarts_total", &[]).unwrap_or(0.0), 0.0);
        }
    }
}

#[tokio::test]
async fn an_event_published_at_one_replica_reaches_the_sockets_of_both() {
    let Some(redis) = Redis::start().await else { return };
    let replicas = Replicas::start([&redis.url(), &redis.url()]).await;
    publish(replicas.services[0].api(), json!(1)).await;
    publish(replicas.services[1].api(), json!(2)).await;
    for ear in &replicas.ears {
        eventually("both events", SOON, || async { (ear.numbers() == [1, 2].into()).then_some(()) }).await;
        assert_eq!(ear.gaps(), 0);
    }
    let banner = replicas.services[0].process().stdout().join("\n");
    assert!(banner.contains(&format!("bus  {}", redis.url())), "{banner}");
    let ready = replicas.services[0].admin().get("/readyz").await;
    assert_eq!(ready.json()["status"], "ready", "{}", ready.body);
}

#[tokio::test]
async fn a_redis_that_is_killed_and_started_again_costs_no_event_that_is_not_marked() {
    let Some(redis) = Redis::start().await else { return };
    let replicas = Replicas::start([&redis.url(), &redis.url()]).await;
    replicas
        .ride_out(async || {
            redis.kill().await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            redis.restart().await;
        })
        .await;
    assert!(replicas.ears.iter().all(|ear| ear.gaps() >= 1), "nobody knows what another replica published meanwhile");
}

#[tokio::test]
async fn a_redis_that_is_held_for_six_seconds_costs_no_event_that_is_not_marked() {
    let Some(redis) = Redis::start().await else { return };
    let replicas = Replicas::start([&redis.url(), &redis.url()]).await;
    replicas
        .ride_out(async || {
            redis.pause();
            tokio::time::sleep(Duration::from_secs(6)).await;
            redis.resume();
        })
        .await;
    assert!(replicas.ears.iter().all(|ear| ear.gaps() >= 1));
}

#[tokio::test]
async fn a_replica_that_is_cut_off_in_silence_finds_out_and_only_its_sockets_are_told() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = Proxy::start(redis.authority()).await;
    let replicas = Replicas::start([&redis.url(), &format!("redis://{}", proxy.address())]).await;
    replicas
        .ride_out(async || {
            proxy.swallow();
            let lost = [("reason", "silent")];
            eventually("the silence is noticed", BACK, || async {
                let metrics = replicas.services[1].metrics().await;
                (metrics.value("bus_redis_lost_total", &lost) == Some(1.0)).then_some(())
            })
            .await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            proxy.open();
        })
        .await;
    let [near, cut] = &replicas.ears;
    assert_eq!((near.gaps(), cut.gaps()), (0, 1));
    assert!(near.numbers().len() > cut.numbers().len(), "the cut lasted longer than it could have hidden");
}

#[tokio::test]
async fn a_redis_that_is_absent_at_the_start_holds_up_nobody_and_is_taken_when_it_comes() {
    let Some(redis) = Redis::absent() else { return };
    let service = replica(&redis.url()).start().await;
    let ear = Ear::open(&service).await;
    let job = publish(service.api(), json!(1)).await;
    let ready = eventually("the sweep has seen it", SOON, || async {
        let ready = service.admin().get("/readyz").await.expect(200);
        ready.body.contains("bus is unhealthy").then_some(ready)
    });
    assert_eq!(ready.await.json()["status"], "degraded");
    redis.restart().await;
    service.job_in(&job, "done").await;
    eventually("the event", SOON, || async { (!ear.numbers().is_empty()).then_some(()) }).await;
    assert!(matches!(ear.seen()[..], [Seen::Gap, Seen::Event { n: 1, .. }]), "{:?}", ear.seen());
    eventually("all is well", SOON, || async {
        (service.admin().get("/readyz").await.json()["status"] == "ready").then_some(())
    })
    .await;
    assert_eq!(service.node("bus").await["restarts"], 0);
}

#[tokio::test]
async fn a_wrong_password_is_told_and_no_password_ever_is() {
    let Some(redis) = Redis::with_password("s3cret-right").await else { return };
    let wrong = redis.url().replace("s3cret-right", "s3cret-wrong");
    let service = replica(&wrong).start().await;
    let log = eventually("the log says why", SOON, || async {
        let log = service.process().stderr().join("\n");
        log.contains("WRONGPASS").then_some(log)
    });
    assert!(!log.await.contains("s3cret"));
    let job = publish(service.api(), json!(1)).await;
    let failed = eventually("the job says why", SOON, || async {
        let job = service.job(&job).await.to_string();
        job.contains("WRONGPASS").then_some(job)
    });
    assert!(!failed.await.contains("s3cret"));
    assert!(!service.process().stdout().join("\n").contains("s3cret"));
    assert!(!service.metrics().await.text().contains("s3cret"));
    let config = replica(&wrong).arg("config").run().await;
    assert!(config.code == 0 && !config.stdout.join("\n").contains("s3cret"), "{:?}", config.stdout);
    let right = replica(&redis.url()).start().await;
    let ear = Ear::open(&right).await;
    publish(right.api(), json!(2)).await;
    eventually("the event", SOON, || async { ear.numbers().contains(&2).then_some(()) }).await;
}

#[tokio::test]
async fn redis_is_spoken_to_by_tls_and_only_if_its_certificate_is_trusted() {
    let Some(redis) = Redis::with_tls().await else { return };
    let stranger = replica(&redis.url()).start().await;
    let certificate = redis.certificate().unwrap().display();
    let trusting = replica(&redis.url()).env("SSL_CERT_FILE", certificate).start().await;
    let ear = Ear::open(&trusting).await;
    publish(trusting.api(), json!(1)).await;
    eventually("the event", SOON, || async { ear.numbers().contains(&1).then_some(()) }).await;
    let log = stranger.process().stderr().join("\n");
    assert!(log.contains("starts without its backend") && log.contains("ertificate"), "{log}");
}

#[tokio::test]
async fn whatever_a_stranger_says_on_the_channel_is_counted_and_hurts_nobody() {
    let Some(redis) = Redis::start().await else { return };
    let service = replica(&redis.url()).set("bus.prefix", "mine").start().await;
    let ear = Ear::open(&service).await;
    let deep = "[".repeat(100_000);
    let from = "00000000-0000-0000-0000-000000000007";
    let newer = json!({"v": 2, "from": from, "epoch": 1, "n": 1, "kind": "event", "body": {"new": true}}).to_string();
    let poison =
        json!({"v": 1, "from": from, "epoch": 1, "n": 2, "kind": "event", "body": {"tenant": "../x"}}).to_string();
    let garbage = [b"" as &[u8], b"\xff\x00\xfe", b"null", b"{\"v\":1}", &[b'x'; 1 << 20], deep.as_bytes()];
    for said in garbage.into_iter().chain([newer.as_bytes(), poison.as_bytes()]) {
        redis.publish("mine:events", said).await;
    }
    redis.publish("perennial:events", b"of others").await;
    publish(service.api(), json!(1)).await;
    eventually("the event", SOON, || async { ear.numbers().contains(&1).then_some(()) }).await;
    assert_eq!(ear.gaps(), 2, "an event that cannot be read is missing, and garbage is not: {:?}", ear.seen());
    let metrics = service.metrics().await;
    let ignored = |reason| metrics.value("bus_redis_ignored_total", &[("reason", reason)]);
    assert_eq!([ignored("garbage"), ignored("too_large"), ignored("unreadable")], [Some(5.0), Some(1.0), Some(2.0)]);
    assert_eq!(metrics.value("panic_recovered_total", &[]), Some(0.0));
    never("a garbage flood ends the connection", Duration::from_millis(500), || async {
        (service.metrics().await.value("bus_redis_connected", &[]) != Some(1.0)).then(|| "not connected".to_owned())
    })
    .await;
}
