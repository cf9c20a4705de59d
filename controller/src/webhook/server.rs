//! The HTTPS server. Anybody who reaches the port may speak to it, so everything has a limit.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kube::Client;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionReview};
use patina_crds::config::Resources;
use patina_runtime::config_watch::{ConfigWatch, read_once};
use patina_runtime::tasks::Shutdown;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::admission::{self, KINDS, Verdict};
use super::budget::Budget;
use super::conversion;
use super::metrics::{Metrics, Outcome};

/// Connections at a time; who comes later waits to be accepted.
const CONNECTIONS: usize = 64;
/// For the handshake, and then for the request's head.
const PATIENCE: Duration = Duration::from_secs(3);
/// For a connection from the first byte to the last; the API server gives up earlier.
const LIFETIME: Duration = Duration::from_secs(30);
/// An object, new and old; etcd holds no object of more than 1.5 MiB.
const REVIEW: usize = 4 << 20;
/// All objects of a list in one request.
const CONVERSION: usize = 32 << 20;
/// After SIGTERM requests are answered this long: until then the endpoints of the Service are without us everywhere.
const DRAIN: Duration = Duration::from_secs(5);
/// Up to so many objects the API server is asked for the configuration as it is; the caches of a larger one may be some
/// milliseconds behind.
const ASK: usize = 300;
/// For that question; then the caches must do.
const ASK_PATIENCE: Duration = Duration::from_secs(2);

/// What the answers are made of.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) client: Client,
    pub(crate) watch: ConfigWatch,
    pub(crate) namespace: String,
    pub(crate) legacy: String,
    pub(crate) metrics: Metrics,
    pub(super) budget: Arc<Mutex<Budget>>,
}

/// The port of `--webhook-port`, on all addresses.
///
/// # Errors
/// The port is taken.
pub(crate) async fn listen(port: u16) -> Result<TcpListener, ListenError> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the webhook on {address}: {source}; is the port taken? (flag --webhook-port)")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Serves until SIGTERM, and a little longer while `in_use` says that the API server asks us.
pub(crate) async fn run(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    app: App,
    in_use: Arc<AtomicBool>,
    mut shutdown: Shutdown,
) {
    let router = router(app);
    let end = async {
        shutdown.requested().await;
        if in_use.load(Ordering::Relaxed) {
            tokio::time::sleep(DRAIN).await;
        }
    };
    tokio::select! {
        () = accept(listener, acceptor, router) => {}
        () = end => {}
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed: the error cannot be.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let _over = tokio::time::timeout(LIFETIME, connection(stream, acceptor, router)).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, or a connection that was gone before it was accepted.
                tracing::warn!("the webhook cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request: a connection that stays open outlives its certificate and its replica, and a request that meets the end of
/// either is lost. Configuration changes rarely enough for a handshake each.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!("a handshake with the webhook failed: {error}"),
        Err(_) => return tracing::debug!("a handshake with the webhook took longer than {PATIENCE:?}"),
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!("a request to the webhook ended early: {error}");
    }
}

fn router(app: App) -> Router {
    let convert = Router::new().route("/convert", post(converts)).layer(DefaultBodyLimit::max(CONVERSION));
    let mut validate = Router::new();
    for (kind, path) in KINDS {
        let answer = move |state: State<App>, body: Bytes| validates(kind, state, body);
        validate = validate.route(path, post(answer));
    }
    convert.merge(validate.layer(DefaultBodyLimit::max(REVIEW))).with_state(app)
}

async fn converts(State(app): State<App>, body: Bytes) -> Response {
    let began = Instant::now();
    let (response, outcome) = match conversion::answer(&body) {
        Ok((review, outcome)) => (json(&review), outcome),
        Err(why) => (bad_request(why), Outcome::Failed),
    };
    app.metrics.answered("BGPPeer", outcome, began.elapsed());
    response
}

async fn validates(kind: &'static str, State(app): State<App>, body: Bytes) -> Response {
    let began = Instant::now();
    let request = read(kind, &body);
    drop(body);
    let (response, outcome) = match request {
        Ok(request) => {
            let verdict = app.judge(&request).await;
            let outcome =
                if matches!(verdict, Verdict::Allowed(_)) { Outcome::Allowed } else { Outcome::Denied };
            if let Verdict::Denied(denial) = &verdict {
                let user = request.user_info.username.as_deref().unwrap_or_default();
                tracing::info!(kind, name = request.name, user, "refused: {denial}");
            }
            (json(&admission::response(&request, verdict).into_review()), outcome)
        }
        Err(why) => (bad_request(why), Outcome::Failed),
    };
    app.metrics.answered(kind, outcome, began.elapsed());
    response
}

fn read(kind: &str, body: &[u8]) -> Result<AdmissionRequest<DynamicObject>, String> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(|error| format!("not an AdmissionReview of v1: {error}"))?;
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| "an AdmissionReview without a request".to_owned())?;
    if request.kind.kind == kind {
        Ok(request)
    } else {
        Err(format!("this path is for {kind}, the request is about {}", request.kind.kind))
    }
}

impl App {
    /// By what the API server has at this moment where that is cheap, and always before a no: a cache that does not know
    /// yet that an object is gone must not refuse its successor. In a flood of reviews the caches decide alone.
    async fn judge(&self, request: &AdmissionRequest<DynamicObject>) -> Verdict {
        if !self.watch.synced() {
            return Verdict::Allowed(vec![
                "this was not checked: the webhook has just started and does not know the configuration yet"
                    .to_owned(),
            ]);
        }
        let known = self.watch.resources();
        let small = known.count() <= ASK;
        if !small {
            let verdict = admission::judge(request, &known);
            if matches!(verdict, Verdict::Allowed(_)) {
                return verdict;
            }
        }
        let resources = self.fresh().await.unwrap_or(known);
        admission::judge(request, &resources)
    }

    async fn fresh(&self) -> Option<Resources> {
        if !self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            tracing::debug!("many reviews at once: the caches decide");
            return None;
        }
        let read = read_once(&self.client, &self.namespace, &self.legacy);
        match tokio::time::timeout(ASK_PATIENCE, read).await {
            Ok(Ok(resources)) => Some(resources),
            Ok(Err(error)) => {
                tracing::warn!(
                    "the webhook cannot read the configuration anew: {}",
                    patina_runtime::client::brief(&error)
                );
                None
            }
            Err(_) => {
                tracing::warn!(
                    "the webhook cannot read the configuration anew: no answer within {ASK_PATIENCE:?}"
                );
                None
            }
        }
    }
}

fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn bad_request(why: String) -> Response {
    tracing::debug!("a request to the webhook was not understood: {why}");
    (StatusCode::BAD_REQUEST, why).into_response()
}
