//! The heap profile: it leads to the lines that hold the memory, and an allocator that remembers nothing says so.

use futures_util::StreamExt;
use reqwest::Method;
use tests::pprof::{Frame, Profile};
use tests::{Answer, Service, Setup};

const DOOR: &str = "/debug/pprof/heap";

/// The service that remembers who allocates, as `told`.
fn remembering(told: &str) -> Setup {
    Service::setup().env("MALLOC_CONF", told)
}

#[tokio::test]
async fn the_profile_names_the_lines_that_hold_the_memory_also_those_of_sqlite() {
    let service = remembering("prof:true,lg_prof_sample:12").start().await;
    // Each of them is a trace, and the recorder keeps it.
    let before = taken(&service).await.held(is_of_the_recorder);
    let many = futures_util::stream::iter(0..500).map(|_| service.api().get("/v1/jobs"));
    many.buffer_unordered(8).for_each(async |answer| assert_eq!(answer.status, 200)).await;
    let profile = taken(&service).await;
    let grown = profile.held(is_of_the_recorder) - before;
    assert!(grown > 100_000, "500 traces in the recorder: {before} and {grown} bytes more");
    let of_sqlite = profile.held(|frame| frame.function.starts_with("sqlite3"));
    assert!(of_sqlite > 100_000, "what is written in C is seen too: {of_sqlite} bytes");
}

fn is_of_the_recorder(frame: &Frame) -> bool {
    frame.function.contains("recorder") && frame.file.contains("telemetry/src/recorder") && frame.line > 0
}

async fn taken(service: &Service) -> Profile {
    let answer = service.admin().request(Method::GET, DOOR).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    let profile = Profile::read(&answer.bytes().await.unwrap());
    assert_eq!(profile.kind, ("inuse_space".to_owned(), "bytes".to_owned()));
    profile
}

fn refuses(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{answer:?}");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(reason), "{detail}");
}

#[tokio::test]
async fn who_takes_a_profile_while_another_is_taken_is_told_to_come_again() {
    let service = remembering("prof:true,lg_prof_sample:12").start().await;
    let admin = service.admin();
    let answers = futures_util::future::join_all((0..8).map(|_| admin.get(DOOR))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!taken.is_empty() && !refused.is_empty(), "{} were taken", taken.len());
    for answer in refused {
        refuses(answer, 429, "just now");
        assert_eq!(answer.header("retry-after"), "1");
    }
    admin.get(DOOR).await.expect(200);
}

#[tokio::test]
async fn an_allocator_that_remembers_nothing_says_how_it_would() {
    for told in ["prof:false", "prof:true,prof_active:false"] {
        let service = remembering(told).start().await;
        refuses(&service.admin().get(DOOR).await, 501, "MALLOC_CONF");
    }
    let service = Service::start().await;
    refuses(&service.admin().get("/debug/pprof/heap?seconds=3").await, 422, "seconds");
    taken(&service).await;
}
