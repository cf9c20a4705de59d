//! Layer 2: how fast an address changes hands, and what a speaker needs. Everything is seen from a client's namespace: it asks
//! for the address by ARP every 10 ms and writes down who answers and when, by the kernel's clock of received frames.
//!
//! `bench l2` measures all parts, `bench l2 kill link` two. `PATINA_RUNS=5` is for who works on them: few runs, the same rows.
//! A part that fails does not keep the others from being measured, and makes the program fail.

mod api;
mod busy;
mod conflict;
mod foreign;
mod kill;
mod link;
mod many;
mod memory;
mod planned;
mod stage;
mod stop;
mod strangers;
mod swarm;

use std::time::Instant;

use stage::Stage;

use crate::Row;
use crate::report::say;

/// The parts, in the order in which they run.
pub(crate) const PARTS: [&str; 12] = [
    "swarm",
    "kill",
    "link",
    "stop",
    "api",
    "foreign",
    "conflict",
    "strangers",
    "memory",
    "many",
    "planned",
    "busy",
];

/// What readers of `target/bench/l2.json` rely on.
const PROMISED: [&str; 16] = [
    "kill_p50_ms_3",
    "kill_p99_ms_3",
    "kill_p99_ms_10",
    "kill_p99_ms_50",
    "link_p99_ms",
    "stop_p99_ms",
    "kill_last_ms_10k",
    "api_down_kill_p99_ms",
    "heal_two_answer_ms",
    "rolling_lost",
    "drain_lost",
    "false_takeovers",
    "foreign_arp_cpu_pct",
    "speaker_rss_idle_mb",
    "speaker_rss_10k_mb",
    "speaker_idle_cpu_pct_10k",
];

/// Measures these parts, or all when none is named. What failed comes second, a line each.
pub(crate) async fn measure(parts: &[String]) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    // Ten thousand Services are made once.
    let mut crowd: Option<Stage> = None;
    for part in PARTS.into_iter().filter(|part| wanted(part)) {
        let began = Instant::now();
        say(&format!("l2 {part}"));
        let result = match part {
            "memory" => {
                memory::measure(&mut rows).await.map(|left| crowd = Some(left).filter(|_| wanted("many")))
            }
            "swarm" => swarm::measure(&mut rows),
            "kill" => kill::measure(&mut rows).await,
            "link" => link::measure(&mut rows).await,
            "stop" => stop::measure(&mut rows).await,
            "api" => api::measure(&mut rows).await,
            "many" => many::measure(crowd.take(), &mut rows).await,
            "foreign" => foreign::measure(&mut rows).await,
            "conflict" => conflict::measure(&mut rows).await,
            "strangers" => strangers::measure(&mut rows).await,
            "planned" => planned::measure(&mut rows).await,
            _ => busy::measure(&mut rows).await,
        };
        match result {
            Ok(()) => say(&format!("l2 {part}: {:.0} s", began.elapsed().as_secs_f64())),
            Err(error) => {
                say(&format!("l2 {part} FAILED: {error:#}"));
                failed.push(format!("l2 {part}: {error:#}"));
            }
        }
    }
    if parts.is_empty() && failed.is_empty() {
        let missing = PROMISED.into_iter().filter(|name| rows.iter().all(|row| row.metric != *name));
        failed.extend(missing.map(|name| format!("l2: no part measured {name}")));
    }
    (rows, failed)
}
