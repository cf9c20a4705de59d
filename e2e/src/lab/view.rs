//! What can be asked of a running lab, by the process that made it and by any other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};

use super::control;
use super::kubectl::Kubectl;
use super::plan::Plan;
use crate::control_plane::client_of;
use crate::netns::Netns;
use crate::paths;
use crate::wait::{self, Seen};

/// A lab by its plan and its directory.
#[derive(Debug, Clone)]
pub struct View {
    plan: Plan,
    dir: PathBuf,
}

impl View {
    pub(super) fn new(plan: Plan, dir: PathBuf) -> Self {
        Self { plan, dir }
    }

    /// The running lab of that name.
    ///
    /// # Errors
    /// There is none; the text says which there are.
    pub fn attach(name: &str) -> Result<Self> {
        let dir = runs().join(name);
        let about = std::fs::read_to_string(dir.join("lab.json")).map_err(|_| {
            let running: Vec<String> = Self::running().into_iter().map(|v| v.plan.id).collect();
            match running.as_slice() {
                [] => anyhow::anyhow!("no lab is running: `lab up` starts one"),
                names => anyhow::anyhow!("no lab {name:?} is running; there is {}", names.join(", ")),
            }
        })?;
        let about: serde_json::Value = serde_json::from_str(&about)?;
        let nodes =
            about.get("nodes").and_then(serde_json::Value::as_u64).context("lab.json has no nodes")?;
        Ok(Self { plan: Plan::new(name, u8::try_from(nodes)?)?, dir })
    }

    /// Every lab whose owner lives.
    #[must_use]
    pub fn running() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(runs()) else { return Vec::new() };
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let mut labs: Vec<Self> = names
            .filter(|name| runs().join(name).join("lab.json").is_file() && owner_lives(&runs().join(name)))
            .filter_map(|name| Self::attach(&name).ok())
            .collect();
        labs.sort_by(|a, b| a.plan.id.cmp(&b.plan.id));
        labs
    }

    /// Names and addresses.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its directory: logs, kubeconfigs, pods.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process ids of everything that runs in it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let files = std::fs::read_dir(self.dir.join("pids")).into_iter().flatten();
        let texts = files.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok());
        texts.filter_map(|text| text.split_whitespace().next()?.parse().ok()).collect()
    }

    /// The network namespaces that carry its name.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        crate::netns::names_with_prefix(&self.plan.prefix())
    }

    /// For programs on this machine.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfigs/admin")
    }

    /// kubectl with the administrator's rights.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl { kubeconfig: self.kubeconfig(), cache: self.dir.join("kubectl-cache") }
    }

    /// A client of the administrator, for the calling runtime.
    ///
    /// # Errors
    /// The kubeconfig is gone.
    pub async fn client(&self) -> Result<Client> {
        client_of(&self.kubeconfig()).await
    }

    /// The namespace of the client beside the cluster.
    #[must_use]
    pub fn client_netns(&self) -> Netns {
        Netns::named(self.plan.client())
    }

    /// The namespace of that name: a node, `client`, `net`, or the first pod whose name begins so.
    ///
    /// # Errors
    /// There is none; the text says which there are.
    pub fn netns(&self, name: &str) -> Result<Netns> {
        let prefix = self.plan.prefix();
        let all = self.namespaces();
        let mut names: Vec<String> =
            all.iter().filter_map(|n| n.strip_prefix(&prefix).map(str::to_owned)).collect();
        names.sort();
        let pod = format!("pod-{name}");
        let found = names.iter().find(|n| *n == name).or_else(|| names.iter().find(|n| n.starts_with(&pod)));
        match found {
            Some(short) => Ok(Netns::named(format!("{prefix}{short}"))),
            None => bail!("this lab has no {name:?}; it has {}", names.join(", ")),
        }
    }

    /// The node dies: its cable is cut and everything on it gets SIGKILL. Nobody is told.
    ///
    /// # Errors
    /// No such node, or the lab is gone.
    pub fn power_off(&self, node: &str) -> Result<()> {
        self.order(&format!("off {node}"))
    }

    /// The node boots.
    ///
    /// # Errors
    /// As [`View::power_off`].
    pub fn power_on(&self, node: &str) -> Result<()> {
        self.order(&format!("on {node}"))
    }

    fn order(&self, line: &str) -> Result<()> {
        let path = control::socket(&self.dir);
        let mut stream = UnixStream::connect(&path).with_context(|| format!("connect {}", path.display()))?;
        writeln!(stream, "{line}")?;
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply)?;
        if reply.trim() != "ok" {
            bail!("{line}: {}", reply.trim());
        }
        Ok(())
    }

    /// Waits until the Service has `count` addresses and returns them in the order of its status.
    ///
    /// # Errors
    /// The deadline passed; the text has the Service's status.
    pub async fn addresses(&self, namespace: &str, service: &str, count: usize) -> Result<Vec<IpAddr>> {
        let services = Api::<Service>::namespaced(self.client().await?, namespace);
        wait::until(&format!("Service {service} has {count} addresses"), DEADLINE, || async {
            let status = services.get(service).await?.status;
            let ingress =
                status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.clone());
            let ips: Vec<IpAddr> = ingress.into_iter().flatten().filter_map(|i| i.ip?.parse().ok()).collect();
            Ok(if ips.len() == count { Seen::Done(ips) } else { Seen::Not(format!("{status:?}")) })
        })
        .await
    }

    /// Waits until the Service has exactly `count` ready endpoints of each of its families.
    ///
    /// # Errors
    /// The deadline passed; the text has what there is.
    pub async fn endpoints(&self, namespace: &str, service: &str, count: usize) -> Result<()> {
        let slices = Api::<EndpointSlice>::namespaced(self.client().await?, namespace);
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        wait::until(&format!("Service {service} has {count} ready endpoints"), DEADLINE, || async {
            let list = slices.list(&of_service).await?.items;
            let ready = |slice: &EndpointSlice| {
                let of = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
                    e.conditions.as_ref().is_none_or(|c| c.ready != Some(false))
                };
                slice.endpoints.iter().filter(|e| of(e)).count()
            };
            let seen: Vec<usize> = list.iter().map(ready).collect();
            let all = !seen.is_empty() && seen.iter().all(|n| *n == count);
            Ok(if all { Seen::Done(()) } else { Seen::Not(format!("{seen:?} (one number per slice)")) })
        })
        .await
    }

    /// Waits until kube-proxy on every node that is on has rules with all of `present` and none of `absent`.
    ///
    /// # Errors
    /// The deadline passed; the text names the node.
    pub async fn rules(&self, nodes: &[String], present: &[IpAddr], absent: &[IpAddr]) -> Result<()> {
        for name in nodes {
            let netns = Netns::named(&self.plan.node(name)?.netns);
            let what = format!("kube-proxy on {name} has rules with {present:?} and without {absent:?}");
            wait::until(&what, DEADLINE, || async {
                let rules = netns.exec("nft", &["list", "ruleset"])?;
                let words: std::collections::BTreeSet<&str> =
                    rules.split(|c: char| c.is_whitespace() || c == ',').collect();
                let has = |ip: &IpAddr| words.contains(ip.to_string().as_str());
                let missing: Vec<_> = present.iter().filter(|ip| !has(ip)).collect();
                let left: Vec<_> = absent.iter().filter(|ip| has(ip)).collect();
                let done = missing.is_empty() && left.is_empty();
                let seen = format!("missing {missing:?}, still there {left:?}");
                Ok(if done { Seen::Done(()) } else { Seen::Not(seen) })
            })
            .await?;
        }
        Ok(())
    }
}

/// The longest that anything in a lab may take.
pub const DEADLINE: Duration = wait::secs(30);

/// Whether a process runs. One that has ended and waits for its parent does not.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Whether the pod's condition Ready is True.
#[must_use]
pub fn pod_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A pod's state in a few words, with the reason of what does not run.
#[must_use]
pub fn pod_words(pod: &Pod) -> String {
    if pod_ready(pod) {
        return "ready".into();
    }
    let status = pod.status.as_ref();
    let statuses = status.and_then(|s| s.container_statuses.as_ref());
    let waiting = statuses.into_iter().flatten().find_map(|c| c.state.as_ref()?.waiting.clone());
    let condition =
        status.and_then(|s| s.conditions.as_ref()).into_iter().flatten().find(|c| c.type_ == "Ready");
    let words = waiting.map(|w| [w.reason.unwrap_or_default(), w.message.unwrap_or_default()].join(" "));
    words
        .or_else(|| condition.and_then(|c| c.message.clone()))
        .unwrap_or_else(|| status.and_then(|s| s.phase.clone()).unwrap_or("no status".into()))
}

fn runs() -> PathBuf {
    paths::run_root().join("runs")
}

fn owner_lives(dir: &Path) -> bool {
    let Ok(owner) = std::fs::File::open(dir.join("owner")) else { return false };
    // Locked by its owner for life (rundir); a lock that we get is let go at once.
    owner.try_lock().is_err()
}
