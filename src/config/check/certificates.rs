//! Where certificates are: in files or in a Secret.

use std::path::PathBuf;

use crate::config::errors::{Errors, NamedFiles, Place};
use crate::config::file::CertificateFile;
use crate::config::input::{Field, Marked};
use crate::config::settings::Discovery;
use crate::model::{CertificateSource, PemSource, SecretKey};

/// Where a certificate and its key are; nothing when that is wrong, which `errors` then says.
pub(super) fn certificate(
    file: &Marked<CertificateFile>,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> Option<CertificateSource> {
    let place = &file.place;
    let CertificateFile { cert_file, key_file, secret } = &file.value;
    let message = match (cert_file, key_file, secret) {
        // What is wrong with it has been said.
        (Field::Bad, _, _) | (_, Field::Bad, _) | (_, _, Field::Bad) => return None,
        (Field::Given(cert), Field::Given(key), Field::Absent) => {
            let [chain, own] = [cert, key].map(|file| errors.file(&file.place, &file.value));
            errors.names(NamedFiles::Certificate { cert: chain, key: own });
            return Some(CertificateSource::Files { cert: cert.value.clone(), key: key.value.clone() });
        }
        (Field::Absent, Field::Absent, Field::Given(secret)) => {
            return Some(CertificateSource::Secret(found(secret, discovery, errors)));
        }
        (Field::Given(_), Field::Absent, Field::Absent) => "has no key: add `keyFile`",
        (Field::Absent, Field::Given(_), Field::Absent) => "has a key alone: add `certFile`",
        (Field::Absent, Field::Absent, Field::Absent) => {
            "says nothing: give `certFile` and `keyFile`, or `secret`"
        }
        (Field::Given(_), _, Field::Given(_)) | (_, Field::Given(_), Field::Given(_)) => {
            "says more than one thing: give `certFile` and `keyFile`, or `secret`"
        }
    };
    errors.add(place, message);
    None
}

/// A certificate, for people.
pub(super) fn shown(source: &CertificateSource) -> String {
    match source {
        CertificateSource::Files { cert, .. } => cert.display().to_string(),
        CertificateSource::Secret(secret) => secret.to_string(),
    }
}

/// Where the certificates of authorities are; nothing when that is left out, or wrong, which `errors` then says.
pub(super) fn authorities(
    file: &Field<PathBuf>,
    secret: &Field<SecretKey>,
    place: &Place,
    discovery: Option<&Discovery>,
    errors: &mut Errors,
) -> Option<PemSource> {
    match (file, secret) {
        (Field::Given(_), Field::Given(_)) => {
            errors.add(place, "says more than one thing: give one of `caFile`, `caSecret`");
            None
        }
        (Field::Given(file), Field::Absent) => {
            let named = errors.file(&file.place, &file.value);
            errors.names(NamedFiles::Authorities(named));
            Some(PemSource::File(file.value.clone()))
        }
        (Field::Absent, Field::Given(secret)) => Some(PemSource::Secret(found(secret, discovery, errors))),
        (Field::Absent, Field::Absent) | (Field::Bad, _) | (_, Field::Bad) => None,
    }
}

/// A Secret must be where Serinus looks.
fn found(secret: &Marked<SecretKey>, discovery: Option<&Discovery>, errors: &mut Errors) -> SecretKey {
    if let Some(Discovery::Static(_)) = discovery {
        errors.add(&secret.place, "a Secret is found only with `discovery.kubernetes`: name a file instead");
    }
    secret.value.clone()
}
