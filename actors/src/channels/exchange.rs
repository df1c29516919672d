//! One request and its answer, for every adapter that speaks HTTP: how an answer is read, quoted and judged where the
//! provider says nothing more exact.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use tokio::time::Instant;

use super::schedule::parse_retry_after;
use super::{Outcome, Report};
use crate::outbound::Request;

/// How much of an answer is quoted in the reason of a failure, in characters.
pub(super) const QUOTE_MAX_CHARS: usize = 200;

/// How much of an answer is kept in the log of attempts, in characters.
const KEPT_MAX_CHARS: usize = 1_000;

/// How long the body of an answer is waited for, within the deadline.
const BODY_WITHIN: Duration = Duration::from_secs(1);

/// An answer: its head, and as much of its body as came soon.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// What `Retry-After` asks for.
    pub(super) after: Option<Duration>,
    /// The start of the body.
    pub(super) start: String,
}

/// Sends a request and reads its answer.
///
/// # Errors
/// What became of the attempt without an answer.
pub(super) async fn exchange(request: Request, deadline: Instant) -> Result<Answer, Outcome> {
    // The board counts what is under way for each channel, and has the breakers.
    let head = request.until(deadline).without_host_limits().send().await?;
    let (status, after) = (head.status(), retry_after(head.headers()));
    // The head decides. Of the body as much is read as comes soon: the rest is only lost to a reason or a connection.
    let start = head.start(BODY_WITHIN).await;
    Ok(Answer { status, after, start })
}

impl Answer {
    /// Takes a secret out of the body: a receiver that repeats its own URL must not put it into our log.
    pub(super) fn hide(mut self, secret: &str) -> Self {
        if !secret.is_empty() && self.start.contains(secret) {
            self.start = self.start.replace(secret, "[hidden]");
        }
        self
    }

    /// The outcome together with what is kept of the answer.
    pub(super) fn report(&self, outcome: Outcome) -> Report {
        let answer = one_line(&self.start, KEPT_MAX_CHARS);
        Report { outcome, answer: (!answer.is_empty()).then_some(answer) }
    }

    /// What went wrong, for the tenant.
    pub(super) fn quote(&self) -> String {
        let status = self.status.as_u16();
        match one_line(&self.start, QUOTE_MAX_CHARS).as_str() {
            "" => format!("the receiver answered {status}"),
            line => format!("the receiver answered {status}: {line}"),
        }
    }

    /// What a status means where the provider says nothing more exact.
    pub(super) fn judge(&self) -> Outcome {
        let (status, detail) = (Some(self.status.as_u16()), self.quote());
        let again = |class, after| Outcome::Retry { class, status, after, detail: self.quote() };
        match self.status {
            code if code.is_success() => Outcome::Delivered { status, provider_id: None },
            StatusCode::GONE => Outcome::Gone { status, reason: detail },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                Outcome::Refused { status, detail }
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => again("throttled", self.after),
            code if code.is_redirection() => again("redirect", None),
            _ => again("status", None),
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(value, Timestamp::now())
}

/// Without control characters: it is shown to the tenant and stands in logs.
fn one_line(text: &str, max_chars: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max_chars).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_comes_back_is_taken_out() {
        let start = "no such path /bot7:abc/sendMessage".to_owned();
        let answer = Answer { status: StatusCode::NOT_FOUND, after: None, start }.hide("7:abc");
        assert_eq!(answer.quote(), "the receiver answered 404: no such path /bot[hidden]/sendMessage");
        assert_eq!(answer.report(answer.judge()).answer.as_deref(), Some("no such path /bot[hidden]/sendMessage"));
    }
}
