//! The machines under the kubelets: kube-proxy on each node, the cable, and the power switch.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::plan::{NodePlan, POD_CIDRS, Plan};
use super::topology;
use crate::netns::Netns;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;
use crate::tools::Tool;
use crate::wait::{self, Seen, secs};

/// kube-proxy's own: it serves health on the node's loopback.
const PROXY_HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// Every node's processes that are not pods.
#[derive(Debug)]
pub(super) struct Machines {
    run: Arc<RunDir>,
    kubeconfig: PathBuf,
    program: PathBuf,
    proxies: RefCell<BTreeMap<String, Process>>,
    _capture: Process,
}

impl Machines {
    pub(super) async fn start(
        run: &Arc<RunDir>,
        plan: &Plan,
        kubeconfig: &Path,
        capture: Process,
    ) -> Result<Self> {
        let program = tokio::task::spawn_blocking(|| Tool::KubeProxy.path()).await??;
        let machines = Self {
            run: Arc::clone(run),
            kubeconfig: kubeconfig.to_path_buf(),
            program,
            proxies: RefCell::default(),
            _capture: capture,
        };
        for node in &plan.nodes {
            machines.start_proxy(node)?;
        }
        Ok(machines)
    }

    /// Waits until every kube-proxy has written its first rules.
    pub(super) async fn wait_for_proxies(&self, plan: &Plan) -> Result<()> {
        for node in &plan.nodes {
            let netns = Netns::named(&node.netns);
            wait::until(&format!("kube-proxy on {} has synced", node.name), secs(30), || async {
                let answer =
                    netns.run(|| TcpStream::connect_timeout(&PROXY_HEALTH, Duration::from_millis(300)))?;
                let table = netns.exec("nft", &["list", "tables"])?;
                let synced = answer.is_ok() && table.contains("kube-proxy");
                Ok(Seen::when(
                    synced,
                    format!("health port: {:?}; tables: {}", answer.map(drop), table.trim()),
                ))
            })
            .await?;
        }
        Ok(())
    }

    /// Cuts the cable and kills what runs beside the pods.
    pub(super) fn power_off(&self, plan: &Plan, node: &NodePlan) -> Result<()> {
        topology::cable(plan, &node.name, false)?;
        self.proxies.borrow_mut().remove(&node.name);
        Ok(())
    }

    pub(super) fn power_on(&self, plan: &Plan, node: &NodePlan) -> Result<()> {
        topology::cable(plan, &node.name, true)?;
        if !self.proxies.borrow().contains_key(&node.name) {
            self.start_proxy(node)?;
        }
        Ok(())
    }

    fn start_proxy(&self, node: &NodePlan) -> Result<()> {
        let process = Spec::new(format!("kube-proxy-{}", node.name), &self.program)
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--hostname-override={}", node.name))
            .arg(format!("--cluster-cidr={}", POD_CIDRS.join(",")))
            .args(PROXY_FLAGS)
            .netns(Some(&Netns::named(&node.netns)))
            .spawn(&self.run)?;
        self.proxies.borrow_mut().insert(node.name.clone(), process);
        Ok(())
    }
}

const PROXY_FLAGS: [&str; 9] = [
    "--proxy-mode=nftables",
    // The machine's connection table is not the lab's to change.
    "--conntrack-max-per-core=0",
    "--conntrack-tcp-timeout-established=0",
    "--conntrack-tcp-timeout-close-wait=0",
    "--healthz-bind-address=127.0.0.1:10256",
    "--metrics-bind-address=127.0.0.1:10249",
    // Also nftables' (the flag's name is older): default 1 s.
    "--iptables-min-sync-period=100ms",
    "--kube-api-qps=50",
    "--kube-api-burst=100",
];

/// Everything on the bridge but the API's traffic, kept with the logs.
pub(super) fn capture(run: &Arc<RunDir>, plan: &Plan) -> Result<Process> {
    let file = capture_file(run.path());
    Spec::new("tcpdump", "tcpdump")
        .args(["-i", "br0", "-n", "-s", "192", "-U", "--immediate-mode", "-Z", "root", "-w"])
        .arg(file.into_os_string())
        .arg("not (tcp port 6443)")
        .netns(Some(&Netns::named(plan.net())))
        .spawn(run)
}

/// Where the capture of the run in `dir` is.
pub(super) fn capture_file(dir: &Path) -> PathBuf {
    dir.join("logs/frames.pcap")
}
