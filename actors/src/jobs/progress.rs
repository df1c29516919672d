//! How far a running job is, as its handler says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::model::Poke;

/// The longest note, in characters; a longer one is cut.
pub const NOTE_MAX_CHARS: usize = 200;

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// So much is done, in whatever the handler counts.
    done: u64,
    /// Of so much, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// What is being done, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Progress {
    /// So much, of nobody knows how much.
    pub fn done(done: u64) -> Self {
        Self { done, total: None, note: None }
    }

    /// So much of all.
    pub fn of(done: u64, total: u64) -> Self {
        Self { done, total: Some(total), note: None }
    }

    /// And what is being done, in words.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        let mut note = note.into();
        if let Some((cut, _)) = note.char_indices().nth(NOTE_MAX_CHARS) {
            note.truncate(cut);
        }
        Self { note: Some(note), ..self }
    }
}

/// Where an attempt leaves word of how far it is, for whoever writes it down. Nobody waits here, and only the last word
/// is kept.
#[derive(Debug, Clone)]
pub struct ProgressSlot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    word: Mutex<Word>,
    /// There is a new word.
    news: Poke,
}

#[derive(Debug, Default)]
struct Word {
    last: Option<Progress>,
    is_new: bool,
}

impl ProgressSlot {
    /// An empty one; `news` is poked when there is something new in it.
    pub fn new(news: Poke) -> Self {
        Self(Arc::new(Inner { word: Mutex::default(), news }))
    }

    /// Leaves word. One that is not collected yet is overwritten.
    pub fn report(&self, progress: Progress) {
        let was_new = {
            let mut word = self.word();
            word.last = Some(progress);
            std::mem::replace(&mut word.is_new, true)
        };
        if !was_new {
            self.0.news.poke();
        }
    }

    /// The last word, if nobody has collected it yet.
    pub(crate) fn collect(&self) -> Option<Progress> {
        let mut word = self.word();
        if std::mem::take(&mut word.is_new) { word.last.clone() } else { None }
    }

    /// What was collected could not be written down: it, or what has come since, is new again.
    pub(crate) fn put_back(&self) {
        self.word().is_new = true;
    }

    /// The last word.
    pub(crate) fn last(&self) -> Option<Progress> {
        self.word().last.clone()
    }

    fn word(&self) -> MutexGuard<'_, Word> {
        self.0.word.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_many_words_the_last_is_collected_once_and_one_poke_is_enough() {
        let news = Poke::new();
        let slot = ProgressSlot::new(news.clone());
        assert_eq!((slot.collect(), slot.last()), (None, None));
        for done in 0..1_000 {
            slot.report(Progress::of(done, 1_000));
        }
        news.wait().await;
        let last = Some(Progress::of(999, 1_000));
        assert_eq!((slot.collect(), slot.collect(), slot.last()), (last.clone(), None, last.clone()));
        assert!(timeout(Duration::from_secs(1), news.wait()).await.is_err(), "poked for what was overwritten");
        slot.put_back();
        assert_eq!(slot.collect(), last);
        slot.report(Progress::done(7));
        news.wait().await;
    }

    #[test]
    fn a_long_note_is_cut_on_the_border_of_a_character() {
        let progress = Progress::done(1).note("ä".repeat(NOTE_MAX_CHARS + 1));
        assert_eq!(progress.note.unwrap(), "ä".repeat(NOTE_MAX_CHARS));
    }
}
