//! What to tell people when a Service gets another announcer: from whom, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use patina_crds::keys::EXCLUDE_FROM_EXTERNAL_LB;
use patina_speaker_core::intent::{Intent, Verdict};
use patina_speaker_core::view::{ServiceId, Snapshot};

/// Who led each Service at the last decision.
#[derive(Debug, Default)]
pub struct Moves {
    leaders: BTreeMap<ServiceId, Option<Arc<str>>>,
    /// False until the first decision: what was before this process is not known.
    started: bool,
}

/// A Service that this node announces since this decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub service: ServiceId,
    /// From whom and why, as a part of a sentence.
    pub cause: String,
}

impl Moves {
    /// Compares with the last decision. `knew` are Services that this node was known to announce before this process
    /// started: for them nothing changed.
    pub fn look(
        &mut self,
        snapshot: &Snapshot<'_>,
        intent: &Intent,
        knew: impl Fn(&ServiceId) -> bool,
    ) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut leaders = BTreeMap::new();
        for (id, verdict) in &intent.verdicts {
            let before = self.leaders.remove(id);
            let ours_before = before.as_ref().is_some_and(|leader| leader.as_deref() == Some(snapshot.node));
            if verdict.mine && !ours_before && (self.started || !knew(id)) {
                let cause = match before.flatten() {
                    Some(previous) => {
                        format!(
                            "taken over from node {previous:?}, {}",
                            why_not(snapshot, verdict, &previous)
                        )
                    }
                    None if self.started => "nobody announced it before".to_owned(),
                    None => "this speaker has just started".to_owned(),
                };
                taken.push(Taken { service: id.clone(), cause });
            }
            // A leader that cannot announce (its interface is missing) has not taken over.
            let leads_only = verdict.leader.as_deref() == Some(snapshot.node) && !verdict.mine;
            leaders.insert(id.clone(), verdict.leader.clone().filter(|_| !leads_only));
        }
        self.leaders = leaders;
        self.started = true;
        taken
    }
}

/// Why `node`, which led before, does not any more.
fn why_not(snapshot: &Snapshot<'_>, verdict: &Verdict, node: &str) -> String {
    let known = snapshot.nodes.iter().find(|candidate| candidate.name == node);
    match known {
        None => "which is no node any more".to_owned(),
        Some(known)
            if known.labels.contains_key(EXCLUDE_FROM_EXTERNAL_LB) && !snapshot.options.ignore_exclude_lb =>
        {
            format!("which carries the label {EXCLUDE_FROM_EXTERNAL_LB}")
        }
        Some(known) if known.network_unavailable => "which reports NetworkUnavailable".to_owned(),
        Some(_) if !snapshot.members.contains_key(node) => "which has no live speaker".to_owned(),
        Some(_) if verdict.candidates.iter().any(|candidate| &*candidate.node == node) => {
            "which comes after this node in the order of candidates".to_owned()
        }
        Some(_) => "which is no candidate any more (endpoints or advertisements changed)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use patina_crds::config::Config;
    use patina_speaker_core::intent::Candidate;
    use patina_speaker_core::view::{Member, Members, NodeView, Options};

    use super::*;

    fn led_by(leader: Option<&str>, candidates: &[&str]) -> Intent {
        let candidates =
            candidates.iter().map(|node| Candidate { node: Arc::from(*node), score: 0, serves: 1 }).collect();
        let verdict = Verdict {
            leader: leader.map(Arc::from),
            mine: leader == Some("me"),
            candidates,
            ..Verdict::default()
        };
        let mut intent = Intent::default();
        intent.verdicts.insert(ServiceId::new("default", "web"), verdict);
        intent
    }

    /// The cause told when the leader changes from `before` to this node in a cluster of `nodes` and `members`.
    fn cause(before: Option<&str>, nodes: &[NodeView], members: &[&str], candidates: &[&str]) -> String {
        let members = members.iter().map(|name| ((*name).to_owned(), Member::default())).collect();
        let (config, options) = (Config::default(), Options::default());
        let snapshot = Snapshot {
            node: "me",
            config: &config,
            services: &[],
            nodes,
            members: &members,
            interfaces: &[],
            options: &options,
        };
        let mut moves = Moves::default();
        assert_eq!(moves.look(&snapshot, &led_by(before, &[]), |_| false), []);
        let mut taken = moves.look(&snapshot, &led_by(Some("me"), candidates), |_| false);
        assert_eq!(moves.look(&snapshot, &led_by(Some("me"), candidates), |_| false), [], "said once");
        assert_eq!(taken.len(), 1);
        taken.remove(0).cause
    }

    fn node(name: &str, label: Option<&str>, network_unavailable: bool) -> NodeView {
        let labels = label.map(|label| (label.to_owned(), String::new())).into_iter().collect();
        NodeView { name: name.to_owned(), labels, network_unavailable, draining: false }
    }

    #[test]
    fn the_cause_names_the_predecessor_and_what_it_lacks() {
        let plain = [node("other", None, false)];
        assert_eq!(cause(None, &plain, &[], &[]), "nobody announced it before");
        for (nodes, members, candidates, part) in [
            (&plain[..], &["me"][..], &["me"][..], "no live speaker"),
            (&plain[..], &["me", "other"], &["me", "other"], "after this node in the order"),
            (&plain[..], &["me", "other"], &["me"], "no candidate any more"),
            (&[], &["me", "other"], &["me"], "no node any more"),
            (&[node("other", Some(EXCLUDE_FROM_EXTERNAL_LB), false)], &["me", "other"], &["me"], "label"),
            (&[node("other", None, true)], &["me", "other"], &["me"], "NetworkUnavailable"),
        ] {
            let cause = cause(Some("other"), nodes, members, candidates);
            assert!(
                cause.starts_with("taken over from node \"other\", which ") && cause.contains(part),
                "{cause}"
            );
        }
    }

    #[test]
    fn a_restart_is_no_move() {
        let (config, options, members) = (Config::default(), Options::default(), Members::new());
        let snapshot = Snapshot {
            node: "me",
            config: &config,
            services: &[],
            nodes: &[],
            members: &members,
            interfaces: &[],
            options: &options,
        };
        let mine = led_by(Some("me"), &["me"]);
        assert_eq!(Moves::default().look(&snapshot, &mine, |_| true), []);
        assert_eq!(
            Moves::default().look(&snapshot, &mine, |_| false)[0].cause,
            "this speaker has just started"
        );
    }
}
