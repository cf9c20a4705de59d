//! The command lines of etcd, kube-apiserver and kube-controller-manager.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::Options;
use super::pki::Pki;

/// Where the parts listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) api: SocketAddr,
    pub(super) etcd: SocketAddr,
    pub(super) etcd_peer: SocketAddr,
}

/// The controllers that the lab needs. No cloud, no volumes, no node IPAM: the lab gives nodes their pod ranges.
const CONTROLLERS: [&str; 19] = [
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "job-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
];

pub(super) fn etcd(at: &Addresses, data: &Path) -> Vec<String> {
    let client = format!("http://{}", at.etcd);
    let peer = format!("http://{}", at.etcd_peer);
    vec![
        format!("--data-dir={}", data.display()),
        // The data live as long as the run: durability buys nothing.
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".to_owned(),
    ]
}

pub(super) fn apiserver(at: &Addresses, options: &Options, pki: &Pki) -> Vec<String> {
    let file = |name: &str| pki.path(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers=http://{}", at.etcd),
        format!("--bind-address={}", at.api.ip()),
        format!("--secure-port={}", at.api.port()),
        format!("--advertise-address={}", at.api.ip()),
        // Endpoints may not hold a loopback address; a lab's API server must be in the Service `kubernetes`.
        format!("--endpoint-reconciler-type={}", if at.api.ip().is_loopback() { "none" } else { "lease" }),
        format!("--service-cluster-ip-range={}", options.service_cidrs),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        // The speaker is on the host's network and has capabilities.
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ];
    flags.extend(options.apiserver_flags.iter().cloned());
    flags
}

pub(super) fn controller_manager(options: &Options, pki: &Pki, kubeconfig: &Path) -> Vec<String> {
    let mut flags = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", CONTROLLERS.join(",")),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", pki.path("sa.key").display()),
        format!("--root-ca-file={}", pki.path("ca.crt").display()),
        format!("--service-cluster-ip-range={}", options.service_cidrs),
        format!("--cluster-cidr={}", options.pod_cidrs),
        "--allocate-node-cidrs=false".to_owned(),
        "--leader-elect=false".to_owned(),
        // No port of its own: two labs on one machine.
        "--secure-port=0".to_owned(),
        "--profiling=false".to_owned(),
        // The default (20 requests a second) is what a test that makes 1,000 Services would measure.
        "--kube-api-qps=400".to_owned(),
        "--kube-api-burst=800".to_owned(),
    ];
    flags.extend(options.controller_manager_flags.iter().cloned());
    flags
}

/// Every address that the server's certificate must have.
pub(super) fn certificate_addresses(api: IpAddr, service_cidrs: &str) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), api];
    // The API server takes the first address of each range for the Service `kubernetes`.
    addresses.extend(service_cidrs.split(',').filter_map(|cidr| {
        let (base, _) = cidr.trim().split_once('/')?;
        Some(match base.parse().ok()? {
            IpAddr::V4(ip) => IpAddr::from((u32::from(ip) + 1).to_be_bytes()),
            IpAddr::V6(ip) => IpAddr::from((u128::from(ip) + 1).to_be_bytes()),
        })
    }));
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_covers_the_kubernetes_service_in_both_families() {
        let got = certificate_addresses("172.25.7.1".parse().unwrap(), "10.96.0.0/16,fd00:96::/112");
        let want: Vec<IpAddr> = ["10.96.0.1", "127.0.0.1", "172.25.7.1", "::1", "fd00:96::1"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        assert_eq!(got, want);
    }
}
