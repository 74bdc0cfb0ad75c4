//! The admin API: routes and their weights, revisions, `explain`, probes and metrics, over HTTP and JSON.
//!
//! ```text
//! listener ─ connection ─> guard (token, Origin, Host) ─> handler ─> Control ─> the control task
//!                                                           └──> RoutingTable, tallies, recent
//! ```
//!
//! Every path is in the OpenAPI document (`GET /openapi.json`), every error is a problem document (RFC 9457), and nothing
//! here can hold up a request that is being routed: the table and the tallies are only read.

mod api;
mod body;
mod dashboard;
mod events;
mod explain;
mod guard;
mod handlers;
mod if_match;
mod listener;
mod log;
mod metrics;
mod mirror;
mod probes;
mod problem;
mod recent;
mod series;
mod status;
mod token;
pub mod wire;

pub use api::openapi;
pub use explain::{ExplainError, Target, explain};
pub use listener::{AdminBindError, AdminListener, AdminOptions, CONNECTIONS, bind, serve};
pub use token::{TokenFileError, check_token_file};

#[cfg(test)]
mod tests;
