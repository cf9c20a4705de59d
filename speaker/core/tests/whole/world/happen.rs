//! What happens in the world, one thing after the other.

use super::*;

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        let (node, epoch) = match &event {
            Event::Frame { to: None, frame, .. } => return self.learn(frame),
            Event::Truth { viewer, .. } => (*viewer, self.nodes[*viewer].epoch),
            Event::Frame { to: Some(node), epoch, .. }
            | Event::Message { to: node, epoch, .. }
            | Event::Api { node, epoch, .. }
            | Event::Decide { node, epoch }
            | Event::Join { node, epoch }
            | Event::LetIn { node, epoch, .. }
            | Event::Pinged { node, epoch }
            | Event::Opened { node, epoch }
            | Event::Wake { node, epoch }
            | Event::Exit { node, epoch, .. } => (*node, *epoch),
        };
        match self.nodes[node].process {
            _ if epoch != self.nodes[node].epoch => return,
            Process::Dead => return,
            Process::Stopped { since } if matches!(event, Event::Wake { .. }) => {
                return self.wake(node, since);
            }
            Process::Stopped { .. } => {
                // It finds it in its socket when it wakes.
                let waiting = self.events.values().filter(|event| matches!(event, Event::Frame { to: Some(to), .. } | Event::Message { to, .. } if *to == node)).count();
                if waiting < BUFFER || !matches!(event, Event::Frame { .. } | Event::Message { .. }) {
                    let wakes = self.events.iter().find(
                        |(_, event)| matches!(event, Event::Wake { node: wakes, .. } if *wakes == node),
                    );
                    let wakes =
                        wakes.map_or(Duration::ZERO, |((at, _), _)| at.saturating_duration_since(self.now));
                    self.at(wakes, event);
                }
                return;
            }
            Process::Running => {}
        }
        match event {
            Event::Frame { frame, .. } => {
                if !self.linked(node) {
                    return;
                }
                let (responder, mac) = (&self.nodes[node].responder, self.nodes[node].mac);
                match responder.handle(&frame, INTERFACE, mac) {
                    Ok(reply) if self.nodes[node].able(self.now) => self.send(Some(node), &reply.frame),
                    Err(Dropped::Claimed(claim)) => {
                        self.nodes[node].ownership.handle(self.now, ownership::Input::Heard(claim));
                        self.follow(node);
                    }
                    _ => {}
                }
            }
            Event::Message { from, message, .. } => {
                if let Liveness::Real(membership) = &mut self.nodes[node].liveness {
                    membership.handle(self.now, membership::Input::Received { from, message });
                }
                self.follow(node);
            }
            Event::Api { api, .. } => {
                let newer = self.nodes[node].api.as_ref().is_none_or(|known| known.version < api.version);
                if newer {
                    self.nodes[node].api = Some(api);
                    self.dirty(node);
                }
            }
            Event::Decide { .. } => self.decide(node),
            Event::Truth { about, .. } => self.learn_truth(node, about),
            Event::Join { .. } => {
                let Liveness::Ideal(ideal) = &mut self.nodes[node].liveness else { return };
                ideal.joined = true;
                for about in (0..self.nodes.len()).filter(|about| *about != node) {
                    self.learn_truth(node, about);
                }
                self.tell(node);
                self.dirty(node);
                self.changed = true;
            }
            Event::LetIn { patience, .. } => {
                let answered = (0..self.nodes.len()).any(|other| other != node && self.knows(node, other));
                let Liveness::Ideal(ideal) = &mut self.nodes[node].liveness else { return };
                if answered || patience == 0 {
                    ideal.fenced = false;
                    self.nodes[node].openings += 1;
                    self.opens(node);
                } else {
                    self.at(Duration::from_millis(50), Event::LetIn { node, epoch, patience: patience - 1 });
                }
            }
            Event::Pinged { .. } => {
                let others: Vec<usize> = (0..self.nodes.len())
                    .filter(|other| *other != node && self.nodes[*other].running())
                    .collect();
                let isolated = others.iter().any(|other| self.on_net(node, *other))
                    && !others.iter().any(|other| self.on_wire(node, *other));
                if std::mem::replace(&mut self.nodes[node].isolated, isolated) != isolated {
                    self.say(|| format!("node-{node} isolated {isolated}"));
                    self.tell(node);
                    self.dirty(node);
                    self.oracle.excuse(Some(self.now + DETECTION + HEARING), Some(self.now + DETECTION));
                }
            }
            Event::Opened { .. } => {
                self.nodes[node].opened(self.now);
                self.changed = true;
                self.follow(node);
            }
            Event::Wake { .. } => {}
            Event::Exit { patience, .. } => {
                if self.nodes[node].ownership.idle() || patience == 0 {
                    self.say(|| format!("node-{node} exits"));
                    self.kill(node);
                } else {
                    self.at(Duration::from_millis(10), Event::Exit { node, epoch, patience: patience - 1 });
                }
            }
        }
    }

    pub(super) fn wake(&mut self, n: usize, since: Instant) {
        let missed = self.now - since;
        self.say(|| format!("node-{n} wakes after {missed:?}"));
        self.nodes[n].process = Process::Running;
        let epoch = self.nodes[n].epoch;
        if let Liveness::Ideal(ideal) = &mut self.nodes[n].liveness
            && missed >= LEASE
        {
            ideal.fenced = true;
            let delay = self.random.millis(5, 60);
            self.at(delay, Event::LetIn { node: n, epoch, patience: 6 });
        }
        let now = self.now;
        self.oracle.excuse(Some(now + DETECTION + HEARING), Some(now + DETECTION));
        self.nodes[n].handle_timeout(now);
        self.follow(n);
        // What became of its link waits in a socket, too.
        self.dirty(n);
        self.moved();
    }

    /// The fence was opened: whoever decides hears of it a little later.
    fn opens(&mut self, n: usize) {
        self.say(|| format!("node-{n} is let in"));
        let epoch = self.nodes[n].epoch;
        let delay =
            if self.random.percent(90) { self.random.millis(0, 2) } else { self.random.millis(2, 30) };
        self.at(delay, Event::Opened { node: n, epoch });
    }

    pub(super) fn learn_truth(&mut self, viewer: usize, about: usize) {
        let truth = self.knows(viewer, about).then(|| self.nodes[about].says());
        let name = self.nodes[about].name.clone();
        let Liveness::Ideal(ideal) = &mut self.nodes[viewer].liveness else { return };
        if !ideal.joined {
            return;
        }
        // Who said that it goes is not missed.
        let was_there = ideal.members.get(&name).is_some_and(|member| !member.draining);
        if ideal.learn(&name, truth.as_ref()) {
            let node = &mut self.nodes[viewer];
            let (back, gone) = match truth {
                Some(_) => (node.missed.remove(&name), false),
                None => (false, was_there && node.missed.insert(name)),
            };
            if back || gone {
                node.missed(self.now);
            }
            if back {
                node.ownership.handle(self.now, ownership::Input::Rejoined);
            }
            self.nodes[viewer].learn_stations(self.now);
            self.follow(viewer);
            self.dirty(viewer);
        }
    }

    /// A decision follows.
    pub(crate) fn dirty(&mut self, n: usize) {
        if self.nodes[n].running() && !std::mem::replace(&mut self.nodes[n].deciding, true) {
            let (delay, epoch) = (self.random.millis(1, 20), self.nodes[n].epoch);
            self.at(delay, Event::Decide { node: n, epoch });
        }
    }

    pub(super) fn decide(&mut self, n: usize) {
        self.nodes[n].deciding = false;
        let first = self.nodes[n].decide(self.now);
        if first && self.nodes[n].decided {
            self.tell(n);
        }
        self.changed = true;
        self.follow(n);
    }

    /// Takes from all machines of a node what they have to say.
    pub(super) fn follow(&mut self, n: usize) {
        self.follow_membership(n);
        while let Some(output) = self.nodes[n].ownership.poll_output() {
            self.say(|| format!("node-{n} {output:?}"));
            match output {
                Output::Took(ip) => {
                    if let Some(wrong) = self.oracle.took(ip) {
                        self.fail(&wrong);
                    }
                }
                Output::Conflict { ip, .. } => {
                    self.conflicts.insert((n, ip));
                }
                Output::ConflictOver(ip) => {
                    self.conflicts.remove(&(n, ip));
                }
                Output::Hint(node) => self.hint(n, &node),
                Output::Gave(..) | Output::Defended(_) => {}
            }
        }
        if self.nodes[n].take_duties(self.now) {
            self.changed = true;
        }
        while let Some(output) = self.nodes[n].announcer.poll_output() {
            match output {
                announcer::Output::Join(group) => {
                    assert!(self.nodes[n].listens.insert(group.mac), "joined twice");
                }
                announcer::Output::Leave(group) => {
                    assert!(self.nodes[n].listens.remove(&group.mac), "not joined");
                }
                announcer::Output::Send { frame, .. } => {
                    if self.nodes[n].able(self.now) {
                        self.send(Some(n), &frame);
                    }
                }
            }
        }
    }

    pub(super) fn hint(&mut self, n: usize, node: &str) {
        let about = self.nodes.iter().position(|other| other.name == *node).unwrap();
        match &mut self.nodes[n].liveness {
            Liveness::Real(membership) => {
                membership.handle(self.now, membership::Input::Hint { node: node.to_owned() });
                self.follow_membership(n);
            }
            Liveness::Ideal(_) => {
                let delay = self.random.millis(1, 20);
                self.at(delay, Event::Truth { viewer: n, about });
            }
        }
    }

    pub(super) fn follow_membership(&mut self, n: usize) {
        let mut news = false;
        if self.nodes[n].prolong(self.now) {
            self.opens(n);
        }
        loop {
            let Liveness::Real(membership) = &mut self.nodes[n].liveness else { return };
            match membership.poll_output() {
                None => break,
                Some(membership::Output::Send { to, message }) => {
                    let to = (0..self.nodes.len()).find(|node| node::address(*node) == to);
                    let Some(to) = to.filter(|to| self.on_net(n, *to)) else { continue };
                    if !(self.lossy && self.random.percent(LOSS)) {
                        let held =
                            self.nodes[n].mute_until.map(|until| until.saturating_duration_since(self.now));
                        let delay = held.unwrap_or_default() + self.random.millis(0, 3);
                        let epoch = self.nodes[to].epoch;
                        let from = node::address(n);
                        self.at(delay, Event::Message { to, epoch, from, message });
                    }
                }
                Some(membership::Output::Event(event)) => {
                    self.say(|| format!("node-{n} {event:?}"));
                    if matches!(event, membership::Event::Answered { .. }) {
                        continue;
                    }
                    news = true;
                    // As the shell does (speaker/src/speaker/members.rs).
                    let node = &mut self.nodes[n];
                    match event {
                        membership::Event::Down { node: gone, cause } if cause != membership::Down::Left => {
                            node.missed.insert(gone);
                            node.missed(self.now);
                        }
                        membership::Event::Up { node: back } if node.missed.remove(&back) => {
                            node.missed(self.now);
                            node.ownership.handle(self.now, ownership::Input::Rejoined);
                        }
                        _ => {}
                    }
                    self.changed = true;
                }
            }
        }
        if news {
            self.nodes[n].learn_stations(self.now);
            self.dirty(n);
        }
    }

    // The wire.

    /// To every station whose interface lets it through, a little later.
    pub(super) fn send(&mut self, from: Option<usize>, frame: &[u8]) {
        if let Some(n) = from.filter(|n| self.linked(*n))
            && let Some((ip, answer)) = claimed(frame)
        {
            self.claims.push(Said { at: self.now, node: n, ip, answer });
        }
        let destination: Mac = frame[..6].try_into().unwrap();
        for to in std::iter::once(None).chain((0..self.nodes.len()).map(Some)).filter(|to| *to != from) {
            let reached = match (from, to) {
                (Some(a), Some(b)) => self.on_wire(a, b),
                (Some(a), None) | (None, Some(a)) => self.linked(a) && self.wire[a] == 0,
                (None, None) => false,
            };
            let (accepts, epoch) = match to {
                None => (destination == CLIENT || destination[0] & 1 == 1, 0),
                Some(node) => (self.nodes[node].accepts(destination), self.nodes[node].epoch),
            };
            let lost = self.lossy && self.random.percent(LOSS);
            if reached && accepts && !lost {
                let delay = self.random.millis(0, 2);
                self.at(delay, Event::Frame { to, epoch, frame: frame.to_vec() });
            }
        }
    }

    pub(super) fn learn(&mut self, frame: &[u8]) {
        let (ip, mac, answer) = match (Arp::parse(frame), Message::parse(frame)) {
            (Ok(arp), _) if arp.sender_ip.is_unspecified() => return,
            (Ok(arp), _) => (
                arp.sender_ip.into(),
                arp.sender_mac,
                arp.operation == Operation::Reply && !arp.is_announcement(),
            ),
            (_, Ok(Message::Advertisement(na))) => {
                (na.target.into(), na.target_link_layer.expect("a target link-layer option"), na.solicited)
            }
            (_, Ok(Message::Solicitation(_))) => return,
            other => panic!("{other:?}"),
        };
        self.cache.insert(ip, mac);
        if answer {
            self.answers.push((ip, mac));
        }
    }
}
