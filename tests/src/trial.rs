//! The service under random work, while a test takes something away from it: processes that are impatient enough to be
//! watched, schedules, traffic, and at the end the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::Process;
use crate::{Books, Client, DEMO_KEY, Database, Ledger, Port, Receiver, Service, Setup, Traffic, eventually};

/// What is left when the work is over.
const ALL_ENDED: Duration = Duration::from_secs(120);

/// Who may be asked for, and must never be restarted because something else was away.
const ACTORS: [&str; 7] = [
    "store",
    "scheduler",
    "scheduler.claimer",
    "scheduler.settler",
    "scheduler.firer",
    "scheduler.sweeper",
    "channel_manager",
];

/// What a run has proved something about.
const WHAT_ENDED: &str = "SELECT kind, state, CAST(count(*) AS text), 'attempts', CAST(max(attempt) AS text), \
                          'lost runners', CAST(max(crashes) AS text), 'redrives', CAST(max(redrives) AS text) \
                          FROM jobs_done GROUP BY kind, state ORDER BY kind, state";

/// One run. The processes are the test's to take away.
pub struct Trial {
    /// Those that share the work.
    pub services: Vec<Service>,
    /// What they were asked, and what they answered.
    pub ledger: Arc<Ledger>,
    /// What they call.
    pub receiver: Receiver,
    books: Books,
    seed: u64,
    schedules: [String; 2],
    traffic: Traffic,
}

impl Trial {
    /// Begins with so many processes.
    pub async fn begin(books: Books, replicas: usize, seed: u64) -> Trial {
        let setups = (0..replicas).map(|_| impatient(&books)).collect();
        Trial::begin_with(books, setups, seed).await
    }

    /// Begins with two processes, of which the first finds its store at another address.
    pub async fn begin_by_way_of(database: Database, url: &str, seed: u64) -> Trial {
        let books = Books::Server(database);
        let setups = vec![impatient(&books).set("store.url", url), impatient(&books)];
        Trial::begin_with(books, setups, seed).await
    }

    async fn begin_with(books: Books, setups: Vec<Setup>, seed: u64) -> Trial {
        println!("seed {seed}");
        let receiver = Receiver::start().await;
        let mut services = Vec::new();
        for setup in setups {
            services.push(setup.start().await);
        }
        let (channel, _) = services[0].webhook(&receiver.url("/hook")).await;
        let schedules = [schedule(&services[0], &channel, 1_000).await, schedule(&services[0], &channel, 1_500).await];
        let ledger = Arc::new(Ledger::default());
        let traffic = Traffic::begin(seed, &ledger, &channel, clients(&services));
        Trial { services, ledger, receiver, books, seed, schedules, traffic }
    }

    /// One more process of the same kind, to be started.
    pub fn setup(&self) -> Setup {
        impatient(&self.books)
    }

    /// One more, which is asked from its first moment on, and nobody else: it need not live until it is ready.
    pub fn spawn_and_ask(&self, setup: Setup) -> Process {
        let port = Port::take();
        self.traffic.turn_to(vec![Client::new(&format!("http://{}", port.address())).with_key(DEMO_KEY)]);
        setup.on(port).spawn()
    }

    /// Where the rows are.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Asks the processes that are there now.
    pub fn turn_to_all(&self) {
        self.traffic.turn_to(clients(&self.services));
    }

    /// Asks all but this one.
    pub fn turn_away_from(&self, this: usize) {
        let mut clients = clients(&self.services);
        clients.remove(this);
        self.traffic.turn_to(clients);
    }

    /// Ends the work, waits until nothing is left of it, and fails if anything is not as it was answered.
    ///
    /// # Panics
    ///
    /// With the seed and the first faults.
    pub async fn end(self) {
        self.traffic.end().await;
        let fires = fires_of(&self.services[0], &self.schedules).await;
        let left = "SELECT state FROM jobs UNION ALL SELECT state FROM deliveries WHERE state <> 'sent'";
        eventually("all jobs and deliveries have ended", ALL_ENDED, || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.books.texts(left).await.is_empty().then_some(())
        })
        .await;
        for counted in self.books.texts(WHAT_ENDED).await {
            println!("{}", counted.join(" "));
        }
        let mut faults = self.ledger.verdict(&self.books, &self.receiver).await;
        faults.extend(faults_of_fires(&self.books, &fires).await);
        assert!(
            faults.is_empty(),
            "seed {}, {} faults: {:#?}",
            self.seed,
            faults.len(),
            &faults[..faults.len().min(20)]
        );
        for service in &self.services {
            for path in ACTORS {
                assert_eq!(service.node(path).await["incarnation"], 1, "{path} was restarted");
            }
        }
        assert!(self.ledger.accepted_count() > 20, "hardly anything was accepted");
    }
}

/// A lost process is noticed within a second; nothing is quarantined only because it was near, and no call to a store
/// that is away takes long.
fn impatient(books: &Books) -> Setup {
    // Who is asked when it is dead must not answer as another trial's.
    let setup = books.setup(Service::setup()).on(Port::take());
    let setup = setup.set("scheduler.crashes_max", 100).set("store.deadline_ms", 1_000);
    let setup = setup.set("scheduler.lease_ms", 1_000).set("scheduler.heartbeat_ms", 300);
    let setup = setup.set("scheduler.sweep_interval_ms", 500).set("scheduler.retry_base_ms", 100);
    let setup = setup.set("limits.request_ms", 2_000).set("idempotency.lease_ms", 2_100);
    let setup = setup.set("channel_manager.request_timeout_ms", 1_000).set("channel_manager.lease_ms", 6_000);
    let setup = setup.set("outbound.connect_timeout_ms", 500).set("channel_manager.breaker_failures_max", 1_000);
    setup.set("channel_manager.retry_delays_ms", vec!["300"; 20].join(","))
}

fn clients(services: &[Service]) -> Vec<Client> {
    services.iter().map(|service| service.api().clone()).collect()
}

/// A schedule that makes up for every fire that nobody was there to make.
async fn schedule(service: &Service, channel: &str, every_ms: u64) -> String {
    let payload = json!({"channel": channel, "data": {"every_ms": every_ms}});
    let body = json!({"kind": "notify", "payload": payload, "every_ms": every_ms, "max_attempts": 100,
        "misfire": "all", "misfire_max": 1_000, "overlap": "allow"});
    service.api().post("/v1/schedules", &body).await.expect(201).header("location").to_owned()
}

/// Pauses the schedules and returns how many fires each has counted.
async fn fires_of(service: &Service, schedules: &[String]) -> BTreeMap<String, u64> {
    let mut fires = BTreeMap::new();
    for path in schedules {
        let pause = format!("{path}/pause");
        eventually("the schedule is paused", ALL_ENDED, || async {
            (service.api().post(&pause, &Value::Null).await.status == 200).then_some(())
        })
        .await;
        let shown = service.api().get(path).await.expect(200).json();
        assert_eq!((&shown["missed"], &shown["overlapped"]), (&json!(0), &json!(0)), "{shown}");
        fires.insert(shown["id"].as_str().unwrap().to_owned(), shown["fires"].as_u64().unwrap());
    }
    fires
}

/// Each fire that a schedule has counted is one job, and none is missing between the first and the last.
async fn faults_of_fires(books: &Books, fires: &BTreeMap<String, u64>) -> Vec<String> {
    let query = "SELECT CAST(schedule_id AS text), CAST(fire_at_ms AS text), state, payload FROM jobs_done \
                 WHERE schedule_id IS NOT NULL ORDER BY fire_at_ms";
    let mut made: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut distance = BTreeMap::new();
    for row in books.texts(query).await {
        let [schedule, at, state, payload] = row.try_into().unwrap();
        if state != "done" {
            faults.push(format!("the fire of {schedule} at {at} is {state}"));
        }
        let payload: Value = serde_json::from_str(&payload).unwrap();
        distance.insert(schedule.clone(), payload["data"]["every_ms"].as_i64().unwrap());
        made.entry(schedule).or_default().push(at.parse().unwrap());
    }
    for (schedule, counted) in fires {
        let made = made.get(schedule).cloned().unwrap_or_default();
        if made.len() as u64 != *counted {
            faults.push(format!("{schedule} has fired {counted} times and made {} jobs", made.len()));
        }
        let gaps = made.windows(2).filter(|pair| pair[1] - pair[0] != distance[schedule]);
        faults.extend(gaps.map(|pair| format!("{schedule} fired at {} and then at {}", pair[0], pair[1])));
    }
    faults
}
