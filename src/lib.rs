//! Krilin.

pub mod apps;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod ctx;
pub mod http;
pub mod jobs;
pub mod model;
pub mod queue;
pub mod sandbox;
pub mod schedule;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod web;
