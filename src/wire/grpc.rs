//! What an error of the router's own is in gRPC.
//!
//! A gRPC client reads `grpc-status`, not the status of HTTP: an answer without it is an error whose kind is guessed. So the
//! router's own answers to gRPC requests are trailers-only: status 200, `content-type: application/grpc` and this number.

/// Whether this `Content-Type` is gRPC's: `application/grpc`, alone or with a `+suffix` or parameters. gRPC-Web is not: its
/// status is inside the body.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let Some((name, rest)) = content_type.split_at_checked(b"application/grpc".len()) else { return false };
    name.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The `grpc-status` for an HTTP status that an intermediary answered with, as gRPC's document "HTTP to gRPC Status Code
/// Mapping" has it: what may be tried again is UNAVAILABLE (14).
#[must_use]
pub fn grpc_status(status: u16) -> &'static str {
    match status {
        // INTERNAL
        400 => "13",
        // UNAUTHENTICATED
        401 => "16",
        // PERMISSION_DENIED
        403 => "7",
        // UNIMPLEMENTED
        404 => "12",
        // UNAVAILABLE
        429 | 502 | 503 | 504 => "14",
        // UNKNOWN
        _ => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_of_grpc_are_known() {
        for yes in ["application/grpc", "Application/gRPC+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["application/grpc-web", "application/json", "application/grp", "", "application/grpcx"] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn statuses_are_those_of_the_mapping() {
        for (http, grpc) in [(400, "13"), (404, "12"), (429, "14"), (503, "14"), (504, "14"), (413, "2")] {
            assert_eq!(grpc_status(http), grpc, "{http}");
        }
    }
}
