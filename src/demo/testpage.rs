//! A pod that answers `I am: ADDRESS, the version is: VERSION`, like the testpage image of the example manifests.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Why a pod of the demo could not start.
#[derive(Debug, thiserror::Error)]
#[error("the demo's pod cannot listen on {address}: {error}")]
pub struct PodError {
    address: IpAddr,
    error: std::io::Error,
}

/// A pod that serves until it is dropped.
#[derive(Debug)]
pub struct Testpage {
    address: SocketAddr,
    serving: JoinHandle<()>,
    failing: Arc<AtomicBool>,
}

impl Testpage {
    /// Starts pod number `number` (from 1) with this version, on 127.0.1.NUMBER, or on 127.0.0.1 where the system has no
    /// other loopback address; on a free port.
    ///
    /// # Errors
    /// When neither address can be listened on.
    pub async fn start(number: u8, version: &str) -> Result<Self, PodError> {
        let own = IpAddr::V4(Ipv4Addr::new(127, 0, 1, number));
        let bound = match TcpListener::bind((own, 0)).await {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
            }
            bound => bound,
        };
        let failed = |error| PodError { address: own, error };
        let listener = bound.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let page: Arc<str> = format!("I am: {}, the version is: {version}\n", address.ip()).into();
        let (failing, served) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
        let fails = Arc::clone(&failing);
        let answer = move || {
            let every_second = served.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            if fails.load(Ordering::Relaxed) && every_second {
                (StatusCode::INTERNAL_SERVER_ERROR, "out of order\n".to_owned())
            } else {
                (StatusCode::OK, page.to_string())
            }
        };
        let answer = Arc::new(answer);
        let pod = Router::new().fallback(move || {
            let answered = answer();
            async move { answered }
        });
        let serving = tokio::spawn(async move {
            // Accepting goes on whatever a client does; nothing ends it but the drop.
            let _ = axum::serve(listener, pod).await;
        });
        Ok(Self { address, serving, failing })
    }

    /// From now on every second answer is a 500, or none is.
    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Testpage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
