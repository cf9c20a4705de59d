use std::sync::Arc;
use std::time::Duration;

use patina_runtime::config_state;
use patina_runtime::config_watch::ConfigWatch;
use patina_runtime::events::{self, Events};
use patina_runtime::flags::METALLB_REFUSED;
use patina_runtime::http::{self, Health};
use patina_runtime::metrics::ConfigMetrics;
use patina_runtime::tasks::Tasks;
use patina_runtime::{client, flags, logs};
use patina_speaker::bfd::{self, BfdMetrics};
use patina_speaker::bgp::{self, BgpMetrics};
use patina_speaker::config_state::component;
use patina_speaker::conflicts::{self, ConflictWriter};
use patina_speaker::exclude::Exclude;
use patina_speaker::fence::Fence;
use patina_speaker::l2::{Desired, Driver};
use patina_speaker::membership::{self, MembershipMetrics};
use patina_speaker::metrics::{Announced, L2Metrics};
use patina_speaker::moves_metrics::MoveMetrics;
use patina_speaker::settings::Settings;
use patina_speaker::speaker::Speaker;
use patina_speaker::status::{Bgp, L2, StatusWriter, Wanted};
use patina_speaker::watch::Cluster;
use patina_speaker::{interfaces, memory, routes};
use patina_speaker_core::l2::announcer;
use tokio::sync::{Notify, mpsc, watch};

/// The end of the process may take this long: manifests allow two seconds (terminationGracePeriodSeconds).
const SHUTDOWN: Duration = Duration::from_millis(1800);
/// News from the wire that wait for the decision task.
const HEARD: usize = 256;

fn main() -> anyhow::Result<()> {
    memory::share_heaps();
    let settings: Settings = flags::parse(METALLB_REFUSED);
    logs::init_from(&settings.common);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(settings))
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let common = &settings.common;
    let (registry, health) = (prometheus::Registry::new(), Health::new());
    let [bell, links] = [(); 2].map(|()| Arc::new(Notify::new()));
    let mut tasks = Tasks::new();
    let client = client::connect(common.kubeconfig.as_deref()).await?;

    let exclude = Exclude::load(&settings.exclude_interfaces)?;
    let (interfaces, follower) = interfaces::watch(exclude, Arc::clone(&links)).await?;
    tasks.spawn("interfaces", follower.run());
    let (gateways, follower) = routes::watch(Arc::clone(&links)).await?;
    tasks.spawn("routes", follower.run());

    let cluster = Cluster::start(&client, &settings, &bell, &mut tasks);
    // Closed by the membership, if there is one, before anything could be answered.
    let fence = Fence::open();
    let members = {
        let metrics = MembershipMetrics::register(&registry)?;
        membership::start(&settings, cluster.follow_peers(), fence.clone(), metrics, &mut tasks)?
    };

    let (desired, wishes) = watch::channel(Desired::default());
    let (news, heard) = mpsc::channel(HEARD);
    let announcing = announcer::Settings { refresh: settings.refresh(), ..announcer::Settings::default() };
    let driver = Driver::new(wishes, news, fence.clone(), announcing, L2Metrics::register(&registry)?);
    tasks.spawn_thread("layer2", || driver.run())?;

    let (wanted, wishes) = watch::channel(Wanted::<L2>::default());
    let (node, churn) = (&settings.node_name, cluster.churn().clone());
    let written = StatusWriter::start(
        &client,
        &common.namespace,
        node,
        wishes,
        churn,
        Some(Arc::clone(&bell)),
        &mut tasks,
    );
    let (wanted_bgp, wishes) = watch::channel(Wanted::<Bgp>::default());
    let churn = cluster.churn().clone();
    StatusWriter::start(&client, &common.namespace, node, wishes, churn, None, &mut tasks);

    let (bfd, wishes) = watch::channel(bfd::Desired::default());
    let sessions = bfd::start(wishes, BfdMetrics::register(&registry)?, &mut tasks)?;
    let (bgp, wishes) = watch::channel(bgp::Desired::default());
    // What it tells of the sessions is in its metrics and its log; nobody else reads it yet.
    bgp::start(wishes, sessions, BgpMetrics::register(&registry)?, settings.bgp_listen_port(), &mut tasks)?;

    let (conflicts, wishes) = watch::channel(conflicts::Wanted::default());
    ConflictWriter::start(&client, &common.namespace, &settings.node_name, wishes, &mut tasks);

    let config_state = config_state::start(client.clone(), component(&settings), || true, &mut tasks);
    let config = ConfigWatch::start(&client, &common.namespace, &common.config, &bell, &mut tasks);
    cluster.add_to(&health);
    health.add("configuration", {
        let config = config.clone();
        move || config.readiness()
    });
    if let Some(address) = common.metrics_address() {
        http::serve_metrics(address, registry.clone(), &mut tasks).await?;
    }
    if let Some(address) = common.local_health_address() {
        http::serve_health(address, health, &mut tasks).await?;
    }

    let speaker = Speaker {
        events: Events::start(client, events::SPEAKER, &common.pod_name, &mut tasks),
        config_metrics: ConfigMetrics::register(&registry)?,
        announced: Announced::register(&registry, &settings.node_name)?,
        metrics: MoveMetrics::register(&registry)?,
        bell,
        links,
        cluster,
        config,
        interfaces,
        gateways,
        members,
        fence,
        desired,
        heard,
        wanted,
        written,
        bgp,
        bfd,
        wanted_bgp,
        conflicts,
        config_state,
        settings,
    };
    let shutdown = tasks.shutdown();
    tasks.spawn_thread("decisions", || speaker.run(shutdown))?;
    Ok(tasks.run(SHUTDOWN).await?)
}
