//! A whole cluster in network namespaces: control plane, nodes, kube-proxy, Patina, and a client beside them.
//!
//! [`Lab::up`] brings one up and ends it when dropped. What can be asked of a lab (from the process that made it or
//! from any other, as `lab exec` does) is in [`view::View`].

mod control;
pub mod kubectl;
mod node;
pub mod observe;
pub mod plan;
pub mod report;
pub mod topology;
pub mod view;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::control_plane::{ControlPlane, Options as PlaneOptions};
use crate::kubelet::{API_PORT, Kubelet, Setup};
use crate::netns::Netns;
use crate::rundir::RunDir;
use crate::wait::{self, Seen, secs};
use crate::{binaries, paths};
use node::Machines;
use plan::{API_V4, Plan};
use view::View;

/// How long a silent node counts as alive. The node-lifecycle controller's default is 50 s; ours is short so that a
/// person can watch, and long enough for a machine that compiles beside.
pub const NODE_GRACE: &str = "2s";
const NODE_LOOK: &str = "200ms";

/// What kind of lab.
#[derive(Debug, Clone)]
pub struct Options {
    /// Part of all its names; `None`: one of its own, so that many run side by side.
    pub name: Option<String>,
    /// 1 to 9.
    pub nodes: u8,
    /// Whether Patina is installed from the chart's rendered default.
    pub install: bool,
    /// The directory of our programs; `None`: Cargo's debug build, brought up to date.
    pub programs: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: None, nodes: 3, install: true, programs: None }
    }
}

/// A running lab. Dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    view: View,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    run: Option<Arc<RunDir>>,
}

impl Lab {
    /// Brings a lab up and waits until its nodes are ready (and Patina's pods, when it is installed). Blocking;
    /// `say` hears what happens, a line each.
    ///
    /// # Errors
    /// Not root, a part that is missing (the text names the package), or one that did not come up: the text has what
    /// a person would look at.
    pub fn up(options: Options, say: impl Fn(&str) + Send + 'static) -> Result<Self> {
        preflight()?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = || format!("t{:x}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let id = options.name.clone().unwrap_or_else(own);
        let plan = Plan::new(&id, options.nodes)?;
        let run = Arc::new(RunDir::named(&id)?);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let (thread_run, thread_plan) = (Arc::clone(&run), plan.clone());
        // A thread with a runtime of its own: the lab lives whatever its user's runtime does.
        let thread = std::thread::Builder::new().name(format!("lab-{id}")).spawn(move || {
            if let Err(error) = live(thread_run, thread_plan, &options, &say, &tell, stopped) {
                drop(tell.send(Err(error))); // `up` waits below
            }
        })?;
        let up = told.recv().unwrap_or_else(|_| Err(anyhow!("the lab's thread ended")));
        let view = View::new(plan, run.path().to_path_buf());
        let lab = Self { view, stop: Some(stop), thread: Some(thread), run: Some(run) };
        match up {
            Ok(()) => Ok(lab),
            Err(error) => {
                lab.keep_report();
                Err(error)
            }
        }
    }

    /// Copies the logs and the frame capture to `target/lab-logs` when the lab goes down.
    pub fn keep_logs(&self) {
        if let Some(run) = &self.run {
            run.keep_logs();
        }
    }

    /// Takes the lab down when the program is interrupted (Ctrl-C, SIGTERM), and ends the program.
    ///
    /// # Errors
    /// No signal handler could be set.
    pub fn end_on_signal(&self) -> Result<()> {
        let run = self.run.as_ref().map(Arc::downgrade).unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut term, mut int) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
            });
            if let Some(run) = run.upgrade() {
                eprintln!("interrupted: taking the lab {} down", run.id());
                run.end();
            }
            // 128 + SIGINT, as a shell has it.
            std::process::exit(130);
        });
        Ok(())
    }

    /// Says everything there is to see, and keeps it with the logs and the frame capture. For when something is not
    /// as it should be; what cannot be written is said, too.
    pub fn keep_report(&self) {
        self.keep_logs();
        let report = self.view.report();
        eprintln!("{report}");
        let dir = paths::kept_logs().join(&self.view.plan().id);
        let written =
            std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join("report.txt"), report));
        match written {
            Ok(()) => eprintln!("report.txt, the logs and frames.pcap are kept in {}", dir.display()),
            Err(error) => eprintln!("the report could not be kept in {}: {error}", dir.display()),
        }
    }

    /// Takes it down, as dropping does.
    pub fn down(self) {}
}

impl Deref for Lab {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("lab: the lab's thread panicked");
        }
        // The last owner of the run: processes, namespaces and the directory end here.
        drop(self.run.take());
    }
}

/// The life of a lab, on its own thread.
fn live(
    run: Arc<RunDir>,
    plan: Plan,
    options: &Options,
    say: &dyn Fn(&str),
    up: &mpsc::Sender<Result<()>>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let parts = Parts::start(&run, &plan, options, say).await?;
        let listener = control::open(&run, &plan)?;
        drop(up.send(Ok(()))); // `Lab::up` waits for it
        let control = control::serve(listener, &plan, &parts.kubelet, &parts.machines);
        tokio::select! {
            result = control => result,
            // Dropped by the lab's owner.
            _ = stopped => Ok(()),
        }
    })
}

struct Parts {
    // Dropped in this order: what uses the API before the API.
    kubelet: Kubelet,
    machines: Machines,
    _plane: ControlPlane,
}

impl Parts {
    async fn start(run: &Arc<RunDir>, plan: &Plan, options: &Options, say: &dyn Fn(&str)) -> Result<Self> {
        let began = Instant::now();
        let step = |what: &str| say(&format!("{what} ({:.1} s)", began.elapsed().as_secs_f32()));
        topology::build(run, plan)?;
        let capture = node::capture(run, plan)?;
        step(&format!("{} nodes and a client are on the bridge", plan.nodes.len()));
        let plane = ControlPlane::start(PlaneOptions {
            run: Some(Arc::clone(run)),
            inside: Some((Netns::named(plan.net()), SocketAddr::from((API_V4, API_PORT)))),
            service_cidrs: plan::SERVICE_CIDRS.join(","),
            pod_cidrs: plan::POD_CIDRS.join(","),
            // It has no kube-proxy beside it: it asks the webhook's pods, not the Service's address.
            apiserver_flags: vec!["--enable-aggregator-routing=true".to_owned()],
            controller_manager_flags: vec![
                format!("--node-monitor-grace-period={NODE_GRACE}"),
                format!("--node-monitor-period={NODE_LOOK}"),
            ],
            ..PlaneOptions::default()
        })
        .await?;
        step("the API server and the controller-manager are at work");
        let programs = if options.install { programs(options.programs.as_deref())? } else { BTreeMap::new() };
        let setup = Setup { plan: plan.clone(), run: Arc::clone(run), programs, stand_in: stand_in()? };
        let kubelet = Kubelet::start(plane.client(), setup).await?;
        let proxy = plane.kubeconfig_for_user("system:kube-proxy", &[])?;
        let machines = Machines::start(run, plan, &proxy, capture).await?;
        nodes_ready(&plane, plan).await?;
        machines.wait_for_proxies(plan).await?;
        step("the nodes are ready, kube-proxy (nftables mode) has written its rules");
        if options.install {
            install(&plane, plan).await?;
            step("Patina is installed and ready");
        }
        Ok(Self { kubelet, machines, _plane: plane })
    }
}

/// The chart's rendered default, as `helm install patina` would send it.
async fn install(plane: &ControlPlane, plan: &Plan) -> Result<()> {
    plane.apply_crds().await?;
    plane.apply(NAMESPACE).await?;
    let rendered = paths::workspace().join("charts/patina/tests/golden/default.yaml");
    let yaml = std::fs::read_to_string(&rendered).with_context(|| format!("read {}", rendered.display()))?;
    plane.apply(&yaml).await?;
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(plane.client(), "metallb-system");
    let wanted = plan.nodes.len() + 2; // a speaker per node, two controllers
    wait::until("Patina's pods are ready", secs(60), || async {
        let all = pods.list(&kube::api::ListParams::default()).await?.items;
        let ready = all.iter().filter(|p| view::pod_ready(p)).count();
        let seen: Vec<String> =
            all.iter().map(|p| format!("{}: {}", p.name_any(), view::pod_words(p))).collect();
        Ok(Seen::when(ready == wanted, seen))
    })
    .await?;
    Ok(())
}

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: metallb-system
  labels: {pod-security.kubernetes.io/enforce: privileged}
";

async fn nodes_ready(plane: &ControlPlane, plan: &Plan) -> Result<()> {
    let nodes = Api::<Node>::all(plane.client());
    wait::until("all nodes are ready and untainted", secs(30), || async {
        let all = nodes.list(&kube::api::ListParams::default()).await?.items;
        let good =
            |n: &Node| crate::kubelet::is_ready(n) && n.spec.as_ref().is_none_or(|s| s.taints.is_none());
        let seen: Vec<String> = all.iter().filter(|n| good(n)).map(|n| n.name_any()).collect();
        Ok(Seen::when(seen.len() == plan.nodes.len(), seen))
    })
    .await?;
    Ok(())
}

/// Our programs by the names that the image has for them.
fn programs(built: Option<&Path>) -> Result<BTreeMap<String, PathBuf>> {
    let names = ["patina-controller", "patina-speaker"];
    let find = |name| built.map_or_else(|| binaries::path(name), |dir| Ok(dir.join(name)));
    names.into_iter().map(|name| Ok((format!("/{name}"), find(name)?))).collect()
}

/// The `lab` program: this one, or Cargo's build beside the running test.
fn stand_in() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    if own.file_name().is_some_and(|n| n == "lab") {
        return Ok(own);
    }
    let path = paths::target_dir().join("debug/lab");
    if !path.is_file() {
        bail!("{} is not there: `cargo build -p patina-e2e --bin lab`", path.display());
    }
    Ok(path)
}

/// What a lab needs of the machine.
fn preflight() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab makes network namespaces: run it as root");
    }
    let needed = [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("tcpdump", "tcpdump"),
        ("arping", "arping"),
        ("ndisc6", "ndisc6"),
        ("setpriv", "util-linux"),
        ("unshare", "util-linux"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(tool, _)| !std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        bail!("a lab needs: apt-get install {}", missing.join(" "));
    }
    Ok(())
}
