//! What the API server asks before it takes an object, and when it needs a BGPPeer in another version.
//!
//! * `settings`: flags. * `admission`, `conversion`: the answers. * `server`, `tls`: how they get there.
//! * `certificates`: which there should be. * `keeper`: sees to it that they are, and tells the API server (`injection`).

mod admission;
mod budget;
mod certificates;
mod conversion;
mod injection;
mod keeper;
mod metrics;
mod server;
mod settings;
mod tls;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Result, anyhow};
use kube::Client;
use patina_runtime::config_watch::ConfigWatch;
use patina_runtime::flags::Common;
use patina_runtime::http::Health;
use patina_runtime::tasks::Tasks;
use prometheus::Registry;
use tokio_rustls::TlsAcceptor;

pub(crate) use settings::{Mode, Settings};

use budget::Budget;

/// Starts what `settings` ask for, and adds to `health` that it is served.
///
/// # Errors
/// Flags that contradict each other, or a port that is taken.
pub(crate) async fn start(
    settings: &Settings,
    common: &Common,
    client: &Client,
    watch: &ConfigWatch,
    registry: &Registry,
    health: &Health,
    tasks: &mut Tasks,
) -> Result<()> {
    let shared = keeper::Shared::default();
    let metrics = metrics::Metrics::register(registry)?;
    if settings.serves() {
        let config = settings.offer().map_err(|why| anyhow!(why))?.config(&shared.served)?;
        let listener = server::listen(settings.webhook_port).await?;
        let app = server::App {
            client: client.clone(),
            watch: watch.clone(),
            namespace: common.namespace.clone(),
            legacy: common.config.clone(),
            metrics: metrics.clone(),
            budget: Arc::new(Mutex::new(Budget::new(Instant::now()))),
        };
        let acceptor = TlsAcceptor::from(config);
        tasks.spawn_finishing(
            "webhook",
            server::run(listener, acceptor, app, Arc::clone(&shared.in_use), tasks.shutdown()),
        );
        let (ready, shutdown) = (shared.standing.clone(), tasks.shutdown());
        health.add("webhook", move || {
            if shutdown.is_requested() { Err("shutting down".to_owned()) } else { ready.readiness() }
        });
    }
    let (client, settings) = (client.clone(), settings.clone());
    let keeper = keeper::Keeper::new(client, &common.namespace, settings, shared, metrics, tasks);
    tasks.spawn("webhook certificates", keeper.run());
    Ok(())
}
