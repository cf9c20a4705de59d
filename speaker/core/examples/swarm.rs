//! How fast the membership learns what, measured on many machines under a virtual clock:
//! `cargo run --release -p patina-speaker-core --example swarm -- --help`. Times are of the virtual clock, so they depend on the
//! seed and on nothing else; the envelope's cryptography and the kernel's scheduling are not in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a benchmark stops at the first lie
#![allow(clippy::disallowed_methods, clippy::cast_precision_loss, unreachable_pub)] // it reads the clock, and shares the swarm with tests

#[path = "../tests/swarm/mod.rs"]
#[allow(dead_code)] // shared with the tests, which use all of it
mod swarm;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use patina_speaker_core::membership::Event;
use swarm::{BAD, LAN, Network, Swarm, name};

const HELP: &str = "\
swarm: how fast the membership learns what, under a virtual clock

  --members N,N,..  rows of the table            (3,10,50,200,1000)
  --network WHICH   lan, bad (5 % lost, 50 ms of jitter) or both  (both)
  --deaths N        of each row, each restarted after             (30; 10 from 200 members on)
  --no-partition    not the healing of halves, of which each has to meet all of the other: in large swarms the most work
  --hour            one hour of 5 speakers in the bad network, instead of the table
  --seed N          of everything that is random                  (1)
  --json FILE       the rows once more, for machines
  --help            this";

struct Options {
    members: Vec<usize>,
    networks: Vec<(&'static str, Network)>,
    deaths: Option<usize>,
    hour: bool,
    partition: bool,
    seed: u64,
    json: Option<String>,
}

fn main() {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return println!("{HELP}"),
        Err(wrong) => {
            eprintln!("swarm: {wrong}\n\n{HELP}");
            std::process::exit(2);
        }
    };
    println!("seed {}", options.seed);
    let rows: Vec<Row> = if options.hour { hour(options.seed) } else { table(&options) };
    if let Some(file) = &options.json {
        std::fs::write(file, json(options.seed, &rows)).expect("the file can be written");
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let both = vec![("LAN", LAN), ("bad", BAD)];
    let (mut members, mut networks) = (vec![3, 10, 50, 200, 1000], both.clone());
    let (mut deaths, mut hour, mut partition, mut seed, mut json) = (None, false, true, 1, None);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{arg}: {text:?} is no number"));
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--members" => members = value()?.split(',').map(number).collect::<Result<_, _>>()?,
            "--network" => {
                let which = value()?;
                networks = both
                    .iter()
                    .filter(|(name, _)| which == "both" || name.to_lowercase() == which)
                    .copied()
                    .collect();
                if networks.is_empty() {
                    return Err(format!("--network: {which:?} is none of lan, bad, both"));
                }
            }
            "--deaths" => deaths = Some(number(&value()?)?),
            "--no-partition" => partition = false,
            "--hour" => hour = true,
            "--seed" => seed = number(&value()?)? as u64,
            "--json" => json = Some(value()?),
            other => return Err(format!("{other:?} is no option")),
        }
    }
    if members.iter().any(|count| !(2..=5000).contains(count)) {
        return Err("--members: each from 2 to 5000".to_owned());
    }
    Ok(Some(Options { members, networks, deaths, hour, partition, seed, json }))
}

/// A line of the table; times are of the virtual clock.
#[derive(Default)]
struct Row {
    members: usize,
    network: &'static str,
    /// From the first start until all know all.
    start: Option<Duration>,
    /// Deaths that not everybody knew after three seconds.
    missed: usize,
    /// From a death until the last of the others knew, sorted.
    deaths: Vec<Duration>,
    /// From a start until all know it and it all, sorted.
    joins: Vec<Duration>,
    /// Verdicts about speakers that ran, outside of the partitions and pauses.
    wrong: usize,
    /// Of each, at rest.
    messages: f64,
    bytes: f64,
    /// From the end of it until all know all.
    parted: Option<Duration>,
    one_way: Option<Duration>,
    /// From the wakening of a stopped one until all know all and it answers.
    paused: Option<Duration>,
    /// Verdicts while one noticed each of its deadlines 150 ms late, for ten seconds.
    late: usize,
    wall: Duration,
}

fn table(options: &Options) -> Vec<Row> {
    println!(
        "{:>7} {:>4} {:>6} | {:>6} {:>6} {:>6} {:>6} {:>6} | {:>6} {:>6} | {:>6} {:>7} | {:>6} {:>7} {:>6} {:>5} | {:>6}",
        "members",
        "net",
        "start",
        "deaths",
        "p50",
        "p99",
        "max",
        "missed",
        "join50",
        "max",
        "msg/s",
        "bytes/s",
        "parted",
        "one-way",
        "paused",
        "wrong",
        "wall s",
    );
    let mut rows = Vec::new();
    for &count in &options.members {
        for &(name, network) in &options.networks {
            let deaths = options.deaths.unwrap_or(if count < 200 { 30 } else { 10 });
            let row = measure(count, name, network, deaths, options);
            println!(
                "{:>7} {:>4} {:>6} | {:>6} {:>6} {:>6} {:>6} {:>6} | {:>6} {:>6} | {:>6.0} {:>7.0} | {:>6} {:>7} {:>6} {:>5} | {:>6.1}",
                row.members,
                row.network,
                ms(row.start),
                row.deaths.len(),
                ms(part(&row.deaths, 50)),
                ms(part(&row.deaths, 99)),
                ms(row.deaths.last().copied()),
                row.missed,
                ms(part(&row.joins, 50)),
                ms(row.joins.last().copied()),
                row.messages,
                row.bytes,
                ms(row.parted),
                ms(row.one_way),
                ms(row.paused),
                row.wrong + row.late,
                row.wall.as_secs_f64(),
            );
            rows.push(row);
        }
    }
    println!(
        "\ntimes in ms of the virtual clock; - : not within the limit; wrong: verdicts about speakers that ran"
    );
    rows
}

fn measure(members: usize, network: &'static str, how: Network, deaths: usize, options: &Options) -> Row {
    let wall = Instant::now();
    let mut row = Row { members, network, ..Row::default() };
    let done = |what: &str| {
        eprintln!("swarm: {members} {network}: {what} after {:.1} s", wall.elapsed().as_secs_f64());
    };
    let mut swarm = Swarm::new(members, how, options.seed);
    swarm.terse = true;
    swarm.start_all();
    let began = swarm.time();
    row.start = swarm.run_until(Duration::from_secs(30), Swarm::whole).map(|took| took + began);
    done("started");
    swarm.run(Duration::from_secs(1));
    rest(&mut swarm, &mut row);

    swarm.told.clear();
    for _ in 0..deaths {
        death(&mut swarm, &mut row);
    }
    row.deaths.sort_unstable();
    row.joins.sort_unstable();
    done("deaths");

    swarm.lag(0, Duration::from_millis(150));
    swarm.run(Duration::from_secs(10));
    swarm.lag(0, Duration::ZERO);
    row.late = verdicts(&swarm, None);
    settle(&mut swarm);

    if options.partition {
        let third: Vec<usize> = (0..members.div_ceil(3)).collect();
        swarm.part(&third);
        swarm.run(Duration::from_secs(5));
        swarm.heal();
        row.parted = swarm.run_until(Duration::from_secs(30), Swarm::whole);
        settle(&mut swarm);
        done("a partition");
    }

    swarm.silence(&[members - 1]);
    swarm.run(Duration::from_secs(5));
    swarm.heal();
    row.one_way = swarm.run_until(Duration::from_secs(30), Swarm::whole);
    settle(&mut swarm);

    swarm.pause(0, Duration::from_secs(1));
    swarm.run(Duration::from_secs(1));
    let answers = |swarm: &Swarm| swarm.machine(0).is_some_and(|machine| machine.answer_until().is_some());
    // It was stopped before its deadline: a moment until it notices.
    row.paused = swarm.run_until(Duration::from_secs(30), |swarm| swarm.whole() && answers(swarm));
    row.wall = wall.elapsed();
    row
}

/// What each sends when nothing happens.
fn rest(swarm: &mut Swarm, row: &mut Row) {
    let (messages, bytes) = (swarm.messages, swarm.bytes);
    swarm.run(Duration::from_secs(3));
    let each = |count: u64| count as f64 / 3.0 / row.members as f64;
    (row.messages, row.bytes) = (each(swarm.messages - messages), each(swarm.bytes - bytes));
}

fn death(swarm: &mut Swarm, row: &mut Row) {
    let victim = swarm.below(row.members as u64) as usize;
    // Anywhere between two heartbeats.
    let moment = swarm.below(50_000);
    swarm.run(Duration::from_micros(moment));
    swarm.told.clear();
    let died = swarm.time();
    swarm.kill(victim);
    let known = swarm.run_until(Duration::from_secs(3), |swarm| {
        let down = |event: &Event| matches!(event, Event::Down { node, .. } if *node == name(victim));
        swarm.told.iter().filter(|told| down(&told.event)).count() >= row.members - 1
    });
    let last = swarm.learnt(victim, died);
    match known {
        Some(_) => row.deaths.extend(last.values().max()),
        None => row.missed += 1,
    }
    row.wrong += verdicts(swarm, Some(victim));
    swarm.told.clear();
    swarm.start(victim);
    row.joins.extend(swarm.run_until(Duration::from_secs(10), Swarm::whole));
    row.wrong += verdicts(swarm, Some(victim));
    swarm.told.clear();
}

/// Verdicts about others than this one.
fn verdicts(swarm: &Swarm, dead: Option<usize>) -> usize {
    swarm.false_verdicts(&dead.into_iter().collect()).len()
}

fn settle(swarm: &mut Swarm) {
    swarm.run_until(Duration::from_secs(30), Swarm::whole);
    swarm.run(Duration::from_secs(2));
    swarm.told.clear();
}

/// Nobody dies, nobody joins: whatever is said of anybody is wrong.
fn hour(seed: u64) -> Vec<Row> {
    let wall = Instant::now();
    let mut row = Row { members: 5, network: "bad", ..Row::default() };
    let mut swarm = Swarm::started(5, BAD, seed);
    swarm.told.clear();
    let (messages, bytes) = (swarm.messages, swarm.bytes);
    for _ in 0..60 {
        swarm.run(Duration::from_secs(60));
        let fences = swarm.told.iter().filter(|told| told.event == Event::Fenced).count();
        assert_eq!(fences, 0, "nobody stalled");
        row.wrong += verdicts(&swarm, None);
        swarm.told.clear();
    }
    assert!(swarm.whole());
    let each = |count: u64| count as f64 / 3600.0 / 5.0;
    (row.messages, row.bytes) = (each(swarm.messages - messages), each(swarm.bytes - bytes));
    row.wall = wall.elapsed();
    println!(
        "one hour, 5 speakers, 5 % lost, up to 50 ms of jitter: {} wrong verdicts; each sent {:.0} messages and {:.0} bytes a \
         second; {:.1} s of wall time",
        row.wrong,
        row.messages,
        row.bytes,
        row.wall.as_secs_f64(),
    );
    vec![row]
}

fn part(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied()
}

fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.0}", time.as_secs_f64() * 1000.0))
}

fn json(seed: u64, rows: &[Row]) -> String {
    let time = |time: Option<Duration>| {
        time.map_or_else(|| "null".to_owned(), |time| format!("{:.3}", time.as_secs_f64() * 1000.0))
    };
    let mut text = format!("{{\"seed\": {seed}, \"rows\": [");
    for (index, row) in rows.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(
            text,
            "{comma}\n  {{\"members\": {}, \"network\": \"{}\", \"start_ms\": {}, \"deaths\": {}, \"missed\": {}, \
             \"death_p50_ms\": {}, \"death_p99_ms\": {}, \"death_max_ms\": {}, \"join_p50_ms\": {}, \"join_max_ms\": {}, \
             \"messages_per_second\": {:.1}, \"bytes_per_second\": {:.0}, \"parted_ms\": {}, \"one_way_ms\": {}, \
             \"paused_ms\": {}, \"wrong\": {}, \"wrong_when_late\": {}, \"wall_s\": {:.1}}}",
            row.members,
            row.network,
            time(row.start),
            row.deaths.len(),
            row.missed,
            time(part(&row.deaths, 50)),
            time(part(&row.deaths, 99)),
            time(row.deaths.last().copied()),
            time(part(&row.joins, 50)),
            time(row.joins.last().copied()),
            row.messages,
            row.bytes,
            time(row.parted),
            time(row.one_way),
            time(row.paused),
            row.wrong,
            row.late,
            row.wall.as_secs_f64(),
        )
        .expect("a String takes all");
    }
    text + "\n]}\n"
}
