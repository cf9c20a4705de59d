//! A network, and the speaker's BFD driver as the speaker runs it: on a thread of its own, in a namespace.

use std::net::IpAddr;
use std::sync::{Arc, mpsc as sync};
use std::thread::JoinHandle;
use std::time::Duration;

use patina_e2e::netns::Netns;
use patina_e2e::routers::{Port, Wires};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};
use patina_runtime::tasks::Tasks;
use patina_speaker::bfd::{BfdMetrics, Desired, Driver, Key, Status, Statuses, Wanted};
use patina_speaker_core::bfd::{Settings, State};
use prometheus::{Registry, TextEncoder};
use tokio::sync::{mpsc, watch};

pub(crate) struct Net {
    pub(crate) wires: Wires,
    pub(crate) run: Arc<RunDir>,
}

impl Net {
    pub(crate) fn new() -> Self {
        let run = Arc::new(RunDir::create().unwrap());
        let wires = Wires::new(&run).expect("network namespaces need root and the package iproute2");
        Self { wires, run }
    }
}

/// 50 ms x 3.
pub(crate) fn settings() -> Settings {
    Settings {
        transmit_interval: Duration::from_millis(50),
        receive_interval: Duration::from_millis(50),
        detect_multiplier: 3,
        echo_interval: Duration::from_millis(50),
        echo_mode: false,
        loops_echo: false,
        passive: false,
        multihop: false,
        minimum_ttl: 254,
    }
}

pub(crate) fn key(peer: impl Into<IpAddr>) -> Key {
    Key { peer: peer.into(), local: None, interface: None, vrf: None, multihop: false }
}

/// Says that the driver's thread stands still, then waits for the end of the other channel.
type Pause = (sync::Sender<()>, sync::Receiver<()>);

pub(crate) struct Us {
    desired: Option<watch::Sender<Desired>>,
    statuses: watch::Receiver<Statuses>,
    registry: Registry,
    pauses: mpsc::UnboundedSender<Pause>,
    thread: Option<JoinHandle<()>>,
}

impl Us {
    pub(crate) fn start(port: &Port) -> Self {
        Self::on(&port.netns)
    }

    fn on(netns: &Netns) -> Self {
        let (desired, wanted) = watch::channel(Desired::new());
        let (tell, statuses) = watch::channel(Statuses::new());
        let (pauses, mut pause) = mpsc::unbounded_channel::<Pause>();
        let registry = Registry::new();
        let metrics = BfdMetrics::register(&registry).unwrap();
        let netns = netns.clone();
        let thread = std::thread::spawn(move || {
            netns.enter_this_thread().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                tokio::task::spawn_local(async move {
                    while let Some((stands, go_on)) = pause.recv().await {
                        stands.send(()).unwrap();
                        let _dropped = go_on.recv();
                    }
                });
                let tasks = Tasks::new();
                Driver::new(wanted, tell, metrics).run(tasks.shutdown()).await;
            });
        });
        Self { desired: Some(desired), statuses, registry, pauses, thread: Some(thread) }
    }

    /// One session more.
    pub(crate) fn add(&self, key: Key, settings: Settings) {
        let wanted = Wanted { settings, admin_down: false };
        self.desired.as_ref().unwrap().send_modify(|desired| {
            desired.insert(key, wanted);
        });
    }

    pub(crate) fn change(&self, key: &Key, change: impl FnOnce(&mut Wanted)) {
        self.desired.as_ref().unwrap().send_modify(|desired| change(desired.get_mut(key).unwrap()));
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.desired.as_ref().unwrap().send_modify(|desired| {
            desired.remove(key);
        });
    }

    pub(crate) fn status(&self, key: &Key) -> Option<Status> {
        self.statuses.borrow().get(key).cloned()
    }

    /// Waits for it.
    pub(crate) fn until(&self, key: &Key, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let look = || {
            let status = self.status(key);
            Ok(match status.clone().filter(&is_so) {
                Some(status) => Seen::Done(status),
                None => Seen::Not(format!("{status:?}\n{}", self.metrics())),
            })
        };
        wait::until_blocking(&format!("{key}: {what}"), secs(20), look).unwrap()
    }

    /// Up, with the intervals of 50 ms agreed on.
    pub(crate) fn until_up(&self, key: &Key) -> Status {
        self.until(key, "is up", |status| {
            status.view.state == State::Up && status.view.detection_time == Some(Duration::from_millis(150))
        })
    }

    /// Stops the driver's thread, as SIGSTOP would, until what is returned is dropped.
    pub(crate) fn pause(&self) -> sync::Sender<()> {
        let ((stands, stood), (hold, go_on)) = (sync::channel(), sync::channel());
        self.pauses.send((stands, go_on)).unwrap();
        stood.recv().unwrap();
        hold
    }

    /// The value of a series as the metrics page shows it; 0 when it is not there.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
        value.unwrap_or(0.0) as u64
    }

    pub(crate) fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    /// The process ends.
    pub(crate) fn stop(&mut self) {
        self.desired = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the driver panicked");
        }
    }
}

impl Drop for Us {
    fn drop(&mut self) {
        self.stop();
    }
}
