//! The annotation, label and object names that users write and read (MetalLB's, plus ours under `patina.io`).

/// The two prefixes of MetalLB's annotations, current first. The current one wins when present, even if empty.
pub const PREFIXES: [&str; 2] = ["metallb.io", "metallb.universe.tf"];

/// Annotation (both prefixes): take the address from this pool.
pub const ADDRESS_POOL: &str = "address-pool";
/// Annotation (both prefixes): comma separated addresses, at most one per family.
pub const LOAD_BALANCER_IPS: &str = "loadBalancerIPs";
/// Annotation (both prefixes): sharing key.
pub const ALLOW_SHARED_IP: &str = "allow-shared-ip";
/// Annotation that the controller writes with the addresses, in the same status update.
pub const IP_ALLOCATED_FROM_POOL: &str = "metallb.io/ip-allocated-from-pool";

/// Node label (presence counts): this node never announces.
pub const EXCLUDE_FROM_EXTERNAL_LB: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Label of an EndpointSlice: the Service that it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Condition type on a Service: an address is allocated, or why not.
pub const CONDITION_ALLOCATED: &str = "patina.io/Allocated";
/// Condition type on a Service: somebody announces it, or why not.
pub const CONDITION_ANNOUNCED: &str = "patina.io/Announced";

/// Annotation on a speaker's ConfigurationState: the node's networks ([`crate::networks`]).
pub const NETWORKS: &str = "patina.io/networks";
/// Annotation on an L2Advertisement: `immediate` (the default), `never`, or a delay like `30s`.
pub const FAILBACK: &str = "patina.io/failback";
/// Annotation on a Node: `"true"` moves what it announces to other nodes, without a gap.
pub const DRAIN: &str = "patina.io/drain";
/// Annotations on a ServiceL2Status: since when this node announces (RFC 3339), why it took over, and from which node.
pub const SINCE: &str = "patina.io/since";
/// See [`SINCE`].
pub const CAUSE: &str = "patina.io/cause";
/// See [`SINCE`].
pub const FROM: &str = "patina.io/from";
/// Label of a ConfigurationState: `controller` or `speaker`.
pub const COMPONENT_TYPE: &str = "metallb.io/component-type";
/// Label of a speaker's ConfigurationState.
pub const NODE_NAME: &str = "metallb.io/node-name";

/// Namespace in which MetalLB's manifests, and therefore ours, live by default.
pub const DEFAULT_NAMESPACE: &str = "metallb-system";
/// Default name of the legacy ConfigMap (flag `--config`), and its data key.
pub const LEGACY_CONFIG: &str = "config";
