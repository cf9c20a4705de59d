//! The lab: a real API server, a real controller-manager, a real kube-proxy and our own real binaries, in network
//! namespaces of this machine. Nothing here is a simulation but the kubelet (see `docs/map.md`).
//!
//! Bottom up: where things are ([`paths`], [`tools`], [`binaries`]), what a run owns ([`rundir`], [`ports`],
//! [`netns`], [`process`]), the API ([`control_plane`]), and what a test says ([`wait`], [`report`]).

pub mod binaries;
pub mod control_plane;
pub mod docs;
pub mod netns;
pub mod paths;
pub mod ports;
pub mod process;
pub mod report;
pub mod rundir;
pub mod tools;
pub mod wait;
