//! Whose an address is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Path;

/// The child whose address it is, if it is anyone's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holder(Arc<Mutex<Option<Path>>>);

/// The address is that of one child until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold(Holder);

impl Holder {
    /// Makes the address that of the child at `path`.
    ///
    /// # Errors
    /// The path of the child whose address it is already.
    pub(crate) fn hold(&self, path: &Path) -> Result<Hold, Path> {
        let mut holder = self.lock();
        if let Some(other) = &*holder {
            return Err(other.clone());
        }
        *holder = Some(path.clone());
        Ok(Hold(self.clone()))
    }

    /// Tells this address from every other one that there is.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Path>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_childs_until_that_lets_go() {
        let holder = Holder::default();
        let hold = holder.hold(&Path::from("a.b"));
        assert!(hold.is_ok());
        assert_eq!(holder.hold(&Path::from("c")).err(), Some(Path::from("a.b")));
        drop(hold);
        assert!(holder.hold(&Path::from("c")).is_ok());
        assert_ne!(holder.identity(), Holder::default().identity());
    }
}
