//! The pages without a cluster: every block says who runs it, every link leads somewhere, the reference of the flags is what the
//! programs print.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use patina_e2e::docs::{self, Kind};
use patina_e2e::{binaries, paths};

/// The programs whose flags docs/reference/flags.md lists, in its order, with the subcommands that it shows.
const PROGRAMS: [&str; 3] = ["patina-controller", "patina-speaker", "kubectl-patina"];

#[test]
fn each_block_says_who_runs_it() {
    let mut wrong = String::new();
    for page in pages() {
        if let Err(e) = docs::blocks(&fs::read_to_string(&page).unwrap()) {
            wrong.push_str(&format!("{}: {e}\n", page.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn each_page_of_the_guide_has_something_that_is_run() {
    let guide = markdown(&paths::workspace().join("docs/guide"));
    assert!(guide.len() >= 5, "only {} pages: where are the others?", guide.len());
    for page in guide {
        let blocks = docs::blocks(&fs::read_to_string(&page).unwrap()).unwrap();
        let runs = blocks.iter().any(|block| matches!(block.kind, Kind::Console { .. }));
        assert!(runs, "{}: no `console lab` block", page.display());
    }
}

#[test]
fn each_link_leads_somewhere() {
    let mut wrong = String::new();
    let mut seen = 0;
    for page in pages() {
        for link in docs::links(&fs::read_to_string(&page).unwrap()) {
            seen += 1;
            if let Some(complaint) = dead(&page, &link.target) {
                wrong.push_str(&format!("{}:{}: {complaint}\n", page.display(), link.line));
            }
        }
    }
    assert!(seen > 20, "only {seen} links found: does the reader of pages still read?");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_decision_has_its_number_and_half_a_page() {
    let pages = markdown(&paths::workspace().join("docs/decisions"));
    assert!(!pages.is_empty());
    for (index, page) in pages.iter().enumerate() {
        let name = page.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(page).unwrap();
        assert!(
            name.starts_with(&format!("{:04}-", index + 1)),
            "{name}: decisions are numbered without gaps"
        );
        assert!(text.starts_with(&format!("# {}. ", index + 1)), "{name}: the title says the number");
        assert!(text.lines().count() <= 40, "{name}: half a page, not {} lines", text.lines().count());
    }
}

/// `UPDATE_GOLDEN=1` writes the page anew.
#[test]
fn the_reference_of_the_flags_is_what_the_programs_print() {
    let path = paths::workspace().join("docs/reference/flags.md");
    let now = reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let difference = now.lines().zip(written.lines()).find(|(new, old)| new != old);
    assert!(now == written, "docs/reference/flags.md is stale at {difference:?}: run with UPDATE_GOLDEN=1");
}

fn reference() -> String {
    let mut page = "# Flags\n\nWhat `--help` prints, written by a test (`UPDATE_GOLDEN=1 cargo test -p patina-e2e --test \
        docs_check`).\n\nOne or two dashes are the same, and switches take `=true` and `=false`, as in MetalLB. A flag of \
        MetalLB that has no meaning\nhere is refused with the reason, except where it asks for nothing (`--webhook-http2=false`).\n"
        .to_owned();
    for program in PROGRAMS {
        let help = help(program, &[]);
        page.push_str(&format!("\n## {program}\n\n```text\n{}\n```\n", help.trim_end()));
        for subcommand in subcommands(&help) {
            let text = self::help(program, &[&subcommand]);
            page.push_str(&format!("\n### {program} {subcommand}\n\n```text\n{}\n```\n", text.trim_end()));
        }
    }
    page
}

fn help(program: &str, subcommand: &[&str]) -> String {
    let output = Command::new(binaries::path(program).unwrap())
        .args(subcommand)
        .arg("--help")
        .env_clear() // help shows what the environment says
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} --help: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

fn dead(page: &Path, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_path_buf() } else { page.parent().unwrap().join(file) };
    if !path.exists() {
        return Some(format!("{target}: there is no {}", path.display()));
    }
    if anchor.is_empty() {
        return None;
    }
    let text = fs::read_to_string(&path).unwrap();
    (!docs::anchors(&text).contains(anchor))
        .then(|| format!("{target}: no heading makes the anchor {anchor}"))
}

/// Every page of the repository that people read.
fn pages() -> Vec<PathBuf> {
    let root = paths::workspace();
    let mut pages = markdown(&root);
    for folder in ["docs", "docs/guide", "docs/decisions", "docs/reference"] {
        pages.extend(markdown(&root.join(folder)));
    }
    assert!(pages.len() >= 10, "only {} pages: where are the others?", pages.len());
    pages
}

/// The Markdown files of a folder, by name.
fn markdown(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    found
}
