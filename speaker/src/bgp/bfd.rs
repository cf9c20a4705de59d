//! What BFD says, by the name of the peer it is about.

use patina_speaker_core::bgp::peer::Bfd;
use tokio::sync::watch;

use super::desired::Desired;
use super::driver::BfdSays;
use crate::bfd::Statuses;

/// Tells the sessions of BGP what those of BFD say, as long as somebody desires either.
pub async fn relay(
    mut desired: watch::Receiver<Desired>,
    mut statuses: watch::Receiver<Statuses>,
    says: watch::Sender<BfdSays>,
) {
    loop {
        let now: BfdSays = {
            let (desired, statuses) = (desired.borrow_and_update(), statuses.borrow_and_update());
            let of = |key| statuses.get(key).and_then(|status| status.says);
            desired.bfd.iter().filter_map(|(peer, key)| Some((peer.clone(), of(key)?))).collect::<_>()
        };
        says.send_if_modified(|told: &mut std::collections::BTreeMap<String, Bfd>| {
            let changed = *told != now;
            *told = now;
            changed
        });
        let ended = tokio::select! {
            changed = desired.changed() => changed.is_err(),
            changed = statuses.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}
