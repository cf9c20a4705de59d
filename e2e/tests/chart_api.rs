//! The Helm chart against a real API server: what it renders is accepted, what it grants is what is needed and no more, and it
//! installs, upgrades and goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use patina_e2e::control_plane::{ControlPlane, Options, Said};
use patina_e2e::paths;
use patina_e2e::tools::Tool;

const NAMESPACE: &str = "metallb-system";

/// What each ServiceAccount may and must not do. `group/resource/subresource:name`, the core group without a name.
const PERMISSIONS: &str = "
    # The controller writes Services' status, and nothing else of them.
    controller  yes  list    services                                    default
    controller  yes  watch   services                                    default
    controller  yes  patch   services/status                             default
    controller  no   patch   services                                    default
    controller  no   delete  services                                    default
    controller  no   create  services                                    metallb-system
    controller  yes  list    namespaces                                  -
    controller  no   patch   namespaces                                  -
    # Configuration: read, in its own namespace.
    controller  yes  watch   metallb.io/ipaddresspools                   metallb-system
    controller  yes  watch   metallb.io/l2advertisements                 metallb-system
    controller  yes  watch   metallb.io/bgpadvertisements                metallb-system
    controller  yes  watch   metallb.io/bgppeers                         metallb-system
    controller  yes  watch   metallb.io/bfdprofiles                      metallb-system
    controller  yes  watch   metallb.io/communities                      metallb-system
    controller  no   list    metallb.io/ipaddresspools                   default
    controller  no   patch   metallb.io/ipaddresspools                   metallb-system
    controller  yes  patch   metallb.io/ipaddresspools/status            metallb-system
    controller  yes  watch   configmaps:config                           metallb-system
    controller  no   get     configmaps:other                            metallb-system
    controller  no   list    configmaps                                  metallb-system
    controller  no   patch   configmaps:config                           metallb-system
    controller  yes  list    secrets                                     metallb-system
    controller  no   get     secrets                                     default
    controller  no   get     secrets                                     kube-system
    controller  no   create  secrets                                     metallb-system
    # The webhook: its certificates, and two fields of two objects by their names.
    controller  yes  update  secrets:metallb-webhook-cert                metallb-system
    controller  no   update  secrets:other                               metallb-system
    controller  yes  patch   secrets:patina-memberlist                   metallb-system
    controller  no   patch   secrets:other                               metallb-system
    controller  no   delete  secrets:metallb-webhook-cert                metallb-system
    controller  yes  watch   discovery.k8s.io/endpointslices             metallb-system
    controller  no   list    discovery.k8s.io/endpointslices             default
    controller  yes  patch   admissionregistration.k8s.io/validatingwebhookconfigurations:metallb-webhook-configuration -
    controller  no   patch   admissionregistration.k8s.io/validatingwebhookconfigurations:other -
    controller  no   create  admissionregistration.k8s.io/validatingwebhookconfigurations -
    controller  no   delete  admissionregistration.k8s.io/validatingwebhookconfigurations:metallb-webhook-configuration -
    controller  yes  patch   apiextensions.k8s.io/customresourcedefinitions:bgppeers.metallb.io -
    controller  no   patch   apiextensions.k8s.io/customresourcedefinitions:ipaddresspools.metallb.io -
    controller  no   update  apiextensions.k8s.io/customresourcedefinitions:bgppeers.metallb.io -
    speaker     no   patch   apiextensions.k8s.io/customresourcedefinitions:bgppeers.metallb.io -
    speaker     no   update  secrets:metallb-webhook-cert                metallb-system
    # Its Lease, and no other.
    controller  yes  create  coordination.k8s.io/leases                  metallb-system
    controller  yes  update  coordination.k8s.io/leases:patina-controller metallb-system
    controller  no   update  coordination.k8s.io/leases:other            metallb-system
    controller  no   create  coordination.k8s.io/leases                  kube-system
    controller  yes  create  events.k8s.io/events                        default
    controller  no   list    pods                                        default
    controller  yes  get     pods                                        metallb-system
    controller  no   list    pods                                        metallb-system
    controller  no   create  pods                                        metallb-system
    controller  yes  create  metallb.io/configurationstates              metallb-system
    controller  yes  patch   metallb.io/configurationstates/status       metallb-system
    controller  no   patch   metallb.io/servicel2statuses/status         metallb-system
    controller  no   get     nodes                                       -
    # The speaker writes no Service at all.
    speaker     yes  watch   services                                    default
    speaker     no   patch   services                                    default
    speaker     no   patch   services/status                             default
    speaker     no   update  services/status                             default
    speaker     yes  watch   discovery.k8s.io/endpointslices             default
    speaker     no   patch   discovery.k8s.io/endpointslices             default
    speaker     yes  watch   nodes                                       -
    speaker     no   patch   nodes                                       -
    speaker     no   patch   nodes/status                                -
    speaker     no   list    namespaces                                  -
    speaker     yes  watch   pods                                        metallb-system
    speaker     no   list    pods                                        default
    speaker     no   delete  pods                                        metallb-system
    speaker     no   create  pods/exec                                   metallb-system
    speaker     yes  create  metallb.io/servicel2statuses                metallb-system
    speaker     yes  patch   metallb.io/servicel2statuses/status         metallb-system
    speaker     yes  delete  metallb.io/servicel2statuses                metallb-system
    speaker     no   create  metallb.io/servicel2statuses                default
    speaker     yes  watch   metallb.io/l2advertisements                 metallb-system
    speaker     no   patch   metallb.io/l2advertisements                 metallb-system
    speaker     no   patch   metallb.io/ipaddresspools/status            metallb-system
    speaker     yes  watch   configmaps:config                           metallb-system
    speaker     no   get     configmaps:other                            metallb-system
    speaker     no   get     secrets                                     default
    speaker     no   update  coordination.k8s.io/leases:patina-controller metallb-system
    speaker     yes  create  events.k8s.io/events                        default
    speaker     no   create  serviceaccounts/token                       metallb-system
";

#[tokio::test]
async fn what_is_rendered_is_accepted_and_grants_no_more_than_is_needed() {
    let plane = cluster().await;
    plane.apply_crds().await.unwrap();
    let goldens = goldens();
    assert!(goldens.len() >= 3, "where are the goldens? {goldens:?}");
    for golden in goldens {
        let path = golden.to_str().unwrap();
        let said = plane
            .kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", path])
            .await;
        said.unwrap_or_else(|e| panic!("{path}: {e:#}"));
    }
    let default = paths::workspace().join("charts/patina/tests/golden/default.yaml");
    plane.kubectl(&["apply", "--server-side", "-f", default.to_str().unwrap()]).await.unwrap();

    let mut wrong = String::new();
    let mut asked = 0;
    for line in PERMISSIONS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [who, expected, verb, what, namespace] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("a row has five words: {line}");
        };
        asked += 1;
        if may(&plane, who, verb, what, namespace).await != (expected == "yes") {
            wrong.push_str(&format!("not so: {line}\n"));
        }
    }
    assert!(asked > 50 && wrong.is_empty(), "{asked} asked\n{wrong}");
}

#[tokio::test]
async fn it_installs_upgrades_and_goes_and_leaves_the_pools_alone() {
    let plane = cluster().await;
    let chart = paths::workspace().join("charts/patina");
    let chart = chart.to_str().unwrap();
    let notes = helm(&plane, &["install", "lb", chart, "-n", NAMESPACE]).await;
    for wanted in
        ["rollout status daemonset/lb-patina-speaker", "kind: IPAddressPool", "namespace: metallb-system"]
    {
        assert!(notes.contains(wanted), "the notes lack `{wanted}`:\n{notes}");
    }
    // What the notes say to apply is accepted.
    let manifest =
        notes.split("<<END\n").nth(1).and_then(|rest| rest.split("   END").next()).expect("no manifest");
    let crds = ["ipaddresspools", "l2advertisements"].map(|kind| format!("crd/{kind}.metallb.io"));
    plane
        .kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &crds[0], &crds[1]])
        .await
        .unwrap();
    let manifest: String =
        manifest.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect();
    plane.apply(&manifest).await.unwrap();

    let values = chart.to_owned() + "/tests/values/ok-config-inline.yaml";
    let notes = helm(&plane, &["upgrade", "lb", chart, "-n", NAMESPACE, "-f", &values]).await;
    assert!(notes.contains("get configurationstates"), "{notes}");
    let config = plane
        .kubectl(&["get", "configmap", "config", "-n", NAMESPACE, "-o", "jsonpath={.data.config}"])
        .await;
    assert!(config.unwrap().contains("172.25.7.100-172.25.7.250"));
    helm(&plane, &["rollback", "lb", "1", "-n", NAMESPACE]).await;
    let config = plane.kubectl_with(&["get", "configmap", "config", "-n", NAMESPACE], "").await.unwrap();
    assert!(!config.success, "the ConfigMap goes with configInline");

    helm(&plane, &["uninstall", "lb", "-n", NAMESPACE]).await;
    let left = "deployments,daemonsets,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,configmaps,\
                poddisruptionbudgets,services,secrets,validatingwebhookconfigurations";
    let of_release = ["get", left, "-A", "-l", "app.kubernetes.io/instance=lb", "-o", "name"];
    assert_eq!(plane.kubectl(&of_release).await.unwrap(), "", "left behind");
    let pools = plane.kubectl(&["get", "ipaddresspools", "-n", NAMESPACE, "-o", "name"]).await.unwrap();
    assert_eq!(pools, "ipaddresspool.metallb.io/default\n", "the user's pools stay");

    // Another release finds the CRDs that the first left: Helm wants to be told whose they are.
    let again = helm_said(&plane, &["install", "other", chart, "-n", NAMESPACE]).await;
    assert!(!again.success && again.stderr.contains("ownership"), "{again:?}");
    helm(&plane, &["install", "other", chart, "-n", NAMESPACE, "--take-ownership"]).await;
    helm(&plane, &["uninstall", "other", "-n", NAMESPACE]).await;
    helm(&plane, &["install", "third", chart, "-n", NAMESPACE, "--set", "crds.enabled=false"]).await;
    let pools = plane.kubectl(&["get", "ipaddresspools", "-n", NAMESPACE, "-o", "name"]).await.unwrap();
    assert_eq!(pools, "ipaddresspool.metallb.io/default\n", "through all of it");
}

async fn cluster() -> ControlPlane {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    plane.kubectl(&["create", "namespace", NAMESPACE]).await.unwrap();
    plane
}

fn goldens() -> BTreeSet<PathBuf> {
    let folder = paths::workspace().join("charts/patina/tests/golden");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Asks the API server's authorizer about the ServiceAccount `patina-<who>`.
async fn may(plane: &ControlPlane, who: &str, verb: &str, what: &str, namespace: &str) -> bool {
    let (path, name) =
        what.split_once(':').map_or((what, None), |(path, name)| (path, Some(name.to_owned())));
    // A group has a dot in its name, a subresource's parent has none.
    let (group, path) = path.split_once('/').filter(|(group, _)| group.contains('.')).unwrap_or(("", path));
    let (resource, subresource) = path.split_once('/').map_or((path, None), |(r, s)| (r, Some(s.to_owned())));
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{NAMESPACE}:patina-{who}")),
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                name,
                verb: Some(verb.to_owned()),
                namespace: (namespace != "-").then(|| namespace.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(plane.client());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

/// What helm prints when it succeeds.
async fn helm(plane: &ControlPlane, arguments: &[&str]) -> String {
    let said = helm_said(plane, arguments).await;
    assert!(said.success, "helm {}: {}{}", arguments.join(" "), said.stdout, said.stderr);
    said.stdout
}

async fn helm_said(plane: &ControlPlane, arguments: &[&str]) -> Said {
    let own = plane.run().dir("helm").unwrap();
    let program = tokio::task::spawn_blocking(|| Tool::Helm.path()).await.unwrap().unwrap();
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", plane.admin_kubeconfig())
        .env("HELM_CACHE_HOME", own.join("cache"))
        .env("HELM_CONFIG_HOME", own.join("config"))
        .env("HELM_DATA_HOME", own.join("data"))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
