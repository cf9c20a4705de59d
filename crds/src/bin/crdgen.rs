//! Writes crds/yaml: one CustomResourceDefinition a file, from the types.
//!
//! `crdgen [--check | --list] [DIRECTORY]`
#![allow(clippy::disallowed_methods)] // the one program of this package that reads and writes files

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use patina_crds::types;

const USAGE: &str = "usage: crdgen [--check | --list] [DIRECTORY]
  (nothing)   write the files into DIRECTORY (default: yaml/ of this package), remove those that are no longer generated
  --check     write nothing; exit 1 and name each file that is missing, stale or left over
  --list      print the names of the files, one a line";

fn main() -> ExitCode {
    let (flags, rest): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with('-'));
    let directory = match rest.as_slice() {
        [] => Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml"),
        [directory] => PathBuf::from(directory),
        _ => return usage(),
    };
    let result = match flags.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => files().and_then(|files| write(&directory, &files)),
        ["--check"] => files().and_then(|files| check(&directory, &files)),
        ["--list"] => files().map(|files| files.keys().for_each(|name| println!("{name}"))),
        ["-h" | "--help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("crdgen: {message}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn files() -> Result<BTreeMap<String, String>, String> {
    let crds = types::crds().map_err(|error| error.to_string())?;
    crds.iter().map(|crd| Ok((crd.file_name(), crd.to_yaml().map_err(|error| error.to_string())?))).collect()
}

fn write(directory: &Path, files: &BTreeMap<String, String>) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| at(directory, &error))?;
    for (name, text) in files {
        let path = directory.join(name);
        if fs::read_to_string(&path).ok().as_ref() != Some(text) {
            fs::write(&path, text).map_err(|error| at(&path, &error))?;
            println!("wrote {}", path.display());
        }
    }
    for path in left_over(directory, files)? {
        fs::remove_file(&path).map_err(|error| at(&path, &error))?;
        println!("removed {}", path.display());
    }
    Ok(())
}

fn check(directory: &Path, files: &BTreeMap<String, String>) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (name, text) in files {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(found) if found == *text => {}
            Ok(_) => wrong.push(format!("{} is stale", path.display())),
            Err(error) => wrong.push(at(&path, &error)),
        }
    }
    wrong.extend(left_over(directory, files)?.iter().map(|path| format!("{} is left over", path.display())));
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}; run `make gen`", wrong.join(", "))) }
}

/// YAML files in the directory that are not generated.
fn left_over(directory: &Path, files: &BTreeMap<String, String>) -> Result<Vec<PathBuf>, String> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| at(directory, &error))? {
        let path = entry.map_err(|error| at(directory, &error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".yaml") && !files.contains_key(&name) {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
