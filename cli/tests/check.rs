//! `kubectl patina check` as a person types it: tests/check/NAME.yaml goes in, NAME.txt comes out. A new case needs no
//! Rust: write the YAML, run with UPDATE_GOLDEN=1, read the text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

fn patina(args: &[&str], input: &str) -> Output {
    let mut command = Command::cargo_bin("kubectl-patina").unwrap();
    command.env_remove("METALLB_NAMESPACE").env_remove("KUBECONFIG");
    command.current_dir(cases()).args(args).write_stdin(input).output().unwrap()
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn recorded_files_are_judged_as_recorded() {
    let mut names: Vec<String> = std::fs::read_dir(cases())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 8, "the cases are gone: {names:?}");
    let mut wrong = String::new();
    for name in names {
        let output = patina(&["check", "-f", &name], "");
        let said = format!("{}{}exit {}\n", out(&output), err(&output), output.status.code().unwrap());
        let golden = cases().join(&name).with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            wrong.push_str(&format!("=== {name}\n--- expected\n{expected}--- found\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_bad_file_says_no_on_standard_error_only() {
    let output = patina(&["check", "-f", "mistakes.yaml"], "");
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""));
    assert!(err(&output).lines().filter(|line| line.starts_with("error: ")).count() >= 4, "{}", err(&output));
}

#[test]
fn standard_input_and_files_are_one_configuration() {
    let l2 = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: all}\n";
    let output = patina(&["check", "-f", "no_advertisement.yaml", "-f", "-"], l2);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("layer 2") && !out(&output).contains("warning"), "{}", out(&output));
}

#[test]
fn a_directory_is_all_its_files() {
    let output = patina(&["check", "-f", "."], "");
    assert_eq!(output.status.code(), Some(1), "some of the cases are wrong");
    assert!(err(&output).contains("no_yaml.yaml"), "{}", err(&output));
}

#[test]
fn json_has_errors_with_object_and_field() {
    let output = patina(&["check", "-f", "mistakes.yaml", "-o", "json"], "");
    assert_eq!(output.status.code(), Some(1));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["valid"], &value["config"]), (&Value::Bool(false), &Value::Null));
    let first = &value["errors"][0];
    assert_eq!((&first["kind"], &first["name"]), (&"IPAddressPool".into(), &"a".into()));
    assert_eq!(first["field"], "spec.addresses[0]");

    let output = patina(&["check", "-f", "everything.yaml", "-o", "json"], "");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &value["valid"]), (Some(0), &Value::Bool(true)));
    assert_eq!(value["config"]["pools"][1]["name"], "shop");
    assert_eq!(value["config"]["pools"][1]["announcedBy"], "layer 2 and BGP");
}

#[test]
fn usage_and_missing_files_are_code_2() {
    for (args, part) in [
        (&["check"][..], "--filename"),
        (&["check", "-f", "absent.yaml"], "absent.yaml"),
        (&["chekc"], "check"),
        (&["check", "-f", "nothing.yaml", "-o", "xml"], "json"),
        (&[], "Examples"),
    ] {
        let output = patina(args, "");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).contains(part), "{args:?}: {}", err(&output));
    }
}

#[test]
fn help_says_kubectl_patina_and_teaches() {
    for args in [&["--help"][..], &["check", "--help"], &["why", "--help"]] {
        let output = patina(args, "");
        assert_eq!(output.status.code(), Some(0));
        let text = out(&output);
        assert!(text.contains("Usage: kubectl patina"), "{text}");
        assert!(text.contains("Examples:") && text.contains("Exit codes:"), "{text}");
    }
    assert!(out(&patina(&["version"], "")).starts_with("kubectl-patina "));
}

#[test]
fn why_without_a_cluster_is_code_2() {
    let output = patina(&["why", "web", "--kubeconfig", "/nowhere/config"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).starts_with("error: ") && err(&output).contains("/nowhere/config"),
        "{}",
        err(&output)
    );
}
