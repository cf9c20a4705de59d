//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use patina_crds::keys;
use patina_crds::net::AddressRange;

/// See addresses on bare metal: check a configuration, ask why a Service is, or is not, reachable.
#[derive(Debug, Parser)]
#[command(name = "kubectl-patina", bin_name = "kubectl patina", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  # is this configuration valid, and what does it mean? (no cluster needed)
  kubectl patina check -f pools.yaml

  # what would it give to these Services, and who would announce it? (no cluster needed)
  kubectl patina plan -f pools.yaml -f services.yaml

  # the ConfigMap of MetalLB 0.12 and older as resources (no cluster needed)
  kubectl patina migrate -f config.yaml > resources.yaml

  # why has this Service no address, or does nobody reach it?
  kubectl patina why web -n shop

  # which node announces which address by layer 2, since when, why, and who is next?
  kubectl patina l2

  # move what a node announces to others before it goes down
  kubectl patina drain node-3

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
    /// Say offline which address each Service gets, and who announces it
    Plan(Plan),
    /// Write the ConfigMap of MetalLB 0.12 and older as resources that mean the same
    Migrate(Migrate),
    /// Say why a Service has, or has not, an address, and who announces it
    Why(Why),
    /// List who announces what by layer 2, since when and why, and who would be next
    L2(L2),
    /// Move the addresses that a node announces to other nodes, and wait until they are there
    Drain(Drain),
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

/// `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads what `check` reads, and Services, EndpointSlices, Nodes, Namespaces and ServiceCIDRs; other objects in the files are
left alone. The decisions are those of the controller and the speakers: the same code makes them. Every node is taken to
run a speaker whose interfaces are usable. Addresses in a Service's status are addresses that it holds.

Examples:
  kubectl patina plan -f deploy/
  kubectl patina plan -f pools.yaml -f services.yaml --assume-endpoints
  kubectl get -A services,endpointslices,nodes,namespaces -o yaml | kubectl patina plan -f - -f new-pools.yaml
  kubectl patina plan -f deploy/ -o json

Exit codes: 0 planned (also when a Service stays without an address), 1 there are errors in the files, 2 a file cannot be
read.")]
pub struct Plan {
    /// File, directory (its .yaml, .yml and .json files), or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub file: Vec<PathBuf>,

    /// Namespace of the configuration, and of its objects that name none
    #[arg(short, long, env = "METALLB_NAMESPACE", default_value = keys::DEFAULT_NAMESPACE)]
    pub namespace: String,

    /// Name of the ConfigMap with a configuration as MetalLB 0.12 and older had it
    #[arg(long, value_name = "NAME", default_value = keys::LEGACY_CONFIG)]
    pub config: String,

    /// Namespace of Services and EndpointSlices that name none
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub service_namespace: String,

    /// IP families of the cluster, the primary one first: where a Service says nothing else, its cluster IPs are of these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAMILIES", default_value = "ipv4,ipv6")]
    pub families: Vec<IpFamily>,

    /// Range of cluster IPs, beside those of the ServiceCIDRs in the files; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Vec<AddressRange>,

    /// Plan for a controller and speakers with this --lb-class
    #[arg(long, value_name = "CLASS")]
    pub lb_class: Option<String>,

    /// Plan for a controller with --strict-pinning
    #[arg(long)]
    pub strict_pinning: bool,

    /// Plan for speakers with --ignore-exclude-lb
    #[arg(long)]
    pub ignore_exclude_lb: bool,

    /// Take a Service without any EndpointSlice to have a ready endpoint on every node, not none
    #[arg(long)]
    pub assume_endpoints: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IpFamily {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
}

/// `migrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints resources for kubectl apply. They have the names that MetalLB's own tool gives them (peer1, l2advertisement1,
bgpadvertisement1, communities); pools and BFD profiles keep theirs, in lower case and with dashes where a resource may not
have the old one. Timers that were not written are not written. Notes on what changes go to standard error.

Examples:
  kubectl get configmap -n metallb-system config -o yaml | kubectl patina migrate -f - > resources.yaml
  kubectl patina migrate -f config.yaml | kubectl patina check -f -

Exit codes: 0 migrated, 1 the ConfigMap has errors or there is none, 2 the file cannot be read.")]
pub struct Migrate {
    /// File with the ConfigMap, or with nothing but the value of its key; a directory, or - for standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    pub file: PathBuf,

    /// Namespace of the ConfigMap, and of the resources
    #[arg(short, long, env = "METALLB_NAMESPACE", default_value = keys::DEFAULT_NAMESPACE)]
    pub namespace: String,

    /// Name of the ConfigMap
    #[arg(long, value_name = "NAME", default_value = keys::LEGACY_CONFIG)]
    pub config: String,

    /// Output format
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub output: Manifests,
}

/// How to print manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manifests {
    /// YAML documents
    Yaml,
    /// A List in JSON
    Json,
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

/// `l2`.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns: ANNOUNCED BY is what the speakers say of themselves (ServiceL2Status); two nodes are a handover, and if it lasts, a
fault. SINCE and BECAUSE tell of the last move. CANDIDATES are in the order in which they take over, computed here by the
speakers' own code from what the API server knows: every node with a Ready speaker, taken to have all interfaces. +10 is
a preference score, (draining) a node that comes last because of its annotation patina.io/drain. If the speakers run with
--lb-class or --ignore-exclude-lb, say so here too.

Without a Service, all of the namespace given with -n are listed, or of all namespaces.

Examples:
  kubectl patina l2
  kubectl patina l2 -n shop
  kubectl patina l2 shop/web -o json

Exit codes: 0 each address has one announcer and no other user, 1 one has none, several, or is used by a foreign host, 2 the
cluster cannot be asked.")]
pub struct L2 {
    /// One Service, as NAMESPACE/NAME, or NAME in the namespace of -n or of the kubeconfig's context
    pub service: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,

    /// The speakers run with this --lb-class
    #[arg(long, value_name = "CLASS")]
    pub lb_class: Option<String>,

    /// The speakers run with --ignore-exclude-lb
    #[arg(long)]
    pub ignore_exclude_lb: bool,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
}

/// `drain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Sets the annotation patina.io/drain: \"true\" on the node. Its speaker goes on answering until another one was heard to
announce, so no request is lost; it keeps only what no other node could announce. The node's Pods stay: for them there is
kubectl drain. The annotation stays until --undo; then the addresses come back as patina.io/failback of their
L2Advertisements says. BGP is not concerned.

Examples:
  kubectl patina drain node-3 && ssh node-3 reboot
  kubectl patina drain node-3 --undo
  kubectl patina drain node-3 --timeout 0

Exit codes: 0 nothing is announced from the node (or --timeout 0), 1 something still is after the timeout, 2 there is no
such node, or the cluster cannot be asked.")]
pub struct Drain {
    /// Name of the node
    pub node: String,

    /// Take the annotation away
    #[arg(long)]
    pub undo: bool,

    /// How long to wait in seconds, at most 86400; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,

    /// Namespace of Patina
    #[arg(long, value_name = "NAMESPACE", env = "METALLB_NAMESPACE", default_value = keys::DEFAULT_NAMESPACE)]
    pub system_namespace: String,

    /// Kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(long)]
    pub context: Option<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u32>().ok();
    let seconds = seconds.filter(|seconds| *seconds <= 86_400);
    seconds
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or("allowed are 0 to 86400 seconds".to_owned())
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
