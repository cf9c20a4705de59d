//! A real Kubernetes control plane without containers: etcd, kube-apiserver (RBAC, certificates, service account
//! tokens) and kube-controller-manager, on this machine's loopback or inside a network namespace.

mod flags;
mod kubeconfig;
mod kubectl;
mod pki;
mod relay;
mod report;

pub use self::kubectl::Said;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use nix::sys::signal::Signal;

use self::flags::Addresses;
use self::kubeconfig::Proof;
use self::pki::Pki;
use self::relay::Relay;
use crate::netns::Netns;
use crate::ports::Port;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;
use crate::tools::Tool;
use crate::wait::{self, Seen, secs};

/// The longest that any part may take to be ready. A start takes 4 s on an idle machine with two cores.
const START_DEADLINE: Duration = secs(60);

/// What kind of control plane. `Options::default()` is one on loopback with free ports and a run of its own.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run that it belongs to; None: a new one.
    pub run: Option<Arc<RunDir>>,
    /// Where the API server listens inside a namespace; None: on the machine's loopback, on a free port.
    pub inside: Option<(Netns, SocketAddr)>,
    /// `--service-cluster-ip-range`
    pub service_cidrs: String,
    /// `--cluster-cidr`
    pub pod_cidrs: String,
    pub apiserver_flags: Vec<String>,
    /// For instance `--node-monitor-grace-period=4s`.
    pub controller_manager_flags: Vec<String>,
    /// False: only etcd and the API server (faster; no EndpointSlices, no garbage collection).
    pub controller_manager: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            run: None,
            inside: None,
            service_cidrs: "10.96.0.0/16,fd00:96::/112".to_owned(),
            pod_cidrs: "10.244.0.0/16,fd00:244::/56".to_owned(),
            apiserver_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
            controller_manager: true,
        }
    }
}

/// A running control plane. Dropping it ends it.
pub struct ControlPlane {
    options: Options,
    at: Addresses,
    pki: Pki,
    client: Client,
    // Fields drop in this order: clients of a server before the server.
    controller_manager: Option<Process>,
    apiserver: Option<Process>,
    etcd: Process,
    relay: Option<Relay>,
    _ports: Vec<Port>,
    run: Arc<RunDir>,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane")
            .field("run", &self.run.id())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts everything and waits until the API is ready (`/readyz`) and the controller-manager is at work (the
    /// namespace `default` has its service account).
    ///
    /// # Errors
    /// A tool is missing, or a part was not ready within 60 s: the text has the ends of the logs.
    pub async fn start(options: Options) -> Result<ControlPlane> {
        let run = match &options.run {
            Some(run) => Arc::clone(run),
            None => Arc::new(RunDir::create()?),
        };
        let (at, ports) = addresses(&options)?;
        let pki = Pki::create(run.dir("pki")?)?;
        pki.server(&flags::certificate_addresses(at.api.ip(), &options.service_cidrs))?;
        let relay = match &options.inside {
            Some((netns, _)) => Some(Relay::start(netns, at.api)?),
            None => None,
        };
        let from_here = relay.as_ref().map_or(at.api, Relay::address);
        let admin =
            write_certificate_kubeconfig(&pki, &run, "admin", "admin", &["system:masters"], from_here)?;
        let client = client_of(&admin).await?;
        let data = run.dir("etcd")?;
        let netns = options.inside.as_ref().map(|(netns, _)| netns);
        let etcd = Spec::new("etcd", tool(Tool::Etcd).await?)
            .args(flags::etcd(&at, &data))
            .netns(netns)
            .spawn(&run)?;
        let mut plane = ControlPlane {
            options,
            at,
            pki,
            client,
            controller_manager: None,
            apiserver: None,
            etcd,
            relay,
            _ports: ports,
            run,
        };
        plane.start_apiserver().await?;
        if plane.options.controller_manager {
            plane.start_controller_manager().await?;
        }
        Ok(plane)
    }

    /// A client of the administrator; works wherever the API server is.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The run: its directory, its logs.
    pub fn run(&self) -> &Arc<RunDir> {
        &self.run
    }

    /// Where the API server listens (inside its namespace when it has one).
    pub fn api_address(&self) -> SocketAddr {
        self.at.api
    }

    /// Where this machine reaches the API server.
    pub fn address_from_here(&self) -> SocketAddr {
        self.relay.as_ref().map_or(self.at.api, Relay::address)
    }

    /// The administrator's kubeconfig, for programs on this machine.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        kubeconfig_path(&self.run, "admin")
    }

    /// The certificate of the cluster's authority (PEM), as pods find it in their service account directory.
    pub fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    /// A kubeconfig with a client certificate for `user` in `groups`, for programs on the API server's network (the
    /// namespace's when it has one): kube-proxy, a kubelet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig_for_user(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let file = user.replace([':', '/'], "_");
        write_certificate_kubeconfig(&self.pki, &self.run, &file, user, groups, self.at.api)
    }

    /// A token of a service account from the TokenRequest API, good for a day.
    ///
    /// # Errors
    /// There is no such account.
    pub async fn token_for(&self, namespace: &str, service_account: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(service_account, &kube::api::PostParams::default(), &request)
            .await
            .with_context(|| format!("request a token for {namespace}/{service_account}"))?;
        Ok(answer.status.context("a TokenRequest without an answer")?.token)
    }

    /// A kubeconfig with exactly the rights of a service account, for programs on this machine.
    ///
    /// # Errors
    /// There is no such account.
    pub async fn kubeconfig_for(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        self.service_account_kubeconfig(namespace, service_account, "", self.address_from_here()).await
    }

    /// As [`ControlPlane::kubeconfig_for`], for programs on the API server's network (inside the namespace).
    ///
    /// # Errors
    /// There is no such account.
    pub async fn inside_kubeconfig_for(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        self.service_account_kubeconfig(namespace, service_account, "inside.", self.at.api).await
    }

    async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        service_account: &str,
        prefix: &str,
        server: SocketAddr,
    ) -> Result<PathBuf> {
        let token = self.token_for(namespace, service_account).await?;
        let user = format!("{namespace}.{service_account}");
        let text = kubeconfig::text(server, self.pki.ca_pem(), &user, &Proof::Token(token));
        write_kubeconfig(&self.run, &format!("{prefix}{user}"), &text)
    }

    /// A client with exactly the rights of a service account.
    ///
    /// # Errors
    /// There is no such account.
    pub async fn client_for(&self, namespace: &str, service_account: &str) -> Result<Client> {
        client_of(&self.kubeconfig_for(namespace, service_account).await?).await
    }

    /// Starts the API server (again) and waits until it is ready.
    ///
    /// # Errors
    /// It was not ready within 60 s; the text has the ends of the logs.
    pub async fn start_apiserver(&mut self) -> Result<()> {
        if self.apiserver.is_none() {
            let flags = flags::apiserver(&self.at, &self.options, &self.pki);
            let spec = Spec::new("kube-apiserver", tool(Tool::KubeApiserver).await?).args(flags);
            self.apiserver = Some(spec.netns(self.netns()).spawn(&self.run)?);
        }
        let client = self.client();
        let ready = wait::until("the API server is ready", START_DEADLINE, || {
            let died = self.died();
            let client = client.clone();
            async move {
                if let Some(died) = died {
                    return Ok(Seen::Done(Err(died)));
                }
                let request = http::Request::get("/readyz?verbose").body(Vec::new())?;
                let text = client.request_text(request).await?;
                Ok(if text.contains("readyz check passed") { Seen::Done(Ok(())) } else { Seen::Not(text) })
            }
        })
        .await;
        let ready = ready.and_then(|alive| alive.map_err(anyhow::Error::msg));
        ready.map_err(|e| anyhow!("{e:#}\n{}", self.log_tails()))
    }

    /// Kills the API server as a crash would. etcd stays, and with it every object.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Stops the API server (SIGSTOP): connections stay, and nothing is answered. [`ControlPlane::wake_apiserver`] ends it.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze_apiserver(&mut self) -> Result<()> {
        self.apiserver.as_mut().context("no API server runs")?.signal(Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn wake_apiserver(&mut self) -> Result<()> {
        self.apiserver.as_mut().context("no API server runs")?.signal(Signal::SIGCONT)
    }

    /// Kills the controller-manager, as a crash would.
    pub fn stop_controller_manager(&mut self) {
        self.controller_manager = None;
    }

    /// Starts the controller-manager (again) and waits until it is at work.
    ///
    /// # Errors
    /// It was not within 60 s; the text has the ends of the logs.
    pub async fn start_controller_manager(&mut self) -> Result<()> {
        let user = "system:kube-controller-manager";
        let kubeconfig = self.kubeconfig_for_user(user, &[])?;
        let flags = flags::controller_manager(&self.options, &self.pki, &kubeconfig);
        let spec = Spec::new("kube-controller-manager", tool(Tool::KubeControllerManager).await?).args(flags);
        self.controller_manager = Some(spec.netns(self.netns()).spawn(&self.run)?);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), "default");
        let at_work = wait::until("the controller-manager made default/default", START_DEADLINE, || {
            let died = self.died();
            let accounts = accounts.clone();
            async move {
                if let Some(died) = died {
                    return Ok(Seen::Done(Err(died)));
                }
                Ok(match accounts.get_opt("default").await? {
                    Some(_) => Seen::Done(Ok(())),
                    None => Seen::Not("no such service account".to_owned()),
                })
            }
        })
        .await;
        let at_work = at_work.and_then(|alive| alive.map_err(anyhow::Error::msg));
        at_work.map_err(|e| anyhow!("{e:#}\n{}", self.log_tails()))
    }

    /// The ends of the control plane's logs.
    pub fn log_tails(&self) -> String {
        ["etcd", "kube-apiserver", "kube-controller-manager"]
            .map(|name| {
                format!("--- the end of {name}.log\n{}\n", crate::report::tail(&self.run.log(name), 25))
            })
            .concat()
    }

    fn netns(&self) -> Option<&Netns> {
        self.options.inside.as_ref().map(|(netns, _)| netns)
    }

    /// The first part that has ended though nobody ended it: no use waiting for it.
    fn died(&mut self) -> Option<String> {
        let parts = [Some(&mut self.etcd), self.apiserver.as_mut(), self.controller_manager.as_mut()];
        parts.into_iter().flatten().find_map(|p| {
            let status = p.exited()?;
            Some(format!("{} ended: {status}", p.name()))
        })
    }
}

fn addresses(options: &Options) -> Result<(Addresses, Vec<Port>)> {
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some((_, api)) = options.inside {
        // A namespace has all ports to itself.
        return Ok((Addresses { api, etcd: local(2379), etcd_peer: local(2380) }, Vec::new()));
    }
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let [api, etcd, etcd_peer] = ports.each_ref().map(|port| local(port.number()));
    Ok((Addresses { api, etcd, etcd_peer }, Vec::from(ports)))
}

fn kubeconfig_path(run: &RunDir, name: &str) -> PathBuf {
    run.path().join("kubeconfigs").join(name)
}

fn write_kubeconfig(run: &RunDir, name: &str, text: &str) -> Result<PathBuf> {
    run.dir("kubeconfigs")?;
    let path = kubeconfig_path(run, name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn write_certificate_kubeconfig(
    pki: &Pki,
    run: &RunDir,
    file: &str,
    user: &str,
    groups: &[&str],
    server: SocketAddr,
) -> Result<PathBuf> {
    let proof = Proof::Certificate(pki.client(user, groups)?);
    write_kubeconfig(run, file, &kubeconfig::text(server, pki.ca_pem(), user, &proof))
}

/// The client of a kubeconfig.
///
/// # Errors
/// The file is not a kubeconfig.
pub async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let parsed = kubeconfig::parse(&fs::read_to_string(kubeconfig)?)?;
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Finding a tool may mean building it, which takes minutes: not on the runtime's thread.
async fn tool(tool: Tool) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || tool.path()).await?
}
