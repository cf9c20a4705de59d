//! Health and metrics over plain HTTP/1.1.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::tasks::Tasks;

/// Nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} on {address}: {source}; is the port taken? (flag --{flag})")]
pub struct BindError {
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
    source: std::io::Error,
}

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What must be ready before the process is.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Vec<(String, Check)>>>);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("unready", &self.unready()).finish()
    }
}

impl Health {
    /// Ready until something is added.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part; `check` says why it is not ready. It is called at each probe and must not block.
    pub fn add(
        &self,
        part: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push((part.into(), Box::new(check)));
    }

    /// The parts that are not ready, as `part: why`.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(part, check)| check().err().map(|why| format!("{part}: {why}"))).collect()
    }
}

/// Serves `/healthz` (alive) and `/readyz` (ready, or 503 with one line per part that is not). Returns where, which
/// matters for port 0.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_health(
    address: SocketAddr,
    health: Health,
    tasks: &mut Tasks,
) -> Result<SocketAddr, BindError> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(health);
    serve("health", "health-probe-port", address, router, tasks).await
}

/// Serves `/metrics` in the Prometheus text format. Returns where.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_metrics(
    address: SocketAddr,
    registry: Registry,
    tasks: &mut Tasks,
) -> Result<SocketAddr, BindError> {
    let router = Router::new().route("/metrics", get(metrics)).with_state(registry);
    serve("metrics", "port", address, router, tasks).await
}

async fn serve(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
    router: Router,
    tasks: &mut Tasks,
) -> Result<SocketAddr, BindError> {
    let error = |source| BindError { what, flag, address, source };
    let listener = match TcpListener::bind(address).await {
        // A host without IPv6 has no [::].
        Err(e) if address.ip() == IpAddr::from([0u16; 8]) && no_ipv6(&e) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(error)?
        }
        other => other.map_err(error)?,
    };
    let local = listener.local_addr().map_err(error)?;
    tracing::info!(address = %local, "serving {what}");
    tasks.spawn(format!("http {what}"), async move { axum::serve(listener, router).await });
    Ok(local)
}

fn no_ipv6(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    // EAFNOSUPPORT has no kind of its own.
    error.raw_os_error() == Some(97) || error.kind() == ErrorKind::AddrNotAvailable
}

async fn readyz(State(health): State<Health>) -> Response {
    let unready = health.unready();
    if unready.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, unready.join("\n") + "\n").into_response()
}

async fn metrics(State(registry): State<Registry>) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus::IntGauge;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readyz_names_what_is_missing() {
        let (health, ready, mut tasks) = (Health::new(), Arc::new(AtomicBool::new(false)), Tasks::new());
        let flag = Arc::clone(&ready);
        health.add("Services", move || {
            flag.load(Ordering::SeqCst).then_some(()).ok_or_else(|| "first list is not complete".to_owned())
        });
        health.add("Nodes", || Ok(()));
        let address = serve_health(ANY, health, &mut tasks).await.unwrap();

        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("Services: first list is not complete\n"), "{answer}");
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"), "alive even when not ready");
        ready.store(true, Ordering::SeqCst);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_are_those_of_the_registry() {
        let registry = Registry::new();
        let gauge = IntGauge::new("metallb_speaker_announced", "help").unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        gauge.set(7);
        let mut tasks = Tasks::new();
        let address = serve_metrics(ANY, registry, &mut tasks).await.unwrap();
        let answer = get(address, "/metrics").await;
        assert!(answer.contains("text/plain") && answer.contains("metallb_speaker_announced 7"), "{answer}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_flag() {
        let taken = TcpListener::bind(ANY).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = serve_metrics(address, Registry::new(), &mut Tasks::new()).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--port"), "{error}");
    }
}
