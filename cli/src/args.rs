//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use patina_crds::keys;

/// See addresses on bare metal: check a configuration, ask why a Service is, or is not, reachable.
#[derive(Debug, Parser)]
#[command(name = "kubectl-patina", bin_name = "kubectl patina", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  # is this configuration valid, and what does it mean? (no cluster needed)
  kubectl patina check -f pools.yaml

  # why has this Service no address, or does nobody reach it?
  kubectl patina why web -n shop

Exit codes: 0 yes, 1 no, 2 the question could not be answered (usage, files, cluster).")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration offline: say what it means, or everything that is wrong with it
    Check(Check),
    /// Say why a Service has, or has not, an address, and who announces it
    Why(Why),
    /// Print the version
    Version,
}

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads MetalLB's resources (IPAddressPool, L2Advertisement, BGPAdvertisement, BGPPeer, BFDProfile, Community, the
Secrets of the peers) and the ConfigMap of MetalLB 0.12 and older; other objects in the files are left alone. It is the
same check that the controller and the speakers make.

Examples:
  kubectl patina check -f pools.yaml
  kubectl patina check -f deploy/ -f overrides.yaml
  kubectl get -n metallb-system ipaddresspools,l2advertisements -o yaml | kubectl patina check -f -
  kubectl patina check -f pools.yaml -o json

Exit codes: 0 valid, 1 invalid, 2 a file cannot be read.")]
pub struct Check {
    /// File, directory (its .yaml, .yml and .json files), or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub file: Vec<PathBuf>,

    /// Namespace of the configuration, and of objects that name none
    #[arg(short, long, env = "METALLB_NAMESPACE", default_value = keys::DEFAULT_NAMESPACE)]
    pub namespace: String,

    /// Name of the ConfigMap with a configuration as MetalLB 0.12 and older had it
    #[arg(long, value_name = "NAME", default_value = keys::LEGACY_CONFIG)]
    pub config: String,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// `why`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl patina why web
  kubectl patina why web -n shop -o json

Exit codes: 0 it has an address and is announced, 1 it has not or is not, 2 the cluster cannot be asked.")]
pub struct Why {
    /// Name of the Service
    pub service: String,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Which cluster, and where in it.
#[derive(Debug, Args)]
pub struct Cluster {
    /// Namespace of the Service [default: that of the kubeconfig's context]
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// Namespace of Patina and its configuration
    #[arg(long, value_name = "NAMESPACE", env = "METALLB_NAMESPACE", default_value = keys::DEFAULT_NAMESPACE)]
    pub system_namespace: String,

    /// Kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(long)]
    pub context: Option<String>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}
