//! Receives OTLP, over HTTP (protobuf or JSON, gzip or not) and over gRPC, and hands it on flattened.
//!
//! The collector of the tests stands on it, and so does `cargo xtask otlp`, which draws traces in a terminal.

mod model;
mod receive;

pub use model::{Attributes, Link, Log, Point, Span, SpanEvent};
pub use receive::{Protocol, Refused, Sink, Telemetry, grpc, http};
