//! Random requests from several sides at once, each of them written down in a [`Ledger`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::try_send;
use crate::ledger::{Fate, Ledger};
use crate::{Answer, Client, eventually};

/// How many speak at once.
const SPEAKERS: u64 = 4;

/// The longest pause of each between two requests.
const PAUSE_MAX_MS: u64 = 60;

/// How many different unique keys there are.
const UNIQUE_KEYS: u32 = 40;

/// Until there must be an answer to what is insisted on.
const ANSWERED: Duration = Duration::from_secs(120);

/// What each speaker knows.
struct Shared {
    ledger: Arc<Ledger>,
    channel: String,
    /// Who may be asked now; perhaps nobody is there.
    services: Mutex<Vec<Client>>,
    over: AtomicBool,
}

/// Running requests. They end when they are asked to.
pub struct Traffic {
    shared: Arc<Shared>,
    speakers: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Begins; what is asked follows from the seed, when it is asked does not. Notifications go to `channel`.
    pub fn begin(seed: u64, ledger: &Arc<Ledger>, channel: &str, services: Vec<Client>) -> Traffic {
        let (ledger, channel) = (ledger.clone(), channel.to_owned());
        let shared = Shared { ledger, channel, services: Mutex::new(services), over: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let speaker = |n| {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(SPEAKERS).wrapping_add(n));
            let shared = shared.clone();
            tokio::spawn(async move {
                while !shared.over.load(Ordering::Relaxed) {
                    shared.one(&mut random).await;
                    tokio::time::sleep(Duration::from_millis(random.u64(0..PAUSE_MAX_MS))).await;
                }
            })
        };
        Traffic { speakers: (0..SPEAKERS).map(speaker).collect(), shared }
    }

    /// Goes on with these.
    pub fn turn_to(&self, services: Vec<Client>) {
        *self.shared.services.lock().unwrap() = services;
    }

    /// Ends when every request has had its answer, or none.
    pub async fn end(self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for speaker in self.speakers {
            speaker.await.unwrap();
        }
    }
}

impl Shared {
    async fn one(&self, random: &mut fastrand::Rng) {
        match random.u32(0..100) {
            0..35 => self.notify(random).await,
            35..45 => self.notify_many(random).await,
            45..55 => self.notify_once(random).await,
            55..65 => {
                let body = json!({"kind": "sleep", "payload": {"ms": random.u64(0..300)}, "max_attempts": 100});
                self.simple(Fate::Done, body, random).await;
            }
            65..70 => {
                let attempts = random.u32(1..=3);
                let body = json!({"kind": "panic", "payload": {}, "max_attempts": attempts});
                self.simple(Fate::Dead, body, random).await;
            }
            70..75 => {
                let times = json!({"ms": 60_000});
                let body = json!({"kind": "sleep", "payload": times, "timeout_ms": 100, "max_attempts": 2});
                self.simple(Fate::Dead, body, random).await;
            }
            75..90 => self.cancel(random).await,
            _ => self.redrive(random).await,
        }
    }

    fn notification(&self, number: u64, random: &mut fastrand::Rng) -> Value {
        let payload = json!({"channel": self.channel, "data": {"number": number}});
        let mut body = json!({"kind": "notify", "payload": payload, "max_attempts": 100});
        if random.u32(0..4) == 0 {
            let later = Timestamp::now() + SignedDuration::from_millis(random.i64(0..2_000));
            body["run_at"] = json!(later.to_string());
        }
        body["priority"] = json!(random.i32(-5..5));
        body
    }

    async fn notify(&self, random: &mut fastrand::Rng) {
        let number = self.ledger.ask(Fate::Notified, None);
        let body = self.notification(number, random);
        if random.u32(0..4) > 0 {
            return self.accepted(number, self.post("/v1/jobs", &body, None, random).await);
        }
        self.ledger.insist(number);
        let key = format!("insisted-{number}");
        let seed = random.u64(..);
        let answer = eventually("an answer to what is insisted on", ANSWERED, || {
            let (body, key, mut random) = (&body, &key, fastrand::Rng::with_seed(seed));
            async move {
                let answer = self.post("/v1/jobs", body, Some(key), &mut random).await;
                let answer = answer.filter(|answer| answer.status == 201);
                if answer.is_none() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                answer
            }
        });
        self.accepted(number, Some(answer.await));
    }

    async fn notify_many(&self, random: &mut fastrand::Rng) {
        let numbers: Vec<u64> = (0..random.u32(1..=20)).map(|_| self.ledger.ask(Fate::Notified, None)).collect();
        let jobs: Vec<Value> = numbers.iter().map(|number| self.notification(*number, random)).collect();
        let Some(answer) = self.post("/v1/jobs/batch", &json!({ "jobs": jobs }), None, random).await else { return };
        if answer.status != 201 {
            return self.refused(&answer);
        }
        let ids = answer.json()["ids"].as_array().unwrap().clone();
        for (number, id) in numbers.iter().zip(ids) {
            self.ledger.accepted(*number, id.as_str().unwrap());
        }
    }

    /// One of a few things that happen once in the whole life of the store.
    async fn notify_once(&self, random: &mut fastrand::Rng) {
        let key = format!("once-{}", random.u32(0..UNIQUE_KEYS));
        let number = self.ledger.ask(Fate::Notified, Some(&key));
        let mut body = self.notification(number, random);
        body["unique"] = json!({"key": key, "states": "all"});
        match self.post("/v1/jobs", &body, None, random).await {
            Some(answer) if answer.status == 200 => {
                let first = answer.json();
                if first["duplicate"] != true || first["unique_key"] != key {
                    self.ledger.surprise(format!("the first with {key} is {first}"));
                }
            }
            answer => self.accepted(number, answer),
        }
    }

    async fn simple(&self, fate: Fate, body: Value, random: &mut fastrand::Rng) {
        let number = self.ledger.ask(fate, None);
        self.accepted(number, self.post("/v1/jobs", &body, None, random).await);
    }

    async fn cancel(&self, random: &mut fastrand::Rng) {
        let Some((number, id)) = self.ledger.pick(random, 10, &[Fate::Notified, Fate::Done]) else { return };
        self.ledger.ask_to_cancel(number);
        match self.post(&format!("/v1/jobs/{id}/cancel"), &json!({}), None, random).await {
            Some(answer) if answer.status == 200 => self.ledger.cancelled(number),
            // It had ended before.
            Some(answer) if answer.status == 409 => {}
            Some(answer) => self.refused(&answer),
            None => {}
        }
    }

    async fn redrive(&self, random: &mut fastrand::Rng) {
        let Some((number, id)) = self.ledger.pick(random, 50, &[Fate::Dead]) else { return };
        self.ledger.ask_to_redrive(number);
        match self.post(&format!("/v1/jobs/{id}/redrive"), &json!({}), None, random).await {
            Some(answer) if answer.status == 200 => self.ledger.redriven(number),
            // It is not dead yet.
            Some(answer) if answer.status == 409 => {}
            Some(answer) => self.refused(&answer),
            None => {}
        }
    }

    fn accepted(&self, number: u64, answer: Option<Answer>) {
        match answer {
            Some(answer) if answer.status == 201 => {
                self.ledger.accepted(number, answer.json()["id"].as_str().expect("a job has an id"));
            }
            Some(answer) => self.refused(&answer),
            None => {}
        }
    }

    /// A store that is away may be said to be so, and a request may have taken too long; nothing else.
    fn refused(&self, answer: &Answer) {
        if ![408, 503].contains(&answer.status) {
            self.ledger.surprise(format!("answered {} {}", answer.status, answer.body));
        }
    }

    /// The answer of one of the services, if there was one.
    async fn post(&self, path: &str, body: &Value, key: Option<&str>, random: &mut fastrand::Rng) -> Option<Answer> {
        let service = random.choice(&*self.services.lock().unwrap()).cloned()?;
        let request = service.request(Method::POST, path).json(body);
        let request = key.iter().fold(request, |request, key| request.header("idempotency-key", *key));
        try_send(request).await.ok()
    }
}
