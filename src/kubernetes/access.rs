//! Finding the API server: in-cluster, else by kubeconfig.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Where the cluster is and as whom to speak to it (`discovery.kubernetes`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterAccess {
    /// A kubeconfig file; without one: the pod's own service account, else `$KUBECONFIG`, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; without one: its `current-context`.
    pub context: Option<String>,
}

/// How long to wait for an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// For the next byte. An open watch carries a bookmark about every minute, so one that is silent for longer is
    /// half-open: its other end is gone without a word.
    pub silence: Duration,
    /// Before the second attempt; it doubles from there.
    pub retry_first: Duration,
    /// Between attempts at most.
    pub retry_most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(100),
            retry_first: Duration::from_millis(200),
            retry_most: Duration::from_secs(10),
        }
    }
}

/// A way to speak to an API server. It is not connected yet when it is made; each request finds its own connection.
#[derive(Clone)]
pub struct Client {
    /// Shared by all watches, so that renewed credentials are those of all.
    inner: Arc<Mutex<kube::Client>>,
    access: ClusterAccess,
    pub(super) patience: Patience,
    pub(super) origin: Origin,
}

impl Client {
    /// A client with the credentials that are known.
    pub(super) fn current(&self) -> kube::Client {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the credentials anew, after the API server refused those that are known. kube reads a token file about once a
    /// minute, and by the wall clock: after it was set back, not before it is where it was. What cannot be read changes
    /// nothing.
    pub(super) async fn renew(&self) {
        if let Ok(renewed) = connect_with(&self.access, self.patience).await {
            *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = renewed.current();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of the credentials.
        f.debug_struct("Client").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Where the address and the credentials come from: what a remedy has to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The API server's URL.
    pub(super) url: String,
    /// The kubeconfig file; none in-cluster.
    pub(super) kubeconfig: Option<PathBuf>,
}

/// Why there is no way to speak to an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither in a pod nor is there a kubeconfig.
    #[error(
        "no cluster: this is not a pod (KUBERNETES_SERVICE_HOST is not set) and there is no kubeconfig at {tried}: set `discovery.kubernetes.kubeconfig` or $KUBECONFIG, or use `discovery.static`"
    )]
    NoCluster {
        /// The path that was tried.
        tried: String,
    },
    /// A kubeconfig that was asked for cannot be read.
    #[error(
        "the kubeconfig {path} cannot be read: {reason}: check `discovery.kubernetes.kubeconfig` or $KUBECONFIG"
    )]
    Unreadable {
        /// The path, or the paths of `$KUBECONFIG`.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A kubeconfig does not have the context.
    #[error(
        "the kubeconfig {path} has no context `{context}`: {}; check `discovery.kubernetes.context`",
        known(contexts)
    )]
    UnknownContext {
        /// The path.
        path: String,
        /// The context that was asked for.
        context: String,
        /// Those there are.
        contexts: Vec<String>,
    },
    /// A kubeconfig has no `current-context`, and none was asked for.
    #[error(
        "the kubeconfig {path} sets no current-context: set `discovery.kubernetes.context`; {}",
        known(contexts)
    )]
    NoContext {
        /// The path.
        path: String,
        /// Those there are.
        contexts: Vec<String>,
    },
    /// The kubeconfig is wrong in another way.
    #[error("the kubeconfig {path} cannot be used: {reason}")]
    BadKubeconfig {
        /// The path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A pod without its service account's files.
    #[error(
        "this is a pod, but its service account cannot be used: {0}: set `automountServiceAccountToken: true` on the pod or its ServiceAccount"
    )]
    BadServiceAccount(String),
    /// TLS or credentials cannot be set up.
    #[error("the way to the API server at {url} cannot be set up: {reason}")]
    Setup {
        /// The API server's URL.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

fn known(contexts: &[String]) -> String {
    if contexts.is_empty() { "it has none".to_owned() } else { format!("it has {}", contexts.join(", ")) }
}

/// Prepares to speak to the API server, with the usual [`Patience`]. It does not need to be up.
///
/// # Errors
/// When address or credentials are missing or wrong: what is wrong, in which file, and what to do.
pub async fn connect(access: &ClusterAccess) -> Result<Client, ConnectError> {
    connect_with(access, Patience::default()).await
}

/// As [`connect`], with another [`Patience`].
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(access: &ClusterAccess, patience: Patience) -> Result<Client, ConnectError> {
    let in_pod = env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let (mut config, kubeconfig) = if in_pod && access.kubeconfig.is_none() && access.context.is_none() {
        let config =
            kube::Config::incluster().map_err(|error| ConnectError::BadServiceAccount(error.to_string()))?;
        (config, None)
    } else {
        let (file, path) = read_kubeconfig(access.kubeconfig.as_deref())?;
        (from_kubeconfig(file, &path, access.context.as_deref()).await?, Some(path))
    };
    config.connect_timeout = Some(patience.connect);
    config.read_timeout = Some(patience.silence);
    // kube's own retries are silent and grow to minutes; a watch has its own and tells of them.
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    let inner = kube::Client::try_from(config)
        .map_err(|error| ConnectError::Setup { url: url.clone(), reason: error.to_string() })?;
    let inner = Arc::new(Mutex::new(inner));
    Ok(Client { inner, access: access.clone(), patience, origin: Origin { url, kubeconfig } })
}

/// The kubeconfig, and the path that it is known by.
fn read_kubeconfig(given: Option<&Path>) -> Result<(Kubeconfig, PathBuf), ConnectError> {
    let unreadable = |path: &Path, error: KubeconfigError| ConnectError::Unreadable {
        path: path.display().to_string(),
        reason: reason(&error),
    };
    if let Some(path) = given {
        return Ok((Kubeconfig::read_from(path).map_err(|error| unreadable(path, error))?, path.to_owned()));
    }
    if let Some(paths) = env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        let paths = PathBuf::from(paths);
        let file = Kubeconfig::from_env().map_err(|error| unreadable(&paths, error))?;
        return Ok((file.unwrap_or_default(), paths));
    }
    let Some(path) = env::home_dir().map(|home| home.join(".kube").join("config")) else {
        return Err(ConnectError::NoCluster { tried: "~/.kube/config".to_owned() });
    };
    if !path.exists() {
        return Err(ConnectError::NoCluster { tried: path.display().to_string() });
    }
    Ok((Kubeconfig::read_from(&path).map_err(|error| unreadable(&path, error))?, path))
}

/// What is wrong, without the path, which the message names already.
fn reason(error: &KubeconfigError) -> String {
    if let KubeconfigError::ReadConfig(io, _) = error { io.to_string() } else { error.to_string() }
}

async fn from_kubeconfig(
    file: Kubeconfig,
    path: &Path,
    context: Option<&str>,
) -> Result<kube::Config, ConnectError> {
    let path = path.display().to_string();
    let contexts: Vec<String> = file.contexts.iter().map(|c| c.name.clone()).collect();
    let Some(wanted) = context.or(file.current_context.as_deref()).filter(|name| !name.is_empty()) else {
        return Err(ConnectError::NoContext { path, contexts });
    };
    let wanted = wanted.to_owned();
    let Some(named) = file.contexts.iter().find(|c| c.name == wanted).and_then(|c| c.context.as_ref()) else {
        return Err(ConnectError::UnknownContext { path, context: wanted, contexts });
    };
    let proxied = file
        .clusters
        .iter()
        .find(|cluster| cluster.name == named.cluster)
        .and_then(|cluster| cluster.cluster.as_ref()?.proxy_url.as_deref())
        .is_some_and(|url| !url.is_empty());
    if proxied {
        let reason = format!(
            "its cluster `{}` is behind a `proxy-url`, which Serinus cannot speak to: run it inside the cluster, or forward the API server's port",
            named.cluster
        );
        return Err(ConnectError::BadKubeconfig { path, reason });
    }
    let options = KubeConfigOptions { context: Some(wanted), cluster: None, user: None };
    let mut config = kube::Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(|error| ConnectError::BadKubeconfig { path, reason: error.to_string() })?;
    // kube takes $HTTPS_PROXY without $NO_PROXY, for loopback addresses too.
    config.proxy_url = None;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
clusters: [{name: one, cluster: {server: 'https://127.0.0.1:6443'}}, {name: far, cluster: {server: 'https://10.0.0.1', proxy-url: 'http://proxy:3128'}}]
contexts: [{name: here, context: {cluster: one, user: me}}, {name: there, context: {cluster: far, user: me}}]
users: [{name: me, user: {token: abc}}]
";

    async fn refused(text: &str, context: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        let access = ClusterAccess { kubeconfig: Some(path.clone()), context: context.map(str::to_owned) };
        let error = connect(&access).await.unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        error
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let access = ClusterAccess { kubeconfig: Some("/nowhere/kube.yaml".into()), context: None };
        let error = connect(&access).await.unwrap_err();
        assert!(matches!(&error, ConnectError::Unreadable { path, .. } if path == "/nowhere/kube.yaml"));
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_context_lists_those_there_are() {
        let error = refused(FILE, Some("elsewhere")).await;
        assert!(error.contains("no context `elsewhere`: it has here, there"), "{error}");
        let error = refused(FILE, None).await;
        assert!(error.contains("no current-context") && error.contains("it has here, there"), "{error}");
        let error = refused("", Some("x")).await;
        assert!(error.contains("it has none"), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_says_why() {
        assert!(refused("contexts: 3", None).await.contains("contexts"));
        assert!(refused(FILE, Some("there")).await.contains("proxy-url"));
        let no_server = FILE.replace("server: 'https://127.0.0.1:6443'", "");
        assert!(refused(&no_server, Some("here")).await.contains("url is missing"));
    }

    #[tokio::test]
    async fn an_api_server_does_not_need_to_be_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, FILE).unwrap();
        let access = ClusterAccess { kubeconfig: Some(path.clone()), context: Some("here".into()) };
        let client = connect(&access).await.unwrap();
        assert_eq!(client.origin, Origin { url: "https://127.0.0.1:6443/".into(), kubeconfig: Some(path) });
        assert!(!format!("{client:?}").contains("abc"));
    }
}
