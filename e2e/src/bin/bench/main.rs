//! `bench [NAME ...]`: our release binaries against a real API server. Without names, everything. Each bench prints a table
//! and writes `target/bench/NAME.json`. Every number is measured here and now; a bench that cannot measure fails.

mod alloc;
mod audit;
mod cluster;
mod l2;
mod machine;
mod report;
mod size;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use report::{Report, Row};

/// The benches, in the order in which they run: small first.
const NAMES: [&str; 3] = ["size", "alloc", "l2"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if let Some((alloc::statuses::COMMAND, args)) =
        names.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        return told(alloc::statuses::run(args).await.context("write statuses"));
    }
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        eprintln!("there is no bench {unknown:?}\nusage: bench [NAME ...]; names: {}", NAMES.join(" "));
        return ExitCode::from(2);
    }
    if cfg!(debug_assertions) {
        return told(Err(as_release(&names)));
    }
    if names.is_empty() {
        names = NAMES.map(str::to_owned).to_vec();
    }
    for name in names {
        if let Err(error) = measure_and_tell(&name).await {
            return told(Err(error.context(format!("bench {name} could not measure"))));
        }
    }
    ExitCode::SUCCESS
}

fn told(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

/// Becomes the same program in the release profile: a slow client beside the programs that are measured would be measured
/// with them. Returns only when that cannot be.
fn as_release(names: &[String]) -> anyhow::Error {
    match cluster::release_binary("bench") {
        Ok(bench) => {
            let error = Command::new(&bench).args(names).env("PATINA_BUILT", "1").exec();
            anyhow::Error::new(error).context(format!("run {}", bench.display()))
        }
        Err(error) => error,
    }
}

async fn measure_and_tell(name: &str) -> Result<()> {
    let rows = measure(name).await?;
    let report = Report { name: name.to_owned(), machine: machine::describe(), rows };
    let path = report.write()?;
    let machine = &report.machine;
    println!("\n{name}: {} x {}, Linux {}, {}", machine.cpus, machine.cpu, machine.kernel, machine.commit);
    print!("{}", report.table());
    println!("written to {}", path.display());
    Ok(())
}

async fn measure(name: &str) -> Result<Vec<Row>> {
    match name {
        "size" => size::measure(),
        "alloc" => alloc::measure().await,
        "l2" => l2::measure().await,
        other => bail!("there is no bench {other:?}"),
    }
}
