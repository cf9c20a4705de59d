//! `kubectl patina plan`: what a configuration gives to Services, and who announces it, without a cluster.
//!
//! ```text
//! files ── input ──> objects ── complete ──> what the API server would have of them
//!    └─ config::build ──> Config                    │
//!                           │                       v
//!                           ├──> allocate: the controller's Reconciler, to its end ──> the statuses it would write
//!                           │                       v
//!                           └──> announce: the speakers' intent and routes, node by node ──> Plan ──> text, JSON
//! ```
//!
//! No rule stands here twice: objects are read, and decisions made, by the code of the daemons.

mod allocate;
mod announce;
mod complete;
mod input;
mod model;
mod objects;
mod progress;
mod text;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use patina_crds::config::{Config, Notice};
use patina_crds::net::Family;

use crate::args::{self, IpFamily, Output};
pub use crate::check::Source;
use crate::check::files;
pub use model::{Layer2, Plan, Problem, Route, ServicePlan};
use progress::Progress;

/// What is planned for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of the configuration.
    pub namespace: String,
    /// Name of the legacy ConfigMap.
    pub legacy_name: String,
    /// Namespace of Services that name none.
    pub service_namespace: String,
    /// Families of the cluster, the primary one first, each once; never empty.
    pub families: Vec<Family>,
    /// Further ranges of cluster IPs.
    pub service_cidrs: Vec<patina_crds::net::AddressRange>,
    /// `--lb-class`; empty is none.
    pub class: Option<String>,
    /// `--strict-pinning`.
    pub strict_pinning: bool,
    /// `--ignore-exclude-lb`.
    pub ignore_exclude_lb: bool,
    /// A Service without any EndpointSlice has an endpoint on every node.
    pub assume_endpoints: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: patina_crds::keys::DEFAULT_NAMESPACE.to_owned(),
            legacy_name: patina_crds::keys::LEGACY_CONFIG.to_owned(),
            service_namespace: "default".to_owned(),
            families: vec![Family::V4, Family::V6],
            service_cidrs: Vec::new(),
            class: None,
            strict_pinning: false,
            ignore_exclude_lb: false,
            assume_endpoints: false,
        }
    }
}

impl From<&args::Plan> for Options {
    fn from(args: &args::Plan) -> Self {
        let mut families: Vec<Family> = Vec::new();
        for family in &args.families {
            let family = match family {
                IpFamily::Ipv4 => Family::V4,
                IpFamily::Ipv6 => Family::V6,
            };
            if !families.contains(&family) {
                families.push(family);
            }
        }
        Self {
            namespace: args.namespace.clone(),
            legacy_name: args.config.clone(),
            service_namespace: args.service_namespace.clone(),
            families,
            service_cidrs: args.service_cidr.clone(),
            class: args.lb_class.clone().filter(|class| !class.is_empty()),
            strict_pinning: args.strict_pinning,
            ignore_exclude_lb: args.ignore_exclude_lb,
            assume_endpoints: args.assume_endpoints,
        }
    }
}

/// Plans, prints, and answers 0 (planned) or 1 (there are errors).
///
/// # Errors
/// A file cannot be read, or nobody takes what is printed.
pub fn run(args: &args::Plan) -> Result<ExitCode> {
    let mut progress = Progress::on_terminal();
    progress.at("reading the files");
    let plan = plan_with(&files::read(&args.file)?, &Options::from(args), &mut progress);
    drop(progress);
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.output {
        Output::Text => {
            out.write_all(text::render(&plan).as_bytes())?;
            out.flush()?;
            eprint!("{}", text::errors(&plan));
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &plan).context("cannot print the plan")?;
            writeln!(out)?;
            out.flush()?;
        }
    }
    Ok(ExitCode::from(u8::from(!plan.errors.is_empty())))
}

/// The plan for what is in these texts, together.
#[must_use]
pub fn plan(sources: &[Source], options: &Options) -> Plan {
    plan_with(sources, options, &mut Progress::silent())
}

fn plan_with(sources: &[Source], options: &Options, progress: &mut Progress) -> Plan {
    let mut input = input::read(sources, options);
    progress.at(&format!("giving addresses to {} Services", input.services.len()));
    let mut plan = Plan { notes: std::mem::take(&mut input.notes), ..Plan::default() };
    let nothing = Config::default();
    let outcomes = match &input.config {
        Some(loaded) => {
            plan.notes.extend(loaded.notices.iter().map(Notice::to_string));
            allocate::allocate(
                &mut input.services,
                &loaded.config,
                &input.surroundings,
                &input.namespaces,
                options,
            )
        }
        None => allocate::nothing_in_force(&mut input.services),
    };
    let config = input.config.as_ref().map_or(&nothing, |loaded| &loaded.config);
    plan.usage = outcomes.usage;
    plan.nodes = input.nodes.iter().map(|node| node.name.clone()).collect();
    plan.peers = config.peers.iter().map(|peer| peer.name.clone()).collect();
    let announced = announce::announce(&input, config, options, progress);
    plan.services = model::join(std::mem::take(&mut input.services), outcomes.services, announced);
    if !options.assume_endpoints && input.without_slices > 0 {
        plan.notes.push(format!(
            "{} of the Services have no EndpointSlice in the files, so nobody announces them; --assume-endpoints plans as \
             if each had an endpoint on every node",
            input.without_slices
        ));
    }
    plan.errors = input.errors;
    plan
}
