//! A request as rules and cohorts look at it, and the cookie that a new browser is given (semantics §3.1, §3.2).

use std::net::IpAddr;

use cookie::time::Duration;
use cookie::{Cookie, SameSite};

use crate::model::HashKey;
use crate::routing::RequestView;
use crate::wire::RequestHead;

use super::Gateway;
use super::connection::Client;
use super::headers::FORWARDED_PROTO;
use super::request::Routed;

/// How long a browser keeps its cookie: browsers cut more than 400 days.
const COOKIE_AGE: Duration = Duration::days(365);

/// A request that has come to the gateway.
pub(super) struct Seen<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) client: &'a Client,
    pub(super) head: &'a RequestHead,
}

impl RequestView for Seen<'_> {
    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    fn header(&self, name: &str, see: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.head.fields.all(name).any(see)
    }

    fn query(&self) -> &str {
        self.head.target.split_once('?').map_or("", |(_, query)| query)
    }

    fn client(&self) -> Option<IpAddr> {
        Some(self.gateway.client_of(self.client, self.head))
    }
}

/// The `Set-Cookie` of a new browser, where this request's is one. `head` says by what scheme its client came.
pub(super) fn cookie(routed: &Routed, head: &RequestHead) -> Option<String> {
    let user = routed.choice.new_user?;
    let HashKey::Cookie(name) = &routed.route.spec.audience.cohort.as_ref()?.key else { return None };
    let scheme = head.fields.elements(FORWARDED_PROTO).next().unwrap_or_default();
    let cookie = Cookie::build((name.as_str(), format!("{user:016x}")))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(scheme.eq_ignore_ascii_case(b"https"))
        .max_age(COOKIE_AGE);
    Some(cookie.to_string())
}
