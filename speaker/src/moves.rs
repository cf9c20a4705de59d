//! Why an address changed hands: from whom, and what became of that one. For events, status and metrics.

mod cause;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use patina_crds::keys::EXCLUDE_FROM_EXTERNAL_LB;
use patina_speaker_core::intent::{Intent, Verdict};
use patina_speaker_core::membership::Down;
use patina_speaker_core::view::{Member, Members, ServiceId, Snapshot};

pub use cause::{Cause, Gone};

/// Why this node leads what it leads.
#[derive(Debug, Default)]
pub struct Moves {
    /// Of the Services that this node leads since some decision, and that were not asked for yet.
    causes: BTreeMap<ServiceId, Cause>,
    /// How many interfaces of each speaker can be announced on.
    links: BTreeMap<String, usize>,
    /// False until the first decision: what was before this process is not known.
    started: bool,
}

impl Moves {
    /// Compares with the decision before. `down`: why speakers are taken to be dead. Returns those nodes whose speakers are dead
    /// and that this node replaces.
    pub fn decided(
        &mut self,
        snapshot: &Snapshot<'_>,
        down: &BTreeMap<String, Down>,
        before: &Intent,
        intent: &Intent,
    ) -> BTreeSet<Arc<str>> {
        let mut replaced = BTreeSet::new();
        let links = snapshot.members.iter().map(|(node, member)| (node.clone(), links(member))).collect();
        let links = std::mem::replace(&mut self.links, links);
        let around = Around { snapshot, down, links_before: &links };
        for (id, verdict) in &intent.verdicts {
            let old = before.verdicts.get(id);
            if !verdict.mine {
                self.causes.remove(id);
            } else if !old.is_some_and(|old| old.mine) {
                // A leader that could not announce (its interface was missing) had not taken over.
                let leader = old.and_then(|old| old.leader.as_ref());
                let cause = match leader.filter(|leader| ***leader != *snapshot.node) {
                    Some(previous) => around.why(verdict, previous),
                    None if self.started => Cause::First,
                    None => Cause::Started,
                };
                if let Cause::Died { from, .. } = &cause {
                    replaced.insert(Arc::clone(from));
                }
                self.causes.insert(id.clone(), cause);
            }
        }
        self.causes.retain(|id, _| intent.verdicts.contains_key(id));
        self.started = true;
        replaced
    }

    /// Why this node announces the Service from now on. A second time without a decision in between: it let go of the address
    /// for a while (a foreign host had it, it waited for its holder), and has it again.
    pub fn take(&mut self, id: &ServiceId) -> Cause {
        self.causes.remove(id).unwrap_or(Cause::Again)
    }
}

/// What a cause is found by.
#[derive(Clone, Copy)]
struct Around<'a> {
    snapshot: &'a Snapshot<'a>,
    down: &'a BTreeMap<String, Down>,
    links_before: &'a BTreeMap<String, usize>,
}

impl Around<'_> {
    /// Why `node`, which led before, does not any more.
    fn why(self, verdict: &Verdict, node: &Arc<str>) -> Cause {
        let from = Arc::clone(node);
        let Some(member) = self.snapshot.members.get(&**node) else {
            let how = match self.down.get(&**node) {
                Some(Down::Left) => return Cause::Left { from },
                Some(Down::Silent(time)) => Gone::Silent(*time),
                Some(Down::Reported { by }) => Gone::Reported(by.clone()),
                None => Gone::NoSpeaker,
            };
            return Cause::Died { from, how };
        };
        if member.draining {
            return Cause::Draining { from };
        }
        if member.starting {
            return Cause::Restarted { from };
        }
        let excluded = |why: &'static str| Cause::Excluded { from: Arc::clone(node), why };
        match self.snapshot.nodes.iter().find(|known| known.name == **node) {
            None => return excluded("is no node any more"),
            Some(known) if known.draining => return Cause::Draining { from },
            Some(known)
                if known.labels.contains_key(EXCLUDE_FROM_EXTERNAL_LB)
                    && !self.snapshot.options.ignore_exclude_lb =>
            {
                return excluded("carries the label node.kubernetes.io/exclude-from-external-load-balancers");
            }
            Some(known) if known.network_unavailable => return excluded("reports NetworkUnavailable"),
            Some(_) => {}
        }
        if self.links_before.get(&**node).is_some_and(|before| *before > links(member)) {
            return Cause::LinkLost { from };
        }
        if verdict.candidates.iter().any(|candidate| candidate.node == *node) {
            Cause::Better { from }
        } else {
            Cause::Changed { from }
        }
    }
}

fn links(member: &Member) -> usize {
    let usable = |interfaces: &Vec<_>| {
        interfaces
            .iter()
            .filter(|i: &&patina_speaker_core::view::MemberInterface| i.up && !i.isolated)
            .count()
    };
    member.interfaces.as_ref().map_or(0, usable)
}

/// Nodes whose speakers were there before and are dead now; not those that said farewell.
pub fn died<'a>(
    before: &'a Members,
    now: &'a Members,
    down: &'a BTreeMap<String, Down>,
) -> impl Iterator<Item = (&'a String, &'a Down)> {
    before
        .keys()
        .filter(|node| !now.contains_key(*node))
        .filter_map(|node| Some((node, down.get(node).filter(|how| **how != Down::Left)?)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use patina_crds::config::Config;
    use patina_speaker_core::intent::Candidate;
    use patina_speaker_core::view::{MemberInterface, NodeView, Options};

    use super::*;

    fn led_by(leader: Option<&str>, candidates: &[&str]) -> Intent {
        let candidates = candidates
            .iter()
            .map(|node| Candidate { node: Arc::from(*node), score: 0, ..Candidate::default() })
            .collect();
        let verdict = Verdict {
            leader: leader.map(Arc::from),
            mine: leader == Some("me"),
            candidates,
            ..Verdict::default()
        };
        let mut intent = Intent::default();
        intent.verdicts.insert(ServiceId::new("default", "web"), verdict.into());
        intent
    }

    /// Everything that a cause depends on.
    #[derive(Default)]
    struct Scene {
        nodes: Vec<NodeView>,
        members: Members,
        down: BTreeMap<String, Down>,
        candidates: Vec<&'static str>,
    }

    impl Scene {
        /// `other` is a node with a speaker.
        fn plain() -> Self {
            let up = MemberInterface { up: true, ..MemberInterface::default() };
            let member = Member { interfaces: Some(vec![up]), ..Member::default() };
            Self {
                nodes: vec![NodeView { name: "other".to_owned(), ..NodeView::default() }],
                members: Members::from([("me".to_owned(), member.clone()), ("other".to_owned(), member)]),
                candidates: vec!["me"],
                ..Self::default()
            }
        }

        fn decided(&self, (moves, before): &mut (Moves, Intent), leader: Option<&str>) -> usize {
            let (config, options) = (Config::default(), Options::default());
            let snapshot = Snapshot {
                node: "me",
                config: &config,
                services: &[],
                nodes: &self.nodes,
                members: &self.members,
                interfaces: &[],
                options: &options,
            };
            let intent = led_by(leader, &self.candidates);
            let before = std::mem::replace(before, intent.clone());
            moves.decided(&snapshot, &self.down, &before, &intent).len()
        }

        /// The cause that is told when the lead changes from `before` to this node.
        fn cause(&self, before: Option<&str>) -> Cause {
            let (mut moves, id) = (<(Moves, Intent)>::default(), ServiceId::new("default", "web"));
            Self::plain().decided(&mut moves, before);
            let replaced = self.decided(&mut moves, Some("me"));
            let cause = moves.0.take(&id);
            assert_eq!(replaced == 1, matches!(cause, Cause::Died { .. }), "{cause}");
            assert_eq!(moves.0.take(&id), Cause::Again, "told once");
            cause
        }

        fn other(&mut self) -> &mut Member {
            self.members.get_mut("other").unwrap()
        }

        fn without_other(how: Option<Down>) -> Self {
            let mut scene = Self::plain();
            scene.members.remove("other");
            scene.down.extend(how.map(|how| ("other".to_owned(), how)));
            scene
        }
    }

    #[test]
    fn the_cause_says_what_became_of_the_predecessor() {
        let mut better = Scene::plain();
        better.candidates.push("other");
        let [mut drains, mut restarts, mut unplugged, mut isolated] = [(); 4].map(|()| Scene::plain());
        drains.other().draining = true;
        restarts.other().starting = true;
        unplugged.other().interfaces.as_mut().unwrap()[0].up = false;
        isolated.other().interfaces.as_mut().unwrap()[0].isolated = true;
        let [mut drained, mut labelled, mut unavailable, mut gone] = [(); 4].map(|()| Scene::plain());
        drained.nodes[0].draining = true;
        labelled.nodes[0].labels.insert(EXCLUDE_FROM_EXTERNAL_LB.to_owned(), String::new());
        unavailable.nodes[0].network_unavailable = true;
        gone.nodes.clear();
        let silent = Down::Silent(Duration::from_millis(231));
        let cases = [
            (better, "betterCandidate", "comes after this node in the order of candidates"),
            (Scene::plain(), "candidatesChanged", "is no candidate any more"),
            (drains, "draining", "is being drained or restarted"),
            (drained, "draining", "is being drained or restarted"),
            (restarts, "speakerRestarted", "was started anew"),
            (unplugged, "linkLost", "lost the link"),
            (isolated, "linkLost", "lost the link"),
            (labelled, "nodeExcluded", "carries the label node.kubernetes.io/exclude-from"),
            (unavailable, "nodeExcluded", "reports NetworkUnavailable"),
            (gone, "nodeExcluded", "is no node any more"),
            (Scene::without_other(Some(silent)), "speakerDied", "was silent for 231 ms"),
            (Scene::without_other(Some(Down::Reported { by: "third".into() })), "speakerDied", "node third"),
            (Scene::without_other(Some(Down::Reported { by: String::new() })), "speakerDied", "several"),
            (Scene::without_other(Some(Down::Left)), "speakerLeft", "said farewell"),
            (Scene::without_other(None), "speakerDied", "has no live speaker"),
        ];
        for (scene, word, part) in cases {
            let cause = scene.cause(Some("other"));
            assert_eq!(cause.word(), word);
            assert!(Cause::WORDS.contains(&word), "{word}");
            assert_eq!(cause.from(), Some("other"));
            let text = cause.to_string();
            assert!(
                text.starts_with("taken over from node \"other\", which ") && text.contains(part),
                "{text}"
            );
        }
        let first = Scene::plain().cause(None);
        assert_eq!((first.word(), first.to_string().as_str()), ("first", "nobody announced it before"));
        assert_eq!(first.from(), None);
    }

    #[test]
    fn what_was_before_the_first_decision_is_not_known() {
        let (mut moves, id) = (<(Moves, Intent)>::default(), ServiceId::new("default", "web"));
        Scene::plain().decided(&mut moves, Some("me"));
        Scene::plain().decided(&mut moves, Some("me"));
        assert_eq!(moves.0.take(&id), Cause::Started);
        assert_eq!(moves.0.take(&id).word(), "again");
    }

    #[test]
    fn who_lost_the_lead_again_before_it_announced_has_no_cause_left() {
        let (mut moves, id) = (<(Moves, Intent)>::default(), ServiceId::new("default", "web"));
        Scene::plain().decided(&mut moves, Some("other"));
        Scene::plain().decided(&mut moves, Some("me"));
        Scene::plain().decided(&mut moves, Some("other"));
        assert_eq!(moves.0.take(&id), Cause::Again);
    }

    #[test]
    fn the_dead_are_those_that_did_not_say_farewell() {
        let all = Members::from(["a", "b", "c"].map(|node| (node.to_owned(), Member::default())));
        let now = Members::from([("c".to_owned(), Member::default())]);
        let silent = Down::Silent(Duration::from_millis(220));
        let down = BTreeMap::from([("a".to_owned(), silent.clone()), ("b".to_owned(), Down::Left)]);
        let dead: Vec<_> = died(&all, &now, &down).collect();
        assert_eq!(dead, [(&"a".to_owned(), &silent)]);
    }
}
