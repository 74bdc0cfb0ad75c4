//! What Serinus keeps of a Kubernetes Secret.

use std::fmt;

use zeroize::Zeroizing;

/// The parts of a Secret that TLS uses. The key is wiped from memory when it is dropped, and nothing of
/// it is ever shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData {
    /// `tls.crt`: a chain of certificates as PEM, leaf first.
    pub certificate: Option<Vec<u8>>,
    /// `tls.key`: its private key as PEM.
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// `ca.crt`: certificates of authorities as PEM.
    pub authorities: Option<Vec<u8>>,
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = |part: bool| if part { "there" } else { "none" };
        f.debug_struct("SecretData")
            .field("certificate", &there(self.certificate.is_some()))
            .field("key", &there(self.key.is_some()))
            .field("authorities", &there(self.authorities.is_some()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let data = SecretData {
            certificate: Some(b"public".to_vec()),
            key: Some(Zeroizing::new(b"hidden".to_vec())),
            authorities: None,
        };
        let shown = format!("{data:?} {data:#?}");
        let bytes = format!("{:?}", b"hidden");
        assert!(!shown.contains("hidden") && !shown.contains(&bytes), "{shown}");
        assert!(shown.contains("key: \"there\"") && shown.contains("authorities: \"none\""), "{shown}");
    }
}
