//! Reads a profile as [pprof](https://github.com/google/pprof/blob/main/proto/profile.proto) does: which stack holds how much.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;
use prost::Message;

/// A profile, with its names in place of their numbers.
pub struct Profile {
    /// What each sample counts, and in what: `inuse_space`, `bytes`.
    pub kind: (String, String),
    /// The stacks, each with its count.
    pub samples: Vec<(i64, Vec<Frame>)>,
}

/// A line of code in a stack.
#[derive(Debug)]
pub struct Frame {
    /// Its function.
    pub function: String,
    /// The file it is in.
    pub file: String,
    /// The line; 0 if nobody knows.
    pub line: i64,
}

impl Profile {
    /// Reads it; fails the test if it is none.
    pub fn read(gzipped: &[u8]) -> Profile {
        let mut bytes = Vec::new();
        GzDecoder::new(gzipped).read_to_end(&mut bytes).expect("a profile is gzipped");
        let written = Written::decode(&bytes[..]).expect("a profile is written as pprof says");
        let text = |at: i64| written.strings[usize::try_from(at).unwrap()].clone();
        let functions: HashMap<u64, &Function> = written.functions.iter().map(|one| (one.id, one)).collect();
        let frames = |location: &Location| -> Vec<Frame> {
            let frame = |line: &Line| {
                let function = functions[&line.function_id];
                Frame { function: text(function.name), file: text(function.filename), line: line.line }
            };
            location.lines.iter().map(frame).collect()
        };
        let places: HashMap<u64, &Location> = written.locations.iter().map(|one| (one.id, one)).collect();
        let stack = |sample: &Sample| sample.location_ids.iter().flat_map(|id| frames(places[id])).collect();
        let [kind] = written.kinds.as_slice() else { panic!("one kind of sample, not {}", written.kinds.len()) };
        Profile {
            kind: (text(kind.kind), text(kind.unit)),
            samples: written.samples.iter().map(|sample| (sample.values[0], stack(sample))).collect(),
        }
    }

    /// How much is held by stacks with a frame that is so.
    pub fn held(&self, is_it: impl Fn(&Frame) -> bool) -> i64 {
        self.samples.iter().filter(|(_, stack)| stack.iter().any(&is_it)).map(|(count, _)| count).sum()
    }
}

#[derive(Message)]
struct Written {
    #[prost(message, repeated, tag = "1")]
    kinds: Vec<Kind>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    locations: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    functions: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
}

#[derive(Message)]
struct Kind {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_ids: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
}

#[derive(Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
}

#[derive(Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}
