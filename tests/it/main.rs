//! Krilin's integration tests: one binary, because a link costs more than a module.
#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod api;
mod auth;
mod claim;
mod cli;
mod cluster;
mod config;
mod hostile;
mod kinds;
mod kit;
mod manifest;
mod openapi;
mod postgres;
mod record;
mod sandbox;
mod server;
mod storage;
mod streaks;
mod up;
mod world;
mod zone;
