//! Requests with a key of their own: whoever sends one again gets the answer again, and nothing is done twice.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::TenantId;

/// SHA-256 over parts, each with its length before it, so that no two lists of parts have the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Hashes the parts in their order.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({}...)", &self.0[..8])
    }
}

/// A request that is about to be worked on.
#[derive(Debug, Clone)]
pub struct BeginRequest {
    /// Whose request it is. Keys of different tenants have nothing to do with each other.
    pub tenant: TenantId,
    /// The hash of its key.
    pub key: Fingerprint,
    /// The hash of all that must be the same when it comes again.
    pub fingerprint: Fingerprint,
    /// The id of what it is going to make, if this is its first try.
    pub effect: Uuid,
    /// For how long nobody else may try.
    pub lease_ms: u64,
    /// For how long it is remembered, from now.
    pub keep_ms: u64,
    /// How many requests of one tenant are remembered.
    pub held_max: u32,
}

/// What to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BegunRequest {
    /// Do it: nobody has tried before.
    First(RequestTicket),
    /// Do it, but look first for what an earlier try has made: how that ended is not known, or its answer is not kept.
    Again(RequestTicket),
    /// Answer the same.
    Answered(KeptAnswer),
    /// Refuse it: another try is going on.
    Pending,
    /// Refuse it: the key belongs to another request.
    Differs,
    /// Refuse it: the tenant has too many already.
    Full,
}

/// The right to work on a request until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTicket {
    /// Whose request it is.
    pub tenant: TenantId,
    /// The hash of its key.
    pub key: Fingerprint,
    /// Which try it is, from 1: later tries fence off earlier ones.
    pub attempt: u32,
    /// The id of what it makes, the same at every try.
    pub effect: Uuid,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestEnd {
    /// With an answer to repeat.
    Answered(KeptAnswer),
    /// Perhaps with an effect, but with no answer to repeat: the same request may come again at once.
    Open,
    /// For certain without any effect: the key is free, for any request.
    Undone,
}

/// An answer to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// The headers that belong to it, not to its transport.
    pub headers: Vec<(String, String)>,
    /// Its body, whole.
    pub body: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_cut_elsewhere_have_another_fingerprint() {
        assert_eq!(Fingerprint::of(&[b"ab", b"c"]), Fingerprint::of(&[b"ab", b"c"]));
        assert_ne!(Fingerprint::of(&[b"ab", b"c"]), Fingerprint::of(&[b"a", b"bc"]));
        assert_eq!(Fingerprint::of(&[]).as_str().len(), 64);
    }
}
