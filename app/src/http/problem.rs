//! Every error answer is a problem document: RFC 9457, `application/problem+json`.
//!
//! A handler returns a [`Problem`]; the edge (`edge.rs`) writes it, because only the edge knows the request's id. What
//! others answer in plain text (the router's 404 and 405, an extractor of axum) becomes one there too, so no error
//! leaves the house in another shape, but for one: a head that cannot be read (malformed, too long) is answered by hyper
//! itself, 400 or 431 without a body, for there is no request yet that the edge could see.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use supervision::Panicked;
use utoipa::ToSchema;

use actors::store::StoreError;

use super::limits::{LIMITED, Limit, Limited};

/// The media type of every error.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// When to come again while the store is away, in seconds: about the time between two of its probes.
const STORE_RETRY_AFTER_S: u32 = 2;

/// Fields that are told of one request: a short request must not have a long answer.
const ERRORS_MAX: usize = 32;

/// When to come again for who has as much as it may have: some of its jobs have run by then.
const LIMIT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// An error answer, until the edge writes it.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
    code: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether a panic is behind it: then the span says so already, and more exactly than a status could.
    panicked: bool,
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's path, `payload.topic`; empty for the document as a whole.
    pub field: String,
    /// What is wrong, or what is allowed.
    pub reason: String,
}

impl Problem {
    /// A problem that is no more than its status and one sentence.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), code: None, headers: Vec::new(), panicked: false }
    }

    /// 404: not there, or not for this tenant; the two must not be told apart.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no such {what}"))
    }

    /// 422: every field that is wrong, at once, up to [`ERRORS_MAX`].
    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("`{}`: {}", one.field, one.reason),
            all if all.len() <= ERRORS_MAX => format!("{} fields are not valid", all.len()),
            more => format!("{} fields are not valid, here are the first {ERRORS_MAX}", more.len()),
        };
        errors.truncate(ERRORS_MAX);
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// 401, with the way to get in.
    pub fn unauthorized(detail: &str, challenge: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 503, with the time to come again.
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with_header(RETRY_AFTER, HeaderValue::from(retry_after_s))
    }

    /// 429, with the time to come again.
    pub fn too_many(detail: impl Into<String>, retry_after: Duration) -> Self {
        // Rounded up: who comes a moment too early is refused again.
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, detail);
        problem.with_header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The same with the fields it is about.
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// The same with a word by which programs tell it from others of its status.
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The same with one more header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status of the answer.
    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether a panic is behind it, which is recorded on the span already.
    pub(super) fn is_panic(&self) -> bool {
        self.panicked
    }

    /// What is wrong with each field.
    #[cfg(test)]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// One sentence on what is wrong here.
    #[cfg(test)]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The problem that stands for an error which somebody else answered with.
    pub(super) fn of_answer(answer: &Response) -> Self {
        let detail = match answer.status() {
            StatusCode::NOT_FOUND => "nothing is served at this path",
            StatusCode::METHOD_NOT_ALLOWED => "the path is right, the method is not: see the header Allow",
            StatusCode::BAD_REQUEST => "the request cannot be read",
            _ => "the request was refused",
        };
        let problem = Self::new(answer.status(), detail);
        match answer.headers().get(ALLOW) {
            Some(allow) => problem.with_header(ALLOW, allow.clone()),
            None => problem,
        }
    }

    /// The answer itself. `instance` is the request's id.
    pub(super) fn write(&self, instance: &str) -> Response {
        let document = Document {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code,
            errors: &self.errors,
        };
        // Plain text and numbers: it can always be written.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        response.headers_mut().extend(self.headers.iter().cloned());
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Without a body: the edge finds the problem in the extensions and writes it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The store's own words stay in the log: they name files and statements.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } | StoreError::Timeout { .. } => {
                tracing::warn!(error = %error, kind = error.kind(), "the store did not answer");
                Self::unavailable("the store does not answer, try again", STORE_RETRY_AFTER_S)
            }
            StoreError::OutOfTime { .. } => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "the time that was given is up, it may or may not be done")
            }
            StoreError::Conflict { what, .. } => Self::new(StatusCode::CONFLICT, what),
            StoreError::NotFound { what, .. } => Self::new(StatusCode::NOT_FOUND, what),
            StoreError::Limit { limit, what, .. } => {
                if let Some(reason) = Limit::ALL.into_iter().find(|known| known.as_str() == limit) {
                    LIMITED.add(1, Limited { reason });
                }
                Self::too_many(what, LIMIT_RETRY_AFTER).with_code(limit)
            }
            StoreError::Corrupt { .. } | StoreError::Schema { .. } | StoreError::Address { .. } => {
                tracing::error!(error = %error, kind = error.kind(), "the store failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the store failed, the operator knows why")
            }
        }
    }
}

/// 500 with the incident's id, by which an operator finds the backtrace.
impl From<Panicked> for Problem {
    fn from(panicked: Panicked) -> Self {
        let detail = format!("this request failed in an unexpected way, recorded as incident {}", panicked.incident);
        Self { panicked: true, ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail) }
    }
}

/// A problem as it is written: RFC 9457.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The status.
    status: u16,
    /// One sentence on what is wrong here.
    detail: &'a str,
    /// The id of the request.
    instance: &'a str,
    /// Of a 429: which limit is reached, such as `tenant_jobs_queued`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;

    async fn document(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_is_written_with_all_its_parts() {
        let errors = vec![FieldError { field: "kind".into(), reason: "is unknown".into() }];
        let response = Problem::invalid(errors).write("request-1");
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let expected = json!({
            "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "detail": "`kind`: is unknown",
            "instance": "request-1", "errors": [{"field": "kind", "reason": "is unknown"}],
        });
        assert_eq!(document(response).await, expected);
    }

    #[tokio::test]
    async fn a_problem_without_fields_has_no_list_of_them() {
        let document = document(Problem::not_found("job").write("r")).await;
        assert_eq!((&document["detail"], document.get("errors")), (&json!("no such job"), None));
    }

    #[tokio::test]
    async fn a_limit_is_told_with_its_name_and_when_to_come_again() {
        let what = "the tenant may have 3 jobs queued, it has 3".to_owned();
        let limit = StoreError::Limit { verb: "enqueue", limit: "tenant_jobs_queued", what: what.clone() };
        let response = Problem::from(limit).write("r");
        assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].to_str().unwrap()), (429, "5"));
        let document = document(response).await;
        assert_eq!((&document["code"], &document["detail"]), (&json!("tenant_jobs_queued"), &json!(what)));
    }

    #[test]
    fn a_store_that_is_away_is_503_and_its_words_are_not_repeated() {
        let source = "unable to open /srv/data.db".into();
        let problem = Problem::from(StoreError::Unavailable { verb: "enqueue", source });
        assert_eq!(
            (problem.status().as_u16(), problem.write("r").headers()[RETRY_AFTER].to_str().unwrap()),
            (503, "2")
        );
        assert!(!problem.detail().contains("/srv"));
    }
}
