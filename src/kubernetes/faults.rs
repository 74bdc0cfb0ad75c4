//! Errors of the API → what they mean for a watch, and problems that say what to do.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use kube::core::Status;
use kube::runtime::watcher;

use crate::model::{ClusterKind, Namespace, Problem};

use super::access::Origin;
use super::link::NoAnswer;
use super::permissions::{Permission, permission};

/// What an error means for a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An open watch broke off: it is opened again where it was.
    Cut(String),
    /// What it knows is too old, or something was missed: it lists anew.
    Lost(String),
    /// It cannot be opened.
    Trouble(Problem),
}

/// Which watch an error is about.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    pub(super) kind: ClusterKind,
    /// The one object that is watched; nothing for several.
    pub(super) name: Option<Arc<str>>,
    pub(super) origin: Origin,
}

impl Place {
    /// What an error of the watcher means.
    pub(super) fn fault(&self, error: &watcher::Error) -> Fault {
        match error {
            watcher::Error::InitialListFailed(error) => self.request("list", error),
            watcher::Error::WatchStartFailed(error) => self.request("watch", error),
            // Something on an open stream is no event that can be used: 410 Gone, another error, or no event at all (which
            // kube takes for a status without content). The watcher would go on with the stream as if nothing were missed.
            watcher::Error::WatchError(status) => Fault::Lost(status.message.clone()),
            watcher::Error::WatchFailed(kube::Error::Api(status)) => {
                Fault::Lost(format!("no event: {status}"))
            }
            watcher::Error::WatchFailed(kube::Error::SerdeError(error)) => {
                Fault::Lost(format!("no event: {error}"))
            }
            // The stream ends with this, and the watcher opens it again where it was.
            watcher::Error::WatchFailed(error) => Fault::Cut(chain(error)),
            watcher::Error::NoResourceVersion => {
                Fault::Lost("an answer without a resourceVersion".to_owned())
            }
        }
    }

    /// What an error of a request that is no watch means.
    pub(super) fn problem(&self, verb: &str, error: &kube::Error) -> Problem {
        self.asked().problem(verb, error)
    }

    fn request(&self, verb: &str, error: &kube::Error) -> Fault {
        if let kube::Error::Api(status) = error
            && status.code == 410
        {
            return Fault::Lost(status.message.clone());
        }
        Fault::Trouble(self.asked().problem(verb, error))
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            namespace: &self.namespace,
            permission: permission(self.kind),
            name: self.name.as_deref(),
            origin: &self.origin,
        }
    }

    /// Answers come, and listing anew again and again does not help.
    pub(super) fn useless(&self, reason: &str) -> Problem {
        let reason: String = reason.chars().take(300).collect();
        Problem::new(
            format!(
                "the answers of the API server at {} about {} cannot be used: {reason}",
                self.origin.url,
                self.asked().what()
            ),
            "check that the URL is the API server's, and what is between (a proxy, an aggregation layer)",
        )
    }
}

/// What the API server was asked for, and in whose words.
pub(super) struct Asked<'a> {
    pub(super) namespace: &'a Namespace,
    /// What that needs.
    pub(super) permission: Permission,
    /// The one object that it is about; nothing for several.
    pub(super) name: Option<&'a str>,
    pub(super) origin: &'a Origin,
}

impl Asked<'_> {
    /// Why it was not to be had, and what to do.
    pub(super) fn problem(&self, verb: &str, error: &kube::Error) -> Problem {
        if let kube::Error::Api(status) = error {
            return self.status(verb, status);
        }
        self.unreachable(verb, error)
    }

    fn status(&self, verb: &str, status: &Status) -> Problem {
        let what = self.what();
        if status.is_forbidden() {
            self.forbidden(verb, status)
        } else if status.code == 401 {
            Problem::new(
                format!("the API server at {} does not accept the credentials (401)", self.origin.url),
                match &self.origin.kubeconfig {
                    None => {
                        "check that the pod's ServiceAccount still exists and its token is mounted".to_owned()
                    }
                    Some(file) => {
                        format!("renew the credentials of the kubeconfig {}", file.display())
                    }
                },
            )
        } else if status.code == 404 {
            Problem::new(
                format!("the API server at {} does not know {what} (404)", self.origin.url),
                "Kubernetes 1.21 or newer is needed; check that the URL is the API server's",
            )
        } else {
            let message: String = status.message.chars().take(300).collect();
            Problem::new(
                format!("the API server could not {verb} {what} ({}): {message}", status.code),
                "check the API server's health (`kubectl get --raw /readyz?verbose`)",
            )
        }
    }

    /// Says which permission is missing, to whom, and how to check it.
    fn forbidden(&self, verb: &str, status: &Status) -> Problem {
        let Asked { namespace, permission, name, .. } = self;
        let verb = between(&status.message, " cannot ", " resource ").unwrap_or(verb);
        let user = between(&status.message, "User \"", "\"");
        let whom = user.map(|user| format!(" to `{user}`")).unwrap_or_default();
        let resource = match permission.api_group {
            "" => permission.resource.to_owned(),
            group => format!("{}.{group}", permission.resource),
        };
        let of_one = name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
        let object = name.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        let role = match (permission.resource, name) {
            ("configmaps" | "leases", _) => "the Role of deploy/base".to_owned(),
            (_, Some(name)) => format!("the Role of deploy/secrets, with `{name}` among its resourceNames,"),
            (_, None) => "the Role of deploy/".to_owned(),
        };
        let as_user = user.map(|user| format!(" --as={user}")).unwrap_or_default();
        Problem::new(
            format!(
                "the API server forbids{whom} to {verb} {}{of_one} in namespace {namespace} (403, API group \"{}\")",
                permission.resource, permission.api_group
            ),
            format!(
                "bind {role} in namespace {namespace}; `kubectl auth can-i {verb} {resource}{object} -n {namespace}{as_user}` must say yes"
            ),
        )
    }

    fn unreachable(&self, verb: &str, error: &kube::Error) -> Problem {
        let url = &self.origin.url;
        let source = match &self.origin.kubeconfig {
            None => "the cluster's own address".to_owned(),
            Some(file) => format!("from the kubeconfig {}", file.display()),
        };
        let network = format!(
            "check that the API server runs and that nothing (NetworkPolicy, firewall) is between; its address is {source}"
        );
        if find::<NoAnswer>(error).is_some() {
            return Problem::new(format!("the API server at {url} does not answer"), network);
        }
        let text = chain(error);
        let kind = io_kind(error);
        let what = match kind {
            Some(io::ErrorKind::ConnectionRefused) => Some("refuses connections"),
            Some(io::ErrorKind::TimedOut) => Some("does not answer"),
            Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                Some("cannot be reached")
            }
            _ => None,
        };
        if let Some(what) = what {
            return Problem::new(format!("the API server at {url} {what}"), network);
        }
        let lower = text.to_ascii_lowercase();
        // rustls reports whatever it does not like as invalid data.
        let data = kind == Some(io::ErrorKind::InvalidData) && url.starts_with("https:");
        if data
            || ["certificate", "tls", "handshake", "unknownissuer"].iter().any(|word| lower.contains(word))
        {
            return Problem::new(
                format!("no TLS with the API server at {url}: {text}"),
                "check its certificate and the certificate authority that is trusted (`certificate-authority-data` of a kubeconfig, ca.crt of a ServiceAccount)",
            );
        }
        Problem::new(format!("the API server at {url} could not {verb} {}: {text}", self.what()), network)
    }

    fn what(&self) -> String {
        match &self.name {
            Some(name) => {
                format!("{} named {name} in namespace {}", self.permission.resource, self.namespace)
            }
            None => format!("{} in namespace {}", self.permission.resource, self.namespace),
        }
    }
}

/// The text between two marks.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// An error and all that is behind it; an `io::Error` leaves out what it wraps, which is looked into here.
fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| (**error).source())
    })
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    sources(error).find_map(|error| error.downcast_ref::<E>())
}

/// The kind of the innermost I/O error.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    sources(error).filter_map(|error| error.downcast_ref::<io::Error>()).last().map(io::Error::kind)
}

/// What an error and its sources say, each thing once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for error in sources(error) {
        let more = error.to_string();
        if !text.contains(&more) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&more);
        }
    }
    text.chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(kind: ClusterKind) -> Place {
        let origin = Origin { url: "https://10.0.0.1/".into(), kubeconfig: None };
        Place { namespace: "web".into(), kind, name: None, origin }
    }

    fn api(code: u16, reason: &str, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, reason).with_code(code).boxed())
    }

    #[track_caller]
    fn trouble(fault: Fault) -> Problem {
        let Fault::Trouble(problem) = fault else { panic!("{fault:?}") };
        problem
    }

    #[test]
    fn forbidden_says_which_permission_is_missing_and_how_to_check_it() {
        let message = "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:serinus:serinus\" cannot watch resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"web\"";
        let error = watcher::Error::InitialListFailed(api(403, "Forbidden", message));
        let problem = trouble(place(ClusterKind::EndpointSlices).fault(&error));
        for needle in
            ["forbids", "serviceaccount:serinus", "watch endpointslices", "namespace web", "discovery.k8s.io"]
        {
            assert!(problem.message.contains(needle), "{needle}: {problem}");
        }
        let check = "kubectl auth can-i watch endpointslices.discovery.k8s.io -n web --as=system:serviceaccount:serinus:serinus";
        assert!(problem.remedy.contains(check) && problem.remedy.contains("deploy/"), "{problem}");
    }

    #[test]
    fn forbidden_a_secret_names_it_and_the_role_for_it() {
        let message = "secrets \"shop-tls\" is forbidden: User \"u\" cannot list resource \"secrets\" in API group \"\" in the namespace \"web\"";
        let error = watcher::Error::InitialListFailed(api(403, "Forbidden", message));
        let place = Place { name: Some("shop-tls".into()), ..place(ClusterKind::Secrets) };
        let problem = trouble(place.fault(&error));
        assert!(problem.message.contains("to list secrets named shop-tls in namespace web"), "{problem}");
        for needle in ["deploy/secrets", "resourceNames", "can-i list secrets/shop-tls -n web --as=u"] {
            assert!(problem.remedy.contains(needle), "{needle}: {problem}");
        }
    }

    #[test]
    fn forbidden_without_the_usual_message_falls_back_on_the_request() {
        let error = watcher::Error::WatchStartFailed(api(403, "Forbidden", "no"));
        let problem = trouble(place(ClusterKind::Pods).fault(&error));
        assert!(problem.message.contains("forbids to watch pods in namespace web"), "{problem}");
        assert!(problem.remedy.contains("can-i watch pods -n web`"), "{problem}");
    }

    #[test]
    fn gone_is_no_trouble_wherever_it_comes_from() {
        let status = || Status::failure("too old resource version", "Expired").with_code(410);
        for error in [
            watcher::Error::WatchError(status().boxed()),
            watcher::Error::WatchStartFailed(kube::Error::Api(status().boxed())),
            watcher::Error::WatchFailed(kube::Error::Api(status().boxed())),
            watcher::Error::InitialListFailed(kube::Error::Api(status().boxed())),
        ] {
            assert!(matches!(place(ClusterKind::Pods).fault(&error), Fault::Lost(_)), "{error}");
        }
    }

    #[test]
    fn other_answers_say_what_to_do() {
        let check = |code, message: &str, needle: &str| {
            let error = watcher::Error::InitialListFailed(api(code, "", message));
            let problem = trouble(place(ClusterKind::Services).fault(&error)).to_string();
            assert!(problem.contains(needle), "{problem}");
        };
        check(401, "Unauthorized", "ServiceAccount still exists");
        check(404, "page not found", "Kubernetes 1.21");
        check(500, "etcdserver: leader changed", "leader changed");
        check(503, "", "/readyz");
    }

    #[test]
    fn network_and_tls_are_told_apart() {
        let problem = |error: io::Error| {
            let error = watcher::Error::InitialListFailed(kube::Error::ReadEvents(error));
            trouble(place(ClusterKind::Services).fault(&error)).message
        };
        assert!(problem(io::ErrorKind::ConnectionRefused.into()).ends_with("refuses connections"));
        assert!(problem(io::ErrorKind::TimedOut.into()).ends_with("does not answer"));
        let tls = || io::Error::new(io::ErrorKind::InvalidData, "corrupt message");
        assert!(problem(tls()).starts_with("no TLS"));
        assert!(problem(io::Error::other(tls())).starts_with("no TLS"));
        assert!(problem(io::Error::other("invalid peer certificate: UnknownIssuer")).starts_with("no TLS"));
    }

    #[test]
    fn a_stream_that_breaks_is_no_trouble_by_itself() {
        let reset = kube::Error::ReadEvents(io::ErrorKind::ConnectionReset.into());
        let fault = place(ClusterKind::Pods).fault(&watcher::Error::WatchFailed(reset));
        assert!(matches!(fault, Fault::Cut(_)), "{fault:?}");
    }
}
