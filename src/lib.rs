//! Serinus: an in-cluster canary router.
//!
//! The library behind the `serinus` binary. `docs/ARCHITECTURE.md` is the map; each module says what it holds.

pub mod admin;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod hooks;
pub mod kubernetes;
pub mod model;
pub mod outbound;
pub mod proxy;
pub mod rollout;
pub mod routing;
pub mod simulation;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod traces;
pub mod wire;
