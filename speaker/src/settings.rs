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

    /// Label selector of the speakers' Pods in our namespace: where the others are. Empty: there is no membership, and
    /// every node is taken to run a speaker.
    #[arg(long, env = "METALLB_ML_LABELS", value_name = "SELECTOR", default_value = members::DEFAULT_LABELS)]
    pub ml_labels: String,

    /// Addresses at which the other speakers reach this one: one, or one of each family, separated by a comma.
    /// Otherwise those of the Pod.
    #[arg(long, env = "METALLB_ML_BIND_ADDR", value_name = "ADDRESS")]
    pub ml_bindaddr: Option<String>,

    /// UDP port of the membership protocol, the same for all speakers.
    #[arg(long, env = "METALLB_ML_BIND_PORT", value_name = "PORT", default_value_t = 7946)]
    pub ml_bindport: u16,

    /// Directory with the files secretkey and, during a rotation, secretkey-previous (a mounted Secret); or a file. It is
    /// read again every five seconds. Without a key there is no membership: the API server says who is alive.
    #[arg(long, env = "METALLB_ML_SECRET_KEY_PATH", value_name = "PATH")]
    pub ml_secret_key_path: Option<PathBuf>,

    /// The key itself, as manifests of MetalLB 0.12 have it; --ml-secret-key-path goes before it.
    #[arg(long, env = "METALLB_ML_SECRET_KEY", value_name = "KEY", hide_env_values = true)]
    pub ml_secret_key: Option<Hidden>,

    /// Addresses of this Pod, separated by commas (status.podIPs of the downward API).
    #[arg(long, env = "METALLB_POD_IPS", value_name = "ADDRESSES")]
    pub pod_ips: Option<String>,

    /// What speakers do that cannot reach most of the speakers that they knew: none, they go on announcing what their part
    /// of the network needs; quorum, they announce nothing.
    #[arg(long, env = "PATINA_FENCING", value_enum, value_name = "POLICY", default_value_t = Fencing::None)]
    pub fencing: Fencing,

    /// Milliseconds between the heartbeats of the membership (10 to 1000); for tests.
    #[arg(long, hide = true, default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..=1000))]
    pub membership_heartbeat: u64,

    /// Milliseconds after which a silent speaker is dead (200 to 60000); for tests.
    #[arg(long, hide = true, default_value_t = 250, value_parser = clap::value_parser!(u64).range(200..=60_000))]
    pub membership_detect: u64,

    /// TCP port on which BGP peers may connect to this node. 0: they may not, and only this speaker connects; so that a
    /// routing daemon of the node keeps port 179 to itself.
    #[arg(long, env = "PATINA_BGP_LISTEN_PORT", value_name = "PORT", default_value_t = 0)]
    pub bgp_listen_port: u16,

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

/// What a minority of the speakers does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fencing {
    /// It announces.
    None,
    /// It is silent.
    Quorum,
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl std::str::FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Settings {
    /// Between two heartbeats of the membership.
    #[must_use]
    pub fn membership_heartbeat(&self) -> Duration {
        Duration::from_millis(self.membership_heartbeat)
    }

    /// A speaker that was silent for this long is dead.
    #[must_use]
    pub fn membership_detect(&self) -> Duration {
        Duration::from_millis(self.membership_detect)
    }

    /// The port on which BGP peers may connect, if they may.
    #[must_use]
    pub fn bgp_listen_port(&self) -> Option<u16> {
        Some(self.bgp_listen_port).filter(|port| *port != 0)
    }

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
