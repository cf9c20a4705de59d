//! The `lab` program, for people.

mod daemon;
mod look;

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::lab::view::View;
use crate::pod::{self, Identity};
use crate::{demo, rundir};

const TEACHES: &str = "\
A lab is a Kubernetes cluster in network namespaces of this machine: real etcd,
API server, controller-manager and kube-proxy, Patina as its chart installs it,
pods as processes, and a client beside the cluster. It needs root and no
container runtime.

  lab up                            three nodes, left running in the background
  lab kubectl -- get svc -A         kubectl as administrator
  lab exec client -- curl http://172.25.7.100
  lab exec client -- arping -i eth0 -c 3 172.25.7.100
  lab exec node2 -- nft list ruleset
  lab kill-node node2               and start-node, which undoes it
  lab logs speaker                  of programs with that word in their name
  lab down                          nothing is left

Node1 is 172.25.7.11 and fd00:25:7::11, node2 .12 ...; the client is .5, the API
server .1. A pool to try: 172.25.7.100-172.25.7.250, fd00:25:7::100-fd00:25:7::1ff.";

/// A Kubernetes cluster with Patina in network namespaces.
#[derive(Debug, Parser)]
#[command(name = "lab", after_help = TEACHES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a lab up and leave it running.
    Up {
        /// How many nodes, 1 to 9.
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// Its name, part of all its namespaces' names.
        #[arg(long, default_value = "lab")]
        name: String,
        /// Without Patina: a bare cluster.
        #[arg(long)]
        bare: bool,
    },
    /// What runs, with addresses.
    Status {
        #[command(flatten)]
        which: Which,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Run a command on a node, the client, `net` (the bridge and the API server), or in a pod's network.
    Exec {
        #[command(flatten)]
        which: Which,
        /// node1, client, net, or the beginning of a pod's name.
        place: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// kubectl as administrator.
    Kubectl {
        #[command(flatten)]
        which: Which,
        /// Its arguments.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// A node dies without a word: SIGKILL for its processes, and its cable is cut.
    KillNode {
        #[command(flatten)]
        which: Which,
        /// node1 ...
        node: String,
    },
    /// A killed node boots.
    StartNode {
        #[command(flatten)]
        which: Which,
        /// node1 ...
        node: String,
    },
    /// What the lab's programs say.
    Logs {
        #[command(flatten)]
        which: Which,
        /// Only programs whose name has this in it: speaker, controller, kube-proxy-node1, a pod's name ...
        part: Option<String>,
        /// Lines from the end of each.
        #[arg(long, default_value_t = 50)]
        tail: usize,
    },
    /// Everything that one would look at when something is wrong: objects, events, logs, neighbours, frames.
    Report {
        #[command(flatten)]
        which: Which,
    },
    /// Take a lab down.
    Down {
        #[command(flatten)]
        which: Which,
        /// All that `lab up` started.
        #[arg(long)]
        all: bool,
    },
    /// The tutorial, played: a Service gets an address, answers, and survives its node (half a minute).
    Demo,
    /// What `lab up` leaves running.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        nodes: u8,
        #[arg(long)]
        name: String,
        #[arg(long)]
        bare: bool,
    },
    /// What plays a container of any other image.
    #[command(hide = true)]
    Pod {
        #[arg(long)]
        pod: String,
        #[arg(long)]
        node: String,
        #[arg(long)]
        port: Vec<u16>,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Which lab; not needed while only one runs.
    #[arg(long)]
    name: Option<String>,
}

impl Which {
    fn lab(&self) -> Result<View> {
        if let Some(name) = &self.name {
            return View::attach(name);
        }
        let running = View::running();
        match running.as_slice() {
            [] => bail!("no lab is running: `lab up` starts one"),
            [only] => Ok(only.clone()),
            many => {
                let names: Vec<&str> = many.iter().map(|v| v.plan().id.as_str()).collect();
                bail!("which lab? --name {}", names.join(" | --name "))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { nodes, name, bare } => daemon::up(nodes, &name, bare)?,
        Command::Serve { nodes, name, bare } => daemon::serve(nodes, &name, bare)?,
        Command::Down { which, all } => {
            rundir::sweep_crashed()?;
            let labs = if all { daemon::started_by_people() } else { vec![which.lab()?] };
            for lab in labs {
                daemon::down(&lab)?;
            }
        }
        Command::Status { which, output } => {
            look::status(which.name.as_deref(), matches!(output, Format::Json))?
        }
        Command::Exec { which, place, command } => {
            let netns = which.lab()?.netns(&place)?;
            let Some((program, args)) = command.split_first() else { bail!("exec: which command?") };
            let error = netns.command(program)?.args(args).exec();
            bail!("{program}: {error}");
        }
        Command::Kubectl { which, args } => {
            let error = which.lab()?.kubectl().command()?.args(args).exec();
            bail!("kubectl: {error}");
        }
        Command::KillNode { which, node } => which.lab()?.power_off(&node)?,
        Command::StartNode { which, node } => which.lab()?.power_on(&node)?,
        Command::Logs { which, part, tail } => {
            look::logs(&which.lab()?, part.as_deref().unwrap_or(""), tail)?
        }
        Command::Report { which } => print!("{}", which.lab()?.report()),
        Command::Demo => return demo::play(),
        Command::Pod { pod, node, port } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(pod::serve(Identity { pod, node }, &port))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
