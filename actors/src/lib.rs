//! The five subsystems of the service, and the ports they stand on.
//!
//! An actor is thin: it is the example that the next one imitates. The machinery behind it is a folder beside it, with
//! a page of documentation, and can be removed as a whole.
//!
//! | actor | stands on |
//! | --- | --- |
//! | [`scheduler`] | [`jobs`] (what a job is, how it runs), [`store`] (where it lives) |
//! | [`broadcaster`] | [`broadcast`] (who listens to what), [`bus`] (where events come from) |
//! | [`channel_manager`] | [`channels`] (how a notification leaves the house), [`outbound`] (the one HTTP client), [`store`] |
//! | [`health_sweep`] | the ports' own `ping` |
//! | [`liveness_monitor`] | the heartbeats of `supervision` |
//!
//! What they all speak of (tenant, event, time) is in [`model`].

pub mod broadcast;
pub mod broadcaster;
pub mod bus;
pub mod channel_manager;
pub mod channels;
pub mod health_sweep;
pub mod jobs;
pub mod liveness_monitor;
pub mod model;
pub mod outbound;
mod pulse;
pub mod scheduler;
mod seam;
pub mod store;
