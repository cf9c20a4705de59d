//! How a link ends.

use std::collections::VecDeque;
use std::time::Instant;

use super::timing::{Damping, STABLE};
use super::{Agreed, Event, Fsm, MAX_FAREWELLS};
use crate::bgp::message::{Message, Notification};
use crate::bgp::peer::{Link, Output, State, Stop, Why};

/// Error code (RFC 4271 section 6.7).
const CEASE: u8 = 6;
/// Subcode of Cease: Maximum Number of Prefixes Reached (RFC 4486).
const MAX_PREFIXES: u8 = 1;
/// Subcode of Cease: Out of Resources.
const OUT_OF_RESOURCES: u8 = 8;

impl Fsm {
    /// An error: the peer is told, and the link ends.
    pub(super) fn refuse(&mut self, now: Instant, link: Link, notification: Notification) {
        self.end(now, link, Some(notification.clone()), Why::Sent(notification));
    }

    /// The link is no more. With a NOTIFICATION, or closed without a word, or gone already (`Why::Connection`).
    pub(super) fn end(&mut self, now: Instant, link: Link, told: Option<Notification>, why: Why) {
        let Some(connection) = self.links.remove(&link) else { return };
        if !matches!(why, Why::Connection(_)) {
            self.part(link, connection.control, told);
        }
        let was_established = connection.state == State::Established;
        if was_established {
            self.rib.session_down();
        }
        let lasted = connection.established.map(|since| now.saturating_duration_since(since));
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            self.failures = 0;
        }
        if self.wanted && !matches!(why, Why::Collision | Why::Replaced) {
            self.failures = self.failures.saturating_add(1);
        }
        self.redial(now, damping(&why));
        let goes_on = self.links.values().any(|connection| connection.state >= State::OpenConfirm);
        if was_established || !goes_on {
            self.event(Event::Down(why));
        }
    }

    fn part(&mut self, link: Link, mut unsent: VecDeque<Message>, told: Option<Notification>) {
        self.outputs.push_back(Output::Close(link));
        let Some(told) = told else { return };
        // A NOTIFICATION before our OPEN would be the first thing the peer reads.
        unsent.retain(|message| matches!(message, Message::Open(_)));
        unsent.push_back(Message::Notification(told));
        if self.farewells.len() >= MAX_FAREWELLS {
            self.farewells.pop_front();
        }
        self.farewells.push_back((link, unsent));
    }

    /// Both do; or we, and the peer has not said.
    fn restarts_gracefully(&self, agreed: Option<&Agreed>) -> bool {
        self.settings.graceful_restart.is_some() && agreed.is_none_or(|agreed| agreed.graceful_restart)
    }

    /// `None`: the link is closed without a word.
    pub(super) fn stop_notification(&self, link: Link, stop: &Stop) -> Option<Notification> {
        let connection = self.links.get(&link)?;
        let agreed = connection.agreed.as_ref().filter(|_| connection.state == State::Established);
        let (notification, for_good) = match stop {
            // RFC 4724 section 4: a NOTIFICATION would end the session as without graceful restart.
            // Before the session stands it could only end what the peer keeps of the session before.
            Stop::Restart if self.restarts_gracefully(connection.agreed.as_ref()) => return None,
            Stop::Restart => (Notification::cease_shutdown(""), false),
            Stop::Shutdown(text) => (Notification::cease_shutdown(text), true),
            Stop::Deconfigured => (Notification::peer_deconfigured(), true),
            Stop::Changed => (Notification::configuration_change(), false),
        };
        // RFC 8538 section 3.1: "...encapsulates the NOTIFICATION that would have been sent": the peer drops our routes at once.
        let hard = for_good && agreed.is_some_and(|agreed| agreed.graceful_notification);
        Some(if hard { notification.hard_reset() } else { notification })
    }
}

/// DampPeerOscillations: what would come again at once.
fn damping(why: &Why) -> Damping {
    let (Why::Sent(notification) | Why::Received(notification)) = why else { return Damping::None };
    match (notification.code, notification.subcode) {
        // Message header, OPEN, UPDATE, FSM, ROUTE-REFRESH: somebody has something to repair.
        (1 | 2 | 3 | 5 | 7, _) => Damping::Short,
        // A session that comes up each time, until too much has come: our routes would flap with it.
        (CEASE, MAX_PREFIXES | OUT_OF_RESOURCES) => Damping::Long,
        _ => Damping::None,
    }
}
