//! `kubectl patina`: the questions people ask, answered from files or from the cluster.
#![warn(missing_docs)]

pub mod args;
pub mod check;
mod cluster;
pub mod drain;
pub mod l2;
pub mod migrate;
pub mod plan;
pub mod table;
pub mod why;

use std::process::ExitCode;

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;

use args::{Cli, Command, L2, Output, Why};

/// Runs a command and prints its answer. The exit code is 0 for yes and 1 for no.
///
/// # Errors
/// The question could not be answered; `main` says why and exits with 2.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Why(args) => block_on(why(&args)),
        Command::L2(args) => block_on(l2(&args)),
        Command::Drain(args) => block_on(drain::run(&args)),
        Command::Version => {
            println!("kubectl-patina {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn block_on(answer: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer)
}

async fn l2(args: &L2) -> Result<ExitCode> {
    let (facts, filter) = l2::gather(args).await?;
    let options = patina_speaker_core::view::Options {
        lb_class: args.lb_class.clone(),
        ignore_exclude_lb: args.ignore_exclude_lb,
        ..Default::default()
    };
    let listing = l2::list(&facts, &filter, &options);
    match args.output {
        Output::Text => print!("{}", l2::text(&listing, Timestamp::now())),
        Output::Json => println!("{:#}", l2::json(&listing)),
    }
    Ok(ExitCode::from(u8::from(!listing.is_well())))
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
