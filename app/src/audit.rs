//! Who did what to the service: one log record for each action of an operator, also for one that was refused. Its target
//! is `audit`, which no log filter silences. It names the action and its subject, never a key or a token.
//!
//! Over HTTP a middleware writes it, so no handler can forget it: every request that is not a mere look, and every one that
//! was kept out: for want of the token, or as a page in a browser. The record bears the trace of its request, as every
//! record does.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};
use telemetry::context::RequestId;

use crate::http::serve::Peer;

telemetry::declare_events! {
    /// Somebody did something to the service, or was kept from it.
    struct Audit<'a> = ("audit", info, "audit") {
        action: &'a str,
        subject: &'a str,
        outcome: &'a str,
        client: &'a str,
        request_id: Option<&'a str>,
    }
}

/// The names of the actions on the admin listener. What is missing here is named by method and route.
const ACTIONS: [(&str, &str, &str); 13] = [
    ("POST", "/admin/tenants", "tenant.create"),
    ("POST", "/admin/tenants/{id}/rotate-key", "tenant.rotate_key"),
    ("POST", "/admin/tenants/{id}/disable", "tenant.disable"),
    ("POST", "/admin/tenants/{id}/enable", "tenant.enable"),
    ("PUT", "/admin/tenants/{id}/quotas", "tenant.set_quotas"),
    ("POST", "/admin/tree/restart/{*path}", "tree.restart"),
    ("POST", "/admin/tree/stop/{*path}", "tree.stop"),
    ("POST", "/admin/tree/start/{*path}", "tree.start"),
    ("PUT", "/admin/log-filter", "log_filter.set"),
    ("DELETE", "/admin/log-filter", "log_filter.revert"),
    ("POST", "/dev/panic/{*path}", "dev.panic"),
    ("POST", "/dev/hang/{*path}", "dev.hang"),
    ("POST", "/dev/block/{*path}", "dev.block"),
];

/// The longest subject that is written, in characters: it may be anything that a client has sent.
const SUBJECT_MAX: usize = 200;

/// What an action is about, for handlers whose path does not say it.
#[derive(Debug, Clone, Default)]
pub struct Subject(Arc<Mutex<String>>);

impl Subject {
    /// It is about this.
    pub fn is(&self, subject: &str) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *own = subject.chars().take(SUBJECT_MAX).collect();
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The middleware of the admin listener, around the one that asks for the token.
pub async fn audit(
    path: Option<MatchedPath>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let subject = Subject::default();
    if let Some((_, value)) = params.iter().flat_map(|params| params.iter()).next() {
        subject.is(value);
    }
    request.extensions_mut().insert(subject.clone());
    let is_look = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let mut record = Record {
        action: action(request.method(), path.as_ref().map_or("none", MatchedPath::as_str)),
        subject,
        client: request.extensions().get::<Peer>().map_or_else(|| "unknown".to_owned(), |peer| peer.0.ip().to_string()),
        request_id: request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.as_str().to_owned()),
        // A client that goes away takes the future with it; what it asked for may have happened or not.
        outcome: (!is_look).then_some("abandoned"),
    };
    let response = next.run(request).await;
    record.ends_with(response.status(), is_look);
    response
}

/// What a command of the command line did.
pub fn command(action: &str, subject: &str, outcome: &str) {
    Audit { action, subject, outcome, client: "command line", request_id: None }.log(format_args!("audit"));
}

/// What the service did by itself, because its time had come.
pub fn by_itself(action: &str, subject: &str) {
    Audit { action, subject, outcome: "done", client: "the service itself", request_id: None }
        .log(format_args!("audit"));
}

fn action(method: &Method, route: &str) -> String {
    let known = ACTIONS.iter().find(|(of, at, _)| *of == method.as_str() && *at == route);
    known.map_or_else(|| format!("{method} {route}"), |(_, _, name)| (*name).to_owned())
}

/// Written when it is dropped, if there is an outcome.
struct Record {
    action: String,
    subject: Subject,
    client: String,
    request_id: String,
    outcome: Option<&'static str>,
}

impl Record {
    fn ends_with(&mut self, status: StatusCode, is_look: bool) {
        let outcome = match status {
            _ if status.is_server_error() => "failed",
            _ if status.is_client_error() => "refused",
            _ => "done",
        };
        let kept_out = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
        let was_kept_out = kept_out.contains(&status);
        self.outcome = (!is_look || was_kept_out).then_some(outcome);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome else { return };
        let (action, subject) = (self.action.as_str(), &*self.subject.text());
        let (client, request_id) = (self.client.as_str(), Some(self.request_id.as_str()));
        Audit { action, subject, outcome, client, request_id }.log(format_args!("audit"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_a_name_of_its_own_or_that_of_its_route() {
        assert_eq!(action(&Method::POST, "/admin/tenants/{id}/disable"), "tenant.disable");
        assert_eq!(action(&Method::DELETE, "/admin/tenants"), "DELETE /admin/tenants");
    }

    #[test]
    fn a_look_is_recorded_only_if_it_was_kept_out() {
        for (status, expected) in [
            (200, None),
            (404, None),
            (500, None),
            (401, Some("refused")),
            (403, Some("refused")),
            (429, Some("refused")),
        ] {
            let mut record = Record {
                action: String::new(),
                subject: Subject::default(),
                client: String::new(),
                request_id: String::new(),
                outcome: None,
            };
            record.ends_with(StatusCode::from_u16(status).unwrap(), true);
            assert_eq!(record.outcome, expected, "{status}");
        }
    }

    #[test]
    fn a_subject_is_cut_where_a_client_sends_too_much() {
        let subject = Subject::default();
        subject.is(&"ä".repeat(1_000));
        assert_eq!(subject.text().chars().count(), SUBJECT_MAX);
    }
}
