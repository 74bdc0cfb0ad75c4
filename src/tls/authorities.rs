//! Certificates of authorities: those of settings, and those of the system.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::model::Problem;

use super::identity::certificates;
use super::source::Text;

/// Certificates of authorities that are trusted.
#[derive(Debug)]
pub(super) struct Authorities {
    /// For verifiers.
    pub(super) roots: Arc<RootCertStore>,
    ders: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads a bundle; each of its certificates must be one.
    pub(super) fn from_pem(text: &Text) -> Result<Self, Vec<Problem>> {
        let ders = certificates(text)?;
        let mut roots = RootCertStore::empty();
        let mut problems = Vec::new();
        for (i, der) in ders.iter().enumerate() {
            if let Err(error) = roots.add(der.clone()) {
                problems.push(Problem::new(
                    format!("certificate {} of {} cannot be an authority: {error}", i + 1, text.place),
                    "take it out, or replace it; `openssl x509 -noout -text` shows what it can read",
                ));
            }
        }
        if problems.is_empty() { Ok(Self { roots: Arc::new(roots), ders }) } else { Err(problems) }
    }

    /// Whether they are the same certificates.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.ders == other.ders
    }
}

/// The authorities that the system trusts (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or where distributions keep them).
pub(super) fn of_system() -> Result<Arc<RootCertStore>, Problem> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A bundle of a distribution may have what is not understood: the others are still good.
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good > 0 {
        return Ok(Arc::new(roots));
    }
    let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
    Err(Problem::new(
        format!("the system has no certificates of authorities, so no pod's certificate can be checked{why}"),
        "name them in `upstreamTls.ca`, install the system's (package ca-certificates), or set SSL_CERT_FILE",
    ))
}
