//! Everything together, and what must hold after each write.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_controller_core::decide::{Decision, Policy};
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::view::{ServiceId, ServiceView};
use patina_controller_core::writes::{End, Patch};
use patina_crds::config::Config;

use crate::Dice;
use crate::common::{config, pool};
use crate::process::{Did, Process};
use crate::server::{Answer, Object, Server};
use crate::user;

/// What may happen in a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Users write addresses, annotations and conditions into statuses.
    pub(crate) status_edits: bool,
    /// The controllers do what they do; false to show what happens otherwise.
    pub(crate) fence: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { status_edits: false, fence: true }
    }
}

/// A request between a controller and the API server. It may arrive whatever becomes of its sender.
#[derive(Debug)]
struct Request {
    process: usize,
    term: u64,
    patch: Patch,
    /// Its sender has given it up.
    given_up: bool,
}

type Pair = (ServiceId, ServiceId, IpAddr);

pub(crate) struct World {
    dice: Dice,
    rules: Rules,
    base: Instant,
    millis: u64,
    created: i64,
    server: Server,
    processes: Vec<Process>,
    configs: Vec<Arc<Config>>,
    network: Vec<Request>,
    /// Addresses that users wrote into statuses, by uid: the controller may not have seen them yet.
    forged: BTreeSet<(String, IpAddr)>,
    /// Services (by uid) for which a user gave a cause to lose an address.
    touched: BTreeSet<String>,
    history: Vec<String>,
    pub(crate) late_arrivals: usize,
    pub(crate) handovers: usize,
    pub(crate) fenced: usize,
    pub(crate) edits_put_right: usize,
}

fn configurations() -> [Arc<Config>; 2] {
    let small = config([pool("a", &["10.0.0.0-10.0.0.3", "fd00::-fd00::1"]), pool("b", &["10.0.0.4/31"])]);
    let moved = config([pool("a", &["10.0.0.2-10.0.0.5", "fd00::-fd00::1"])]);
    [Arc::new(small), Arc::new(moved)]
}

impl World {
    pub(crate) fn new(seed: u64, rules: Rules) -> Self {
        let [first, _] = configurations();
        #[expect(
            clippy::disallowed_methods,
            reason = "a first instant has to come from somewhere; time is the model's"
        )]
        let base = Instant::now();
        Self {
            dice: Dice(seed),
            rules,
            base,
            millis: 0,
            created: 0,
            server: Server::default(),
            processes: vec![Process::new(), Process::new()],
            configs: vec![first],
            network: Vec::new(),
            forged: BTreeSet::new(),
            touched: BTreeSet::new(),
            history: Vec::new(),
            late_arrivals: 0,
            handovers: 0,
            fenced: 0,
            edits_put_right: 0,
        }
    }

    pub(crate) fn history(self) -> Vec<String> {
        self.history
    }

    pub(crate) fn step(&mut self) {
        let which = self.dice.below(2);
        match self.dice.below(100) {
            0..15 => self.user(),
            15..17 => self.reconfigure(),
            17..28 => {
                let long = if self.dice.one_in(12) { 20_000 } else { 900 };
                self.millis += 1 + self.dice.below(long) as u64;
            }
            28..31 => {
                let process = &mut self.processes[which];
                process.stopped = !process.stopped;
                let stopped = process.stopped;
                self.note(format!("{which} {}", if stopped { "is stopped" } else { "goes on" }));
            }
            31 => self.crash(which),
            32 => self.shut_down(which),
            // Decision 12, (b): without a Service that tells of an earlier leader nobody waits for it. That is not modelled.
            33 if self.dice.one_in(4) && self.tells_of_a_leader() => {
                self.server.lease = None;
                self.note("somebody deletes the Lease".to_owned());
            }
            34..66 => self.arrive(),
            66..76 => self.elect(which),
            _ => self.work(which),
        }
    }

    fn tells_of_a_leader(&self) -> bool {
        self.server.objects.values().any(|object| !object.observed.ours.is_empty())
    }

    /// Nothing more happens from outside; everything that is under way arrives.
    pub(crate) fn settle(&mut self) {
        self.note("--- nothing more from outside".to_owned());
        self.rules.status_edits = false;
        for process in &mut self.processes {
            process.stopped = false;
        }
        for _ in 0..400 {
            for which in 0..2 {
                self.elect(which);
                self.catch_up(which);
                self.work_calmly(which);
            }
            while !self.network.is_empty() {
                self.deliver(0, Fate::Well);
            }
            self.millis += 700;
        }
        let leaders: Vec<usize> = (0..2).filter(|n| self.processes[*n].leads(self.millis)).collect();
        assert_eq!(leaders.len(), 1, "one leads");
        assert_eq!(self.duplicates(), BTreeSet::new(), "a duplicate is left");
        // Somebody who reads it all anew would write nothing: everybody has what there is for him.
        let mut reconciler = Reconciler::new(Policy::default());
        for object in self.server.objects.values() {
            reconciler.service_changed(object.view.clone());
        }
        reconciler.config_changed(Arc::clone(self.configs.last().unwrap()));
        assert!(reconciler.start());
        for (id, outcome) in reconciler.reconcile() {
            let shown: Vec<IpAddr> = self.server.objects[&id].observed.addresses().collect();
            match outcome.decision {
                Decision::Keep { addresses, .. } => assert_eq!(addresses, shown, "{id}"),
                Decision::Wait(_) => assert_eq!(shown, [] as [IpAddr; 0], "{id}"),
                // Another type, and nothing on it says that it was ever ours.
                Decision::Ignore(_) => {}
                other => panic!("{id} shows {shown:?} and should have {other:?}"),
            }
        }
    }

    fn user(&mut self) {
        self.created += 1;
        let before = self.duplicates();
        let (id, what) = user::act(&mut self.dice, &mut self.server, self.created, self.rules.status_edits);
        self.note(format!("user: {what} {id}: {}", self.show(&id)));
        let new: Vec<Pair> = self.duplicates().difference(&before).cloned().collect();
        for pair in new {
            self.touched.extend([&pair.0, &pair.1].map(|id| self.uid(id)));
        }
        if let Some(object) = self.server.objects.get(&id)
            && what != "create"
        {
            let uid = object.view.uid.clone();
            if what == "write an address into the status" {
                self.forged.extend(object.observed.addresses().map(|ip| (uid.clone(), ip)));
            }
            self.touched.insert(uid);
        }
    }

    fn uid(&self, id: &ServiceId) -> String {
        self.server.objects[id].view.uid.clone()
    }

    fn reconfigure(&mut self) {
        let [first, second] = configurations();
        let now = self.configs.last().unwrap();
        let next = if **now == *first { second } else { first };
        self.configs.push(next);
        self.touch_all();
        self.note("another configuration".to_owned());
    }

    /// A configuration that somebody reads (or reads no more) is a cause for anybody.
    fn touch_all(&mut self) {
        self.touched.extend(self.server.objects.values().map(|object| object.view.uid.clone()));
    }

    /// The process dies and starts anew, under its name. What it sent may have left, or not.
    fn crash(&mut self, which: usize) {
        self.lose_some(which);
        let term = self.processes[which].term;
        self.processes[which] =
            Process { term: term + 1, configs_read: self.configs.len() - 1, ..Process::new() };
        self.touch_all();
        self.note(format!("{which} crashes and starts"));
    }

    /// SIGTERM: nothing new is sent, and the Lease is given back if nothing is under way.
    fn shut_down(&mut self, which: usize) {
        if self.processes[which].stopped || !self.processes[which].leads(self.millis) {
            return;
        }
        let term = self.processes[which].term;
        let ours = |request: &Request| (request.process, request.term) == (which, term);
        if !self.dice.one_in(3) {
            while let Some(index) = self.network.iter().position(ours) {
                self.deliver(index, Fate::Well);
            }
        }
        let drained = !self.network.iter().any(ours);
        if let Some(lease) = self.server.lease.as_mut().filter(|lease| drained && lease.holder == Some(which))
        {
            lease.holder = None;
        }
        self.processes[which] =
            Process { term: term + 1, configs_read: self.configs.len() - 1, ..Process::new() };
        self.touch_all();
        self.note(format!("{which} ends, drained: {drained}"));
    }

    fn elect(&mut self, which: usize) {
        let (now, process) = (self.millis, &mut self.processes[which]);
        if process.stopped {
            return;
        }
        if process.leading.is_some() {
            process.renew(which, now, &mut self.server);
            if process.leading.is_none() {
                self.lose_some(which);
                self.note(format!("{which} stands down"));
            }
        } else if process.try_acquire(which, now, &mut self.server) {
            self.handovers += 1;
            self.note(format!("{which} leads"));
        }
    }

    /// A term ended: each request of it may have left the process, or not.
    fn lose_some(&mut self, which: usize) {
        let dice = &mut self.dice;
        self.network.retain(|request| request.process != which || dice.one_in(2));
    }

    fn work(&mut self, which: usize) {
        if self.processes[which].stopped {
            return;
        }
        match self.dice.below(3) {
            0 => {
                let process = &mut self.processes[which];
                if process.configs_read + 1 < self.configs.len() {
                    process.configs_read += 1;
                    self.touch_all();
                }
            }
            1 => {
                let count = 1 + self.dice.below(4);
                let now = self.now();
                if let Some(leading) = &mut self.processes[which].leading {
                    leading.read(now, &self.server, count);
                }
            }
            _ => {}
        }
        self.work_calmly(which);
    }

    fn catch_up(&mut self, which: usize) {
        let (now, last) = (self.now(), self.configs.len() - 1);
        self.processes[which].configs_read = last;
        if let Some(leading) = &mut self.processes[which].leading {
            leading.read(now, &self.server, usize::MAX / 2);
        }
    }

    /// One round of the process's loop. Whether it leads is asked before; what it sends leaves when it leaves.
    fn work_calmly(&mut self, which: usize) {
        let (now, millis) = (self.now(), self.millis);
        let process = &mut self.processes[which];
        if process.stopped || !process.leads(millis) {
            return;
        }
        let (term, read) = (process.term, process.configs_read);
        let Some(leading) = &mut process.leading else { return };
        for did in leading.work(millis, now, &self.configs, read, self.rules.fence) {
            match did {
                Did::Sent(patch) => {
                    self.note(format!(
                        "{which} sends {} {}: {:?}",
                        patch.id, patch.resource_version, patch.change.addresses
                    ));
                    self.network.push(Request { process: which, term, patch, given_up: false });
                }
                Did::Edited(id) => {
                    self.edits_put_right += 1;
                    self.note(format!("{which} tells that {id} was edited"));
                }
                Did::Fenced(count) => {
                    self.fenced += count;
                    self.note(format!("{which} fences {count}"));
                }
            }
        }
    }

    /// A request arrives: any one, whenever.
    fn arrive(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let index = self.dice.below(self.network.len());
        let fate = match self.dice.below(20) {
            0 => Fate::Busy,
            1 => Fate::Refused,
            2 => Fate::AnswerLost,
            3 => Fate::Lost,
            4 => Fate::Slow,
            _ => Fate::Well,
        };
        self.deliver(index, fate);
    }

    fn deliver(&mut self, index: usize, fate: Fate) {
        let Request { process, term, patch, given_up } = self.network.remove(index);
        let late = self.processes[process].term != term || !self.processes[process].leads(self.millis);
        let answer = match fate {
            Fate::Slow => {
                self.network.push(Request { process, term, patch: patch.clone(), given_up: true });
                Some(End::Failed("no answer in time".to_owned()))
            }
            Fate::Busy => Some(End::Busy(None)),
            // A webhook that cannot be reached, say.
            Fate::Refused => Some(End::Failed("500".to_owned())),
            Fate::Lost => Some(End::Unreachable("reset".to_owned())),
            Fate::Well | Fate::AnswerLost => {
                let before = (self.duplicates(), self.server.objects.get(&patch.id).cloned());
                let answer = self.server.patch(&patch);
                let written = matches!(answer, Answer::Done(_));
                self.note(format!(
                    "{}{} of {process} {}: {}",
                    if late { "LATE " } else { "" },
                    patch.id,
                    if written { "is written" } else { "meets another version" },
                    self.show(&patch.id)
                ));
                self.late_arrivals += usize::from(late);
                if written {
                    self.check(&patch, before.0, before.1.as_ref(), late);
                    if self.processes[process].configs_read + 1 < self.configs.len() {
                        // Given under a configuration that is over: it may be taken back for that.
                        self.touched.insert(patch.uid.clone());
                    }
                }
                match (fate, answer) {
                    (Fate::AnswerLost, _) => Some(End::Failed("no answer".to_owned())),
                    (_, Answer::Done(observed)) => Some(End::Done(observed)),
                    (_, Answer::Conflict) => Some(End::Conflict),
                    (_, Answer::Gone) => Some(End::Gone),
                }
            }
        };
        let sender = &mut self.processes[process];
        if let (Some(end), Some(leading)) =
            (answer, sender.leading.as_mut().filter(|_| sender.term == term && !given_up))
        {
            leading.answers.push_back((patch.attempt, patch.id, end));
        }
    }

    /// What a write of a controller must never do.
    fn check(&mut self, patch: &Patch, before: BTreeSet<Pair>, old: Option<&Object>, late: bool) {
        let after = self.duplicates();
        let other = |pair: &Pair| if pair.0 == patch.id { self.uid(&pair.1) } else { self.uid(&pair.0) };
        let new: Vec<&Pair> =
            after.difference(&before).filter(|pair| !self.forged.contains(&(other(pair), pair.2))).collect();
        assert!(new.is_empty(), "an address is shown twice: {new:?}");
        // Who came to share an address with a forged one may be the one to lose it.
        let pairs: Vec<Pair> = after.difference(&before).cloned().collect();
        for pair in pairs {
            self.touched.extend([&pair.0, &pair.1].map(|id| self.uid(id)));
        }
        let (Some(old), Some(now)) = (old, self.server.objects.get(&patch.id)) else { return };
        let lost: Vec<IpAddr> = old.observed.addresses().filter(|ip| !now.view.held.contains(ip)).collect();
        if !lost.is_empty() && !self.touched.contains(&patch.uid) {
            panic!("{} lost {lost:?} without a cause (late: {late})", patch.id);
        }
    }

    /// Pairs that show one address and may not.
    fn duplicates(&self) -> BTreeSet<Pair> {
        let mut by_address: BTreeMap<IpAddr, Vec<&ServiceView>> = BTreeMap::new();
        for object in self.server.objects.values().filter(|o| o.view.is_load_balancer || o.view.marked) {
            for ip in object.observed.addresses() {
                by_address.entry(ip).or_default().push(&object.view);
            }
        }
        let mut pairs = BTreeSet::new();
        for (ip, views) in by_address {
            for (n, a) in views.iter().enumerate() {
                for b in views.iter().skip(n + 1).filter(|b| !may_share(a, b)) {
                    pairs.insert((a.id.clone(), b.id.clone(), ip));
                }
            }
        }
        pairs
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_millis(self.millis)
    }

    fn show(&self, id: &ServiceId) -> String {
        self.server.objects.get(id).map_or_else(
            || "gone".to_owned(),
            |object| {
                let view = &object.view;
                format!(
                    "version {} lb {} {:?} {:?} shows {:?}",
                    object.observed.resource_version,
                    view.is_load_balancer,
                    view.family_policy,
                    view.annotations,
                    view.held
                )
            },
        )
    }

    fn note(&mut self, text: String) {
        self.history.push(format!("{:>7} {text}", self.millis));
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    Busy,
    Refused,
    /// Written, and nobody hears of it.
    AnswerLost,
    /// Not written, and nobody hears of it.
    Lost,
    /// The sender waits no longer; it arrives later.
    Slow,
}

fn may_share(a: &ServiceView, b: &ServiceView) -> bool {
    let key = |view: &ServiceView| view.annotations.get("metallb.io/allow-shared-ip").cloned();
    key(a).is_some() && key(a) == key(b) && a.ports.is_disjoint(&b.ports)
}
