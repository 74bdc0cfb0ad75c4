//! Which certificate a client is shown.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity::Identity;

/// Chooses by the name that a client asks for (SNI, RFC 6066 §3). Swapped whole, without a lock.
#[derive(Default)]
pub(super) struct Chooser {
    choices: ArcSwap<Choices>,
}

impl Chooser {
    /// Puts certificates into force, in the order of the settings; those that are not there yet are nothing.
    pub(super) fn publish(&self, identities: &[Option<Arc<Identity>>]) {
        self.choices.store(Arc::new(Choices::new(identities)));
    }

    /// Whether two names (nothing for a client that named none) get the same certificate.
    pub(super) fn is_same(&self, one: Option<&str>, other: Option<&str>) -> bool {
        let choices = self.choices.load();
        choices.choose(one) == choices.choose(other)
    }
}

impl ResolvesServerCert for Chooser {
    /// Nothing refuses the handshake: where the certificate is not there yet, any other would be a wrong one.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let choices = self.choices.load();
        choices.keys.get(choices.choose(hello.server_name()))?.clone()
    }
}

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let choices = self.choices.load();
        let names: Vec<_> = choices.exact.keys().chain(choices.wildcard.keys()).collect();
        f.debug_struct("Chooser").field("names", &names).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Choices {
    keys: Vec<Option<Arc<CertifiedKey>>>,
    /// By a whole name.
    exact: HashMap<String, usize>,
    /// By what follows `*.`.
    wildcard: HashMap<String, usize>,
}

/// No DNS name is longer (RFC 1035 §2.3.4).
const LONGEST: usize = 253;

impl Choices {
    fn new(identities: &[Option<Arc<Identity>>]) -> Self {
        let mut choices = Self::default();
        for (place, identity) in identities.iter().enumerate() {
            choices.keys.push(identity.as_ref().map(|identity| Arc::clone(&identity.key)));
            for name in identity.iter().flat_map(|identity| &identity.names) {
                // A `*` is a whole first label or nothing at all (RFC 9525 §6.3).
                let (names, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut choices.wildcard, suffix),
                    None => (&mut choices.exact, name.as_str()),
                };
                if !name.contains('*') {
                    // Of two for one name, the first.
                    names.entry(name.to_owned()).or_insert(place);
                }
            }
        }
        choices
    }

    /// The place of a name's certificate: by the whole name, then by wildcard, else the first.
    fn choose(&self, name: Option<&str>) -> usize {
        name.and_then(|name| self.find(name)).unwrap_or(0)
    }

    fn find(&self, name: &str) -> Option<usize> {
        // In lower case, and without the dot of an absolute name, on the stack.
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let mut buffer = [0; LONGEST];
        let buffer = buffer.get_mut(..name.len())?;
        buffer.copy_from_slice(name);
        buffer.make_ascii_lowercase();
        let name = std::str::from_utf8(buffer).ok()?;
        if let Some(place) = self.exact.get(name) {
            return Some(*place);
        }
        // One label, and not an empty one.
        let (label, suffix) = name.split_once('.')?;
        if label.is_empty() { None } else { self.wildcard.get(suffix).copied() }
    }
}

#[cfg(test)]
#[path = "chooser_tests.rs"]
mod tests;
