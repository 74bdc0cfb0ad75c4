//! `If-Match`: a change only if the revision in force is still the one that was looked at (RFC 9110 §13.1.1).

use axum::http::{HeaderMap, StatusCode, header};

use crate::model::Revision;
use crate::state::WeightsError;

use super::problem::Refused;

/// What `If-Match` asks for.
#[derive(Debug, PartialEq, Eq)]
enum IfMatch {
    /// It is not there, or `*`: whatever is in force.
    Any,
    /// One of these.
    OneOf(Vec<String>),
}

/// The revision that must be in force when the change is made, if `If-Match` names one. `current` is what the table in
/// force has; the state compares once more, so that of two writers who saw the same only one wins.
pub(super) fn expected(headers: &HeaderMap, current: Revision) -> Result<Option<Revision>, Refused> {
    match parse(headers)? {
        IfMatch::Any => Ok(None),
        IfMatch::OneOf(tags) if tags.iter().any(|tag| *tag == current.to_string()) => Ok(Some(current)),
        IfMatch::OneOf(tags) => {
            let numbers: Vec<u64> = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
            match numbers.as_slice() {
                [only] if tags.len() == 1 => {
                    Err(WeightsError::Stale { expected: Revision(*only), actual: current }.into())
                }
                _ => {
                    let detail = format!(
                        "revision {current} is in force, and If-Match names others: read the route again and decide anew"
                    );
                    Err(Refused::new(StatusCode::PRECONDITION_FAILED, "stale-revision", detail))
                }
            }
        }
    }
}

fn parse(headers: &HeaderMap) -> Result<IfMatch, Refused> {
    let mut tags = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        let refuse = || {
            let detail = "If-Match is not a list of revisions in quotes: write `If-Match: \"7\"`, the ETag of the route";
            Refused::new(StatusCode::BAD_REQUEST, "bad-if-match", detail)
        };
        for tag in value.to_str().map_err(|_| refuse())?.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(IfMatch::Any);
            }
            // Weak tags are taken as well: proxies weaken them, and a revision's number is the same either way.
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(refuse)?;
            tags.push(inner.to_owned());
        }
    }
    Ok(if headers.contains_key(header::IF_MATCH) { IfMatch::OneOf(tags) } else { IfMatch::Any })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    fn check(value: Option<&'static str>, expect: Result<Option<u64>, u16>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::IF_MATCH, value.parse().unwrap());
        }
        let found = expected(&headers, Revision(7)).map(|r| r.map(|r| r.0));
        assert_eq!(found.map_err(|e| e.into_response().status().as_u16()), expect, "{value:?}");
    }

    #[test]
    fn reads_tags_as_rfc_9110_writes_them() {
        check(None, Ok(None));
        check(Some("*"), Ok(None));
        check(Some("\"7\""), Ok(Some(7)));
        check(Some("W/\"7\""), Ok(Some(7)));
        check(Some("\"6\", \"7\""), Ok(Some(7)));
        check(Some("\"6\""), Err(412));
        check(Some("\"07\""), Err(412));
        check(Some("\"abc\""), Err(412));
        check(Some("\"5\",\"6\""), Err(412));
        check(Some("7"), Err(400));
        check(Some("\"7"), Err(400));
        check(Some("\""), Err(400));
        check(Some(""), Err(400));
    }
}
