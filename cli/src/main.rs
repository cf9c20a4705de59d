//! `kubectl patina`; kubectl finds this binary by its name, kubectl-patina.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match kubectl_patina::run(kubectl_patina::args::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
