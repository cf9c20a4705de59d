//! The groups that the announcer wants to be in, and those of them that the kernel refused so far.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::socket::Groups;

/// After a group could not be joined.
const RETRY: Duration = Duration::from_secs(1);

/// A group that cannot be joined makes its IPv6 addresses deaf to questions, and nothing else; it is tried again.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    groups: Groups,
    refused: BTreeSet<(u32, Ipv6Addr)>,
    retry: Option<Instant>,
}

impl Memberships {
    /// A refusal is said once per interface, not for each of ten thousand groups.
    pub(super) fn join(&mut self, ifindex: u32, group: Ipv6Addr) {
        match self.groups.join(ifindex, group) {
            Ok(()) => {
                self.refused.remove(&(ifindex, group));
            }
            Err(error) => {
                let first = !self.refused.iter().any(|(index, _)| *index == ifindex);
                if self.refused.insert((ifindex, group)) && first {
                    tracing::error!(ifindex, "cannot join {group}: {error}; will retry");
                }
                self.retry.get_or_insert_with(|| Instant::now() + RETRY);
            }
        }
    }

    pub(super) fn leave(&mut self, ifindex: u32, group: Ipv6Addr) {
        self.refused.remove(&(ifindex, group));
        self.groups.leave(ifindex, group);
    }

    pub(super) fn leave_interface(&mut self, ifindex: u32) {
        self.refused.retain(|(index, _)| *index != ifindex);
        self.groups.leave_interface(ifindex);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry.filter(|_| !self.refused.is_empty())
    }

    /// Tries the refused ones again, when it is time to.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.retry.is_none_or(|at| at > now) {
            return;
        }
        self.retry = None;
        for (ifindex, group) in self.refused.clone() {
            self.join(ifindex, group);
        }
        if self.refused.is_empty() {
            tracing::info!("all groups are joined");
        }
    }
}
