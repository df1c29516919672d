//! The outside world of the service: processes, collectors, receivers and sockets that the tests in `tests/` play
//! against the real binary. Nothing here knows the inside of the product; what it shows over HTTP, on its standard
//! output, in its telemetry and by its exit code is all that is looked at.
//!
//! - [`Service`] starts the binary of `cargo run` in a directory of its own, on free ports, and ends it.
//! - [`Collector`] receives OTLP over http/protobuf and gRPC and keeps what it was sent.
//! - [`Receiver`] receives webhooks, keeps them, and answers by a script; an [`Envelope`] is what it may get for Sentry.
//! - [`Socket`] is a WebSocket subscriber.
//! - [`Browser`] is a real one, and looks at the console.
//! - [`poison`] stands between it and a service, and makes every text hostile.
//! - [`raw`] speaks to a listener byte by byte.
//! - [`Redis`] is a server of the test's own that can be killed, held and started again; [`Proxy`] can swallow everything.
//! - [`Postgres`] is the same for the store, and [`Database`] one of a server that all tests share.
//! - [`stream::EventStream`] is a subscriber on Server-Sent Events.
//! - [`Store`] is the service's database seen from outside.
//! - [`Traffic`] asks for jobs at random and writes down in a [`Ledger`] what was answered, to be matched with what became of it;
//!   a [`Trial`] puts both together.
//! - [`transcript`] plays the commands of a page; [`page`] reads one that also has pictures and questions to other tools.
//! - [`pprof`] reads a profile.
//! - [`Prometheus`] scrapes a service, and [`Viewer`] is `cargo xtask otlp`.
//! - [`tools::find`] finds what Cargo does not bring, or says that the test was skipped.
//! - [`eventually`] waits for a fact with a deadline; [`metrics`] reads `/metrics`.
//! - [`mod@bench`] prints the rows of the benchmarks.

pub mod bench;
pub mod binary;
pub mod browser;
pub mod client;
pub mod collector;
pub mod envelope;
pub mod ledger;
pub mod metrics;
pub mod page;
pub mod poison;
pub mod port;
pub mod postgres;
pub mod pprof;
pub mod process;
pub mod prometheus;
pub mod providers;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod redis;
pub mod service;
pub mod setup;
pub mod socket;
pub mod store;
pub mod stream;
pub mod tools;
pub mod traffic;
pub mod transcript;
pub mod trial;
pub mod viewer;
pub mod wait;

pub use browser::Browser;
pub use client::{Answer, Client, DEMO_KEY};
pub use collector::{Collector, Protocol};
pub use envelope::Envelope;
pub use ledger::{Books, Ledger};
pub use metrics::Metrics;
pub use port::Port;
pub use postgres::{Database, Postgres};
pub use process::Ended;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use receiver::Receiver;
pub use redis::Redis;
pub use service::Service;
pub use setup::{Home, Setup};
pub use socket::Socket;
pub use store::Store;
pub use traffic::Traffic;
pub use trial::Trial;
pub use viewer::Viewer;
pub use wait::eventually;
