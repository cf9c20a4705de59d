//! Recorded cases: tests/golden/config/NAME.yaml (manifests, as a person would apply them) -> NAME.txt (the configuration, or
//! every error). A new case is a new .yaml file; `UPDATE_GOLDEN=1 cargo test -p patina-crds --test golden` writes its .txt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // reads the cases

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use patina_crds::config::{self, manifest};

/// Fewer than this, and somebody has lost some.
const AT_LEAST: usize = 60;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

fn names(extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// What `kubectl patina check` says, too.
fn run(text: &str) -> String {
    let mut out = String::new();
    let manifest = match manifest::read(text, &manifest::Options::default()) {
        Ok(manifest) => manifest,
        Err(errors) => {
            writeln!(out, "refused before it is a configuration\n{errors}").unwrap();
            return out;
        }
    };
    match config::build(&manifest.resources) {
        Ok(loaded) => {
            write!(out, "accepted\n{}", loaded.config).unwrap();
            loaded.notices.iter().for_each(|notice| writeln!(out, "notice: {notice}").unwrap());
        }
        Err(errors) => {
            writeln!(out, "refused").unwrap();
            for error in &errors.0 {
                let wait = if error.transient { " (may come by itself)" } else { "" };
                writeln!(out, "{error}{wait}").unwrap();
            }
        }
    }
    manifest.notes.iter().for_each(|note| writeln!(out, "note: {note}").unwrap());
    out
}

#[test]
fn every_recorded_case_gives_what_was_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let cases = names("yaml");
    assert!(cases.len() >= AT_LEAST, "only {} cases in {}", cases.len(), directory().display());
    let mut failed = Vec::new();
    for name in &cases {
        let path = |extension: &str| directory().join(format!("{name}.{extension}"));
        let actual = run(&fs::read_to_string(path("yaml")).unwrap());
        if update {
            fs::write(path("txt"), &actual).unwrap();
            continue;
        }
        let expected = fs::read_to_string(path("txt")).unwrap_or_else(|_| "(no .txt yet)\n".to_owned());
        if expected != actual {
            failed.push(format!("--- {name}: recorded\n{expected}+++ {name}: now\n{actual}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases differ\n{}", failed.len(), cases.len(), failed.join("\n"));
    let orphans: Vec<_> = names("txt").difference(&cases).cloned().collect();
    assert!(orphans.is_empty(), "results without a case: {orphans:?}");
    println!("{} recorded cases", cases.len());
}

/// The recorded outputs quote it, and a person greps for it.
#[test]
fn no_output_shows_a_password() {
    for name in names("txt") {
        let text = fs::read_to_string(directory().join(format!("{name}.txt"))).unwrap();
        assert!(!text.contains("hunter2"), "{name} shows a password");
    }
}
