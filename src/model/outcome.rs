//! What became of a request, in the tokens that headers, logs and metrics share.

use serde::Serialize;

macro_rules! tokens {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $token:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $token)] $variant,)*
        }

        impl $name {
            /// Every value, in the order of [`Self::index`].
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The fixed token that users see.
            #[must_use]
            pub const fn token(self) -> &'static str {
                match self { $($name::$variant => $token,)* }
            }

            /// Its place in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.token())
            }
        }
    };
}

tokens! {
    /// Why a request got its version.
    ChoiceReason {
        /// By the split.
        Weight = "weight",
        /// By a rule.
        Rule = "rule",
        /// By its user's place among the users.
        Cohort = "cohort",
        /// It was another version's request: that had no usable pod (`onEmpty: spill`), was full (`maxInFlightPerPod`), or failed
        /// it (`shield`).
        Fallback = "fallback",
    }
}

tokens! {
    /// How an upstream failed an attempt.
    FailureKind {
        /// No connection: refused, unreachable, or not in time.
        Connect = "connect",
        /// The connection ended before the whole answer had come.
        Reset = "reset",
        /// The answer did not come in time.
        Timeout = "timeout",
        /// What came was not HTTP.
        Protocol = "protocol",
    }
}

tokens! {
    /// Why an endpoint was set aside: it gets no new requests for a while.
    SetAsideReason {
        /// It refused a connection (semantics §2.2).
        Refused = "refused",
        /// It failed too many attempts in a row (semantics §2.5).
        ConsecutiveFailures = "consecutive-failures",
        /// It failed more of its attempts than the others of its version (semantics §2.5).
        SuccessRate = "success-rate",
        /// It did not answer the health checks well.
        HealthCheck = "health-check",
    }
}

tokens! {
    /// What became of a copy of a request: the `outcome` of `serinus_mirrored_requests_total`. Each copy has one of the first
    /// four; one that was compared has one of the last two besides.
    MirrorOutcome {
        /// It was answered.
        Sent = "sent",
        /// It was sent, or should have been, and no answer came in time.
        Failed = "failed",
        /// It was not sent: too many were under way, no pod was there to get it, or its request had not come whole.
        Dropped = "dropped",
        /// It was not sent: its body is longer than is copied.
        TooLarge = "too-large",
        /// It was answered as the request was: the same status, and the same body.
        Same = "same",
        /// It was answered otherwise.
        Different = "different",
    }
}

tokens! {
    /// Why a client's connection ended before it had its first request: the `reason` of
    /// `serinus_connections_refused_total`.
    ConnectionRefusal {
        /// What came is not TLS, on a listener that takes nothing else.
        NotTls = "not-tls",
        /// Client and listener have no version of TLS, or nothing else that they need, in common.
        TlsIncompatible = "tls-incompatible",
        /// There is no certificate to show (yet).
        NoCertificate = "no-certificate",
        /// The client's certificate is missing, or not to be trusted.
        ClientCertificate = "client-certificate",
        /// The client did not want what it was shown, and said so (by an alert, RFC 8446 §6).
        RefusedByClient = "refused-by-client",
        /// The TLS handshake failed in another way: it broke off, or what came is malformed.
        TlsHandshake = "tls-handshake",
        /// The TLS handshake did not end in time.
        TlsTimeout = "tls-timeout",
        /// There was no PROXY header, or a malformed one.
        ProxyProtocol = "proxy-protocol",
        /// The PROXY header did not come in time.
        ProxyProtocolTimeout = "proxy-protocol-timeout",
        /// The PROXY header came from one who is not in `trustedProxies`.
        ProxyProtocolUntrusted = "proxy-protocol-untrusted",
    }
}

tokens! {
    /// Why Serinus answered a request itself: the value of `X-Serinus-Reason`.
    AnswerReason {
        /// 404: no route has this host and path.
        NoRoute = "no-route",
        /// 503: the route matches, and no version has a usable pod.
        NoEndpoints = "no-endpoints",
        /// 502: no pod that was tried took the connection.
        ConnectFailed = "connect-failed",
        /// 502: the pod ended the connection before it had answered.
        UpstreamReset = "upstream-reset",
        /// 502: the pod's answer was not HTTP.
        UpstreamProtocol = "upstream-protocol",
        /// 504: the pod did not answer in time.
        Timeout = "timeout",
        /// 400: the request was malformed.
        BadRequest = "bad-request",
        /// 431: more header fields, or longer ones, than the listener takes.
        HeaderTooLarge = "header-too-large",
        /// 414: a longer request line than the listener takes.
        UriTooLong = "uri-too-long",
        /// 413: a longer body than the route takes.
        BodyTooLarge = "body-too-large",
        /// 408: the client did not send its request in time.
        ClientTimeout = "client-timeout",
        /// 421: the host is not one that this TLS connection is for.
        Misdirected = "misdirected",
        /// 417, 501, 505: an expectation, coding or version that is not served.
        NotSupported = "not-supported",
        /// 301, 302, 307, 308: the listener sends its clients to HTTPS.
        Redirect = "redirect",
        /// 405: the method is not for a router (CONNECT, TRACE).
        MethodNotAllowed = "method-not-allowed",
        /// 503: the router has no descriptor left for a connection to a pod.
        Overloaded = "overloaded",
        /// 503: the router stops, and `drain.timeout` passed before the answer came.
        DrainTimeout = "drain-timeout",
        /// An event stream, a gRPC call or an upgraded connection was cut: its version was taken back, and
        /// `rollout.abortDeadline` has passed.
        TakenBack = "taken-back",
        /// 500: a fault of Serinus itself.
        Internal = "internal",
    }
}
