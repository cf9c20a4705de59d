//! What a message means in each state.

use std::time::Instant;

use patina_crds::net::Family;

use super::connection::{Agreed, Confirmed};
use super::timing::{BFD_HOLD, Damping};
use super::{Fsm, open};
use crate::bgp::message::{Message, Notification, Open, ReceivedUpdate};
use crate::bgp::peer::{Bfd, Direction, Event, Link, MessageType, Side, State, Why};

/// RFC 2918: "normal route refresh request".
const REFRESH_REQUEST: u8 = 0;

impl Fsm {
    pub(super) fn heard(&mut self, now: Instant, link: Link, message: Message) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        let state = connection.state;
        self.outputs.push_back(super::Output::Event(Event::Counted(Direction::In, message_type(&message))));
        match (state, message) {
            // Event 25, and 24: whatever was going on.
            (_, Message::Notification(told)) => self.end_received(now, link, told),
            (State::OpenSent, Message::Open(theirs)) => self.opened(now, link, theirs),
            (State::OpenConfirm, Message::Keepalive) => self.confirmed(now, link),
            // "Restarts its HoldTimer, if the negotiated HoldTime value is non-zero."
            (State::Established, Message::Keepalive) => connection.restart_hold(now),
            (State::Established, Message::Received(update)) => self.updated(now, link, update),
            (State::Established, Message::RouteRefresh { family, subtype }) => {
                if let (Some(family), REFRESH_REQUEST) = (family, subtype) {
                    self.asked(link, family);
                }
                // BoRR and EoRR frame routes, of which we keep none; RFC 7313 section 5: other subtypes are ignored.
            }
            (_, message) => self.refuse(now, link, unexpected(state, &message)),
        }
    }

    /// A NOTIFICATION closes the connection and is never answered.
    fn end_received(&mut self, now: Instant, link: Link, told: Notification) {
        self.end(now, link, None, Why::Received(told));
    }

    /// Event 19 in OpenSent.
    fn opened(&mut self, now: Instant, link: Link, theirs: Open) {
        let Some(connection) = self.links.get(&link) else { return };
        let checked = open::check(&self.settings, link, connection.ends, theirs);
        let agreed = match checked {
            Ok(agreed) => agreed,
            Err(refusal) => return self.refuse(now, link, refusal),
        };
        if !self.survives(now, link, &agreed) {
            return self.end(now, link, Some(Notification::collision()), Why::Collision);
        }
        let waits = self.settings.bfd && self.settings.bfd_strict && self.bfd != Some(Bfd::Up);
        let Some(connection) = self.links.get_mut(&link) else { return };
        connection.state = State::OpenConfirm;
        connection.agreed = Some(agreed);
        if waits {
            // The peer is not confirmed before the path is.
            connection.waits_for_bfd = Some(Confirmed(false));
            connection.hold = now.checked_add(BFD_HOLD);
        } else {
            connection.control.push_back(Message::Keepalive);
            connection.restart_keepalive(now, &mut self.jitter);
            connection.restart_hold(now);
        }
        // One connection is on its way: a second attempt could only collide.
        self.redial(now, Damping::None);
    }

    /// RFC 4271 section 6.8: "upon receipt of an OPEN message, the local system MUST examine all of its connections that are in the
    /// OpenConfirm state". It closes the others that lose; whether this one stays is the answer.
    fn survives(&mut self, now: Instant, link: Link, agreed: &Agreed) -> bool {
        for other in self.all_links() {
            if other == link {
                continue;
            }
            let (Some(this), Some(that)) = (self.links.get(&link), self.links.get(&other)) else { continue };
            if that.state < State::OpenConfirm {
                continue;
            }
            // It came while the session stood: the peer has begun anew. One that is older is still the collision.
            if that.established.is_some_and(|since| since <= this.since) {
                let restarts = that.agreed.as_ref().is_some_and(|agreed| agreed.graceful_restart);
                if !restarts {
                    // "... a collision with an existing BGP connection that is in the Established state causes closing of the
                    // newly created connection."
                    return false;
                }
                // RFC 4724 section 4.2: the earlier one is closed, "no NOTIFICATION message is sent".
                self.end(now, other, None, Why::Replaced);
                continue;
            }
            let keep = if link.side == other.side {
                // The peer gave up the earlier one.
                this.since >= that.since
            } else {
                // "... only the connection initiated by the BGP speaker with the higher-valued BGP Identifier"; RFC 6286 section
                // 2.3: if equal, the one "with the larger AS number".
                let ours =
                    (self.settings.router_id, self.settings.asn) > (agreed.with.router_id, agreed.with.asn);
                ours == (link.side == Side::Ours)
            };
            if !keep {
                return false;
            }
            self.end(now, other, Some(Notification::collision()), Why::Collision);
        }
        true
    }

    /// Event 26 in OpenConfirm.
    fn confirmed(&mut self, now: Instant, link: Link) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        if let Some(confirmed) = &mut connection.waits_for_bfd {
            *confirmed = Confirmed(true);
            return;
        }
        connection.state = State::Established;
        connection.established = Some(now);
        connection.restart_hold(now);
        let Some(with) = connection.agreed.as_ref().map(|agreed| agreed.with.clone()) else { return };
        connection.initial = with.negotiated.families.clone();
        self.rib.session_up(&with.negotiated.families);
        self.show();
        self.event(Event::Up(Box::new(with)));
        self.missing_next_hops(link);
    }

    /// BFD is up: what waited for it goes on.
    pub(super) fn confirm(&mut self, now: Instant, link: Link) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        let Some(Confirmed(theirs)) = connection.waits_for_bfd.take() else { return };
        connection.control.push_back(Message::Keepalive);
        connection.restart_keepalive(now, &mut self.jitter);
        connection.restart_hold(now);
        if theirs {
            self.confirmed(now, link);
        }
    }

    /// Event 27 in Established.
    fn updated(&mut self, now: Instant, link: Link, update: ReceivedUpdate) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        connection.restart_hold(now);
        for prefix in update.withdrawn.iter() {
            connection.received.remove(&prefix);
        }
        // An UPDATE names at most what fits a message, so the set grows little beyond the limit before it is looked at.
        let last = update.announced.iter().last().map(|prefix| Family::of(prefix.address()));
        connection.received.extend(update.announced.iter());
        let received = connection.received.len();
        if let Some(tolerated) = update.tolerated {
            let text = format!("attribute {}: {} ({:?})", tolerated.attribute, tolerated.why, tolerated.how);
            self.event(Event::Tolerated(text));
        }
        if received > self.settings.max_prefixes {
            let limit = u32::try_from(self.settings.max_prefixes).unwrap_or(u32::MAX);
            self.refuse(now, link, Notification::max_prefixes(last.unwrap_or(Family::V4), limit));
        }
    }

    /// RFC 2918 section 4: "If the speaker has not advertised the <AFI, SAFI> ... such a message is ignored".
    fn asked(&mut self, link: Link, family: Family) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        let known = connection.agreed.as_ref().is_some_and(|a| a.with.negotiated.families.contains(&family));
        if known {
            connection.asked.insert(family);
            self.refresh(link);
        }
    }
}

/// RFC 6608 section 3: the subcode is the state, the data the type of the message.
fn unexpected(state: State, message: &Message) -> Notification {
    let kind = message_type(message).code();
    match state {
        State::OpenSent => Notification::unexpected_in_open_sent(kind),
        State::OpenConfirm => Notification::unexpected_in_open_confirm(kind),
        _ => Notification::unexpected_in_established(kind),
    }
}

pub(super) fn message_type(message: &Message) -> MessageType {
    match message {
        Message::Open(_) => MessageType::Open,
        Message::Received(_) | Message::Update(_) => MessageType::Update,
        Message::Notification(_) => MessageType::Notification,
        Message::Keepalive => MessageType::Keepalive,
        Message::RouteRefresh { .. } => MessageType::RouteRefresh,
    }
}
