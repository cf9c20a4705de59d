//! `kubectl patina migrate` as a person types it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

const BARE: &str = "address-pools:\n- name: My Pool\n  protocol: layer2\n  addresses: [192.0.2.0/28]\n";

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

fn config_map(namespace: &str, name: &str) -> String {
    let data: String = BARE.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{namespace: {namespace}, name: {name}}}\ndata:\n  config: |\n{data}"
    )
}

#[test]
fn resources_go_to_standard_output_and_notes_to_standard_error() {
    for input in [BARE.to_owned(), config_map("metallb-system", "config")] {
        let output = patina(&["migrate", "-f", "-"], &input);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(out(&output).contains("kind: IPAddressPool") && out(&output).contains("name: my-pool\n"));
        assert!(out(&output).contains("name: l2advertisement1\n"), "{}", out(&output));
        assert!(
            err(&output).starts_with("note: ") && err(&output).contains("\"My Pool\""),
            "{}",
            err(&output)
        );
        // What it writes, `check` takes.
        let checked = patina(&["check", "-f", "-"], &out(&output));
        assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
        assert!(
            out(&checked).contains("192.0.2.0/28") && !out(&checked).contains("warning"),
            "{}",
            out(&checked)
        );
    }
}

#[test]
fn another_name_and_namespace_are_asked_for_by_flags() {
    let input = config_map("lb", "addresses");
    let output = patina(&["migrate", "-f", "-"], &input);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""));
    assert!(
        err(&output).contains("no ConfigMap metallb-system/config") && err(&output).contains("--namespace")
    );
    let output = patina(&["migrate", "-f", "-", "-n", "lb", "--config", "addresses"], &input);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("namespace: lb\n"), "{}", out(&output));
}

#[test]
fn json_is_a_list_that_kubectl_applies() {
    let output = patina(&["migrate", "-f", "-", "-o", "json"], BARE);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["apiVersion"], &value["kind"]), (&"v1".into(), &"List".into()));
    let kinds: Vec<_> = value["items"].as_array().unwrap().iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["L2Advertisement", "IPAddressPool"]);
    let checked = patina(&["check", "-f", "-"], &out(&output));
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
}

#[test]
fn all_errors_come_at_once_and_nothing_is_printed() {
    let data = "address-pools:\n- {name: a, protocol: layer3, addresses: [x]}\npeers:\n- {my-asn: 0}\n";
    let output = patina(&["migrate", "-f", "-"], data);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""));
    let fields = ["protocol", "addresses[0]", "my-asn", "peer-asn", "peer-address"];
    assert!(fields.iter().all(|field| err(&output).contains(field)), "{}", err(&output));
    let output = patina(&["migrate", "-f", "-"], "a: [\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("<stdin>: document 1: not valid YAML"), "{}", err(&output));
    assert_eq!(patina(&["migrate", "-f", "-"], "").status.code(), Some(1));
}

#[test]
fn what_cannot_be_read_is_code_2() {
    for args in [&["migrate"][..], &["migrate", "-f", "absent.yaml"], &["migrate", "-f", "-", "-o", "text"]] {
        let output = patina(args, "");
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""), "{args:?}");
    }
}
