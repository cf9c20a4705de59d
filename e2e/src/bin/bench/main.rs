//! `bench [NAME ...]`: our release binaries against a real API server. Without names, everything; after `l2`, names of its parts.
//! Each bench prints a table and writes `target/bench/NAME.json`; named parts replace their own rows in it and keep the others,
//! when those are of the same programs on the same machine. Every number is measured here and now; a bench that cannot measure
//! fails, and tells what it could.
//!
//! `PATINA_BENCH_PROFILE=debug` measures debug binaries: for who works on a bench, never for a number.

mod alloc;
mod audit;
mod cluster;
mod l2;
mod machine;
mod report;
mod size;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, bail};

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
    let parts: Vec<String> = match names.split_first() {
        Some((first, rest))
            if first == "l2" && rest.iter().all(|part| l2::PARTS.contains(&part.as_str())) =>
        {
            rest.to_vec()
        }
        _ => Vec::new(),
    };
    let benches = names.len() - parts.len();
    if let Some(unknown) = names.iter().take(benches).find(|name| !NAMES.contains(&name.as_str())) {
        let (names, parts) = (NAMES.join(" "), l2::PARTS.join(" "));
        eprintln!(
            "there is no bench {unknown:?}\nusage: bench [NAME ...]; names: {names}; parts of l2: {parts}"
        );
        return ExitCode::from(2);
    }
    if cfg!(debug_assertions) && cluster::profile() == "release" {
        return told(Err(as_release(&names)));
    }
    names.truncate(benches);
    if names.is_empty() {
        names = NAMES.map(str::to_owned).to_vec();
    }
    for name in names {
        if let Err(error) = measure_and_tell(&name, &parts).await {
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

async fn measure_and_tell(name: &str, parts: &[String]) -> Result<()> {
    let (rows, failed) = measure(name, parts).await?;
    let programs = cluster::programs()?;
    let report = Report { name: name.to_owned(), machine: machine::describe(), programs, rows };
    let path = report.write(!parts.is_empty())?;
    let machine = &report.machine;
    println!("\n{name}: {} x {}, Linux {}, {}", machine.cpus, machine.cpu, machine.kernel, machine.commit);
    print!("{}", report.table());
    println!("written to {}", path.display());
    if failed.is_empty() { Ok(()) } else { Err(anyhow!(failed.join("\n"))) }
}

/// The rows, and what could not be measured.
async fn measure(name: &str, parts: &[String]) -> Result<(Vec<Row>, Vec<String>)> {
    let whole = |rows: Vec<Row>| (rows, Vec::new());
    match name {
        "size" => size::measure().map(whole),
        "alloc" => alloc::measure().await.map(whole),
        "l2" => Ok(l2::measure(parts).await),
        other => bail!("there is no bench {other:?}"),
    }
}
