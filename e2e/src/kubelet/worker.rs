//! One pod from its binding to its end.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::container::{self, Start, State, Wanted};
use super::network::PodNetwork;
use super::sandbox::{Bind, Credentials, Sandbox};
use super::status::Report;
use super::{PodAddresses, Shared, env, probe, volumes};
use crate::lab::plan::API_V4;

/// Between two tries to start a pod whose ConfigMap, Secret or ServiceAccount is not there yet.
const RETRY: Duration = Duration::from_millis(500);
/// Where the API server of the lab listens.
pub(crate) const API_PORT: u16 = 6443;

/// Runs the pod until its object asks it to end, then removes the object. Being dropped kills its processes.
pub(super) async fn run(shared: Rc<Shared>, mut told: watch::Receiver<Arc<Pod>>) {
    let pod = Arc::clone(&told.borrow());
    let result = tokio::select! {
        result = live(&shared, &pod, told.clone()) => result,
        // Asked to end while it is still being set up; `live` watches for itself afterwards.
        () = removed_before_start(&mut told) => Ok(()),
    };
    if let Err(error) = result {
        tracing::warn!("pod {}/{}: {error:#}", pod.namespace().unwrap_or_default(), pod.name_any());
    }
    remove(&shared, &pod).await;
}

async fn live(shared: &Rc<Shared>, pod: &Arc<Pod>, told: watch::Receiver<Arc<Pod>>) -> Result<()> {
    let spec = pod.spec.as_ref().context("no spec")?;
    let node = shared.setup.plan.node(spec.node_name.as_deref().unwrap_or_default())?.clone();
    let hosts = shared.nodes.borrow().get(&node.name).map(|n| Rc::clone(&n.hosts)).unwrap_or_default();
    let network = if spec.host_network.unwrap_or(false) {
        PodNetwork::of_node(&node)
    } else {
        PodNetwork::create(&shared.setup.run, &node, &short_name(pod), &hosts)?
    };
    let addresses = PodAddresses { pod: network.addresses().to_vec(), host: node.addresses() };
    let mut report = Report::new(&addresses, pod);
    report.pod_ips = addresses.pod.iter().map(ToString::to_string).collect();

    let starts = loop {
        match prepare(shared, pod, &network, &addresses).await {
            Ok(starts) => break starts,
            Err(error) => {
                let why = format!("{error:#}");
                if report.waiting_for.as_ref() != Some(&why) {
                    tracing::info!("pod {} waits: {why}", pod.name_any());
                    report.waiting_for = Some(why);
                    write(shared, pod, &report).await;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    report.waiting_for = None;
    let dir = volumes_dir(shared, pod)?;
    tokio::select! {
        () = attend(shared, pod, report, starts, told) => {}
        () = volumes::follow(&shared.client, pod, &addresses, &dir, shared.mounted.subscribe()) => {}
    }
    Ok(())
}

/// From the start of its processes to their end.
async fn attend(
    shared: &Rc<Shared>,
    pod: &Arc<Pod>,
    mut report: Report,
    starts: Vec<Start>,
    mut told: watch::Receiver<Arc<Pod>>,
) {
    let (tell, mut changes) = mpsc::unbounded_channel();
    let (want, wanted) = watch::channel(Wanted::Run);
    let mut containers = JoinSet::new();
    for (index, (start, state)) in starts.into_iter().zip(report.containers.clone()).enumerate() {
        containers.spawn_local(container::run(index, start, state, tell.clone(), wanted.clone()));
    }
    // What the API server did not take is offered again.
    let mut unwritten = false;
    loop {
        tokio::select! {
            Some((index, state)) = changes.recv() => {
                let was_ready = report.ready();
                put(&mut report.containers, index, state);
                while let Ok((index, state)) = changes.try_recv() {
                    put(&mut report.containers, index, state);
                }
                if was_ready != report.ready() {
                    report.since = super::status::now();
                }
                unwritten = !write(shared, pod, &report).await;
            }
            () = tokio::time::sleep(RETRY), if unwritten => unwritten = !write(shared, pod, &report).await,
            _ = containers.join_next() => if containers.is_empty() { return },
            Ok(()) = told.changed() => {
                let now = Arc::clone(&told.borrow_and_update());
                if now.metadata.deletion_timestamp.is_some() {
                    let grace = now.metadata.deletion_grace_period_seconds.unwrap_or(30);
                    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
                    want.send_replace(Wanted::End(grace));
                } else if !report.is_in(&now) {
                    // The node-lifecycle controller said that it is not ready, but its node is alive.
                    unwritten = !write(shared, pod, &report).await;
                }
            }
        }
    }
}

fn put(states: &mut [State], index: usize, state: State) {
    if let Some(place) = states.get_mut(index) {
        *place = state;
    }
}

async fn prepare(
    shared: &Rc<Shared>,
    pod: &Arc<Pod>,
    network: &PodNetwork,
    addresses: &PodAddresses,
) -> Result<Vec<Start>> {
    let spec = pod.spec.as_ref().context("no spec")?;
    let dir = volumes_dir(shared, pod)?;
    // Only our own programs read their volumes.
    let ours = spec.containers.iter().any(|c| container::is_ours(c.image.as_deref().unwrap_or_default()));
    let volumes = if ours {
        volumes::materialise(&shared.client, pod, addresses, &dir).await?
    } else {
        Default::default()
    };
    let mut starts = Vec::new();
    for container in &spec.containers {
        let mut env = env::environment(&shared.client, pod, container, addresses).await?;
        env.push(("KUBERNETES_SERVICE_HOST".into(), API_V4.to_string()));
        env.push(("KUBERNETES_SERVICE_PORT".into(), API_PORT.to_string()));
        env.push(("HOSTNAME".into(), pod.name_any()));
        let identity = [pod.name_any(), spec.node_name.clone().unwrap_or_default()];
        let setup = &shared.setup;
        let program = container::program(
            container,
            &setup.programs,
            &setup.stand_in,
            &env,
            [&identity[0], &identity[1]],
        )?;
        let mut binds = if ours { container::mounts(container, &volumes)? } else { Vec::new() };
        binds.extend(program.bind.map(|(from, to)| Bind { from, to, writable: false }));
        let host = addresses.pod.first().copied().context("the pod has no address")?;
        let asked = |p: &Option<_>| p.as_ref().map(|p| probe::asked(p, container, host)).transpose();
        let sandbox = Sandbox {
            root: dir.join(format!("{}.root", container.name)),
            binds,
            hosts: hosts_file(pod, addresses),
            credentials: if ours { Credentials::of(spec, container) } else { Credentials::default() },
        };
        starts.push(Start {
            run: Arc::clone(&setup.run),
            name: log_name(pod, container),
            netns: network.netns().clone(),
            sandbox,
            argv: program.argv,
            env,
            readiness: asked(&container.readiness_probe)?,
            liveness: asked(&container.liveness_probe)?,
        });
    }
    Ok(starts)
}

/// Where its volumes are.
fn volumes_dir(shared: &Shared, pod: &Pod) -> Result<PathBuf> {
    Ok(shared.setup.run.dir("pods")?.join(short_name(pod)))
}

/// Part of the name of its namespace and directory: the name, and of the uid what tells it from its predecessor.
fn short_name(pod: &Pod) -> String {
    let uid = pod.uid().unwrap_or_default();
    format!("pod-{}-{}", pod.name_any(), uid.split('-').next().unwrap_or_default())
}

fn log_name(pod: &Pod, container: &Container) -> String {
    format!("{}_{}_{}", pod.namespace().unwrap_or_default(), pod.name_any(), container.name)
}

fn hosts_file(pod: &Pod, addresses: &PodAddresses) -> String {
    let own = addresses.pod.iter().map(|ip| format!("{ip} {}\n", pod.name_any())).collect::<String>();
    format!("127.0.0.1 localhost\n::1 localhost\n{own}")
}

/// Whether the API server took it, or has no such pod any more.
async fn write(shared: &Rc<Shared>, pod: &Pod, report: &Report) -> bool {
    let pods = Api::<Pod>::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
    let patch = Patch::Merge(report.patch(&pod.uid().unwrap_or_default()));
    match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(error) => {
            tracing::debug!("status of {}: {error}", pod.name_any());
            false
        }
    }
}

async fn removed_before_start(told: &mut watch::Receiver<Arc<Pod>>) {
    let starting = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
        !statuses.into_iter().flatten().any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()))
    };
    let removed =
        told.wait_for(|pod| pod.metadata.deletion_timestamp.is_some() && starting(pod)).await.is_ok();
    if !removed {
        std::future::pending::<()>().await;
    }
}

/// The processes have ended: the object may go.
async fn remove(shared: &Rc<Shared>, pod: &Pod) {
    let pods = Api::<Pod>::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..Default::default()
    };
    if let Err(error) = pods.delete(&pod.name_any(), &params).await {
        tracing::debug!("remove {}: {error}", pod.name_any()); // gone already, or replaced by its namesake
    }
}
