//! What was asked of the service and what it answered, kept outside of it, and the verdict over what became of that:
//! the answers are matched with the rows of the store and with the calls that came to a receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::{Database, Home, Receiver, Setup, Store};

/// Where the rows are.
pub enum Books {
    /// In the file of this directory.
    File(Home),
    /// In this database.
    Server(Database),
}

impl Books {
    /// A service that keeps them there.
    pub fn setup(&self, setup: Setup) -> Setup {
        match self {
            Books::File(home) => setup.home(home),
            Books::Server(database) => setup.set("store.url", database.url()),
        }
    }

    /// What a query answers with, all of it text; NULL is empty.
    pub async fn texts(&self, query: &str) -> Vec<Vec<String>> {
        match self {
            Books::File(home) => Store::open(home).await.texts(query).await,
            Books::Server(database) => {
                let mut connection = PgConnection::connect(database.url()).await.unwrap();
                let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
                let text = |row: &PgRow, n| row.get::<Option<String>, _>(n).unwrap_or_default();
                rows.iter().map(|row| (0..row.len()).map(|n| text(row, n)).collect()).collect()
            }
        }
    }
}

/// What a job is made to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It hands one notification to the channel and is done.
    Notified,
    /// It is done, and nothing of it is seen outside.
    Done,
    /// It fails as often as it may, and is dead.
    Dead,
}

/// A wish whose answer may have been lost on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Never,
    Asked,
    Kept,
}

/// One job that was asked for.
#[derive(Debug, Clone)]
struct Asked {
    fate: Fate,
    /// It was sent again and again under one `Idempotency-Key`.
    insisted: bool,
    unique_key: Option<String>,
    /// Its id, once its acceptance was answered.
    id: Option<String>,
    cancel: Wish,
    redrives_asked: u64,
    redrives_kept: u64,
}

/// Everything that was asked, by the number that each job bears.
#[derive(Default)]
pub struct Ledger {
    asked: Mutex<BTreeMap<u64, Asked>>,
    /// Answers that should not be.
    surprises: Mutex<Vec<String>>,
}

impl Ledger {
    /// Notes, before it is sent, that a job is asked for, and gives it its number.
    pub fn ask(&self, fate: Fate, unique_key: Option<&str>) -> u64 {
        let mut asked = self.asked();
        let number = asked.len() as u64;
        let unique_key = unique_key.map(str::to_owned);
        let (cancel, redrives_asked, redrives_kept) = (Wish::Never, 0, 0);
        asked.insert(
            number,
            Asked { fate, insisted: false, unique_key, id: None, cancel, redrives_asked, redrives_kept },
        );
        number
    }

    /// Notes that this one is asked for until there is an answer, under one key: it is made once.
    pub fn insist(&self, number: u64) {
        self.with(number, |asked| asked.insisted = true);
    }

    /// Notes that it was answered 201 with this id.
    pub fn accepted(&self, number: u64, id: &str) {
        self.with(number, |asked| asked.id = Some(id.to_owned()));
    }

    /// Notes an answer that should not be.
    pub fn surprise(&self, what: String) {
        self.surprises.lock().unwrap().push(what);
    }

    /// One of the latest accepted jobs with one of these fates, if there is any: number and id.
    pub fn pick(&self, random: &mut fastrand::Rng, latest: usize, fates: &[Fate]) -> Option<(u64, String)> {
        let asked = self.asked();
        let fits = asked.iter().rev().filter(|(_, asked)| fates.contains(&asked.fate));
        let found = fits.filter_map(|(number, asked)| Some((*number, asked.id.clone()?))).take(latest);
        let found: Vec<_> = found.collect();
        random.choice(&found).cloned()
    }

    /// Notes, before it is sent, that its cancellation is asked for.
    pub fn ask_to_cancel(&self, number: u64) {
        self.with(number, |asked| asked.cancel = asked.cancel.max(Wish::Asked));
    }

    /// Notes that it was answered as cancelled.
    pub fn cancelled(&self, number: u64) {
        self.with(number, |asked| asked.cancel = Wish::Kept);
    }

    /// Notes, before it is sent, that it is asked to be redriven.
    pub fn ask_to_redrive(&self, number: u64) {
        self.with(number, |asked| asked.redrives_asked += 1);
    }

    /// Notes that it was answered as redriven.
    pub fn redriven(&self, number: u64) {
        self.with(number, |asked| asked.redrives_kept += 1);
    }

    /// How many jobs were accepted.
    pub fn accepted_count(&self) -> usize {
        self.asked().values().filter(|asked| asked.id.is_some()).count()
    }

    /// Everything that is not as it was answered, when all jobs have ended and all deliveries were sent. The jobs of a
    /// schedule bear no number; each must have one delivery all the same.
    pub async fn verdict(&self, books: &Books, receiver: &Receiver) -> Vec<String> {
        let mut faults = self.surprises.lock().unwrap().clone();
        let rows = Rows::read(books).await;
        rows.faults(&mut faults);
        let calls = calls_by_delivery(receiver);
        let asked = self.asked().clone();
        for (number, asked) in &asked {
            let name = format!("job {number} ({:?}, {})", asked.fate, asked.id.as_deref().unwrap_or("never answered"));
            rows.fault_of_one(*number, asked).into_iter().for_each(|fault| faults.push(format!("{name} {fault}")));
        }
        for (delivery, job) in &rows.deliveries {
            if calls.get(delivery).is_none_or(|calls| *calls == 0) {
                faults.push(format!("delivery {delivery} of job {job} never came, and is said to be sent"));
            }
        }
        for delivery in calls.keys().filter(|delivery| !rows.deliveries.contains_key(*delivery)) {
            faults.push(format!("delivery {delivery} came, and nothing is known of it"));
        }
        let keys: BTreeSet<&str> = asked.values().filter_map(|asked| asked.unique_key.as_deref()).collect();
        for key in keys {
            let holders = rows.jobs.values().filter(|job| job.unique_key == key).count();
            if holders > 1 {
                faults.push(format!("{holders} jobs have the unique key {key}"));
            }
        }
        faults
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.asked.lock().unwrap()
    }

    fn with(&self, number: u64, change: impl FnOnce(&mut Asked)) {
        change(self.asked().get_mut(&number).expect("it was asked for"));
    }
}

/// A finished job, as the store has it.
struct Finished {
    number: Option<u64>,
    kind: String,
    state: String,
    unique_key: String,
    redrives: u64,
    /// What it says it has handed over.
    delivery: Option<String>,
}

/// What the store has, by id.
struct Rows {
    unfinished: Vec<String>,
    jobs: BTreeMap<String, Finished>,
    twice: Vec<String>,
    /// The job of each delivery.
    deliveries: BTreeMap<String, String>,
    unsent: Vec<String>,
}

impl Rows {
    async fn read(books: &Books) -> Rows {
        let mut rows = Rows {
            unfinished: books.texts("SELECT CAST(id AS text) FROM jobs").await.concat(),
            jobs: BTreeMap::new(),
            twice: Vec::new(),
            deliveries: BTreeMap::new(),
            unsent: books.texts("SELECT CAST(id AS text) FROM deliveries WHERE state <> 'sent'").await.concat(),
        };
        let jobs = "SELECT CAST(id AS text), kind, state, payload, unique_key, CAST(redrives AS text), result \
                    FROM jobs_done";
        for row in books.texts(jobs).await {
            let [id, kind, state, payload, unique_key, redrives, result] = row.try_into().expect("seven columns");
            let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
            let number = json(&payload)["data"]["number"].as_u64();
            let delivery = json(&result)["delivery"].as_str().map(str::to_owned);
            let redrives = redrives.parse().unwrap();
            let job = Finished { number, kind, state, unique_key, redrives, delivery };
            if rows.jobs.insert(id.clone(), job).is_some() {
                rows.twice.push(id);
            }
        }
        for row in books.texts("SELECT CAST(id AS text), CAST(job_id AS text) FROM deliveries").await {
            let [id, job] = row.try_into().expect("two columns");
            rows.deliveries.insert(id, job);
        }
        rows
    }

    /// What holds whoever asked.
    fn faults(&self, faults: &mut Vec<String>) {
        faults.extend(self.unfinished.iter().map(|id| format!("job {id} has not ended")));
        faults.extend(self.twice.iter().map(|id| format!("job {id} has ended twice")));
        faults.extend(self.unsent.iter().map(|id| format!("delivery {id} was not sent")));
        let mut made: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (delivery, job) in &self.deliveries {
            made.entry(job).or_default().push(delivery);
        }
        for (id, job) in self.jobs.iter().filter(|(_, job)| job.kind == "notify") {
            let made = made.remove(id.as_str()).unwrap_or_default();
            let said: Vec<&str> = job.delivery.as_deref().into_iter().collect();
            if made != said || (job.state == "done") != (said.len() == 1) {
                faults.push(format!("job {id} is {} and has made the deliveries {made:?}, not {said:?}", job.state));
            }
        }
        faults.extend(made.keys().map(|job| format!("there is a delivery of job {job}, and no such job has ended")));
    }

    /// What became of one that was asked for, if it is not what it should be.
    fn fault_of_one(&self, number: u64, asked: &Asked) -> Option<String> {
        let made = self.jobs.values().filter(|job| job.number == Some(number)).count();
        if asked.fate == Fate::Notified && made > 1 {
            return Some(format!("was made {made} times"));
        }
        let Some(id) = &asked.id else {
            let is_lost = asked.insisted && asked.unique_key.is_none();
            return is_lost.then(|| "was asked for until there was an answer, and there is none".to_owned());
        };
        let Some(job) = self.jobs.get(id) else { return Some("was accepted and is lost".to_owned()) };
        let due = match asked.fate {
            Fate::Notified | Fate::Done => "done",
            Fate::Dead => "dead",
        };
        let is_right = match asked.cancel {
            Wish::Never => job.state == due,
            Wish::Asked => job.state == due || job.state == "cancelled",
            Wish::Kept => job.state == "cancelled",
        };
        if !is_right {
            return Some(format!("is {} and its cancellation was {:?}", job.state, asked.cancel));
        }
        let redrives = asked.redrives_kept..=asked.redrives_asked;
        (!redrives.contains(&job.redrives)).then(|| format!("was redriven {} times, not {redrives:?}", job.redrives))
    }
}

/// How often each delivery came, by its `webhook-id`.
fn calls_by_delivery(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for call in receiver.calls() {
        *calls.entry(call.id().trim_start_matches("msg_").to_owned()).or_default() += 1;
    }
    calls
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Client;
    use crate::client::send;

    /// A store of the shape that is looked at, with this in it.
    async fn books(jobs: &[&str], finished: &[&str], deliveries: &[&str]) -> Books {
        let home = Home::empty();
        std::fs::create_dir(home.path().join("data")).unwrap();
        std::fs::File::create(home.path().join("data/test.db")).unwrap();
        let mut store = Store::open(&home).await;
        store.execute("CREATE TABLE jobs (id)").await;
        store.execute("CREATE TABLE jobs_done (id, kind, state, payload, unique_key, redrives, result)").await;
        store.execute("CREATE TABLE deliveries (id, job_id, state)").await;
        for (table, rows) in [("jobs", jobs), ("jobs_done", finished), ("deliveries", deliveries)] {
            for row in rows {
                store.execute(&format!("INSERT INTO {table} VALUES ({row})")).await;
            }
        }
        Books::File(home)
    }

    /// A receiver that was called for these deliveries.
    async fn called(deliveries: &[&str]) -> Receiver {
        let receiver = Receiver::start().await;
        let client = Client::new(&receiver.url(""));
        for delivery in deliveries {
            let call = client.request(reqwest::Method::POST, "/hook").header("webhook-id", *delivery);
            send(call.json(&json!({}))).await.expect(200);
        }
        receiver
    }

    const DONE: &str = r#"'j', 'notify', 'done', '{"data":{"number":0}}', NULL, '0', '{"delivery":"d"}'"#;
    const CANCELLED: &str = r#"'j', 'notify', 'cancelled', '{"data":{"number":0}}', NULL, '0', NULL"#;

    /// One notification that was accepted as the job `j`.
    fn accepted() -> Ledger {
        let ledger = Ledger::default();
        let number = ledger.ask(Fate::Notified, None);
        ledger.accepted(number, "j");
        ledger
    }

    #[tokio::test]
    async fn what_has_happened_as_it_was_answered_has_no_fault() {
        let (books, receiver) = (books(&[], &[DONE], &["'d', 'j', 'sent'"]).await, called(&["d", "d"]).await);
        assert_eq!(accepted().verdict(&books, &receiver).await, [""; 0]);
        let cancelled = accepted();
        cancelled.ask_to_cancel(0);
        assert_eq!(cancelled.verdict(&books, &receiver).await, [""; 0], "the answer was lost: it may be done");
    }

    #[tokio::test]
    async fn what_is_lost_stuck_made_twice_or_never_came_is_a_fault() {
        for (jobs, finished, deliveries, calls, fault) in [
            (&[][..], &[][..], &[][..], &[][..], "was accepted and is lost"),
            (&["'k'"], &[DONE], &["'d', 'j', 'sent'"], &["d"], "job k has not ended"),
            (&[], &[DONE, DONE], &["'d', 'j', 'sent'"], &["d"], "has ended twice"),
            (
                &[],
                &[DONE],
                &["'d', 'j', 'sent'", "'e', 'j', 'sent'"],
                &["d", "e"],
                r#"has made the deliveries ["d", "e"]"#,
            ),
            (&[], &[DONE], &[], &[], "has made the deliveries []"),
            (&[], &[DONE], &["'d', 'j', 'dead'"], &["d"], "delivery d was not sent"),
            (&[], &[DONE], &["'d', 'j', 'sent'"], &[], "delivery d of job j never came"),
            (&[], &[DONE], &["'d', 'j', 'sent'"], &["d", "e"], "delivery e came, and nothing is known of it"),
            (&[], &[CANCELLED], &["'d', 'j', 'sent'"], &["d"], "is cancelled and has made"),
            (&[], &[CANCELLED], &[], &[], "is cancelled and its cancellation was Never"),
        ] {
            let (books, receiver) = (books(jobs, finished, deliveries).await, called(calls).await);
            let faults = accepted().verdict(&books, &receiver).await;
            assert!(faults.iter().any(|found| found.contains(fault)), "{fault}: {faults:?}");
        }
    }

    #[tokio::test]
    async fn a_wish_that_was_answered_and_not_kept_is_a_fault() {
        let (books, receiver) = (books(&[], &[DONE], &["'d', 'j', 'sent'"]).await, called(&["d"]).await);
        let (cancelled, redriven, unique) = (accepted(), accepted(), accepted());
        cancelled.ask_to_cancel(0);
        cancelled.cancelled(0);
        redriven.ask_to_redrive(0);
        redriven.redriven(0);
        let insisted = unique.ask(Fate::Notified, None);
        unique.insist(insisted);
        for (ledger, fault) in [
            (cancelled, "is done and its cancellation was Kept"),
            (redriven, "was redriven 0 times, not 1..=1"),
            (unique, "was asked for until there was an answer"),
        ] {
            let faults = ledger.verdict(&books, &receiver).await;
            assert!(faults.len() == 1 && faults[0].contains(fault), "{fault}: {faults:?}");
        }
    }
}
