//! `kubectl patina plan` as a person types it: files, exit codes, what is printed where, and the shape of the JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

const POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: small}
spec: {addresses: [192.0.2.10/32]}
";
const REST: &str = "\
--- {apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: small}}
--- {apiVersion: metallb.io/v1beta1, kind: BGPAdvertisement, metadata: {name: small}, spec: {communities: ['64500:100']}}
--- {apiVersion: metallb.io/v1beta2, kind: BGPPeer, metadata: {name: tor}, spec: {myASN: 64500, peerASN: 64501, peerAddress: 198.51.100.1}}
--- {apiVersion: v1, kind: Node, metadata: {name: alpha}}
--- {apiVersion: v1, kind: Node, metadata: {name: beta}}
--- {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer}}
";
const LATE: &str =
    "--- {apiVersion: v1, kind: Service, metadata: {name: late}, spec: {type: LoadBalancer}}\n";
const BAD: &str = "--- {apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: 80}}\n";

fn patina(args: &[&str], input: &str) -> Output {
    let mut command = Command::cargo_bin("kubectl-patina").unwrap();
    command.env_remove("METALLB_NAMESPACE").env_remove("KUBECONFIG");
    command.args(args).write_stdin(input).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", out(output)))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_json_is_that_of_the_reference() {
    let args = ["plan", "-f", "-", "--assume-endpoints", "-o", "json"];
    let output = patina(&args, &format!("{POOL}{REST}"));
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/plan-json.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(json(&output), serde_json::from_str::<Value>(example).unwrap());
}

#[test]
fn every_field_is_always_there() {
    let args = ["plan", "-f", "-", "-o", "json"];
    let output = patina(&args, &format!("{POOL}{REST}{LATE}{BAD}"));
    assert_eq!(output.status.code(), Some(1));
    let plan = json(&output);
    assert_eq!(keys(&plan), ["errors", "services"].into());
    let services = plan["services"].as_array().unwrap();
    assert_eq!(services.len(), 2, "late waits, web has an address, bad is an error");
    for service in services {
        let fields = ["addresses", "bgp", "layer2", "name", "namespace", "pool", "reason"];
        assert_eq!(keys(service), fields.into());
        assert_eq!(keys(&service["layer2"]), ["announcer", "candidates", "reason"].into());
    }
    assert_eq!(services[0]["pool"], Value::Null);
    assert!(services[0]["reason"].as_str().unwrap().starts_with("PoolExhausted: no available IPs"));
    assert_eq!(services[1]["reason"], Value::Null);
    assert_eq!(services[1]["layer2"]["announcer"], Value::Null, "no EndpointSlice, no endpoint");
    assert!(services[1]["layer2"]["reason"].as_str().unwrap().starts_with("noEndpoints: "));
    let errors = plan["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(keys(&errors[0]), ["field", "kind", "message", "name", "namespace"].into());
    assert_eq!((&errors[0]["name"], &errors[0]["field"]), (&"bad".into(), &"spec.ports".into()));
}

#[test]
fn without_nodes_it_says_that_there_are_none() {
    let service = REST.lines().last().unwrap();
    let l2 = REST.lines().next().unwrap();
    for flags in [&[][..], &["--assume-endpoints"]] {
        let output = patina(
            &[&["plan", "-f", "-", "-o", "json"], flags].concat(),
            &format!("{POOL}{l2}\n{service}\n"),
        );
        let reason = json(&output)["services"][0]["layer2"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("no Nodes in the files"), "{reason}");
    }
}

#[test]
fn text_says_who_why_and_what_is_missing() {
    let output = patina(&["plan", "-f", "-", "--assume-endpoints"], &format!("{POOL}{REST}{LATE}"));
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    let expected = "\
SERVICE        ADDRESSES    POOL    ANNOUNCER   WHY                              THEN    ROUTES
default/late   -            -       -           -                                -       -
default/web    192.0.2.10   small   beta        first by hash, of 2 candidates   alpha   192.0.2.10/32

PEER   GETS            FROM          COMMUNITIES   LOCALPREF   FOR
tor    192.0.2.10/32   all 2 nodes   64500:100     -           default/web

POOL    SERVICES   IPV4 USED   IPV6 USED
small   1          1 of 1      -

Without an address:
  default/late: PoolExhausted: no available IPs: no IPv4 address is left in pool(s) small
";
    assert_eq!(out(&output), expected);
}

#[test]
fn errors_go_to_standard_error_beside_the_plan() {
    let output = patina(&["plan", "-f", "-"], &format!("{POOL}{BAD}{LATE}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).contains("default/late   192.0.2.10   small"), "{}", out(&output));
    assert_eq!(
        err(&output),
        "error: <stdin>: Service default/bad: spec.ports: cannot be read: invalid type: integer `80`, expected a \
         sequence\n1 error.\n"
    );
}

#[test]
fn files_directories_and_standard_input_are_one_plan() {
    let dir = std::env::temp_dir().join(format!("patina-plan-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("deploy")).unwrap();
    std::fs::write(dir.join("deploy/b.yaml"), LATE).unwrap();
    std::fs::write(dir.join("deploy/a.yml"), REST).unwrap();
    std::fs::write(dir.join("deploy/notes.txt"), "no manifest").unwrap();
    std::fs::write(
        dir.join("pool.json"),
        r#"{"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "json"}, "spec": {"addresses": ["192.0.2.20/32"]}}"#,
    )
    .unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let args = ["plan", "-f", &path("deploy"), "-f", &path("pool.json"), "-f", "-", "-o", "json"];
    let output = patina(&args, POOL);
    let plan = json(&output);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(output.status.code(), Some(0), "{plan:#}");
    let given = |i: usize| {
        (plan["services"][i]["name"].as_str().unwrap(), plan["services"][i]["pool"].as_str().unwrap())
    };
    assert_eq!([given(0), given(1)], [("late", "small"), ("web", "json")], "in the order of the documents");
}

#[test]
fn usage_and_missing_files_are_code_2() {
    for (args, part) in [
        (&["plan"][..], "--filename"),
        (&["plan", "-f", "absent.yaml"], "absent.yaml"),
        (&["plan", "-f", "-", "--families", "ipv5"], "ipv4"),
        (&["plan", "-f", "-", "--service-cidr", "10.96.0.0"], "10.96.0.0/32"),
        (&["plan", "-f", "-", "-o", "xml"], "json"),
    ] {
        let output = patina(args, "");
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""), "{args:?}");
        assert!(err(&output).contains(part), "{args:?}: {}", err(&output));
    }
}
