//! `/console`: what an operator looks at when something is wrong, as one page. Its files lie in `console/`, are compiled in
//! as they are, and there is no build step. The page asks the routes of [`admin`](super) for what it shows, as anybody may.
//!
//! It is the same page at every path below `/console`, so that each view has a link of its own; which one it is the page
//! finds out itself. It holds no data, so nobody needs a token for it.
//!
//! What is shown has come from tenants, so nothing of it must ever run. The page makes texts of texts and nothing else, and
//! the policy makes sure: no script but its own files, none that is made of a text, and nothing from or to anywhere else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::http::problem::Problem;

/// Trusted types forbid the browser to take a text for HTML or a script, whoever asks it to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page.
struct File {
    name: &'static str,
    content_type: &'static str,
    content: &'static [u8],
    /// Changes with the content: a browser asks for a file again, and is sent it only if it is another.
    tag: HeaderValue,
}

macro_rules! files {
    ($($name:literal: $content_type:expr),+ $(,)?) => {
        [$(File::new($name, $content_type, include_bytes!(concat!("console/", $name)))),+]
    };
}

/// All files, the page itself first.
static FILES: LazyLock<[File; 20]> = LazyLock::new(|| {
    files! {
        "index.html": "text/html; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "views.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
        "main.js": JAVASCRIPT,
        "api.js": JAVASCRIPT,
        "live.js": JAVASCRIPT,
        "parts.js": JAVASCRIPT,
        "format.js": JAVASCRIPT,
        "tree.js": JAVASCRIPT,
        "incidents.js": JAVASCRIPT,
        "traces.js": JAVASCRIPT,
        "trace.js": JAVASCRIPT,
        "timeline.js": JAVASCRIPT,
        "span.js": JAVASCRIPT,
        "now.js": JAVASCRIPT,
        "sockets.js": JAVASCRIPT,
        "logs.js": JAVASCRIPT,
        "work.js": JAVASCRIPT,
        "vendor/preact.js": JAVASCRIPT,
    }
});

impl File {
    fn new(name: &'static str, content_type: &'static str, content: &'static [u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let tag = HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()));
        // Digits are always a header's value.
        Self { name, content_type, content, tag: tag.unwrap_or(HeaderValue::from_static("\"\"")) }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let known = asked.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let is_known =
            known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().as_bytes() == self.tag.as_bytes()));
        let headers = [
            (ETAG, self.tag.clone()),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        match is_known {
            true => (StatusCode::NOT_MODIFIED, headers).into_response(),
            false => (headers, Bytes::from_static(self.content)).into_response(),
        }
    }
}

/// The routes of the page.
pub fn router() -> Router {
    Router::new()
        .route("/console", get(page))
        .route("/console/", get(page))
        .route("/console/{*view}", get(page))
        .route("/console/assets/{*file}", get(file))
}

async fn page(asked: HeaderMap) -> Response {
    FILES[0].answer(&asked)
}

async fn file(Path(name): Path<String>, asked: HeaderMap) -> Result<Response, Problem> {
    let found = FILES.iter().find(|file| file.name == name);
    found.map(|file| file.answer(&asked)).ok_or_else(|| Problem::not_found("file"))
}

#[cfg(test)]
mod tests;
