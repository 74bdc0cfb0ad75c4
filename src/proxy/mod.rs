//! The request path: listeners, a client's connection, one request on its way to a pod and back.
//!
//! ```text
//! listener ─ accept ─> connection ─ request ─> exchange ─ attempt ─> relay ─> wire
//!                                              route, version, endpoint, retries
//! ```
//!
//! A request keeps the [`Route`](crate::routing::Route) it started with, retries included, whatever is published meanwhile.

mod accept;
mod answer;
mod connect;
mod connection;
mod exchange;
mod failure;
mod gateway;
mod headers;
mod health;
mod lasting;
mod listener;
mod mirror;
mod pool;
mod probe;
mod proxy_protocol;
mod relay;
mod replay;
mod request;
mod roster;
mod seen;
mod server;
mod trace;

pub use connect::PodConnector;
pub use gateway::{Gateway, GatewayOptions, Published};
pub use health::{Connected, Connector, Stream, check_health};
pub use listener::{BindError, Listener, SharedSocket};
pub use probe::{SetAside, watch_set_aside};
pub use server::{Drain, Server, Shutdown, Stop};
