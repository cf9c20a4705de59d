//! A control plane for benches, with release binaries of ours beside it.

use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::paths;
use patina_e2e::ports::Port;
use patina_e2e::process::{Process, Spec};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};

use crate::audit;

/// Where the Services are.
pub(crate) const NAMESPACE: &str = "default";
/// Where Patina is.
pub(crate) const SYSTEM: &str = "metallb-system";
/// Clients that create at the same time.
const CLIENTS: usize = 16;
/// Who the controller is to the API server.
pub(crate) const CONTROLLER: &str = "bench-controller";
/// Who writes bare statuses.
pub(crate) const BARE: &str = "bench-bare";

/// API server, controller-manager, one pool for everybody.
pub(crate) struct Cluster {
    plane: ControlPlane,
    audit: PathBuf,
    health: Port,
    metrics: Port,
}

impl Cluster {
    /// Starts it on this machine's loopback: nothing is between a client and the API server.
    pub(crate) async fn start() -> Result<Cluster> {
        let run = Arc::new(RunDir::create()?);
        let (audit, apiserver_flags) = audit::log_of(&[CONTROLLER, BARE], &run)?;
        // The bench's node has no kubelet whose silence should be noticed.
        let patience = ["--node-monitor-grace-period=1h", "--node-startup-grace-period=1h"];
        let controller_manager_flags = patience.map(str::to_owned).to_vec();
        let options =
            Options { run: Some(run), controller_manager_flags, apiserver_flags, ..Options::default() };
        let plane = ControlPlane::start(options).await?;
        let (health, metrics) = (Port::reserve()?, Port::reserve()?);
        let cluster = Cluster { plane, audit, health, metrics };
        cluster.plane.apply_crds().await?;
        cluster.plane.apply(&pool("10.100.0.0/16")).await?;
        Ok(cluster)
    }

    /// Where the requests of [`CONTROLLER`] and [`BARE`] are written down.
    pub(crate) fn audit(&self) -> &Path {
        &self.audit
    }

    /// A kubeconfig of a user who may do everything, for a process beside the API server.
    pub(crate) fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        self.plane.kubeconfig_for_user(user, &["system:masters"])
    }

    /// Starts a process beside the API server.
    pub(crate) fn spawn(&self, spec: Spec) -> Result<Process> {
        spec.spawn(self.plane.run())
    }

    pub(crate) fn client(&self) -> Client {
        self.plane.client()
    }

    /// The release controller, just started.
    pub(crate) fn start_controller(&self) -> Result<Daemon> {
        let metrics = format!("--port={}", self.metrics.number());
        self.daemon("patina-controller", &[&metrics], CONTROLLER, self.health.number())
    }

    /// The release controller, ready.
    pub(crate) async fn controller(&self) -> Result<Daemon> {
        let mut daemon = self.start_controller()?;
        self.ready(&mut daemon).await?;
        Ok(daemon)
    }

    /// The sum of a counter over its labels, as the controller tells it.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let text = self.curl(&[&format!("http://127.0.0.1:{}/metrics", self.metrics.number())])?;
        let mut values = text.lines().filter(|line| line.starts_with(name)).peekable();
        values.peek().with_context(|| format!("the controller has no metric {name}"))?;
        let number = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
        values.map(|line| number(line).with_context(|| format!("no number: {line}"))).sum()
    }

    fn daemon(&self, binary: &str, flags: &[&str], user: &str, health_port: u16) -> Result<Daemon> {
        let spec = Spec::new(binary, release_binary(binary)?)
            .args(flags)
            .arg(format!("--kubeconfig={}", self.kubeconfig(user)?.display()))
            .arg(format!("--namespace={SYSTEM}"))
            .arg(format!("--health-probe-port={health_port}"));
        Ok(Daemon { process: self.spawn(spec)?, health_port })
    }

    async fn ready(&self, daemon: &mut Daemon) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", daemon.health_port);
        wait::until(&format!("{} is ready", daemon.process.name()), secs(30), || {
            let answer = self.curl(&["-w", "%{http_code}", &url]);
            let died = daemon.process.exited();
            let log = daemon.process.log_tail(10);
            async move {
                if let Some(status) = died {
                    bail!("it ended: {status}\n{log}");
                }
                let answer = answer?;
                Ok(Seen::when(answer.ends_with("200"), answer))
            }
        })
        .await
        .map(drop)
    }

    fn curl(&self, args: &[&str]) -> Result<String> {
        let output =
            Command::new("curl").arg("-s").args(args).stdin(Stdio::null()).output().context("run curl")?;
        if !output.status.success() {
            bail!("curl {}: {}", args.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Creates the Services with these numbers, many at a time.
    pub(crate) async fn create_services(&self, numbers: Range<usize>) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.client(), NAMESPACE);
        each(numbers, |i| {
            let services = services.clone();
            async move {
                services.create(&PostParams::default(), &service(i)).await?;
                Ok(())
            }
        })
        .await
    }
}

/// One of our programs.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    health_port: u16,
}

impl Daemon {
    /// SIGTERM, and the end: what it holds it gives back.
    pub(crate) fn stop(mut self) -> Result<()> {
        if !self.process.terminate(secs(20)) {
            bail!(
                "{} did not end within 20 s of SIGTERM:\n{}",
                self.process.name(),
                self.process.log_tail(10)
            );
        }
        Ok(())
    }

    /// SIGKILL: a crash.
    pub(crate) fn crash(mut self) {
        self.process.kill();
    }

    /// Resident memory in MB (10^6 bytes).
    pub(crate) fn rss_mb(&self) -> Result<f64> {
        self.memory_mb("VmRSS:")
    }

    /// The most resident memory that it ever had, in MB (10^6 bytes).
    pub(crate) fn peak_rss_mb(&self) -> Result<f64> {
        self.memory_mb("VmHWM:")
    }

    fn memory_mb(&self, field: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kb: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kb * 1024.0 / 1e6)
    }

    /// CPU time so far in seconds, user and system.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid()))?;
        let (_, fields) = stat.rsplit_once(')').context("no command in stat")?;
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / 100.0) // USER_HZ is 100 on every architecture of ours
    }
}

/// The path of a binary of ours in the release profile (of the bench too: what measures should not be in the way); the
/// first call builds them all, unless `PATINA_BUILT=1` says that this was just done.
pub(crate) fn release_binary(name: &str) -> Result<PathBuf> {
    static BUILD: OnceLock<Result<(), String>> = OnceLock::new();
    let built = std::env::var_os("PATINA_BUILT").is_some_and(|value| value == "1");
    BUILD
        .get_or_init(|| if built { Ok(()) } else { build().map_err(|e| format!("{e:#}")) })
        .clone()
        .map_err(anyhow::Error::msg)?;
    Ok(paths::target_dir().join(profile()).join(name))
}

/// A hash of the programs that are measured: who runs parts one after another gets one table only of one build.
pub(crate) fn programs() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for name in ["patina-controller", "patina-speaker", "kubectl-patina"] {
        let path = release_binary(name)?;
        hasher.write(&std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// The profile whose binaries are measured: release, unless somebody who works on a bench says otherwise.
pub(crate) fn profile() -> &'static str {
    let debug = std::env::var_os("PATINA_BENCH_PROFILE").is_some_and(|value| value == "debug");
    if debug { "debug" } else { "release" }
}

fn build() -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace()).args(["build", "--target-dir"]);
    cargo.arg(paths::target_dir());
    if profile() == "release" {
        cargo.arg("--release");
    }
    cargo.args(
        ["patina-controller", "patina-speaker", "kubectl-patina", "bench"].map(|bin| format!("--bin={bin}")),
    );
    if !cargo.status().context("run cargo")?.success() {
        bail!("the release build failed");
    }
    Ok(())
}

/// `work` for each number, [`CLIENTS`] at a time.
pub(crate) async fn each<F, Fut>(numbers: Range<usize>, work: F) -> Result<()>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    futures::stream::iter(numbers).map(work).buffer_unordered(CLIENTS).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// Lets what was started or changed come to rest before memory is read: a fixed time, because "at rest" is what is
/// measured.
pub(crate) async fn calm() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

pub(crate) fn service_name(i: usize) -> String {
    format!("bench-{i:05}")
}

pub(crate) fn service(i: usize) -> Service {
    Service {
        metadata: kube::core::ObjectMeta { name: Some(service_name(i)), ..Default::default() },
        spec: Some(k8s_openapi::api::core::v1::ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            allocate_load_balancer_node_ports: Some(false),
            ports: Some(vec![k8s_openapi::api::core::v1::ServicePort { port: 80, ..Default::default() }]),
            ..Default::default()
        }),
        status: None,
    }
}

pub(crate) fn object<K: DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}

/// A pool with room for 10,000, advertised on all nodes.
fn pool(addresses: &str) -> String {
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}),
        json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"namespace": SYSTEM, "name": "bench"},
            "spec": {"addresses": [addresses]},
        }),
        json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
            "metadata": {"namespace": SYSTEM, "name": "bench"}, "spec": {},
        }),
    ];
    objects.map(|object| object.to_string()).join("\n---\n")
}
