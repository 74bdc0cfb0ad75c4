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
mod listener;
mod pool;
mod probe;
mod proxy_protocol;
mod relay;
mod replay;
mod request;
mod roster;
mod server;

pub use gateway::{Gateway, GatewayOptions, Published};
pub use listener::{BindError, Listener, SharedSocket};
pub use probe::{Refusal, watch_refusals};
pub use server::{Drain, Server, Shutdown, Stop};
