//! Runs every file of a directory of recorded cases.
#![allow(clippy::disallowed_methods)] // the runner, unlike the core, reads files

use std::path::Path;

/// Hands the text of each `tests/golden/<set>/*.<extension>` to `case`, which answers what was expected and what came
/// out. Fails with the names and both texts of all that differ, and when there is no case at all.
pub(crate) fn run(set: &str, extension: &str, case: impl Fn(&str) -> (String, String)) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(set);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no case in {}", directory.display());
    let mut failures = Vec::new();
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).unwrap();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&text))) {
            Ok((expected, actual)) if expected.trim_end() == actual.trim_end() => {}
            Ok((expected, actual)) => {
                failures.push(format!("--- {name}: expected\n{expected}\n+++ {name}: actual\n{actual}"));
            }
            Err(_) => failures.push(format!("{name}: panicked, see above")),
        }
    }
    println!("{} cases of {set}, {} failed", files.len(), failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
