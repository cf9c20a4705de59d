//! `kubectl patina check`: files in, what they mean or everything that is wrong out. No cluster.

pub(crate) mod files;
mod render;

use std::process::ExitCode;

use anyhow::Result;
use patina_crds::config::manifest::{self, Gaps, ManifestError, Options, Reading};
use patina_crds::config::{self, Loaded, Resources};
use patina_crds::yaml::Limits;
use serde::Serialize;
use serde_json::json;

use crate::args::{Check, Output};

/// Checks, prints, and answers 0 (valid) or 1 (not).
///
/// # Errors
/// A file cannot be read.
pub fn run(args: &Check) -> Result<ExitCode> {
    let options = Options { namespace: args.namespace.clone(), legacy_name: args.config.clone() };
    let verdict = judge(&files::read(&args.file)?, &options);
    match args.output {
        Output::Text if verdict.is_valid() => print!("{}", verdict.text()),
        Output::Text => eprint!("{}", verdict.text()),
        Output::Json => println!("{:#}", verdict.json()),
    }
    Ok(ExitCode::from(u8::from(!verdict.is_valid())))
}

/// A text with the name of its file.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it; `<stdin>` for standard input.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What a configuration is worth.
#[derive(Debug)]
pub struct Verdict {
    /// How many objects of it were found.
    objects: usize,
    loaded: Option<Loaded>,
    errors: Vec<Problem>,
    notes: Vec<String>,
}

/// One error, wherever it was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    /// Of which document; absent when the whole is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    field: String,
    message: String,
    /// The whole as a line.
    #[serde(skip)]
    line: String,
}

/// Judges texts together, as one configuration.
#[must_use]
pub fn judge(sources: &[Source], options: &Options) -> Verdict {
    let mut all = Resources { namespace: options.namespace.clone(), ..Resources::default() };
    let mut verdict = Verdict { objects: 0, loaded: None, errors: Vec::new(), notes: Vec::new() };
    let mut gaps = Gaps::default();
    for source in sources {
        let reading = manifest::read_all(&source.text, options, Limits::OF_A_FILE);
        let Reading { manifest: found, errors, gaps: more, .. } = reading;
        verdict.notes.extend(found.notes.iter().map(|note| format!("{}: {note}", source.name)));
        verdict.refuse(source, errors);
        verdict.add(&mut all, found.resources, source);
        gaps.extend(more);
    }
    match config::build(&all) {
        // What the whole means is not known when a part of it could not be read.
        Ok(loaded) => verdict.loaded = verdict.errors.is_empty().then_some(loaded),
        Err(errors) => {
            let own = errors.0.into_iter().filter(|error| !gaps.explain(error));
            verdict.errors.extend(own.map(Problem::of_config));
        }
    }
    verdict
}

impl Verdict {
    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    fn add(&mut self, all: &mut Resources, found: Resources, source: &Source) {
        self.objects += found.count();
        let Some(legacy) = all.absorb(found) else { return };
        let message = "there is another ConfigMap of this name in an earlier file".to_owned();
        self.errors.push(Problem {
            line: format!("{}: ConfigMap {}/{}: {message}", source.name, legacy.namespace, legacy.name),
            file: Some(source.name.clone()),
            document: None,
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(legacy.namespace),
            name: Some(legacy.name),
            field: "metadata.name".to_owned(),
            message,
        });
    }

    fn refuse(&mut self, source: &Source, errors: Vec<ManifestError>) {
        self.errors.extend(errors.into_iter().map(|error| Problem {
            line: format!("{}: {error}", source.name),
            file: Some(source.name.clone()),
            document: Some(error.document),
            kind: error.object.as_ref().map(|object| object.kind.clone()),
            namespace: error.object.as_ref().map(|object| object.namespace.clone()),
            name: error.object.map(|object| object.name),
            field: error.field,
            message: error.message,
        }));
    }

    fn text(&self) -> String {
        let mut out = String::new();
        match &self.loaded {
            Some(_) if self.objects == 0 => {
                out.push_str(
                    "Valid, but there is no configuration in it: no Service would get an address.\n",
                );
            }
            Some(loaded) => {
                out.push_str(&format!("Valid: {}.\n\n", counted(self.objects, "object")));
                out.push_str(&render::config(&loaded.config));
                if !loaded.notices.is_empty() {
                    out.push('\n');
                }
                for notice in &loaded.notices {
                    out.push_str(&format!("warning: {}: {}\n", notice.object, notice.message));
                }
            }
            None => {
                for problem in &self.errors {
                    out.push_str(&format!("error: {}\n", problem.line));
                }
                out.push_str(&format!("Invalid: {}.\n", counted(self.errors.len(), "error")));
            }
        }
        for note in &self.notes {
            out.push_str(&format!("note: {note}\n"));
        }
        out
    }

    fn json(&self) -> serde_json::Value {
        let config = self.loaded.as_ref().map(|loaded| render::json(&loaded.config));
        let warnings: Vec<_> = self
            .loaded
            .iter()
            .flat_map(|loaded| &loaded.notices)
            .map(|notice| {
                let object = &notice.object;
                json!({
                    "kind": object.kind, "namespace": object.namespace, "name": object.name,
                    "message": notice.message,
                })
            })
            .collect();
        json!({
            "valid": self.is_valid(), "objects": self.objects, "errors": self.errors, "warnings": warnings,
            "notes": self.notes, "config": config,
        })
    }
}

impl Problem {
    fn of_config(error: config::ConfigError) -> Self {
        Self {
            line: error.to_string(),
            file: None,
            document: None,
            kind: Some(error.object.kind),
            namespace: Some(error.object.namespace),
            name: Some(error.object.name),
            field: error.field,
            message: error.message,
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
