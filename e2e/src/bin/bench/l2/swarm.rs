//! Thousands of memberships under a virtual clock: what no lab has room for. The numbers are those of
//! `speaker/core/examples/swarm.rs`, which depend on its seed and on nothing else; kernel, cryptography and other processes
//! are in the parts beside this one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use patina_e2e::paths;
use serde::Deserialize;

use crate::{Row, cluster};

/// With thousands of them the healing of halves, where each meets all of the other anew, takes longer than all else.
const LARGE: &[&str] = &["--members", "1000", "--network", "lan", "--deaths", "5", "--no-partition"];
const SMALL: &[&str] = &["--members", "3,10,50,200", "--network", "both"];
const HOUR: &[&str] = &["--hour"];

/// What the example writes; times in ms.
#[derive(Debug, Deserialize)]
struct Written {
    rows: Vec<Swarm>,
}

#[derive(Debug, Deserialize)]
struct Swarm {
    members: usize,
    network: String,
    start_ms: Option<f64>,
    deaths: usize,
    missed: usize,
    death_p50_ms: Option<f64>,
    death_p99_ms: Option<f64>,
    death_max_ms: Option<f64>,
    join_p50_ms: Option<f64>,
    join_max_ms: Option<f64>,
    messages_per_second: f64,
    bytes_per_second: f64,
    parted_ms: Option<f64>,
    wrong: usize,
    wrong_when_late: usize,
}

pub(crate) fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let example = build()?;
    for swarm in run(&example, SMALL)?.iter().chain(&run(&example, LARGE)?) {
        tell(swarm, rows)?;
    }
    let hour = run(&example, HOUR)?;
    let [hour] = hour.as_slice() else { bail!("the hour is {} rows, not one", hour.len()) };
    rows.push(Row::new(
        "swarm_hour_false_takeovers",
        hour.wrong as f64,
        "",
        hour.members,
        "one hour of the virtual clock, 5 % lost, up to 51 ms late: verdicts about speakers, all of which lived and answered at once",
    ));
    rows.push(Row::new(
        "swarm_hour_messages_per_second",
        hour.messages_per_second,
        "/s",
        hour.members,
        format!("of each; {:.0} bytes a second", hour.bytes_per_second),
    ));
    Ok(())
}

/// The rows of one swarm, named by its network and its members.
fn tell(swarm: &Swarm, rows: &mut Vec<Row>) -> Result<()> {
    let Swarm { members, deaths, .. } = *swarm;
    let network = swarm.network.to_lowercase();
    ensure!(swarm.missed == 0, "{members} {network}: {} deaths were not known to all in 3 s", swarm.missed);
    let name = |what: &str| format!("swarm_{network}_{what}_{members}");
    let of = |what: &str, value: Option<f64>| {
        value.with_context(|| format!("{members} speakers, {network}: no {what} within 30 s"))
    };
    let death = "from a death until the last of the others knew, virtual clock";
    for (what, value) in
        [("p50", swarm.death_p50_ms), ("p99", swarm.death_p99_ms), ("max", swarm.death_max_ms)]
    {
        let value = of("death", value)?;
        rows.push(Row::new(&name(&format!("death_{what}_ms")), value, "ms", deaths, death));
    }
    let (join, start) = (of("join", swarm.join_max_ms)?, of("start", swarm.start_ms)?);
    rows.push(Row::new(
        &name("join_p50_ms"),
        of("join", swarm.join_p50_ms)?,
        "ms",
        deaths,
        format!("from a start until all know it and it all; the longest {join:.0}; all started in turn: {start:.0}"),
    ));
    rows.push(Row::new(
        &name("messages_per_second"),
        swarm.messages_per_second,
        "/s",
        members,
        "of each, at rest",
    ));
    rows.push(Row::new(
        &name("bytes_per_second"),
        swarm.bytes_per_second,
        "B/s",
        members,
        "of each, at rest, with IPv4, UDP and envelope",
    ));
    rows.push(Row::new(
        &name("false_verdicts"),
        (swarm.wrong + swarm.wrong_when_late) as f64,
        "",
        deaths,
        "about speakers that ran, while others died and came, and while one noticed each deadline 150 ms late for 10 s",
    ));
    if let Some(parted) = swarm.parted_ms {
        let what = "a third was cut off for 5 s: from its return until all knew all";
        rows.push(Row::new(&name("healed_ms"), parted, "ms", 1, what));
    }
    Ok(())
}

fn run(example: &Path, args: &[&str]) -> Result<Vec<Swarm>> {
    let dir = paths::target_dir().join("bench");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("swarm.json");
    let status = Command::new(example).args(args).arg("--json").arg(&file).status();
    let status = status.with_context(|| format!("run {}", example.display()))?;
    ensure!(status.success(), "{} {}: {status}", example.display(), args.join(" "));
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let written: Written = serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
    ensure!(!written.rows.is_empty(), "{}: no rows", file.display());
    Ok(written.rows)
}

/// The example is no binary: the build of the others leaves it out.
fn build() -> Result<std::path::PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace()).args(["build", "-p", "patina-speaker-core", "--example", "swarm"]);
    cargo.arg("--target-dir").arg(paths::target_dir());
    if cluster::profile() == "release" {
        cargo.arg("--release");
    }
    ensure!(cargo.status().context("run cargo")?.success(), "the build of the swarm failed");
    Ok(paths::target_dir().join(cluster::profile()).join("examples/swarm"))
}
