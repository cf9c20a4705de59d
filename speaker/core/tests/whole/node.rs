//! One speaker: its machines, and what the shell does between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::net::Family;
use patina_speaker_core::intent::intent;
use patina_speaker_core::l2::announcer::{self, Announcer};
use patina_speaker_core::l2::duty::{Duties, Mode};
use patina_speaker_core::l2::ownership::{self, Ownership};
use patina_speaker_core::l2::responder::Responder;
use patina_speaker_core::l2::wire::{BROADCAST, Mac};
use patina_speaker_core::membership::{self, Membership};
use patina_speaker_core::view::{InterfaceView, Member, MemberInterface, Members, Options, Snapshot};

use super::api::Api;
use super::ideal::Ideal;

pub(crate) const INTERFACE: u32 = 2;
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Dead,
    Running,
    /// SIGSTOP.
    Stopped {
        since: Instant,
    },
}

pub(crate) enum Liveness {
    Ideal(Ideal),
    Real(Box<Membership>),
}

pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) mac: Mac,
    /// Another number for each start.
    pub(crate) epoch: u64,
    pub(crate) process: Process,
    /// What its kernel says of its link, and what is true.
    pub(crate) carrier: bool,
    pub(crate) link: bool,
    pub(crate) isolated: bool,
    pub(crate) api: Option<Arc<Api>>,
    pub(crate) decided: bool,
    pub(crate) leaving: bool,
    /// A decision is due.
    pub(crate) deciding: bool,
    /// The lease as the wire has it, how often the fence was opened, and as of which opening the duties are.
    lease: Option<Instant>,
    pub(crate) openings: u64,
    pub(crate) opening: u64,
    /// Its kernel asks for the hardware addresses of the others: until then no datagram of its own leaves it.
    pub(crate) mute_until: Option<Instant>,
    pub(crate) liveness: Liveness,
    pub(crate) stations: Arc<BTreeMap<Mac, Arc<str>>>,
    /// Speakers that it takes to be dead, and did not hear leave.
    pub(crate) missed: BTreeSet<String>,
    pub(crate) ownership: Ownership,
    pub(crate) announcer: Announcer,
    pub(crate) responder: Responder,
    pub(crate) duties: Arc<Duties>,
    /// Multicast addresses that its interface lets through.
    pub(crate) listens: BTreeSet<Mac>,
}

impl Node {
    pub(crate) fn new(index: usize, name: &str) -> Self {
        let n = u8::try_from(index).unwrap();
        Self {
            index,
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 0, n + 1],
            epoch: 0,
            process: Process::Dead,
            carrier: true,
            link: true,
            isolated: false,
            api: None,
            decided: false,
            leaving: false,
            deciding: false,
            lease: None,
            openings: 0,
            opening: 0,
            mute_until: None,
            liveness: Liveness::Ideal(Ideal::default()),
            missed: BTreeSet::new(),
            stations: Arc::default(),
            ownership: Ownership::new(name, ownership::Settings::default()),
            announcer: Announcer::new(announcer::Settings::default()),
            responder: Responder::default(),
            duties: Arc::default(),
            listens: BTreeSet::new(),
        }
    }

    /// A new process on the same machine.
    pub(crate) fn start(&mut self, now: Instant, epoch: u64, liveness: Liveness) {
        let (carrier, link) = (self.carrier, self.link);
        *self = Self {
            epoch,
            carrier,
            link,
            process: Process::Running,
            liveness,
            ..Self::new(self.index, &self.name)
        };
        self.responder.set_own([self.mac].into());
        self.ownership.handle(now, ownership::Input::Stations(Arc::default()));
        for family in [Family::V4, Family::V6] {
            let interface = announcer::Input::Interface { index: INTERFACE, family, mac: self.mac };
            self.announcer.handle(now, interface);
        }
    }

    pub(crate) fn running(&self) -> bool {
        self.process == Process::Running
    }

    pub(crate) fn joined(&self) -> bool {
        match &self.liveness {
            Liveness::Ideal(ideal) => ideal.joined,
            Liveness::Real(membership) => membership.state().joined,
        }
    }

    /// Whether the fence is open.
    pub(crate) fn permits(&self, now: Instant) -> bool {
        match &self.liveness {
            Liveness::Ideal(ideal) => ideal.joined && !ideal.fenced,
            Liveness::Real(membership) => membership.answer_until().is_some_and(|until| now < until),
        }
    }

    /// Tells the wire the lease, as the membership's driver does. Whether the fence was opened by that.
    pub(crate) fn prolong(&mut self, now: Instant) -> bool {
        let Liveness::Real(membership) = &self.liveness else { return false };
        let until = membership.answer_until();
        let before = std::mem::replace(&mut self.lease, until);
        let opens = until.is_some_and(|until| now < until) && before.is_none_or(|before| before <= now);
        self.openings += u64::from(opens);
        opens
    }

    /// Whether a frame that it sends now leaves the node: what is older than the last opening of the fence does not.
    pub(crate) fn able(&self, now: Instant) -> bool {
        self.running() && self.carrier && self.permits(now) && self.opening == self.openings
    }

    /// Whoever decides has heard that the fence was opened.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.opening = self.openings;
        self.ownership.handle(now, ownership::Input::Woken);
    }

    pub(crate) fn missed(&mut self, now: Instant) {
        let missed = self.missed.iter().map(|node| node.as_str().into()).collect();
        self.ownership.handle(now, ownership::Input::Missed(missed));
    }

    pub(crate) fn mode(&self, ip: IpAddr) -> Option<Mode> {
        self.duties.get(&ip).map(|duty| duty.mode)
    }

    pub(crate) fn accepts(&self, destination: Mac) -> bool {
        [BROADCAST, ALL_NODES, self.mac].contains(&destination) || self.listens.contains(&destination)
    }

    /// What it tells the others of itself.
    pub(crate) fn says(&self) -> Member {
        let interface = MemberInterface {
            name: "eth0".to_owned(),
            mac: self.mac,
            up: self.carrier,
            arp: true,
            ndp: true,
            isolated: self.isolated,
            subnets: [("192.0.2.0".parse().unwrap(), 24), ("2001:db8::".parse().unwrap(), 64)].into(),
            ..MemberInterface::default()
        };
        Member {
            version: "1".to_owned(),
            starting: !self.decided,
            draining: self.leaving,
            interfaces: Some(vec![interface]),
        }
    }

    pub(crate) fn members(&self) -> Members {
        let mut members = match &self.liveness {
            Liveness::Ideal(ideal) => ideal.members.clone(),
            Liveness::Real(membership) => (*membership.state().members).clone(),
        };
        // Who decides is not starting any more.
        members.insert(self.name.clone(), Member { starting: false, ..self.says() });
        members
    }

    /// What the shell does after each snapshot. Whether it was the first.
    pub(crate) fn decide(&mut self, now: Instant) -> bool {
        let Some(api) = self.api.clone().filter(|_| self.joined()) else { return false };
        let n = u8::try_from(self.index).unwrap();
        let interface = InterfaceView {
            name: "eth0".to_owned(),
            index: INTERFACE,
            mac: self.mac,
            up: self.carrier,
            arp: true,
            ndp: true,
            addresses: [
                (IpAddr::from([192, 0, 2, 200 + n]), 24),
                (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, n.into()]), 64),
            ]
            .into(),
            ..InterfaceView::default()
        };
        let intent = intent(&Snapshot {
            node: &self.name,
            config: &api.config,
            services: &api.services,
            nodes: &api.nodes,
            members: &self.members(),
            interfaces: &[interface],
            options: &Options::default(),
        });
        self.learn_stations(now);
        self.ownership.handle(now, ownership::Input::Decided(intent.l2));
        !std::mem::replace(&mut self.decided, true)
    }

    pub(crate) fn learn_stations(&mut self, now: Instant) {
        let stations = match &self.liveness {
            Liveness::Ideal(ideal) if ideal.stations == *self.stations => return,
            Liveness::Ideal(ideal) => Arc::new(ideal.stations.clone()),
            Liveness::Real(membership) => membership.state().stations,
        };
        if stations != self.stations {
            self.stations = Arc::clone(&stations);
            self.ownership.handle(now, ownership::Input::Stations(stations));
        }
    }

    /// Hands new duties on. Whether there were any.
    pub(crate) fn take_duties(&mut self, now: Instant) -> bool {
        let duties = self.ownership.duties();
        if Arc::ptr_eq(&duties, &self.duties) {
            return false;
        }
        self.duties = Arc::clone(&duties);
        self.responder.set(Arc::clone(&duties));
        self.announcer.handle(now, announcer::Input::Duties(duties));
        true
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let membership = match &self.liveness {
            Liveness::Ideal(_) => None,
            Liveness::Real(membership) => membership.poll_timeout(),
        };
        [membership, self.ownership.poll_timeout(), self.announcer.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Liveness::Real(membership) = &mut self.liveness
            && membership.poll_timeout().is_some_and(|at| at <= now)
        {
            membership.handle_timeout(now);
        }
        if self.ownership.poll_timeout().is_some_and(|at| at <= now) {
            self.ownership.handle_timeout(now);
        }
        self.announcer.handle_timeout(now);
    }
}

/// Where a speaker's membership receives.
pub(crate) fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(index).unwrap() + 1], 7946))
}

pub(crate) fn membership(now: Instant, index: usize, name: &str, epoch: u64, seed: u64) -> Membership {
    let settings = membership::Settings {
        node: name.to_owned(),
        addresses: vec![address(index)],
        heartbeat: Duration::from_millis(50),
        detect: Duration::from_millis(250),
        watchers: 3,
        quorum: false,
        incarnation: epoch,
        seed,
    };
    Membership::new(now, settings)
}
