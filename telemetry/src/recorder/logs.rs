//! Log records, by trace and newest first.

use super::Recorder;
use super::values::{Attributes, nanos, of_any};
use opentelemetry::logs::Severity;
use opentelemetry::trace::TraceId;
use opentelemetry_sdk::logs::SdkLogRecord;
use serde::Serialize;
use serde_json::Value as Json;
use std::cmp::Reverse;
use std::str::FromStr;
use std::time::SystemTime;

/// A log record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogView {
    /// When, nanoseconds since the epoch.
    pub time_unix_nano: u64,
    /// `TRACE`, `DEBUG`, `INFO`, `WARN` or `ERROR`.
    pub level: &'static str,
    /// Which part of the program.
    pub target: String,
    /// What it is called, if it has a name of its own: `panic.recovered`.
    pub event: Option<&'static str>,
    /// What it says.
    pub message: String,
    /// Its fields.
    pub attributes: Attributes,
    /// Its trace; null if it belongs to none.
    pub trace_id: Option<String>,
    /// Its span; null if it belongs to none.
    pub span_id: Option<String>,
}

/// The least level that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// All there is.
    Trace,
    /// And above.
    Debug,
    /// And above.
    Info,
    /// And above.
    Warn,
    /// Errors only.
    Error,
}

/// Is none of the levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be trace, debug, info, warn or error")]
pub struct NoLevel;

impl FromStr for LogLevel {
    type Err = NoLevel;

    fn from_str(text: &str) -> Result<Self, NoLevel> {
        let all = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];
        all.into_iter().find(|level| level.name().eq_ignore_ascii_case(text)).ok_or(NoLevel)
    }
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }

    fn of(record: &SdkLogRecord) -> Self {
        match record.severity_number() {
            Some(severity) if severity >= Severity::Error => Self::Error,
            Some(severity) if severity >= Severity::Warn => Self::Warn,
            Some(severity) if severity >= Severity::Info => Self::Info,
            Some(severity) if severity >= Severity::Debug => Self::Debug,
            Some(_) => Self::Trace,
            None => Self::Info,
        }
    }
}

/// Which log records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// Of this trace only.
    pub trace: Option<TraceId>,
    /// Of this level or a graver one.
    pub level: LogLevel,
    /// So many at most.
    pub limit: usize,
}

impl Recorder {
    /// Log records, newest first.
    pub fn logs(&self, query: &LogQuery) -> Vec<LogView> {
        let all = match query.trace {
            Some(trace) => self.shards().logs_of(trace),
            None => self.shards().logs().collect(),
        };
        let mut found: Vec<_> = all.into_iter().filter(|record| LogLevel::of(record) >= query.level).collect();
        found.sort_by_key(|record| Reverse(time(record)));
        found.iter().take(query.limit).map(|record| view(record)).collect()
    }
}

fn time(record: &SdkLogRecord) -> SystemTime {
    record.timestamp().or(record.observed_timestamp()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn view(record: &SdkLogRecord) -> LogView {
    let context = record.trace_context();
    LogView {
        time_unix_nano: nanos(time(record)),
        level: LogLevel::of(record).name(),
        target: record.target().map(ToString::to_string).unwrap_or_default(),
        // The bridge names what has no name of its own after its place in the code.
        event: record.event_name().filter(|name| !name.starts_with("event ")),
        message: match record.body().map(of_any) {
            Some(Json::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        },
        attributes: record.attributes_iter().collect(),
        trace_id: context.map(|context| context.trace_id.to_string()),
        span_id: context.map(|context| context.span_id.to_string()),
    }
}
