//! The lab: a real API server, a real controller-manager, a real kube-proxy and our own real binaries, in network
//! namespaces of this machine. Nothing here is a simulation but the kubelet (see `docs/map.md`).
//!
//! Bottom up: where things are ([`paths`], [`tools`], [`binaries`]), what a run owns ([`rundir`], [`ports`],
//! [`netns`], [`process`]), the API ([`control_plane`]), and what a test says ([`wait`], [`report`]).

pub mod binaries;
pub mod cli;
pub mod client;
pub mod control_plane;
pub mod demo;
pub mod docs;
pub mod guest;
pub mod kubelet;
pub mod lab;
pub mod lan;
pub mod neighbour;
pub mod netns;
pub mod paths;
pub mod planned;
pub mod pod;
pub mod ports;
pub mod prober;
pub mod process;
pub mod report;
pub mod routers;
pub mod rundir;
pub mod stranger;
pub mod tools;
pub mod traffic;
pub mod wait;

/// Logs of the lab itself go to standard error; `RUST_LOG` says how much (default: warnings, and what the lab does; not
/// kube's own of every answer that a waiting lab expects to be an error).
pub(crate) fn tracing_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,patina_e2e=info,kube_client=off"));
    // A second call (tests in one process) changes nothing.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
}
