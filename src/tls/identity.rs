//! A certificate with its key: read from PEM, checked, and what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::model::{Problem, Timestamp};

use super::provider;
use super::source::Text;

/// A certificate this near to its end is a problem: whoever renews it has had the time.
const NEAR: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate with its key, both checked.
#[derive(Debug)]
pub(super) struct Identity {
    /// For handshakes.
    pub(super) key: Arc<CertifiedKey>,
    /// The DNS names that it is for, in lower case; wildcards with their `*.`.
    pub(super) names: Vec<String>,
    not_before: Timestamp,
    /// Its end.
    pub(super) not_after: Timestamp,
}

impl Identity {
    /// Reads a chain, leaf first, and the leaf's key. Tells everything that is wrong with either.
    ///
    /// Not whether it is expired: that comes with time, and a certificate that is too old is still better than none
    /// (see [`Identity::problem`]).
    pub(super) fn from_pem(chain: &Text, key: &Text) -> Result<Self, Vec<Problem>> {
        match (read_chain(chain), read_key(key)) {
            (Ok((chain_der, facts)), Ok(key_der)) => {
                let key = pair(chain_der, chain, key_der, key).map_err(|problem| vec![problem])?;
                let Facts { names, not_before, not_after } = facts;
                Ok(Self { key: Arc::new(key), names, not_before, not_after })
            }
            (chain, key) => {
                let mut problems = chain.err().unwrap_or_default();
                problems.extend(key.err());
                Err(problems)
            }
        }
    }

    /// Whether it is the same certificate: then it is with the same key too, for both fit it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }

    /// What is wrong with its dates at a moment; `name` is how the certificate is called.
    pub(super) fn problem(&self, name: &str, now: Timestamp) -> Option<Problem> {
        let soon = u64::try_from(NEAR.as_millis()).unwrap_or(u64::MAX);
        let (what, remedy) = if now > self.not_after {
            let what = format!("has expired on {}, and clients refuse it", self.not_after);
            (what, "renew it, and put the new one in its place: it is read by itself")
        } else if now < self.not_before {
            let what = format!("is valid only from {} on, and clients refuse it", self.not_before);
            (what, "wait, or replace it; if that moment is over, correct this machine's clock")
        } else if now.millis().saturating_add(soon) > self.not_after.millis() {
            let what = format!("expires on {}, in less than 7 days", self.not_after);
            (
                what,
                "renew it now, and find out why it was not renewed by itself; the new one is read by itself",
            )
        } else {
            return None;
        };
        Some(Problem::new(format!("the certificate {name} {what}"), remedy))
    }
}

/// What a leaf says of itself.
pub(super) struct Facts {
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A chain, leaf first, and what the leaf says of itself.
pub(super) fn read_chain(text: &Text) -> Result<(Vec<CertificateDer<'static>>, Facts), Vec<Problem>> {
    let place = &text.place;
    let mut chain = Vec::new();
    let mut problems = Vec::new();
    let mut facts = None;
    for (i, der) in certificates(text)?.into_iter().enumerate() {
        match X509Certificate::from_der(&der) {
            Ok(([], certificate)) => {
                facts = facts.or_else(|| (i == 0).then(|| Facts::of(&certificate)));
            }
            Ok(_) | Err(_) => problems.push(Problem::new(
                format!(
                    "certificate {} of {place} is none: what is between its BEGIN and END is no X.509",
                    i + 1
                ),
                "write the chain anew, leaf first; `openssl x509 -noout -text` shows what it can read",
            )),
        }
        chain.push(der);
    }
    match facts {
        Some(facts) if problems.is_empty() => Ok((chain, facts)),
        _ => Err(problems),
    }
}

/// The certificates of a PEM text, not looked into; at least one.
pub(super) fn certificates(text: &Text) -> Result<Vec<CertificateDer<'static>>, Vec<Problem>> {
    let place = &text.place;
    let problem = |what: String| {
        let remedy = "it must hold PEM text: one block from `-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----` after the other";
        vec![Problem::new(what, remedy)]
    };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text.bytes).collect();
    let found = read.map_err(|_| problem(format!("{place} is no PEM text, or is cut short")))?;
    if found.is_empty() {
        return Err(problem(format!("{place} has no certificate")));
    }
    Ok(found)
}

/// The private key in a text.
pub(super) fn read_key(text: &Text) -> Result<PrivateKeyDer<'static>, Problem> {
    let place = &text.place;
    // Nothing of what was read may be in a message here: it is a key.
    PrivateKeyDer::from_pem_slice(&text.bytes).map_err(|_| {
        let encrypted = text.bytes.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
        if encrypted {
            let remedy =
                "decrypt it (`openssl pkey -in KEY -out PLAIN`), and guard it by the rights of the file";
            return Problem::new(format!("the private key in {place} is encrypted"), remedy);
        }
        Problem::new(
            format!("{place} has no private key, or it is cut short"),
            "it must hold one, as PEM text: `-----BEGIN PRIVATE KEY-----`, or that of RSA or EC",
        )
    })
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn pair(
    chain: Vec<CertificateDer<'static>>,
    chain_text: &Text,
    key: PrivateKeyDer<'static>,
    key_text: &Text,
) -> Result<CertifiedKey, Problem> {
    let (chain_place, key_place) = (&chain_text.place, &key_text.place);
    let loaded = provider().key_provider.load_private_key(key).map_err(|_| {
        Problem::new(
            format!("the private key in {key_place} is of a kind that is not known, or damaged"),
            "use RSA with 2048 to 4096 bits, ECDSA with P-256 or P-384, or Ed25519",
        )
    })?;
    let pair = CertifiedKey::new(chain, loaded);
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(mismatch(&pair, chain_place, key_place))
        }
        Err(error) => Err(Problem::new(
            format!("the first certificate of {chain_place} cannot be used: {error}"),
            "it must be an X.509 certificate of version 3",
        )),
    }
}

/// Says what fits instead, if something does.
fn mismatch(pair: &CertifiedKey, chain: &str, key: &str) -> Problem {
    let fits = |der: &&CertificateDer<'static>| {
        CertifiedKey::new(vec![(*der).clone()], Arc::clone(&pair.key)).keys_match().is_ok()
    };
    if pair.cert.iter().skip(1).any(|der| fits(&der)) {
        return Problem::new(
            format!("the key in {key} fits a certificate of {chain} that is not its first"),
            "put that one first, then the one that signed it, and so on",
        );
    }
    Problem::new(
        format!("the key in {key} does not fit the certificate in {chain}"),
        "both must come from the same request; if they are being replaced, replace both: they are read again by themselves",
    )
}

impl Facts {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        let moment =
            |seconds: i64| Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        Self {
            names: names(certificate),
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
        }
    }
}

/// The DNS names of the certificate; its common name only if it has no alternative names at all (RFC 9525 §2, and RFC 6125
/// §6.4.4 for those from before).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let lower = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    match certificate.subject_alternative_name() {
        Ok(Some(names)) => {
            let mut found = Vec::new();
            for name in &names.value.general_names {
                if let GeneralName::DNSName(name) = name {
                    found.push(lower(name));
                }
            }
            found
        }
        Ok(None) => {
            let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
            common.map(lower).collect()
        }
        // Not read, so not matched: it is still the listener's default if it is the first.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
