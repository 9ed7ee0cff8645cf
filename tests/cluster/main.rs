//! What only a real cluster can prove. Runs against the operator that the chart installed; `make test-cluster` sets all
//! of that up. Each test has namespaces of its own; nothing sleeps, everything is awaited with a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

#[path = "../support/debian.rs"]
mod archive;
mod bases;
mod between;
mod builds;
mod commands;
mod dockerfiles;
mod examples;
mod failures;
mod fixture;
mod graphs;
mod include;
mod operator;
mod packages;
mod preflight;
mod presentation;
mod queue;
mod restarts;
#[path = "../support/server.rs"]
mod server;
mod settings;
mod snapshots;
mod verdicts;
