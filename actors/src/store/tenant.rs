//! A tenant as it is kept. Its key never is: only the hash.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::model::{Millis, TenantId};

/// Who the service works for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// When it was made.
    pub created_at_ms: Millis,
}

/// SHA-256 of a tenant's key. Keys are long and random, so a slow hash would protect nothing and cost every request.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyHash(String);

impl KeyHash {
    /// Hashes a key as the tenant sends it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    /// Shows the start only: enough to compare two, useless to anyone else.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({}...)", &self.0[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hashed_with_sha_256() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc").as_str(), known);
        assert!(!format!("{:?}", KeyHash::of("abc")).contains(known));
    }
}
