//! The controller: gives Services of type LoadBalancer an address out of pools.
//!
//! * `settings`: flags. * `leader`: who of several controllers works. * `watch`: Kubernetes objects in, our values out.
//! * `control`: the one task that decides, by way of `patina-controller-core`. * `status`: the only writer of Services.
//! * `pool_status`, `config_state`: what the other objects show. * `announce`: events. * `metrics`.
//! * `memberlist`: the key of the speakers' membership. * `webhook`: what the API server asks before it takes configuration.

mod announce;
mod config_state;
mod control;
mod leader;
mod memberlist;
mod metrics;
mod pool_status;
mod settings;
mod status;
mod surroundings_watch;
mod watch;
mod webhook;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use patina_runtime::config_watch::ConfigWatch;
use patina_runtime::events::{self, Events};
use patina_runtime::http::{self, Health};
use patina_runtime::tasks::Tasks;
use patina_runtime::{client, flags, logs};
use tokio::sync::Notify;

use crate::settings::Settings;
use crate::surroundings_watch::SurroundingsWatch;

/// Writes under way are finished and the Lease is given back within this time after SIGTERM.
const SHUTDOWN: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let settings: Settings = flags::parse(flags::METALLB_REFUSED);
    logs::init_from(&settings.common);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.context("cannot start").and_then(|runtime| runtime.block_on(run(settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<()> {
    settings.say_what_is_ignored();
    let mut tasks = Tasks::new();
    let client = client::connect(settings.common.kubeconfig.as_deref()).await?;
    let bell = Arc::new(Notify::new());
    let namespace = &settings.common.namespace;
    let config_watch = ConfigWatch::start(&client, namespace, &settings.common.config, &bell, &mut tasks);
    let events = Events::start(client.clone(), events::CONTROLLER, &settings.common.pod_name, &mut tasks);
    let registry = prometheus::Registry::new();
    let metrics = metrics::Metrics::register(&registry)?;

    let health = Health::new();
    let parts = config_watch.clone();
    health.add("configuration", move || parts.readiness());
    let surroundings = SurroundingsWatch::start(&client, namespace, &mut tasks);
    let parts = surroundings.clone();
    health.add("surroundings", move || parts.readiness());
    webhook::start(
        &settings.webhook,
        &settings.common,
        &client,
        &config_watch,
        &registry,
        &health,
        &mut tasks,
    )
    .await?;
    let only_webhook = settings.webhook.webhook_mode == webhook::Mode::OnlyWebhook;
    let leading = leader::Standing::default();
    let standing = leading.clone();
    if !only_webhook {
        health.add("leadership", move || standing.readiness());
    }
    if let Some(address) = settings.common.health_address() {
        http::serve_health(address, health, &mut tasks).await?;
    }
    if let Some(address) = settings.common.metrics_address() {
        http::serve_metrics(address, registry, &mut tasks).await?;
    }
    if only_webhook {
        return tasks.run(SHUTDOWN).await.map_err(Into::into);
    }

    if let Some(wish) = settings.memberlist() {
        memberlist::start(&client, namespace, wish, leading.clone(), &mut tasks);
    }
    let pool_status = pool_status::start(client.clone(), namespace, leading.clone(), &mut tasks);
    let config_state = config_state::start(
        client.clone(),
        namespace,
        &settings.common.pod_name,
        leading.clone(),
        events.clone(),
        &mut tasks,
    );
    let controller = control::Controller {
        client,
        namespace: settings.common.namespace.clone(),
        policy: settings.policy(),
        identity: leader::identity(&settings.common.pod_name),
        pace: leader::Pace::of(Duration::from_secs(settings.lease_duration)),
        standing: leading,
        config_watch,
        surroundings,
        bell,
        events,
        metrics,
        pool_status,
        config_state,
        shutdown: tasks.shutdown(),
    };
    tasks.spawn_finishing("controller", controller.run());
    tasks.run(SHUTDOWN).await.map_err(Into::into)
}
