//! The fields of a route's mirror.

use crate::config::input::{Marked, object};
use crate::config::numbers::{Limit, Size, Whole};
use crate::config::words::CopiedMethod;
use crate::model::{Share, VersionName};

object! {
    /// Which requests of a route are copied to a version. Clients get none of its answers, and wait for none.
    MirrorFile "mirror", later [] {
        /// The version that gets the copies; its weight may be 0. Requests that go there themselves are not copied.
        required "version" version: VersionName, example = "v2";
        /// How many of the requests that may be copied are, in steps of 0.0001.
        optional "percent" percent: Share, default = 100, example = 10;
        /// The methods of the requests that may be copied. A copy of a POST does what a POST does.
        optional "methods" methods: Vec<Marked<CopiedMethod>>, default = ["GET", "HEAD"], example = ["GET", "POST"];
        /// The longest body that is copied; requests with a longer one are not.
        optional "maxBody" max_body: Size<u64, 0, { 16 << 20 }>, default = "64KiB", example = "1MiB";
        /// How many copies are kept ready or under way at once: what is beyond is dropped.
        optional "maxInFlight" max_in_flight: Whole<u32, 1, 10_000>, default = 100, example = 20;
        /// How long a copy may take, its answer included.
        optional "timeout" timeout: Limit, default = "5s", example = "1s";
        /// Whether status and body of the answers to the copies are compared with those that the clients got, and how long both
        /// took: shown in `status`.
        optional "compare" compare: bool, default = false, example = true;
    }
}
