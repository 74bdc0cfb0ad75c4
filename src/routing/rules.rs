//! Rules: what a request itself asks for (semantics §3.1).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Condition, Part, Rule, Verdict};

use super::request_view::{RequestView, any_value};

/// The word that asks for the canary, and the one that asks for stable, as with ingress-nginx.
const ALWAYS: &[u8] = b"always";
const NEVER: &[u8] = b"never";

/// A rule with the places of its versions.
#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub(super) rule: Rule,
    /// The place of the version that it may lead to; stable's is 0.
    version: usize,
    /// It looks at a cookie, and its version was rolled out and taken back: it leads there no more (semantics §5.6).
    pub(super) ended: bool,
}

/// What a request says where a rule lets it ask for the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Always,
    Never,
    /// Neither.
    Other,
}

impl CompiledRule {
    /// The rule, whose version has this place; `taken_back` says that this version was rolled out and taken back.
    pub(super) fn new(rule: &Rule, version: usize, taken_back: bool) -> Self {
        let value_of = |condition: &Condition| matches!(condition, Condition::Value(Part::Cookie(_), _));
        let asks = matches!(&rule.verdict, Verdict::Canary { by: Part::Cookie(_), .. });
        let ended = taken_back && (asks || rule.conditions.iter().any(value_of));
        Self { rule: rule.clone(), version, ended }
    }

    /// The place of the version that it gives this request; nothing where it does not fit.
    pub(super) fn decide(&self, request: &dyn RequestView) -> Option<usize> {
        if !self.rule.conditions.iter().all(|condition| holds(condition, request)) {
            return None;
        }
        match &self.rule.verdict {
            Verdict::Version(_) => (!self.ended).then_some(self.version),
            Verdict::Canary { by, .. } => match wish(request, by) {
                Wish::Always => (!self.ended).then_some(self.version),
                Wish::Never => Some(0),
                Wish::Other => None,
            },
        }
    }
}

/// Whether this holds of the request.
pub(super) fn holds(condition: &Condition, request: &dyn RequestView) -> bool {
    match condition {
        Condition::Value(part, test) => any_value(request, part, &mut |value| test.passes(value)),
        Condition::Method(methods) => methods.iter().any(|method| method == request.method()),
        Condition::Client(networks) => request.client().is_some_and(|client| is_in(client, networks)),
    }
}

/// Whether this client is in one of these networks.
fn is_in(client: IpAddr, networks: &[IpNet]) -> bool {
    // Where a socket takes both, an IPv4 client comes in as IPv6.
    let client = client.to_canonical();
    networks.iter().any(|network| network.contains(&client))
}

/// What the request says there: the first of its values that says something.
pub(super) fn wish(request: &dyn RequestView, by: &Part) -> Wish {
    let mut wish = Wish::Other;
    any_value(request, by, &mut |value| {
        wish = match value {
            ALWAYS => Wish::Always,
            NEVER => Wish::Never,
            _ => Wish::Other,
        };
        wish != Wish::Other
    });
    wish
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
