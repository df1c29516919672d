//! Ids as keys of maps that stand in the way of every span.

use opentelemetry::trace::TraceId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A map whose keys are hashes, or random numbers of our own, already.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<AsItIs>>;

/// A trace with its hash: made once for a span, by a hasher with a secret, because trace ids come from clients too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    pub(super) hash: u64,
}

impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Trace {}

impl Hash for Trace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the last number that it is given for the hash.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
