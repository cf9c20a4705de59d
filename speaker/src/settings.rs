//! Everything that the command line and the environment say.

use std::path::PathBuf;
use std::time::Duration;

use patina_runtime::flags::Common;
use patina_speaker_core::view::Options;

use crate::{exclude, members};

/// Announces the addresses of LoadBalancer Services from this node.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "patina-speaker", version)]
pub struct Settings {
    /// Flags of every daemon.
    #[command(flatten)]
    pub common: Common,

    /// Name of the Node that this speaker runs on.
    #[arg(long, env = "METALLB_NODE_NAME", value_name = "NODE")]
    pub node_name: String,

    /// Announce also from nodes that are labelled node.kubernetes.io/exclude-from-external-load-balancers.
    #[arg(long)]
    pub ignore_exclude_lb: bool,

    /// Label selector of the speakers' Pods in our namespace; a node whose Pod is Ready takes part.
    #[arg(long, env = "METALLB_ML_LABELS", value_name = "SELECTOR", default_value = members::DEFAULT_LABELS)]
    pub ml_labels: String,

    /// Address of the membership protocol; accepted, used by the next version.
    #[arg(long, env = "METALLB_ML_BIND_ADDR", value_name = "ADDRESS")]
    pub ml_bindaddr: Option<String>,

    /// Port of the membership protocol; accepted, used by the next version.
    #[arg(long, env = "METALLB_ML_BIND_PORT", value_name = "PORT", default_value_t = 7946)]
    pub ml_bindport: u16,

    /// Directory or file of the membership protocol's key; accepted, used by the next version.
    #[arg(long, env = "METALLB_ML_SECRET_KEY_PATH", value_name = "PATH")]
    pub ml_secret_key_path: Option<PathBuf>,

    /// Accepted and without effect, as in MetalLB.
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,

    /// File with regular expressions of interfaces that are never announced on (MetalLB's ConfigMap metallb-excludel2).
    #[arg(long, value_name = "FILE", default_value = exclude::DEFAULT_PATH)]
    pub exclude_interfaces: PathBuf,

    /// Seconds between repeated gratuitous announcements of each address; 0 is off.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub gratuitous_interval: u32,
}

impl Settings {
    /// The flags that change decisions.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            ignore_exclude_lb: self.ignore_exclude_lb,
            lb_class: self.common.lb_class.clone(),
            ..Options::default()
        }
    }

    /// The interval of the slow refresh; `None` is off.
    #[must_use]
    pub fn refresh(&self) -> Option<Duration> {
        (self.gratuitous_interval > 0).then(|| Duration::from_secs(self.gratuitous_interval.into()))
    }
}
