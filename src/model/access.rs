//! How the access log writes a request.

/// The form of a line of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The combined format of web servers, and after it what else is known, as `key=value`.
    Text,
}
