//! `GET /openapi.json`, the document of the API, and `GET /docs`, a page to read it and try it out. The page is Swagger
//! UI, compiled in: it works offline, and its policy forbids the browser to fetch anything from anywhere else.

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use bytes::Bytes;
use http::HeaderName;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;

/// The page itself. It has no script of its own: a policy that allows inline scripts would allow injected ones, too.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="/docs/favicon-32x32.png">
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
"#;

/// Without the validator's badge, which would send the document to somebody else's server.
const START: &str =
    r##"SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });"##;

/// Nothing but what this server sends. Swagger UI sets styles on elements and has icons in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the page, with their types: those of Swagger UI that it needs, and the one that starts it.
const FILES: [(&str, &str, &[u8]); 4] = [
    ("swagger-ui.css", "text/css", include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css"))),
    ("swagger-ui-bundle.js", "text/javascript", include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js"))),
    ("favicon-32x32.png", "image/png", include_bytes!(concat!(env!("OUT_DIR"), "/favicon-32x32.png"))),
    ("start.js", "text/javascript", START.as_bytes()),
];

/// The routes. Nobody needs a key to read how to use one.
pub fn router() -> OpenApiRouter<Written> {
    OpenApiRouter::new().routes(routes!(document)).routes(routes!(page)).routes(routes!(slash)).routes(routes!(file))
}

/// The document as it is served.
#[derive(Clone)]
pub struct Written(Bytes);

impl From<&OpenApi> for Written {
    fn from(document: &OpenApi) -> Self {
        // Maps with strings as keys can always be written.
        Self(serde_json::to_vec(document).unwrap_or_default().into())
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "docs", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")))]
async fn document(State(Written(document)): State<Written>) -> Response {
    answer("application/json", document)
}

/// A page to read it.
#[utoipa::path(get, path = "/docs", security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
async fn page() -> Response {
    let policy =
        [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (policy, Html(PAGE)).into_response()
}

/// The way to the page for who types a slash too many.
#[utoipa::path(get, path = "/docs/", security(()), responses((status = 308, description = "It is at `/docs`")))]
async fn slash() -> Redirect {
    Redirect::permanent("/docs")
}

/// A file of the page.
#[utoipa::path(get, path = "/docs/{file}", security(()), params(("file" = String, Path, description = "Its name")),
    responses((status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = 404, description = "The page has no such file")))]
async fn file(Path(file): Path<String>) -> Result<Response, Problem> {
    let found = FILES.iter().find(|(name, ..)| *name == file);
    let (_, content_type, content) = found.ok_or_else(|| Problem::not_found("file"))?;
    Ok(answer(content_type, Bytes::from_static(content)))
}

fn answer(content_type: &str, body: Bytes) -> Response {
    let headers: [(HeaderName, &str); 3] =
        [(CONTENT_TYPE, content_type), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CACHE_CONTROL, "no-cache")];
    (headers, body).into_response()
}
