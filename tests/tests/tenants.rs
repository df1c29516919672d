//! The life of a tenant, by the command line and over `/admin/tenants`, with the service running; and what each tenant may
//! take.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::process::Ended;
use tests::wait::never;
use tests::{Answer, Client, Home, Service, Setup, Socket, Store, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What the key cache allows, and room for a machine that is busy with other tests.
const CACHE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(30);

/// A job that is not there: 404 means that the key was right.
const JOB: &str = "/v1/jobs/018f0000-0000-7000-8000-000000000000";

/// `app tenant ...` where that service lives.
async fn tenant(home: &Home, arguments: &[&str]) -> Ended {
    let setup = Setup::bare().home(home).arg("tenant");
    arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).run().await
}

/// The key in `tenant acme, key pk_...`.
fn key_of(ended: &Ended) -> String {
    assert_eq!(ended.code, 0, "{}", ended.log());
    let key = ended.stdout[0].strip_prefix("tenant acme, key ").unwrap_or_else(|| panic!("{:?}", ended.stdout));
    assert!(key.starts_with("pk_") && key.len() == 67, "{key}");
    key.to_owned()
}

async fn answers(client: &Client, status: u16, within: Duration) -> Answer {
    eventually(&format!("an answer {status}"), within, || async {
        let answer = client.get(JOB).await;
        (answer.status == status).then_some(answer)
    })
    .await
}

/// Makes the tenant over the admin listener and returns a client that speaks for it.
async fn made(service: &Service, id: &str) -> Client {
    let made = service.admin().post("/admin/tenants", &json!({"id": id})).await.expect(201).json();
    service.api().with_key(made["key"].as_str().unwrap())
}

async fn set_quotas(service: &Service, id: &str, quotas: Value) {
    let put = service.admin().request(Method::PUT, &format!("/admin/tenants/{id}/quotas"));
    send(put.json(&quotas)).await.expect(200);
}

#[tokio::test]
async fn what_the_command_line_does_to_a_tenant_holds_in_a_running_service_within_the_key_caches_ten_seconds() {
    let service = Service::start().await;
    let home = service.home();
    let first = service.api().with_key(&key_of(&tenant(home, &["create", "acme"]).await));
    first.get(JOB).await.expect(404);
    let again = tenant(home, &["create", "acme"]).await;
    assert_eq!((again.code, again.stderr.last().map(String::as_str)), (1, Some("there is a tenant acme already")));

    let mut socket = Socket::open(&first, &["a"]).await;
    let rotated = service.api().with_key(&key_of(&tenant(home, &["rotate-key", "acme"]).await));
    rotated.get(JOB).await.expect(404);
    answers(&first, 401, CACHE).await;
    let (_, closed) = socket.until_closed().await;
    assert_eq!((closed.code, closed.reason.as_str()), (1008, "this key opens nothing any more"));

    assert_eq!(tenant(home, &["disable", "acme"]).await.stdout, ["tenant acme is disabled"]);
    let refused = answers(&rotated, 403, CACHE).await;
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert!(refused.json()["detail"].as_str().unwrap().starts_with("the tenant acme is disabled"), "{}", refused.body);
    assert_eq!(Socket::try_open(&rotated, &["a"]).await.err(), Some(403));

    let table = tenant(home, &["list"]).await.stdout;
    assert!(
        table[0].starts_with("tenant") && table[1].starts_with("acme") && table[2].starts_with("demo"),
        "{table:?}"
    );
    let listed: Value = serde_json::from_str(&tenant(home, &["list", "--json"]).await.stdout.join("\n")).unwrap();
    assert_eq!((&listed[0]["id"], listed[0]["disabled_at"].is_string()), (&json!("acme"), true));

    assert_eq!(tenant(home, &["enable", "acme"]).await.stdout, ["tenant acme is enabled"]);
    answers(&rotated, 404, CACHE).await;
    let nobody = tenant(home, &["disable", "nobody"]).await;
    assert_eq!((nobody.code, nobody.stderr.last().map(String::as_str)), (1, Some("there is no tenant nobody")));
}

#[tokio::test]
async fn what_the_admin_listener_does_to_a_tenant_holds_with_the_answer() {
    let service = Service::start().await;
    let first = made(&service, "acme").await;
    let mut socket = Socket::open(&first, &["a"]).await;
    let rotated = service.admin().post("/admin/tenants/acme/rotate-key", &json!(null)).await.expect(200).json();
    first.get(JOB).await.expect(401);
    assert_eq!(socket.until_closed().await.1.code, 1008);
    let second = service.api().with_key(rotated["key"].as_str().unwrap());
    second.get(JOB).await.expect(404);
    let mut socket = Socket::open(&second, &["a"]).await;
    service.admin().post("/admin/tenants/acme/disable", &json!(null)).await.expect(200);
    second.get(JOB).await.expect(403);
    assert_eq!(socket.until_closed().await.1.code, 1008);
    service.admin().post("/admin/tenants/acme/enable", &json!(null)).await.expect(200);
    second.get(JOB).await.expect(404);
    set_quotas(&service, "acme", json!({"sockets": 0})).await;
    assert_eq!(Socket::try_open(&second, &["a"]).await.err(), Some(429));
    let closed = service.metrics().await.value("broadcaster_socket_closed_total", &[("reason", "revoked")]);
    assert_eq!(closed, Some(2.0));
}

#[tokio::test]
async fn a_key_that_was_rotated_through_one_process_opens_nothing_in_another_after_ten_seconds() {
    let here = Service::start().await;
    let there = Service::setup().home(here.home()).start().await;
    let old = made(&here, "acme").await;
    let old_there = there.api().with_key(old.key().unwrap());
    old_there.get(JOB).await.expect(404);
    let mut socket = Socket::open(&old_there, &["a"]).await;
    let rotated = here.admin().post("/admin/tenants/acme/rotate-key", &json!(null)).await.expect(200).json();
    answers(&old_there, 401, CACHE).await;
    assert_eq!(socket.until_closed().await.1.code, 1008);
    there.api().with_key(rotated["key"].as_str().unwrap()).get(JOB).await.expect(404);
}

#[tokio::test]
async fn the_work_of_a_disabled_tenant_waits_and_goes_on_when_it_is_enabled() {
    let service = Service::start().await;
    let acme = made(&service, "acme").await;
    let every = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}, "every_ms": 1000});
    acme.post("/v1/schedules", &every).await.expect(201);
    service.admin().post("/admin/tenants/acme/disable", &json!(null)).await.expect(200);
    let mut store = Store::open(service.home()).await;
    let done = "SELECT count(*) FROM jobs_done";
    // Whatever was running when it was disabled ends.
    eventually("nothing is left to do", SOON, || async {
        let running = "SELECT count(*) FROM jobs WHERE state = 'running'";
        (Store::open(service.home()).await.number(running).await == 0).then_some(())
    })
    .await;
    let before = store.number(done).await;
    // One of its jobs, put there as a schedule that fired just before would have.
    let job =
        "INSERT INTO jobs (id, tenant, queue, kind, payload, state, priority, max_attempts, run_at_ms, created_at_ms)
               VALUES ('018f0000-0000-7000-8000-000000000001', 'acme', 'default', 'publish',
                       '{\"topic\":\"t\",\"data\":1}', 'ready', 0, 1, 0, 0) RETURNING 0";
    store.number(job).await;
    let moved = || async {
        let now = Store::open(service.home()).await.number(done).await;
        (now != before).then(|| format!("{now} are done, {before} were"))
    };
    never("nothing is done for it", Duration::from_secs(4), moved).await;
    service.admin().post("/admin/tenants/acme/enable", &json!(null)).await.expect(200);
    // The one that waited, and the next of the schedule.
    eventually("its work goes on", SOON, || async {
        (Store::open(service.home()).await.number(done).await >= before + 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_flood_of_one_tenant_is_429_and_another_notices_nothing() {
    let service = Service::start().await;
    let (noisy, quiet) = (made(&service, "noisy").await, made(&service, "quiet").await);
    set_quotas(&service, "noisy", json!({"requests_per_s": 1, "requests_burst": 10})).await;
    let flood = join_all((0..300).map(|_| noisy.get(JOB)));
    let calm = async {
        for _ in 0..50 {
            quiet.get(JOB).await.expect(404);
        }
    };
    let (flood, ()) = tokio::join!(flood, calm);
    let refused: Vec<_> = flood.iter().filter(|answer| answer.status == 429).collect();
    assert!(refused.len() >= 200, "{} of 300 were refused", refused.len());
    assert!(flood.iter().all(|answer| matches!(answer.status, 404 | 429)));
    for answer in &refused {
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
        assert_eq!(answer.header("ratelimit-policy"), "\"tenant\";q=10;w=10");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let counted = service.metrics().await.value("http_server_limited_total", &[("reason", "tenant_rate")]);
    assert_eq!(counted, Some(refused.len() as f64));
}

#[tokio::test]
async fn requests_that_one_tenant_leaves_open_take_no_place_of_another() {
    let service = Service::setup().set("limits.concurrency", 4).start().await;
    let (noisy, quiet) = (made(&service, "noisy").await, made(&service, "quiet").await);
    set_quotas(&service, "noisy", json!({"requests_at_once": 2})).await;
    // Announced and never sent: each is worked on until its time is over.
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(service.api().authority()).await.unwrap();
        let key = noisy.key().unwrap();
        let head = format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
             content-length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        open.push(stream);
    }
    let refused = [("reason", "tenant_concurrency")];
    eventually("six of eight are refused", SOON, || async {
        (service.metrics().await.value("http_server_limited_total", &refused) == Some(6.0)).then_some(())
    })
    .await;
    noisy.get(JOB).await.expect(429);
    for _ in 0..20 {
        quiet.get(JOB).await.expect(404);
    }
    let full = service.metrics().await.value("http_server_limited_total", &[("reason", "concurrency")]);
    assert_eq!(full, Some(0.0));
}

#[tokio::test]
async fn guesses_are_429_after_some_and_a_key_that_was_right_before_still_opens() {
    let service = Service::setup().set("limits.auth_failures_per_min", 5).start().await;
    service.api().get(JOB).await.expect(404);
    let guess = async |n: u32| service.api().with_key(&format!("pk_guess_{n}")).get(JOB).await;
    for n in 0..6 {
        guess(n).await.expect(401);
    }
    let refused = guess(6).await.expect(429);
    assert!((1..=12).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
    service.api().get(JOB).await.expect(404);
    let counted = service.metrics().await.value("http_server_limited_total", &[("reason", "auth_failures")]);
    assert_eq!(counted, Some(1.0));
}
