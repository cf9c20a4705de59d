//! The API that Patina speaks: MetalLB's resources as types, one function that turns them (or the legacy ConfigMap)
//! into a [`config::Config`] or into every error at once, and the generated CRDs.
//!
//! Nothing here touches a cluster, a clock or a file; `crdgen` (src/bin) is the one exception and only writes YAML.
#![warn(missing_docs)]

pub mod config;
pub mod convert;
pub mod keys;
pub mod net;
pub mod networks;
pub mod selector;
pub mod service;
pub mod suggest;
pub mod types;
pub mod yaml;
