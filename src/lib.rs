//! Krilin.

pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod model;
pub mod store;
pub mod telemetry;
