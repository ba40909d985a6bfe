//! Krilin.

pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod model;
pub mod sandbox;
pub mod store;
pub mod telemetry;
pub mod web;
