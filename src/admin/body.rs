//! Reading a request's JSON body: bounded in size and time, and every fault told apart.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::Share;

use super::problem::Refused;

/// The largest body that is read.
pub(super) const LARGEST: usize = 64 << 10;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest reason, in characters.
const REASON: usize = 500;

/// Whether the content is said to be JSON. A page on another origin cannot say so without asking first.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    essence.as_deref() == Some("application/json")
}

/// The refusal of a body that is not said to be JSON.
pub(super) fn not_json() -> Refused {
    Refused::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not-json",
        "send the header `Content-Type: application/json` (it also keeps web pages on other origins from writing)",
    )
}

/// The body's bytes.
async fn bytes(headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        let detail = format!("the body is larger than {LARGEST} bytes, the most that is read");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    };
    if announced.is_some_and(|length| length > LARGEST as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, LARGEST)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(error)) => {
            let detail = format!("the body did not arrive whole: {error}");
            Err(Refused::new(StatusCode::BAD_REQUEST, "bad-body", detail))
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", PATIENCE.as_secs());
            Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "slow-body", detail))
        }
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    // `to_bytes` wraps the limit's error without naming its type; this is the text of `http_body_util`'s.
    std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source())
        .any(|e| e.to_string().contains("length limit exceeded"))
}

/// The body as JSON of this shape.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Refused> {
    if !is_json(headers) {
        return Err(not_json());
    }
    parse(&bytes(headers, body).await?)
}

/// The body as JSON of this shape; nothing where there is none.
pub(super) async fn optional_json<T>(headers: &HeaderMap, body: Body) -> Result<Option<T>, Refused>
where
    T: DeserializeOwned,
{
    let bytes = bytes(headers, body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !is_json(headers) {
        return Err(not_json());
    }
    parse(&bytes).map(Some)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let parsed = Json::<T>::from_bytes(bytes);
    parsed.map(|Json(value)| value).map_err(|rejection| match rejection.status() {
        StatusCode::UNPROCESSABLE_ENTITY => {
            Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-fields", rejection.body_text())
        }
        _ => Refused::new(StatusCode::BAD_REQUEST, "bad-json", rejection.body_text()),
    })
}

/// A reason that is kept whole, or the fault of one that would not be.
pub(super) fn check_reason(reason: Option<&str>) -> Result<(), String> {
    match reason.map(|r| r.chars().count()) {
        Some(length) if length > REASON => {
            Err(format!("`reason` has {length} characters, and {REASON} are kept: shorten it"))
        }
        _ => Ok(()),
    }
}

/// A change of weights as it was sent: its numbers are looked at one by one, so that every fault can be told.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AskedChange {
    weights: AskedWeights,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// Names and values in the order in which they were sent, doubles included.
#[derive(Debug)]
struct AskedWeights(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for AskedWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = AskedWeights;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of version names and percentages, like {\"v2\": 0.1}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AskedWeights, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(AskedWeights(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl AskedChange {
    /// The shares that were asked for, of a route with these versions; or everything that is wrong with them that can
    /// be said without knowing the weights in force.
    pub(super) fn shares(&self, versions: &[&str]) -> Result<BTreeMap<String, Share>, Vec<String>> {
        let mut errors: Vec<String> = check_reason(self.reason.as_deref()).err().into_iter().collect();
        let mut shares = BTreeMap::new();
        if self.weights.0.is_empty() {
            errors.push("`weights` is empty: name at least one version, like {\"v2\": 0.1}".to_owned());
        }
        for (name, value) in &self.weights.0 {
            let shown: String = name.chars().take(80).collect();
            match share(value) {
                Ok(share) => {
                    if shares.insert(name.clone(), share).is_some() {
                        errors.push(format!("weights.{shown}: given twice"));
                    }
                }
                Err(error) => errors.push(format!("weights.{shown}: {error}")),
            }
        }
        if errors.is_empty() {
            return Ok(shares);
        }
        // Where nothing was wrong so far, the state says which versions it does not know.
        let unknown = self.weights.0.iter().filter(|(name, _)| !versions.contains(&name.as_str()));
        errors.extend(unknown.map(|(name, _)| {
            let shown: String = name.chars().take(80).collect();
            format!("weights.{shown}: the route has no such version; there is {}", versions.join(", "))
        }));
        Err(errors)
    }
}

fn share(value: &Value) -> Result<Share, String> {
    match value.as_f64() {
        Some(percent) => Share::from_percent(percent).map_err(|e| e.to_string()),
        None => {
            let shown: String = value.to_string().chars().take(40).collect();
            Err(format!("{shown} is not a number: write a percentage from 0 to 100, like 0.1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(json: &str) -> Result<Vec<(String, u32)>, Vec<String>> {
        let asked: AskedChange = serde_json::from_str(json).unwrap();
        let shares = asked.shares(&["v1", "v2", "v3"])?;
        Ok(shares.into_iter().map(|(name, share)| (name, share.millionths())).collect())
    }

    #[test]
    fn percentages_are_exact() {
        for (text, millionths) in [
            ("0", 0),
            ("0.0001", 1),
            ("1e-4", 1),
            ("0.1", 1_000),
            ("5", 50_000),
            ("5.0", 50_000),
            ("33.3333", 333_333),
            ("99.9999", 999_999),
            ("1e2", 1_000_000),
        ] {
            let json = format!(r#"{{"weights": {{"v2": {text}}}}}"#);
            assert_eq!(shares(&json), Ok(vec![("v2".to_owned(), millionths)]), "{text}");
        }
    }

    #[test]
    fn every_fault_is_told_with_its_field() {
        let errors = shares(
            r#"{"weights": {"v1": -1, "v2": 0.00001, "v3": "5", "v9": 1, "v2": null}, "reason": "x"}"#,
        )
        .unwrap_err();
        let all = errors.join("\n");
        assert_eq!(errors.len(), 5, "{all}");
        for needle in [
            "weights.v1: -1 is not between",
            "weights.v2: 0.00001 percent is finer",
            r#"weights.v3: "5" is not a number"#,
            "weights.v2: null is not a number",
            "weights.v9: the route has no such version; there is v1, v2, v3",
        ] {
            assert!(all.contains(needle), "{needle} in {all}");
        }
        assert!(shares(r#"{"weights": {}}"#).unwrap_err().join("").contains("empty"));
        assert!(shares(r#"{"weights": {"v2": 1, "v2": 1}}"#).unwrap_err().join("").contains("twice"));
        let long = format!(r#"{{"weights": {{"v2": 1}}, "reason": "{}"}}"#, "ä".repeat(501));
        assert!(shares(&long).unwrap_err().join("").contains("501 characters"));
    }
}
