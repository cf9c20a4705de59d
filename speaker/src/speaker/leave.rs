//! The end: what we have goes to others before we go.

use std::time::{Duration, Instant};

use patina_speaker_core::l2::ownership::Input;

use super::{Rung, Speaker, State};
use crate::bgp::Ending;
use crate::l2::Desired;

/// How long we answer for what nobody has taken over yet. Manifests allow two seconds for the whole end
/// (terminationGracePeriodSeconds); the farewell to the others comes after.
const LONGEST: Duration = Duration::from_millis(1200);

impl Speaker {
    /// Tells the others that we go, answers on until each address that another could announce was heard from it, or for
    /// [`LONGEST`], and says farewell.
    pub(super) async fn leave(mut self, mut state: State) {
        let began = Instant::now();
        state.leaving = true;
        // Peers with graceful restart keep our routes until the next speaker of this node is there; others send their traffic
        // elsewhere, and what is on its way is still served.
        self.bgp.send_modify(|desired| desired.ending = Some(Ending::Restart));
        self.say(&state);
        state.ownership.handle(began, Input::Leave);
        self.act(&mut state);
        tracing::info!("leaving; answering until a successor has announced");
        let end = began + LONGEST;
        while !state.ownership.idle() {
            let rung = tokio::select! {
                rung = self.rung(&state) => rung,
                () = tokio::time::sleep_until(end.into()) => break,
            };
            match rung {
                Rung::Heard(heard) => self.hear(&mut state, heard),
                // Whom we may hear from must be known.
                Rung::Members => drop(self.follow(&mut state)),
                Rung::Api | Rung::Links | Rung::Deadline => {}
            }
            self.act(&mut state);
        }
        let idle = state.ownership.idle();
        self.desired.send_replace(Desired::default());
        if let Some(members) = &self.members {
            members.leave.send_replace(true);
        }
        tracing::info!(
            after_ms = began.elapsed().as_millis(),
            everything_handed_over = idle,
            "no longer answering"
        );
    }
}
