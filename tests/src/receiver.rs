//! A receiver of webhooks: it keeps every call and answers by a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::eventually;

/// One answer of the script.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// This status at once.
    Status(u16),
    /// This status, but only after so long.
    Late(Duration, u16),
    /// This status, with a body.
    Said(u16, &'static str),
    /// This status with a `Retry-After` in seconds and a body.
    Wait(u16, u32, &'static str),
}

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    /// Path of the request.
    pub path: String,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte: the signature is over these.
    pub body: Bytes,
}

impl Call {
    /// A header's value, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }

    /// The id of the delivery (`webhook-id`), the same for each attempt.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the signature and the age by the Standard Webhooks rules, with a library that is not the sender's own code.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(&self.body, &self.headers).is_ok()
    }
}

/// The receiver; it ends when it is dropped. It answers 200 when its script is at its end.
pub struct Receiver {
    address: SocketAddr,
    kept: Arc<Kept>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    calls: Mutex<Vec<Call>>,
    script: Mutex<VecDeque<Reply>>,
}

impl Receiver {
    /// Starts to listen on a free port of the loopback.
    pub async fn start() -> Receiver {
        let kept = Arc::new(Kept::default());
        let router = Router::new().fallback(take).with_state(kept.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Receiver { address, kept, server }
    }

    /// The address of `path` here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Appends answers to the script.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.kept.script.lock().unwrap().extend(replies);
    }

    /// Every call until now.
    pub fn calls(&self) -> Vec<Call> {
        self.kept.calls.lock().unwrap().clone()
    }

    /// Waits until at least `count` calls came.
    ///
    /// # Panics
    ///
    /// After `within`.
    pub async fn await_calls(&self, count: usize, within: Duration) -> Vec<Call> {
        eventually(&format!("{count} calls at the receiver"), within, || async {
            let calls = self.calls();
            (calls.len() >= count).then_some(calls)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(kept): State<Arc<Kept>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    kept.calls.lock().unwrap().push(Call { path: uri.path().to_owned(), headers, body });
    let reply = kept.script.lock().unwrap().pop_front().unwrap_or(Reply::Status(200));
    let status = |status| StatusCode::from_u16(status).unwrap();
    match reply {
        Reply::Status(code) => status(code).into_response(),
        Reply::Late(time, code) => {
            tokio::time::sleep(time).await;
            status(code).into_response()
        }
        Reply::Said(code, body) => (status(code), body).into_response(),
        Reply::Wait(code, seconds, body) => (status(code), [(RETRY_AFTER, seconds.to_string())], body).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;
    use crate::client::send;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[tokio::test]
    async fn calls_are_kept_and_answered_by_the_script_and_then_with_200() {
        let receiver = Receiver::start().await;
        receiver.script([Reply::Wait(503, 7, "busy"), Reply::Late(Duration::from_millis(1), 410)]);
        let client = Client::new(&receiver.url(""));
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(client.post("/hook", &serde_json::json!({"n": 1})).await.status);
        }
        assert_eq!(statuses, [503, 410, 200]);
        assert!(receiver.await_calls(3, Duration::from_secs(5)).await.iter().all(|call| call.json()["n"] == 1));
    }

    #[tokio::test]
    async fn only_the_right_secret_verifies_and_only_the_same_body() {
        let receiver = Receiver::start().await;
        let (body, now) = (r#"{"n":1}"#, std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
        let signature = Webhook::new(SECRET).unwrap().sign("msg_1", now as i64, body.as_bytes()).unwrap();
        let request = Client::new(&receiver.url("")).request(reqwest::Method::POST, "/hook").body(body);
        let signed = request.header("webhook-id", "msg_1").header("webhook-timestamp", now.to_string());
        send(signed.header("webhook-signature", signature)).await.expect(200);
        let mut call = receiver.calls().remove(0);
        assert!(call.is_signed_with(SECRET));
        assert!(!call.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
        call.body = Bytes::from_static(b"{\"n\":2}");
        assert!(!call.is_signed_with(SECRET));
    }
}
