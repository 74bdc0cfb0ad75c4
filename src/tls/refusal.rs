//! Why a client's handshake failed, in words for those who run the router.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "what has no words of its own here is told in those of rustls"
)]

use std::io;

use rustls::{AlertDescription, Error, PeerIncompatible};

use crate::model::{ConnectionRefusal, Problem};

/// How much of a connection's begin [`explain_refusal`] wants to see: enough for the signature of a PROXY header.
pub const BEGIN: usize = 12;

/// What every TLS connection begins with: the type of a handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// What a PROXY header begins with, version 2 and 1.
const PROXY: [&[u8]; 2] = [b"\r\n\r\n\0\r\nQUIT\n", b"PROXY "];
/// What a request in HTTP mostly begins with; `PRI` is HTTP/2's own (RFC 9113 §3.4).
const HTTP: [&[u8]; 9] =
    [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PRI "];

/// What rustls says where [`Chooser`](super::chooser::Chooser) has nothing to show; a test holds it to that.
const NOTHING_TO_SHOW: &str = "no server certificate chain resolved";

/// Why a handshake failed: `error`, of a connection that began with the bytes `begin`.
#[must_use]
pub fn explain_refusal(error: &io::Error, begin: &[u8]) -> (ConnectionRefusal, Problem) {
    if begin.first().is_some_and(|first| *first != HANDSHAKE) {
        return (ConnectionRefusal::NotTls, not_tls(begin));
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None => (
            ConnectionRefusal::TlsHandshake,
            Problem::new(
                match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        "the client closed the connection during the TLS handshake".to_owned()
                    }
                    kind => format!("the connection broke during the TLS handshake: {kind}"),
                },
                "it may not trust the certificate that it was shown, or have no patience: ask the client for its reason",
            ),
        ),
    }
}

fn not_tls(begin: &[u8]) -> Problem {
    let begins = |with: &[&[u8]]| with.iter().any(|with| begin.starts_with(with));
    if begins(&PROXY) {
        Problem::new(
            "a PROXY header came, on a listener that expects none",
            "set `proxyProtocol: true` on the listener",
        )
    } else if begins(&HTTP) {
        Problem::new(
            "plain HTTP came, on a listener for TLS",
            "let the client use https, or give it a listener without `tls`",
        )
    } else {
        Problem::new("what came is not TLS", "look at what the client speaks; a scanner, perhaps")
    }
}

fn of_tls(error: &Error) -> (ConnectionRefusal, Problem) {
    let (reason, what, remedy) = match error {
        Error::PeerIncompatible(incompatible) => {
            let (what, remedy) = incompatible_with(incompatible);
            (ConnectionRefusal::TlsIncompatible, what, remedy)
        }
        Error::General(what) if what == NOTHING_TO_SHOW => (
            ConnectionRefusal::NoCertificate,
            "there is no certificate to show to this client".to_owned(),
            "`serinus status` says which certificate or authority is not there: it takes effect as soon as it is",
        ),
        Error::NoApplicationProtocol => (
            ConnectionRefusal::TlsIncompatible,
            "the client wants to speak another protocol than this listener (ALPN)".to_owned(),
            "let it offer `http/1.1`; `h2` is taken where the listener has not `http2: false`",
        ),
        Error::NoCertificatesPresented => (
            ConnectionRefusal::ClientCertificate,
            "the client has no certificate, and this listener requires one".to_owned(),
            "give it one, or set `clientCertificates.required: false`",
        ),
        Error::InvalidCertificate(error) => (
            ConnectionRefusal::ClientCertificate,
            format!("the client's certificate is not accepted: {error}"),
            "let an authority of `clientCertificates` sign it, and look at its dates",
        ),
        Error::AlertReceived(alert) => (ConnectionRefusal::RefusedByClient, said(alert), about(alert)),
        other => (
            ConnectionRefusal::TlsHandshake,
            format!("the TLS handshake failed: {other}"),
            "look at the client's TLS, and at what is between it and here",
        ),
    };
    (reason, Problem::new(what, remedy))
}

fn incompatible_with(what: &PeerIncompatible) -> (String, &'static str) {
    use PeerIncompatible::{
        NoCipherSuitesInCommon, NoKxGroupsInCommon, NoSignatureSchemesInCommon,
        ServerDoesNotSupportTls12Or13, ServerTlsVersionIsDisabledByOurConfig,
        SupportedVersionsExtensionRequired, Tls12NotOffered, Tls12NotOfferedOrEnabled,
    };
    match what {
        ServerDoesNotSupportTls12Or13
        | ServerTlsVersionIsDisabledByOurConfig
        | SupportedVersionsExtensionRequired
        | Tls12NotOffered
        | Tls12NotOfferedOrEnabled => (
            "the client offers no version of TLS that this listener takes".to_owned(),
            "bring the client up to date; the oldest version that can be taken is 1.2 (`tls.minVersion`)",
        ),
        NoCipherSuitesInCommon | NoKxGroupsInCommon | NoSignatureSchemesInCommon => (
            format!("the client and the listener have no cryptography in common: {what:?}"),
            "bring the client up to date, or give the listener a certificate with another kind of key",
        ),
        other => (
            format!("the client's TLS lacks what is needed: {}", Error::PeerIncompatible(other.clone())),
            "bring the client up to date",
        ),
    }
}

fn said(alert: &AlertDescription) -> String {
    format!("the client ended the TLS handshake: it says {alert:?}")
}

fn about(alert: &AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            "let the client trust who signed the certificate, and let the certificate's file have the whole chain and the \
             name that the client asks for"
        }
        AlertDescription::CertificateExpired => {
            "look at the dates of the certificate and of its whole chain, and at the client's clock"
        }
        AlertDescription::CertificateRevoked => "renew the certificate",
        _ => "ask the client for its reason",
    }
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
