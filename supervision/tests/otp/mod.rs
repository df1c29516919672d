//! Scenarios that were played against Erlang/OTP's supervisor, and what is needed to play them elsewhere: their format,
//! a model of OTP's rules, more of them at random, and a way to make a failing one small.

pub mod check;
pub mod generate;
pub mod model;
pub mod options;
pub mod parse;
pub mod player;
pub mod scenario;
pub mod shrink;
pub mod trace;
