//! The request path on pingora: the only room that names it.
//!
//! ```text
//! listener ─ accept ─> HttpProxy<Gateway> ─ request_filter ─> upstream_peer ─> … ─> response_filter ─> logging
//!                                           route, version     endpoint
//! ```
//!
//! A request keeps the [`Route`](crate::routing::Route) it started with, retries included, whatever is published meanwhile.

mod answer;
mod failure;
mod gateway;
mod headers;
mod health;
mod listener;
mod probe;
mod request;

pub use gateway::{Gateway, GatewayOptions, Published};
pub use health::{Connected, Connector, PlainConnector, Stream, check_health};
pub use listener::{BindError, Drain, Listener, Server, Shutdown};
pub use probe::{SetAside, watch_set_aside};
