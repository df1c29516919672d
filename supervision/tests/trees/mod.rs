//! Random trees: cases as data, workers that keep a record of their lives, and what must be true of all of them.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

pub mod build;
pub mod case;
pub mod drive;
pub mod generate;
pub mod oracles;
pub mod shrink;
pub mod tally;
pub mod worker;
pub mod world;
