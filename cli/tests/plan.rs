//! Recorded plans: manifests, and beside them what they give. A case is a `#:` line (its title), manifests, and `#>` lines
//! (what comes out); what stands above the first case of a file belongs to all of its cases. `#: args:` gives flags.
//!
//! A new case needs no Rust: write the manifests, run with `UPDATE_GOLDEN=1`, read the lines that were written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use kubectl_patina::args::{Cli, Command};
use kubectl_patina::plan::{Options, Source, plan};
use serde_json::Value;

/// A case of a file.
#[derive(Debug, Default)]
struct Case {
    title: String,
    args: Vec<String>,
    documents: String,
    expected: String,
}

#[test]
fn recorded_plans() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let (shared, mut cases) = parse(&text);
        assert!(!cases.is_empty(), "{name} has no case");
        for case in &mut cases {
            count += 1;
            let found = answer(&shared, case);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                case.expected = found;
            } else if case.expected != found {
                let _ = write!(wrong, "\n=== {name}: {}\n{}", case.title, diff(&case.expected, &found));
            }
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(file, print(&shared, &cases)).unwrap();
        }
    }
    println!("{count} cases in {} files", files.len());
    assert!(count >= 150, "only {count} cases: where are the others?");
    assert!(wrong.is_empty(), "- expected, + found{wrong}");
}

/// The plan of a case, as lines.
fn answer(shared: &str, case: &Case) -> String {
    let command = ["kubectl-patina", "plan", "-f", "-"].map(str::to_owned).into_iter();
    let cli = Cli::try_parse_from(command.chain(case.args.iter().cloned())).unwrap_or_else(|e| panic!("{e}"));
    let Command::Plan(args) = cli.command else { panic!("no plan") };
    let text = format!("{shared}{}", case.documents);
    let source = |text: String| Source { name: "case.yaml".to_owned(), text };
    let json = serde_json::to_value(plan(&[source(text.clone())], &Options::from(&args))).unwrap();
    lines(&json, text.contains("kind: Node,"))
}

/// The JSON, a line for each thing; who announces only where there are nodes.
fn lines(plan: &Value, announced: bool) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    let list = |value: &Value| value.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
    let mut out = String::new();
    for service in plan["services"].as_array().unwrap() {
        write!(out, "{}/{}: ", text(&service["namespace"]), text(&service["name"])).unwrap();
        let addresses = list(&service["addresses"]);
        assert_eq!(addresses.is_empty(), service["pool"].is_null(), "addresses have a pool: {service}");
        assert_eq!(addresses.is_empty(), !service["reason"].is_null(), "no address has a reason: {service}");
        match &service["reason"] {
            Value::Null => writeln!(out, "{} from {}", addresses.join(" "), text(&service["pool"])).unwrap(),
            reason => writeln!(out, "{}", text(reason)).unwrap(),
        }
        let layer2 = &service["layer2"];
        assert_eq!(layer2["announcer"].is_null(), !layer2["reason"].is_null(), "either is null: {layer2}");
        if announced && !addresses.is_empty() {
            let candidates = list(&layer2["candidates"]);
            match &layer2["reason"] {
                Value::Null => {
                    assert_eq!(layer2["announcer"], candidates[0].as_str(), "the first announces: {layer2}");
                    writeln!(out, "  layer 2: {}", candidates.join(", then ")).unwrap();
                }
                reason if candidates.is_empty() => writeln!(out, "  layer 2: {}", text(reason)).unwrap(),
                reason => {
                    writeln!(out, "  layer 2: {}; candidates {}", text(reason), candidates.join(", "))
                        .unwrap();
                }
            }
        }
        for route in service["bgp"].as_array().unwrap() {
            write!(
                out,
                "  {} gets {} from {}",
                text(&route["peer"]),
                text(&route["prefix"]),
                text(&route["node"])
            )
            .unwrap();
            if let Some(preference) = route["localPref"].as_u64() {
                write!(out, " localPref {preference}").unwrap();
            }
            list(&route["communities"]).iter().for_each(|community| write!(out, " {community}").unwrap());
            out.push('\n');
        }
    }
    for error in plan["errors"].as_array().unwrap() {
        let parts = ["kind", "namespace", "name", "field"].map(|part| text(&error[part]));
        let [kind, namespace, name, field] = parts;
        writeln!(out, "error {kind} {namespace}/{name} {field}: {}", text(&error["message"])).unwrap();
    }
    out
}

/// What all cases share, and the cases.
fn parse(text: &str) -> (String, Vec<Case>) {
    let mut shared = String::new();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(args) = line.strip_prefix("#: args:") {
            cases.last_mut().expect("a title first").args =
                args.split_whitespace().map(str::to_owned).collect();
        } else if let Some(title) = line.strip_prefix("#: ") {
            cases.push(Case { title: title.to_owned(), ..Case::default() });
        } else if let Some(expected) = line.strip_prefix("#>") {
            let case = cases.last_mut().expect("a title first");
            writeln!(case.expected, "{}", expected.strip_prefix(' ').unwrap_or(expected)).unwrap();
        } else if let Some(case) = cases.last_mut() {
            writeln!(case.documents, "{line}").unwrap();
        } else {
            writeln!(shared, "{line}").unwrap();
        }
    }
    (shared, cases)
}

fn print(shared: &str, cases: &[Case]) -> String {
    let mut out = shared.trim_end().to_owned();
    if !out.is_empty() {
        out.push('\n');
    }
    for case in cases {
        let blank = if out.is_empty() { "" } else { "\n" };
        writeln!(out, "{blank}#: {}", case.title).unwrap();
        if !case.args.is_empty() {
            writeln!(out, "#: args: {}", case.args.join(" ")).unwrap();
        }
        writeln!(out, "{}", case.documents.trim_end()).unwrap();
        for line in case.expected.lines() {
            writeln!(out, "#> {line}").unwrap();
        }
    }
    out
}

/// The lines that are in one of the two only, in their order.
fn diff(expected: &str, found: &str) -> String {
    let has = |text: &str, line: &str| text.lines().any(|other| other == line);
    let gone = expected.lines().filter(|line| !has(found, line)).map(|line| format!("- {line}\n"));
    let new = found.lines().filter(|line| !has(expected, line)).map(|line| format!("+ {line}\n"));
    let text: String = gone.chain(new).collect();
    if text.is_empty() { format!("the order of the lines differs; found\n{found}") } else { text }
}
