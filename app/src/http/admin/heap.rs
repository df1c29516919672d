//! `/debug/pprof/heap`: which lines of code hold how much memory, also in SQLite. On Linux the allocator is
//! jemalloc, which remembers who asked for about one in each 512 KiB (`lg_prof_sample`).

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use crate::http::page::NoQuery;
use crate::http::problem::Problem;

/// What is held now: a profile as [pprof](https://github.com/google/pprof/tree/main/proto) reads it, gzipped. The path is
/// Go's, for the tools that know it.
pub async fn heap(_: NoQuery) -> Result<Response, Problem> {
    let profile = profile().await?;
    let headers =
        [(CONTENT_TYPE, "application/octet-stream"), (CONTENT_DISPOSITION, "attachment; filename=\"heap.pb.gz\"")];
    Ok((headers, profile).into_response())
}

/// Takes one, and puts names to its addresses; meanwhile the other threads go on.
#[cfg(target_os = "linux")]
async fn profile() -> Result<Vec<u8>, Problem> {
    use std::sync::Arc;
    use std::time::Duration;

    use http::StatusCode;
    use jemalloc_pprof::PROF_CTL;

    let asleep = "nothing was remembered: start it without `prof:false` and `prof_active:false` in MALLOC_CONF";
    let asleep = || Problem::new(StatusCode::NOT_IMPLEMENTED, asleep);
    let control = PROF_CTL.as_ref().map(Arc::clone).ok_or_else(asleep)?;
    let busy = |_| Problem::too_many("somebody else takes one just now", Duration::from_secs(1));
    let mut control = control.try_lock_owned().map_err(busy)?;
    if !control.activated() {
        return Err(asleep());
    }
    let taken = supervision::blocking("heap_profile", move || control.dump_pprof()).await?;
    taken.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("it cannot be taken: {error:#}")))
}

/// Nobody knows.
#[cfg(not(target_os = "linux"))]
async fn profile() -> Result<Vec<u8>, Problem> {
    Err(Problem::new(http::StatusCode::NOT_IMPLEMENTED, "only on Linux the allocator knows who holds memory"))
}
