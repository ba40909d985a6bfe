//! The nouns. Pure data and pure decisions: nothing here awaits, runs SQL or reads a clock.

pub mod bundle;
pub mod clock;
pub mod duration;
pub mod enqueue;
pub mod error;
pub mod flow;
pub mod host;
pub mod id;
pub mod job;
pub mod manifest;
pub mod near;
pub mod outcome;
pub mod policy;
pub mod schedule;
pub mod secret;
pub mod shape;
pub mod shaping;
pub mod ties;
pub mod token;
pub mod trace;
pub mod user;
pub mod why;
pub mod zone;
