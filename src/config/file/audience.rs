//! The fields of a route that say who gets which version: rules and cohorts.

use ipnet::IpNet;

use crate::config::input::{Marked, object};
use crate::config::names::{CookieName, HeaderName, MethodName, QueryName, Salt, ValueRegex, ValueText};
use crate::model::VersionName;

object! {
    /// A rule: a request of which all that it says is true gets its version. The first rule that fits decides.
    RuleFile "rule", later [] {
        /// A header that the request must have.
        optional "header" header: HeaderName, example = "X-Beta";
        /// Instead of `header`: a cookie that it must have.
        optional "cookie" cookie: CookieName, example = "beta";
        /// Instead of `header`: a query parameter that it must have, decoded.
        optional "query" query: QueryName, example = "preview";
        /// What the header, cookie or query parameter must be, exactly; of several of that name, one. Left out, and no `regex` or
        /// `canary`: anything.
        optional "value" value: ValueText, example = "yes";
        /// Instead of `value`: a regular expression that must match the whole value, as with Envoy (with nginx a part would do:
        /// write `.*beta.*` for that).
        optional "regex" regex: ValueRegex, example = "beta-[0-9]+";
        /// The methods that it may have. Left out: every method.
        optional "methods" methods: Vec<Marked<MethodName>>, example = ["GET", "HEAD"];
        /// The networks that its client may be in; the client is the one behind `trustedProxies`. Left out: everywhere.
        optional "clientCidrs" client_cidrs: Vec<Marked<IpNet>>, example = ["10.0.0.0/8", "fd00::/8"];
        /// What must be true besides.
        optional "and" and: Vec<Marked<ConditionFile>>, example = [{"cookie": "staff", "value": "yes"}];
        /// The version that the request gets.
        optional "version" version: VersionName, example = "v1";
        /// Instead of `version`, the convention of ingress-nginx: where the header, cookie or query parameter is `always` the
        /// request gets this version, where it is `never` the first one; by anything else the next rule is asked.
        optional "canary" canary: VersionName, example = "v2";
    }
}

object! {
    /// A further condition of a rule: on one of `header`, `cookie`, `query`.
    ConditionFile "condition", later [] {
        /// A header that the request must have.
        optional "header" header: HeaderName, example = "X-Beta";
        /// A cookie that it must have.
        optional "cookie" cookie: CookieName, example = "staff";
        /// A query parameter that it must have, decoded.
        optional "query" query: QueryName, example = "preview";
        /// What it must be, exactly. Left out, and no `regex`: anything.
        optional "value" value: ValueText, example = "yes";
        /// Instead of `value`: a regular expression that must match the whole value.
        optional "regex" regex: ValueRegex, example = "beta-[0-9]+";
    }
}

object! {
    /// Users instead of requests: one of `header`, `cookie`, `clientIp` tells them apart. A user stays with a version as long as
    /// the weights let him; requests without the key go by weight.
    CohortFile "cohort", later [] {
        /// The value of this header.
        optional "header" header: HeaderName, example = "X-User";
        /// The value of this cookie.
        optional "cookie" cookie: CookieName, example = "user";
        /// The address of the client, the one behind `trustedProxies`.
        optional "clientIp" client_ip: bool, example = true;
        /// Whether Serinus gives the cookie to browsers that do not have it: a random number of their own, never a version. Not with
        /// a cookie that the application sets.
        optional "set" set: bool, default = false, example = true;
        /// Another text deals the users anew; routes with the same one deal them alike. Left out: the name of the route.
        optional "salt" salt: Salt, example = "autumn";
    }
}
