//! Logs, the name of every metric, and typed events: one event is its log line and its metric.
//!
//! One [`Telemetry`] belongs to one router; tests run several side by side. What the request path counts is kept with
//! the routes (`routing::tally`) and is only named here.

mod access_log;
mod access_text;
mod certificate_events;
mod connection_events;
mod endpoint_events;
mod events;
mod line_limit;
mod log_filter;
mod logs;
pub mod metrics;
mod news;
mod rollout_events;
mod service_events;
mod trace_events;
mod watch_events;

pub use access_log::{AccessEntry, AccessLog, AccessLogError, AccessTls};
pub use connection_events::RefusedConnection;
pub use endpoint_events::EndpointNote;
pub use log_filter::{Levels, LogFilter, NotOurLog, log_filter, set_log_filter};
pub use logs::{LogFormat, Logs, init as init_logs};
pub use metrics::Telemetry;
pub use news::{Item, News, RolloutNews};
