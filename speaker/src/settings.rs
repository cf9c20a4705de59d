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

    /// Label selector of the speakers' Pods in our namespace; a node whose Pod is Ready takes part. Empty: every node
    /// is taken to run a speaker.
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

#[cfg(test)]
mod tests {
    use patina_runtime::flags::{METALLB_REFUSED, Stop, try_parse};

    use super::*;

    fn parse(args: &str) -> Result<Settings, Stop> {
        let args = std::iter::once("patina-speaker").chain(args.split_whitespace());
        try_parse(args.map(Into::into), METALLB_REFUSED)
    }

    #[test]
    fn a_command_line_of_metallb_is_understood() {
        let settings = parse(
            "--port=7472 --log-level=info --node-name=n1 --lb-class=fast --ignore-exclude-lb=true --host=10.0.0.1 \
             --ml-bindaddr=10.0.0.1 --ml-bindport 7946 --ml-labels=app=metallb,component=speaker \
             --ml-secret-key-path=/etc/ml_secret_key --pod-name=speaker-x --health-probe-port=17472",
        )
        .unwrap();
        assert_eq!(settings.node_name, "n1");
        assert_eq!(settings.ml_labels, "app=metallb,component=speaker");
        let options = settings.options();
        assert!(options.ignore_exclude_lb);
        assert_eq!(options.lb_class.as_deref(), Some("fast"));
        assert_eq!(settings.refresh(), Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_has_no_meaning_here_is_refused_with_a_hint() {
        for (args, part) in [
            ("--node-name=n1 --bgp-debounce-timeout=1000", "FRR"),
            ("--node-name=n1 --frrk8s-namespace=x", "frr-k8s"),
            ("--node-name=n1 --ml-label=x", "--ml-labels"),
            ("--port=1", "--node-name"),
        ] {
            let stop = parse(args).unwrap_err();
            assert_eq!(stop.code, 2, "{args}");
            assert!(stop.text.contains(part), "{args}: {}", stop.text);
        }
    }

    #[test]
    fn membership_and_refresh_can_be_switched_off() {
        let settings = parse("--node-name=n1 --ml-labels= --gratuitous-interval=0").unwrap();
        assert_eq!(settings.ml_labels, "");
        assert_eq!(settings.refresh(), None);
    }
}
