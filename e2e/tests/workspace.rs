//! The shape of the workspace: what is on its top level, who may depend on whom, how long a file may be. Needs no root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use patina_e2e::paths;
use serde_json::Value;

/// The layers, lowest first: a package may use packages of lower layers, and of its own layer only those named here.
const LAYERS: [(&str, u8); 8] = [
    ("patina-crds", 0),
    ("patina-controller-core", 1),
    ("patina-speaker-core", 1),
    ("patina-runtime", 2),
    ("patina-controller", 3),
    ("patina-speaker", 3),
    ("kubectl-patina", 4),
    ("patina-e2e", 5),
];

/// What `kubectl patina` may use of the daemons' libraries: how they read Kubernetes' objects. It runs nothing of them.
const READERS: [&str; 3] =
    ["patina_controller::convert", "patina_controller::surroundings", "patina_speaker::convert"];

/// Packages that decide and do nothing else.
const PURE: [&str; 3] = ["patina-crds", "patina-controller-core", "patina-speaker-core"];

/// What a pure package must not have anywhere below it, with its own features: runtimes, sockets, clients, kernels,
/// randomness.
/// What a core may have below it all the same. foca takes its random choices from a generator of `rand` that we seed; ring seals
/// the membership's datagrams. That neither asks the system for random numbers, clippy.toml of the core sees to.
const EXCEPTED: [(&str, &str); 3] =
    [("patina-speaker-core", "rand"), ("patina-speaker-core", "ring"), ("patina-speaker-core", "getrandom")];
const IMPURE: [&str; 22] = [
    "aws-lc-rs",
    "axum",
    "fastrand",
    "getrandom",
    "hyper",
    "hyper-util",
    "kube-client",
    "kube-runtime",
    "mio",
    "netlink-sys",
    "nix",
    "pnet",
    "pnet_datalink",
    "rand",
    "reqwest",
    "ring",
    "rtnetlink",
    "rustls",
    "socket2",
    "tokio",
    "tower",
    "ureq",
];

#[test]
fn the_top_level_is_what_the_map_says() {
    let want = [
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "Makefile",
        "README.md",
        "charts",
        "cli",
        "clippy.toml",
        "controller",
        "crds",
        "deny.toml",
        "docs",
        "e2e",
        "fuzz",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "speaker",
    ];
    let got: BTreeSet<String> =
        tracked().iter().map(|path| path.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(got, want.map(str::to_owned).into());
}

#[test]
fn no_arrow_turns() {
    let layers = BTreeMap::from(LAYERS);
    let packages = packages();
    let names: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    assert_eq!(names, layers.keys().copied().collect(), "a package that is in no layer");
    let mut turned = Vec::new();
    for (package, uses) in &packages {
        for used in uses.iter().filter(|used| names.contains(used.as_str())) {
            if layers[package.as_str()] <= layers[used.as_str()] {
                turned.push(format!("{package} -> {used}"));
            }
        }
    }
    assert!(turned.is_empty(), "arrows that turn: {turned:?}");
}

#[test]
fn the_plugin_only_reads_as_the_daemons_read() {
    let sources: Vec<_> =
        tracked().into_iter().filter(|path| path.starts_with("cli/src/") && path.ends_with(".rs")).collect();
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in &sources {
        for (number, line) in read(path).lines().enumerate() {
            for daemon in ["patina_controller::", "patina_speaker::"] {
                let Some(at) = line.find(daemon) else { continue };
                match READERS.iter().find(|allowed| line[at..].starts_with(**allowed)) {
                    Some(reader) => drop(used.insert(*reader)),
                    None => wrong.push(format!("{path}:{}: {}", number + 1, line.trim())),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "allowed are {READERS:?}, each named with its module: {wrong:#?}");
    assert_eq!(used, READERS.into(), "what is allowed and not used, is not allowed");
}

#[test]
fn the_pure_packages_have_nothing_impure_below_them() {
    for package in PURE {
        let below = below(package);
        assert!(below.len() > 5, "cargo tree of {package} gave only {below:?}");
        let excepted = |name: &str| EXCEPTED.contains(&(package, name));
        let impure: Vec<_> = IMPURE.iter().filter(|name| below.contains(**name) && !excepted(name)).collect();
        assert!(
            impure.is_empty(),
            "{package} pulls in {impure:?} (cargo tree -p {package} -i NAME says through whom)"
        );
    }
}

#[test]
fn the_pure_packages_forbid_clock_and_environment() {
    for manifest in ["crds", "controller/core", "speaker/core"] {
        let path = paths::workspace().join(manifest).join("clippy.toml");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for forbidden in
            ["std::time::Instant::now", "std::time::SystemTime::now", "std::env::var", "std::thread::spawn"]
        {
            assert!(
                text.contains(&format!("\"{forbidden}\"")),
                "{} does not forbid {forbidden}",
                path.display()
            );
        }
    }
}

#[test]
fn no_file_of_rust_is_longer_than_700_lines() {
    let mut seen = 0;
    let mut long = Vec::new();
    for path in tracked().iter().filter(|path| path.ends_with(".rs")) {
        seen += 1;
        let lines = read(path).lines().count();
        if lines > 700 {
            long.push(format!("{path}: {lines}"));
        }
    }
    assert!(seen > 30, "only {seen} files of Rust: is this the workspace?");
    assert!(long.is_empty(), "split these: {long:?}");
}

#[test]
fn nothing_of_the_machine_it_was_written_on_is_in_the_tree() {
    // Spelled in two parts each, so that this file does not name them.
    let places = [("/work", "/"), ("/ro", "ot/"), ("/tmp/", "kubebin"), ("/home", "/")];
    let hosts =
        [("proxy.go", "lang.org"), ("static.cra", "tes.io"), ("index.cra", "tes.io"), ("deb.deb", "ian.org")];
    let words: Vec<String> = places.iter().chain(&hosts).map(|(a, b)| format!("{a}{b}")).collect();
    let mut found = Vec::new();
    for path in tracked() {
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| names_it(line, word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The word is there, and not as the tail of a longer path or name (`frame/work/`).
fn names_it(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '~' | '*' | '/'))
    })
}

/// Package -> the packages that it names in its manifest, tests included.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let text = cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |v: &Value| v["name"].as_str().unwrap().to_owned();
    packages
        .iter()
        .map(|p| (name(p), p["dependencies"].as_array().unwrap().iter().map(name).collect()))
        .collect()
}

/// Everything that the package links when it is built alone.
fn below(package: &str) -> BTreeSet<String> {
    let tree = cargo(&["tree", "-p", package, "--edges=normal", "--prefix=none", "--offline"]);
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn cargo(args: &[&str]) -> String {
    run(Command::new(env!("CARGO")).args(args))
}

/// The files that git has, or would have: no build output, nothing ignored.
fn tracked() -> Vec<String> {
    let list = run(Command::new("git").args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]));
    list.lines().filter(|path| paths::workspace().join(path).is_file()).map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    let bytes = fs::read(paths::workspace().join(Path::new(path))).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.current_dir(paths::workspace()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
