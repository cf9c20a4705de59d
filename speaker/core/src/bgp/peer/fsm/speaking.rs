//! What goes out, one message at a time, as the socket has room.

use std::time::Instant;

use patina_crds::net::Family;

use super::heard::message_type;
use super::{Connection, Fsm};
use crate::bgp::message::{Message, Update};
use crate::bgp::peer::dress::Dressing;
use crate::bgp::peer::{Direction, Event, Link, State};

/// RFC 7313 section 3.2.
const BEGIN_OF_REFRESH: u8 = 1;
const END_OF_REFRESH: u8 = 2;

impl Fsm {
    /// The next message for this link; `None`: nothing for now. KEEPALIVE and NOTIFICATION come before any route.
    pub fn poll_message(&mut self, now: Instant, link: Link) -> Option<Message> {
        let message = match self.links.get_mut(&link) {
            None => self.poll_farewell(link)?,
            Some(connection) => match connection.control.pop_front() {
                Some(message) => message,
                None => self.poll_route(link)?,
            },
        };
        self.event(Event::Counted(Direction::Out, message_type(&message)));
        if let Some(connection) = self.links.get_mut(&link) {
            connection.start_send_hold(now);
            // "Each time the local system sends a KEEPALIVE or UPDATE message, it restarts its KeepaliveTimer."
            if matches!(message, Message::Keepalive | Message::Update(_)) {
                connection.restart_keepalive(now, &mut self.jitter);
            }
        }
        Some(message)
    }

    /// A family that the peer asked for is sent again, once the routes of before are all out (RFC 7313 section 4: "MUST NOT send a
    /// BoRR ... before" the End-of-RIB).
    pub(super) fn refresh(&mut self, link: Link) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        let busy =
            |family: &Family| connection.initial.contains(family) || connection.refreshing.contains(family);
        let ready: Vec<Family> = connection.asked.iter().copied().filter(|family| !busy(family)).collect();
        for family in ready {
            connection.asked.remove(&family);
            connection.refreshing.insert(family);
            connection.frame_refresh(family, BEGIN_OF_REFRESH);
            self.rib.refresh(family);
        }
    }

    pub(super) fn missing_next_hops(&mut self, link: Link) {
        let Some(connection) = self.links.get(&link) else { return };
        let Some(dressing) = Dressing::new(&self.settings, connection.agreed.as_ref(), self.draining) else {
            return;
        };
        for family in dressing.families_without_next_hop() {
            self.event(Event::NoNextHop(family));
        }
    }

    /// The codec could not write what [`Fsm::poll_message`] gave.
    pub fn unsendable(&mut self, why: String) {
        self.event(Event::Unsendable(why));
    }

    fn poll_farewell(&mut self, link: Link) -> Option<Message> {
        let at = self.farewells.iter().position(|(known, _)| *known == link)?;
        let (_, messages) = self.farewells.get_mut(at)?;
        let message = messages.pop_front();
        if messages.is_empty() {
            self.farewells.remove(at);
        }
        message
    }

    fn poll_route(&mut self, link: Link) -> Option<Message> {
        let connection = self.links.get_mut(&link).filter(|known| known.state == State::Established)?;
        let dressing = Dressing::new(&self.settings, connection.agreed.as_ref(), self.draining)?;
        let update = self.rib.next(&dressing);
        while let Some(family) = self.rib.poll_refreshed() {
            connection.refreshing.remove(&family);
            connection.frame_refresh(family, END_OF_REFRESH);
        }
        if let Some(Update::EndOfRib(family)) = update
            && connection.initial.remove(&family)
        {
            // The peer knows everything that it could know from our earlier life.
            if connection.initial.is_empty() {
                self.restarted = false;
            }
            self.event(Event::InitialDone(family));
        }
        self.refresh(link);
        match update {
            Some(update) => Some(Message::Update(update)),
            None => self.links.get_mut(&link)?.control.pop_front(),
        }
    }
}

impl Connection {
    /// RFC 7313, where both can.
    fn frame_refresh(&mut self, family: Family, subtype: u8) {
        let enhanced = |agreed: &super::connection::Agreed| agreed.with.theirs.enhanced_route_refresh;
        if self.agreed.as_ref().is_some_and(enhanced) {
            self.control.push_back(Message::RouteRefresh { family: Some(family), subtype });
        }
    }
}
