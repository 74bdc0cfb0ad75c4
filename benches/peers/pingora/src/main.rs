//! The least weighted proxy on pingora: 1 % of the requests to the last pod, drawn at random, the others in turn to the six before it.
//! `least-pingora ADDRESS PORT-OF-THE-PODS WORKERS`, or `--version`.

use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Router {
    port: u16,
    next: AtomicU8,
}

#[async_trait]
impl ProxyHttp for Router {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let pod =
            if fastrand::u8(..100) == 0 { 7 } else { 1 + self.next.fetch_add(1, Ordering::Relaxed) % 6 };
        Ok(Box::new(HttpPeer::new(
            (std::net::Ipv4Addr::new(127, 0, 9, pod), self.port),
            false,
            String::new(),
        )))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", "http")
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, port, workers] = &arguments[..] else {
        println!("least-pingora {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    };
    let number = |text: &String| {
        text.parse::<u16>()
            .map_err(|_| Error::explain(ErrorType::InternalError, format!("{text} is no number")))
    };
    let conf = ServerConf {
        threads: usize::from(number(workers)?),
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let router = Router { port: number(port)?, next: AtomicU8::new(0) };
    let mut service = http_proxy_service(&server.configuration, router);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    if let Some(proxy) = service.app_logic_mut() {
        proxy.server_options = Some(options);
    }
    service.add_tcp(address);
    server.add_service(service);
    server.run_forever()
}
