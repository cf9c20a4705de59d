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

/// Every key of docs/reference/check-json.md, and no other.
#[test]
fn json_has_the_fields_of_the_reference() {
    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    let json = |file: &str| -> Value {
        serde_json::from_slice(&patina(&["check", "-f", file, "-o", "json"], "").stdout).unwrap()
    };
    let valid = json("everything.yaml");
    assert_eq!(keys(&valid), "config errors notes objects valid warnings");
    assert_eq!(keys(&valid["config"]), "bgpAdvertisements l2Advertisements peers pools reservations");
    let first = |list: &str| keys(&valid["config"][list][0]);
    assert_eq!(first("pools"), "addresses announcedBy autoAssign avoidBuggyIPs for name");
    assert_eq!(first("l2Advertisements"), "failback interfaces name nodes pools services");
    assert_eq!(
        first("bgpAdvertisements"),
        "aggregationLength aggregationLengthV6 name nodes peers pools services"
    );
    assert_eq!(first("peers"), "address myASN name");
    let kept = json("reservations.yaml");
    let kept = &kept["config"]["reservations"];
    assert_eq!(keys(&kept[0]), "addresses name reason service");
    assert_eq!((&kept[0]["service"], &kept[0]["addresses"][0]), (&Value::Null, &"192.0.2.1".into()));
    assert_eq!(keys(&kept[1]["service"]), "name namespace");
    let warned = json("no_advertisement.yaml");
    assert_eq!(keys(&warned["warnings"][0]), "kind message name namespace");

    let invalid = json("all_at_once.yaml");
    assert_eq!(invalid["config"], Value::Null);
    let errors = invalid["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| keys(error) == "document field file kind message name namespace"));
    assert!(errors.iter().any(|error| keys(error) == "field kind message name namespace"));
    let page = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/check-json.md"),
    )
    .unwrap();
    for value in [&valid, &valid["config"], &valid["config"]["bgpAdvertisements"][0], &errors[0], &kept[0]] {
        for key in keys(value).split(' ') {
            assert!(page.contains(&format!("`{key}`")), "{key} is not in docs/reference/check-json.md");
        }
    }
}

#[test]
fn what_is_no_text_and_what_is_empty_is_code_2() {
    let directory = tempdir("code2");
    std::fs::write(directory.join("latin1.yaml"), b"# caf\xe9\napiVersion: v1\n").unwrap();
    std::fs::create_dir_all(directory.join("empty")).unwrap();
    std::fs::write(directory.join("empty/readme.txt"), "no YAML by its name").unwrap();
    for (file, part) in [("latin1.yaml", "latin1.yaml"), ("empty", "has no .yaml"), ("absent", "absent")] {
        for output in ["text", "json"] {
            let file = directory.join(file);
            let result = patina(&["check", "-f", file.to_str().unwrap(), "-o", output], "");
            assert_eq!((result.status.code(), out(&result).as_str()), (Some(2), ""), "{}", file.display());
            assert!(err(&result).starts_with("error: ") && err(&result).contains(part), "{}", err(&result));
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_file_that_windows_wrote_is_read() {
    let text =
        "\u{feff}apiVersion: metallb.io/v1beta1\r\nkind: L2Advertisement\r\nmetadata:\r\n  name: all\r\n";
    let output = patina(&["check", "-f", "-"], text);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("Valid: 1 object."), "{}", out(&output));
}

/// A directory for one test, empty.
fn tempdir(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
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
    for args in [&["--help"][..], &["check", "--help"], &["migrate", "--help"], &["why", "--help"]] {
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
