//! The flags that the controller and the speaker share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;
use patina_crds::keys;

/// Where a Pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Flags of every daemon. `#[command(flatten)]` it.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Namespace of the configuration: pools, advertisements, the legacy ConfigMap. [default: the Pod's own, else
    /// metallb-system]
    #[arg(long, env = "METALLB_NAMESPACE", default_value_t = default_namespace(), hide_default_value = true)]
    pub namespace: String,

    /// Kubeconfig file. [default: $KUBECONFIG, else the Pod's ServiceAccount]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of the ConfigMap with a configuration as MetalLB 0.12 and older had it (data key `config`).
    #[arg(long, value_name = "NAME", default_value = keys::LEGACY_CONFIG)]
    pub config: String,

    /// Serve only Services with exactly this spec.loadBalancerClass. [default: only Services without a class]
    #[arg(long, value_name = "CLASS")]
    pub lb_class: Option<String>,

    /// How much to log.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,

    /// JSON lines as MetalLB writes them, or text for people; auto is text on a terminal.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,

    /// Port of the metrics (HTTP, path /metrics); 0 is off.
    #[arg(long, default_value_t = 7472)]
    pub port: u16,

    /// Port of /healthz and /readyz; 0 is off.
    #[arg(long, value_name = "PORT", default_value_t = 17472)]
    pub health_probe_port: u16,

    /// Name of this Pod, as events show it. [default: the host name]
    #[arg(long, env = "METALLB_POD_NAME", value_name = "NAME", default_value_t = host_name(), hide_default_value = true)]
    pub pod_name: String,
}

impl Common {
    /// Where to serve metrics: every address of the host, or nowhere.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        everywhere(self.port)
    }

    /// Where the controller serves health: every address, or nowhere.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        everywhere(self.health_probe_port)
    }

    /// Where the speaker serves health: only on 127.0.0.1, because it is on the host's network, or nowhere.
    #[must_use]
    pub fn local_health_address(&self) -> Option<SocketAddr> {
        (self.health_probe_port != 0).then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, self.health_probe_port)))
    }
}

/// MetalLB's log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything, libraries too.
    All,
    /// Decisions and their inputs.
    Debug,
    /// What changed.
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
    /// Nothing.
    None,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text when standard error is a terminal, else JSON.
    Auto,
    /// One JSON object per line: ts, level, caller, msg, and the fields.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    /// Whether to write JSON to a standard error that is, or is not, a terminal.
    #[must_use]
    pub fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Json => true,
            Self::Text => false,
        }
    }
}

fn everywhere(port: u16) -> Option<SocketAddr> {
    (port != 0).then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
}

fn default_namespace() -> String {
    std::fs::read_to_string(NAMESPACE_FILE)
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| keys::DEFAULT_NAMESPACE.to_owned())
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
