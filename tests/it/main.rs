//! Krilin's integration tests: one binary, because a link costs more than a module.
#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod action;
mod api;
mod apps;
mod auth;
mod blackout;
mod bundle;
mod calls;
mod children;
mod claim;
mod cli;
mod cluster;
mod config;
mod ctx;
mod demo;
mod enqueue;
mod fsck;
mod hostile;
mod install;
mod isolation;
mod kinds;
mod kit;
mod lease;
mod manifest;
mod openapi;
mod orders;
mod outage;
mod policy;
mod postgres;
mod publish;
mod queues;
mod reading;
mod record;
mod retention;
mod retry;
mod sandbox;
mod server;
mod storage;
mod streaks;
mod tidy;
mod unique;
mod up;
mod verbs;
mod world;
mod zone;
