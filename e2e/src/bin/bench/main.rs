//! `bench [NAME ...]`: our release binaries against a real API server. Without names, everything. Each bench prints a table
//! and writes `target/bench/NAME.json`. Every number is measured here and now; a bench that cannot measure fails.

mod alloc;
mod cluster;
mod l2;
mod machine;
mod report;
mod size;

use std::process::ExitCode;

use anyhow::{Result, bail};

use report::{Report, Row};

/// The benches, in the order in which they run: small first.
const NAMES: [&str; 3] = ["size", "alloc", "l2"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        eprintln!("there is no bench {unknown:?}\nusage: bench [NAME ...]; names: {}", NAMES.join(" "));
        return ExitCode::from(2);
    }
    if names.is_empty() {
        names = NAMES.map(str::to_owned).to_vec();
    }
    for name in names {
        if let Err(error) = measure_and_tell(&name).await {
            eprintln!("bench {name} could not measure: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
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
