//! `kubectl patina migrate`: the ConfigMap of MetalLB 0.12 and older in, resources out. No cluster. What kubectl may apply goes
//! to standard output, what a person should read to standard error.

use std::process::ExitCode;
use std::slice;

use anyhow::Result;
use patina_crds::config::manifest::Options;
use patina_crds::config::migrate::{Migrated, find, migrate};
use serde_json::json;

use crate::args::{Manifests, Migrate};
use crate::check::files;

/// Migrates, prints, and answers 0, or 1 when the ConfigMap has errors or there is none.
///
/// # Errors
/// The file cannot be read.
pub fn run(args: &Migrate) -> Result<ExitCode> {
    let options = Options { namespace: args.namespace.clone(), legacy_name: args.config.clone() };
    let mut errors = Vec::new();
    for source in files::read(slice::from_ref(&args.file))? {
        match find(&source.text, &options) {
            Ok(None) => {}
            Ok(Some(legacy)) => match migrate(&legacy) {
                Ok(migrated) => return print(&migrated, args.output),
                Err(found) => errors.extend(found.0.iter().map(ToString::to_string)),
            },
            Err(found) => errors.extend(found.iter().map(|error| format!("{}: {error}", source.name))),
        }
    }
    if errors.is_empty() {
        errors.push(format!(
            "there is no ConfigMap {}/{} in it; --namespace and --config name another",
            options.namespace, options.legacy_name
        ));
    }
    for error in &errors {
        eprintln!("error: {error}");
    }
    eprintln!("Nothing was migrated.");
    Ok(ExitCode::from(1))
}

fn print(migrated: &Migrated, output: Manifests) -> Result<ExitCode> {
    for note in &migrated.notes {
        eprintln!("note: {note}");
    }
    match output {
        Manifests::Yaml => print!("{}", migrated.to_yaml()?),
        Manifests::Json => {
            println!("{:#}", json!({"apiVersion": "v1", "kind": "List", "items": migrated.objects()?}));
        }
    }
    Ok(ExitCode::SUCCESS)
}
