//! One controller: what the shell does, with every step on its own, so that anything can come in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_controller_core::decide::{Decision, Outcome, Policy};
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::view::ServiceId;
use patina_controller_core::writes::{Condition, Desired, End, Input, Output, Patch, Writes};
use patina_crds::config::Config;
use patina_crds::keys;

use crate::server::{Lease, Server};

pub(crate) const LEASE: u64 = 15_000;
const RENEW_DEADLINE: u64 = 10_000;
/// As long as it takes: what is left out after the controller's 30 s is the hole that decisions/0012 names.
const FENCE: Duration = Duration::from_secs(36_000);
const WINDOW: usize = 3;

/// A process. It may be stopped: then nothing of it runs, and its clock goes on.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) stopped: bool,
    /// Grows with each term: answers of former ones reach nobody.
    pub(crate) term: u64,
    pub(crate) leading: Option<Box<Leading>>,
    /// By config: how much of the log of configurations it has read.
    pub(crate) configs_read: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Released,
    Absent,
    Unfinished,
}

#[derive(Debug)]
pub(crate) struct Leading {
    until: u64,
    before: Before,
    name: String,
    /// Where in the server's log the watch is; `None`: not listed yet.
    pub(crate) cursor: Option<usize>,
    fence: Fence,
    pub(crate) started: bool,
    marked: bool,
    /// The Lease was deleted: everything anew, but not before then.
    again_at: Option<u64>,
    pub(crate) reconciler: Reconciler,
    pub(crate) writes: Writes,
    /// Ends of requests that this process has not read yet.
    pub(crate) answers: VecDeque<(u64, ServiceId, End)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    NotYet,
    Raised,
    Stands,
}

/// What a process did.
#[derive(Debug)]
pub(crate) enum Did {
    Sent(Patch),
    Edited(ServiceId),
    Fenced(usize),
}

impl Process {
    pub(crate) fn new() -> Self {
        Self { stopped: false, term: 0, leading: None, configs_read: 0 }
    }

    pub(crate) fn leads(&self, now: u64) -> bool {
        self.leading.as_ref().is_some_and(|leading| now < leading.until)
    }

    /// Takes the Lease if it may. True when it did.
    pub(crate) fn try_acquire(&mut self, me: usize, now: u64, server: &mut Server) -> bool {
        let before = match &server.lease {
            None => Before::Absent,
            Some(Lease { holder: None, .. }) => Before::Released,
            Some(Lease { holder: Some(holder), .. }) if *holder == me => Before::Unfinished,
            Some(lease) if now >= lease.renewed + LEASE => Before::Unfinished,
            Some(_) => return false,
        };
        let transitions = server.lease.as_ref().map_or(0, |lease| lease.transitions + 1);
        server.lease = Some(Lease { holder: Some(me), renewed: now, transitions });
        self.term += 1;
        self.leading = Some(Box::new(Leading::new(before, now, format!("term {transitions} of {me}"))));
        true
    }

    /// Renews when it still holds the Lease; gives up otherwise.
    pub(crate) fn renew(&mut self, me: usize, now: u64, server: &mut Server) {
        let Some(leading) = &mut self.leading else { return };
        match &mut server.lease {
            Some(lease) if lease.holder == Some(me) && now < leading.until => {
                lease.renewed = now;
                leading.until = now + RENEW_DEADLINE;
            }
            _ => self.leading = None,
        }
    }
}

impl Leading {
    fn new(before: Before, now: u64, name: String) -> Self {
        Self {
            until: now + RENEW_DEADLINE,
            before,
            name,
            cursor: None,
            fence: Fence::NotYet,
            started: false,
            marked: false,
            again_at: None,
            reconciler: Reconciler::new(Policy::default()),
            writes: Writes::new(WINDOW),
            answers: VecDeque::new(),
        }
    }

    /// The list, or the next `count` events.
    pub(crate) fn read(&mut self, now: Instant, server: &Server, count: usize) {
        let Some(cursor) = self.cursor else {
            for object in server.objects.values() {
                self.marked |= !object.observed.ours.is_empty();
                self.see(now, &object.view.id, Some(object));
            }
            self.cursor = Some(server.log.len());
            return;
        };
        for (id, object) in server.log.iter().skip(cursor).take(count) {
            self.see(now, id, object.as_ref());
        }
        self.cursor = Some((cursor + count).min(server.log.len()));
    }

    fn see(&mut self, now: Instant, id: &ServiceId, object: Option<&crate::server::Object>) {
        match object {
            Some(object) => {
                self.writes.handle(now, Input::Seen(id.clone(), object.observed.clone()));
                self.reconciler.service_changed(object.view.clone());
            }
            None => {
                self.reconciler.service_deleted(id);
                self.writes.handle(now, Input::Gone(id.clone()));
            }
        }
    }

    /// As `control/term.rs` works: start when everything is there, decide, and hand out what is to be done.
    pub(crate) fn work(
        &mut self,
        millis: u64,
        now: Instant,
        configs: &[Arc<Config>],
        read: usize,
        with_fence: bool,
    ) -> Vec<Did> {
        let mut did = Vec::new();
        if let Some(at) = self.again_at {
            if millis >= at {
                let until = self.until;
                *self = Self { until, ..Self::new(Before::Unfinished, millis, self.name.clone()) };
            }
            return did;
        }
        self.writes.handle_timeout(now);
        while let Some((attempt, id, end)) = self.answers.pop_front() {
            self.writes.handle(now, Input::Ended { attempt, id, end });
        }
        if !self.started && self.cursor.is_some() {
            if self.fence == Fence::NotYet {
                match self.before {
                    Before::Absent if self.marked && with_fence => {
                        self.again_at = Some(millis + LEASE);
                        return did;
                    }
                    Before::Unfinished if with_fence => {
                        let services = self.writes.may_gain(|id| {
                            self.reconciler.service(id).is_some_and(|view| view.is_load_balancer)
                        });
                        did.push(Did::Fenced(services.len()));
                        let (term, until) = (self.name.clone(), now + FENCE);
                        self.writes.handle(now, Input::Fence { term, services, until });
                        self.fence = Fence::Raised;
                    }
                    _ => self.fence = Fence::Stands,
                }
            }
            if self.fence == Fence::Stands {
                self.reconciler.config_changed(Arc::clone(&configs[read]));
                self.started = self.reconciler.start();
            }
        }
        if self.started {
            self.reconciler.config_changed(Arc::clone(&configs[read]));
            for (id, outcome) in self.reconciler.reconcile() {
                self.writes.handle(now, Input::Want(id, desired(&outcome)));
            }
        }
        while let Some(output) = self.writes.poll_output() {
            match output {
                Output::Patch(patch) => did.push(Did::Sent(patch)),
                Output::Settled(_) => {}
                Output::Edited { id, .. } => did.push(Did::Edited(id)),
                Output::Fenced { left } => {
                    assert!(left.is_empty(), "the model has no Service that cannot be fenced in time");
                    self.fence = Fence::Stands;
                }
            }
        }
        did
    }
}

fn desired(outcome: &Outcome) -> Option<Desired> {
    let condition = |status, reason, message: String| {
        vec![Condition { type_: keys::CONDITION_ALLOCATED, status, reason, message }]
    };
    match &outcome.decision {
        Decision::Assign { addresses, pool } | Decision::Keep { addresses, pool } => Some(Desired {
            addresses: addresses.clone(),
            pool: Some(pool.clone()),
            conditions: condition(true, "Allocated", format!("{addresses:?} from {pool}")),
        }),
        Decision::Wait(reason) => Some(Desired {
            conditions: condition(false, reason.word(), reason.to_string()),
            ..Desired::default()
        }),
        Decision::Release => Some(Desired::default()),
        Decision::Ignore(_) => None,
    }
}
