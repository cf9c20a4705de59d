//! `kubectl patina`: the questions people ask, answered from files or from the cluster.
#![warn(missing_docs)]

pub mod args;
pub mod check;
pub mod migrate;
pub mod plan;
pub mod table;
pub mod why;

use std::process::ExitCode;

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;

use args::{Cli, Command, Output, Why};

/// Runs a command and prints its answer. The exit code is 0 for yes and 1 for no.
///
/// # Errors
/// The question could not be answered; `main` says why and exits with 2.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Why(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(why(&args))
        }
        Command::Version => {
            println!("kubectl-patina {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn why(args: &Why) -> Result<ExitCode> {
    let facts = why::gather(args).await?;
    let explanation = why::explain(&facts);
    match args.output {
        Output::Text => print!("{}", why::text(&explanation, &facts, Timestamp::now())),
        Output::Json => println!("{:#}", why::json(&explanation, &facts)),
    }
    Ok(ExitCode::from(u8::from(!explanation.works)))
}
