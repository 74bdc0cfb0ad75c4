//! The fields of a route's rollout.

use crate::config::input::{Marked, object};
use crate::config::names::HookUrl;
use crate::config::numbers::{Chance, Limit, Whole, Within};
use crate::config::values::Span;
use crate::model::{HookEvent, OnFail, Share, VersionName};

object! {
    /// How a version is rolled out: step by step, judged by the requests themselves.
    RolloutFile "rollout", later [] {
        /// The version that is rolled out; not the first. Left out: the route's only other one.
        optional "version" version: VersionName, example = "v2";
        /// Its steps, in order; their weights grow.
        required "steps" steps: Vec<Marked<RolloutStepFile>>,
            example = [{"weight": 1, "hold": "5m"}, {"weight": 100, "hold": "10m"}];
        /// What judges it.
        optional "guard" guard: GuardFile;
        /// What a bad verdict does: `rollback` takes everything from the version at once; `pause` waits for somebody.
        optional "onFail" on_fail: OnFail, default = "rollback", example = "pause";
        /// Whether it starts by itself when pods of the version first become ready and its weight is 0. It does not start again
        /// by itself after it has ended, until the version had no pod at all.
        optional "auto" auto: bool, default = false, example = true;
        /// How long connections that last (WebSocket and other upgrades, event streams, gRPC) may go on at a version that was
        /// taken back, by a verdict or by `rollout abort`.
        optional "abortDeadline" abort_deadline: Span, default = "30s", example = "5m";
        /// Who is told, and who is asked. Left out: nobody.
        optional "hooks" hooks: Vec<Marked<HookFile>>,
            example = [{"url": "https://hooks.example.com/serinus", "on": ["rolledBack"]}];
    }
}

object! {
    /// A step of a rollout.
    RolloutStepFile "step", later [] {
        /// The version's weight.
        required "weight" weight: Share, example = 5;
        /// How long it is judged at this weight, at least.
        optional "hold" hold: Span, default = "1m", example = "10m";
        /// Whether it waits for `rollout promote` at its end.
        optional "pause" pause: bool, default = false, example = true;
    }
}

object! {
    /// What judges a version that is rolled out.
    GuardFile "guard", later [] {
        /// The chance, over the whole rollout and however often is looked, that a version that is no worse is taken back.
        optional "alpha" alpha: Chance, default = 0.001, example = 0.01;
        /// How much more of its requests it may fail than the stable version does.
        optional "errorMargin" error_margin: Share, default = 0, example = 0.1;
        /// Judges how fast it answers, too. Left out: it is not judged by that.
        optional "latency" latency: LatencyGuardFile, example = {"limit": "500ms"};
        /// How many requests it must have had in a step before the next.
        optional "minRequests" min_requests: Whole<u64, 0, 1_000_000_000>, default = 100, example = 1000;
        /// It is taken back when it fails more than this, whatever the stable version does. Left out: no such limit.
        optional "maxErrorRate" max_error_rate: Share, example = 5;
        /// How many requests it must have had in the step before `maxErrorRate` is looked at.
        optional "maxErrorRateRequests" max_error_rate_requests: Whole<u64, 1, 1_000_000_000>, default = 50,
            example = 200;
    }
}

object! {
    /// What judges how fast a version answers: how much of its answers is slow, compared with the stable version's.
    LatencyGuardFile "latency", later [] {
        /// An answer is slow when its head takes longer.
        required "limit" limit: Limit, example = "500ms";
        /// How much more of its answers may be slow.
        optional "margin" margin: Share, default = 0, example = 1;
    }
}

object! {
    /// A webhook: sent what happens, with POST and JSON. Redirects are not followed.
    HookFile "hook", later [] {
        /// Where to; what is after the host may be a secret, and is shown nowhere.
        required "url" url: HookUrl, example = "https://hooks.example.com/serinus";
        /// What for: `gate` is asked before each step but the first, which begins once it answers 2xx; `step`, `promoted` and
        /// `rolledBack` are told.
        required "on" on: Vec<Marked<HookEvent>>, example = ["step", "promoted", "rolledBack"];
        /// How long an answer may take.
        optional "timeout" timeout: Within<1, 60_000>, default = "5s", example = "10s";
        /// How often it is told again when it does not answer 2xx, after 1s, 2s, 4s and so on. A gate is asked until it does.
        optional "retries" retries: Whole<u8, 0, 10>, default = 3, example = 5;
    }
}
