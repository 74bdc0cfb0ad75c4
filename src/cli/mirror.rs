//! What `serinus status ROUTE` says of requests that are copied.

use std::io::{self, Write};

use crate::admin::wire::{MirrorComparison, MirrorStatus};

use super::text::{or_dash, percent, plain};

/// What became of the copies of a route's requests.
pub(super) fn write_mirror(mirror: &MirrorStatus, out: &mut dyn Write) -> io::Result<()> {
    let MirrorStatus { version, percent: share, sent, failed, dropped, too_large, in_flight, compared } =
        mirror;
    writeln!(
        out,
        "\nMirror: {} to {}: {sent} copies answered, {failed} failed, {dropped} dropped, {too_large} too large, {in_flight} \
         under way",
        percent(*share),
        plain(version)
    )?;
    let Some(compared) = compared else { return Ok(()) };
    let MirrorComparison { same, other_status, other_body, original_p50_ms, copy_p50_ms } = compared;
    writeln!(
        out,
        "  compared with what the clients got: {same} the same, {other_status} with another status, {other_body} with another \
         body; p50 {}, theirs {}",
        or_dash(*copy_p50_ms, "ms"),
        or_dash(*original_p50_ms, "ms")
    )
}
