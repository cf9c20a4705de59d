//! MetalLB's flags without a meaning here, each with what to do instead.

/// Pass to [`super::parse`]. A flag that the binary defines after all is not refused.
pub const METALLB_REFUSED: &[(&str, &str)] = &[
    ("bgp-debounce-timeout", "it delays FRR's reloads; BGP changes are sent as they happen, so leave it out"),
    ("frrk8s-namespace", "BGP is spoken by the speaker itself, there is no frr-k8s to talk to; leave it out"),
    (
        "frrk8s-secret-passthrough",
        "BGP is spoken by the speaker itself and reads passwordSecret directly; leave it out",
    ),
    ("ml-wan-config", "its timings are those of MetalLB's memberlist, which is not used; leave it out"),
    ("ml-secret-name", "the controller makes that Secret; give a speaker --ml-secret-key-path"),
    ("ml-secret-key", "the controller takes no part in the membership; it is the speakers' flag"),
    ("ml-secret-key-path", "the controller takes no part in the membership; it is the speakers' flag"),
    ("ml-bindaddr", "the controller takes no part in the membership; it is the speakers' flag"),
    ("ml-bindport", "the controller takes no part in the membership; it is the speakers' flag"),
    ("deployment", "nothing is owned by the Deployment; leave it out"),
    ("disable-epslices", "EndpointSlices are served by every supported Kubernetes; leave it out"),
    ("enable-pprof", "there is no Go profiler in this program; leave it out"),
    ("pprof-bind-address", "there is no Go profiler in this program; leave it out"),
    ("disable-cert-rotation", "the webhook is the controller's; leave it out"),
    (
        "cert-dir",
        "the webhook takes its certificates from the Secret (--webhook-secret), not from files; leave it out",
    ),
    ("cert-service-name", "the webhook is the controller's; leave it out"),
    ("webhook-secret", "the webhook is the controller's; leave it out"),
    ("webhook-http2", "the webhook is the controller's; leave it out"),
    ("webhook-mode", "the webhook is the controller's; leave it out"),
    ("tls-min-version", "metrics are served over plain HTTP (--port); leave it out"),
    ("tls-cipher-suites", "metrics are served over plain HTTP (--port); leave it out"),
    (
        "tls-curve-preferences",
        "the webhook offers the curves that its library thinks safe, metrics are plain HTTP; leave it out",
    ),
    ("metrics-cert-dir", "metrics are served over plain HTTP (--port); leave it out"),
    ("host", "it did nothing in MetalLB either; leave it out"),
];
