//! The fields of a listener.

use std::path::PathBuf;

use crate::config::input::{Marked, object};
use crate::config::numbers::{Limit, Port, RedirectStatus, Size, Whole};
use crate::config::settings::HostPort;
use crate::config::values::ListenerName;
use crate::config::words::Https;
use crate::model::{EscapedSlashes, MinTls, SecretKey, Underscores};

object! {
    /// A place where requests come in.
    ListenerFile "listener", later [] {
        /// Its name, unique in the file; a label in metrics.
        required "name" name: ListenerName, example = "web";
        /// Where it listens; port 0 lets the system choose one.
        required "address" address: HostPort, example = "0.0.0.0:8080";
        /// TLS towards the clients. Left out: none.
        optional "tls" tls: ListenerTlsFile, example = {"certificates": [{"certFile": "tls.crt", "keyFile": "tls.key"}]};
        /// What a client may ask for at most.
        optional "limits" limits: LimitsFile;
        /// How long a client may take.
        optional "timeouts" timeouts: ListenerTimeoutsFile;
        /// What happens to a path with an escaped slash or backslash (`%2F`, `%5C`), which pods may see as another path than
        /// the one that was routed: 400, or it is sent on as it is.
        optional "escapedSlashes" escaped_slashes: EscapedSlashes, default = "reject", example = "pass";
        /// Whether several slashes in a row become one.
        optional "mergeSlashes" merge_slashes: bool, default = false, example = true;
        /// What happens to headers with an underscore in their name, which many frameworks take for a `-`: left out, 400, or
        /// sent on.
        optional "underscores" underscores: Underscores, default = "drop", example = "reject";
        /// Whether each connection begins with a PROXY protocol header, version 1 or 2, which says who the client is. With
        /// `trustedProxies` a connection from anyone else is closed; without, everyone's header is believed: only where
        /// nobody but the load balancer can connect.
        optional "proxyProtocol" proxy_protocol: bool, default = false, example = true;
        /// Whether HTTP/2 is spoken: by ALPN with TLS, with prior knowledge without.
        optional "http2" http2: bool, default = true, example = false;
        /// Answers every request with a redirect to HTTPS; not with `tls`.
        optional "redirect" redirect: RedirectFile, example = {"scheme": "https"};
    }
}

object! {
    /// TLS towards the clients of a listener.
    ListenerTlsFile "tls", later [] {
        /// Its certificates, chosen by the name that the client asks for (SNI), exact names before wildcards. The first is for
        /// clients that ask for none, or for one that no certificate has. They are read again when they change.
        required "certificates" certificates: Vec<Marked<CertificateFile>>,
            example = [{"certFile": "/etc/serinus/tls/tls.crt", "keyFile": "/etc/serinus/tls/tls.key"}];
        /// The oldest version of TLS that is spoken.
        optional "minVersion" min_version: MinTls, default = "1.2", example = "1.3";
        /// Certificates of clients. Left out: they are not asked for one.
        optional "clientCertificates" client_certificates: ClientCertificatesFile, example = {"caFile": "/etc/serinus/ca.crt"};
    }
}

object! {
    /// A certificate with its key: `certFile` and `keyFile`, or `secret`.
    CertificateFile "certificate", later [] {
        /// The certificate in PEM, and after it those that lead to its authority.
        optional "certFile" cert_file: PathBuf, example = "/etc/serinus/tls/tls.crt";
        /// Its key in PEM.
        optional "keyFile" key_file: PathBuf, example = "/etc/serinus/tls/tls.key";
        /// A Secret of type `kubernetes.io/tls`; only with `discovery.kubernetes`.
        optional "secret" secret: SecretKey, example = "web/shop-tls";
    }
}

object! {
    /// Certificates of clients: `caFile` or `caSecret`.
    ClientCertificatesFile "client certificates", later [] {
        /// The authorities that may sign them, in PEM.
        optional "caFile" ca_file: PathBuf, example = "/etc/serinus/ca.crt";
        /// A Secret with these authorities as `ca.crt`; only with `discovery.kubernetes`.
        optional "caSecret" ca_secret: SecretKey, example = "web/clients-ca";
        /// Whether a client without one is refused. One that shows a bad one always is.
        optional "required" required: bool, default = true, example = false;
    }
}

object! {
    /// What a client may ask for at most.
    LimitsFile "limits", later [] {
        /// The longest request line: 414 beyond.
        optional "requestLine" request_line: Size<usize, 1_024, { 1 << 20 }>, default = "16KiB", example = "8KiB";
        /// The most that all header fields of a request may have: 431 beyond.
        optional "headerBytes" header_bytes: Size<usize, 1_024, { 1 << 20 }>, default = "64KiB", example = "32KiB";
        /// How many header fields a request may have: 431 beyond.
        optional "headerCount" header_count: Whole<usize, 1, 256>, default = 128, example = 64;
        /// How many connections may be open at once; further ones wait until one ends.
        optional "connections" connections: Whole<usize, 1, 1_000_000>, default = 50_000, example = 1_000;
        /// How many requests of one HTTP/2 connection may be open at once.
        optional "streams" streams: Whole<u32, 1, 10_000>, default = 128, example = 100;
    }
}

object! {
    /// How long a client may take.
    ListenerTimeoutsFile "timeouts", later [] {
        /// From the first byte of a request's head (from the begin of the connection, for its first one) to the last.
        optional "header" header: Limit, default = "10s", example = "5s";
        /// Between two pieces of a request's body.
        optional "body" body: Limit, default = "1m", example = "30s";
        /// How long it may take nothing of what is sent to it.
        optional "write" write: Limit, default = "1m", example = "30s";
        /// How long its connection may be without a request.
        optional "idle" idle: Limit, default = "75s", example = "5m";
    }
}

object! {
    /// A redirect to HTTPS: the same host and path.
    RedirectFile "redirect", later [] {
        /// Where to: `https`.
        required "scheme" scheme: Https, example = "https";
        /// The port that clients reach HTTPS on; 443 is left out of the address.
        optional "port" port: Port, default = 443, example = 8443;
        /// The status: 308 and 301 may be kept by clients, 307 and 302 not; after 301 and 302 they may turn POST into GET.
        optional "status" status: RedirectStatus, default = 308, example = 301;
    }
}
