use std::time::{Duration, Instant};

use patina_crds::keys;

use super::*;

fn service(name: &str) -> ServiceId {
    ServiceId::new("n", name)
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn condition(reason: &'static str, message: &str) -> Condition {
    Condition { type_: keys::CONDITION_ALLOCATED, status: true, reason, message: message.to_owned() }
}

fn has(addresses: &[u8]) -> Desired {
    let addresses: Vec<IpAddr> = addresses.iter().map(|last| ip(*last)).collect();
    Desired {
        conditions: vec![condition("Allocated", &format!("{addresses:?}"))],
        pool: Some("p".into()),
        addresses,
    }
}

/// A Service as the server has it; patches are applied to it.
fn stored(version: u64, addresses: &[u8]) -> Observed {
    let ingress = addresses.iter().map(|last| Ingress { ip: Some(ip(*last)), as_we_write: true });
    Observed {
        uid: "u".into(),
        resource_version: version.to_string(),
        ingress: ingress.collect(),
        ..Observed::default()
    }
}

fn applied(to: &Observed, patch: &Patch) -> Observed {
    let mut new = to.clone();
    let version: u64 = to.resource_version.parse().unwrap();
    new.resource_version = (version + 1).to_string();
    if let Some(addresses) = &patch.change.addresses {
        new.ingress = addresses.iter().map(|ip| Ingress { ip: Some(*ip), as_we_write: true }).collect();
    }
    if let Some(pool) = &patch.change.pool {
        new.pool.clone_from(pool);
    }
    if let Some(conditions) = &patch.change.conditions {
        (new.ours, new.foreign) =
            conditions.iter().cloned().partition(|c| c.type_ == keys::CONDITION_ALLOCATED);
    }
    new
}

/// The machine with a clock, and a server that answers when it is told to.
struct Bench {
    machine: Writes,
    now: Instant,
}

impl Bench {
    fn new(window: usize) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a first instant has to come from somewhere; it is moved by hand"
        )]
        let now = Instant::now();
        Self { machine: Writes::new(window), now }
    }

    fn put(&mut self, input: Input) {
        self.machine.handle(self.now, input);
    }

    fn seen(&mut self, name: &str, observed: &Observed) {
        self.put(Input::Seen(service(name), observed.clone()));
    }

    fn want(&mut self, name: &str, desired: Desired) {
        self.put(Input::Want(service(name), Some(desired)));
    }

    fn end(&mut self, patch: &Patch, end: End) {
        self.put(Input::Ended { attempt: patch.attempt, id: patch.id.clone(), end });
    }

    /// Applies a patch of this Service to what the server has.
    fn done(&mut self, patch: &Patch, server: &mut Observed) {
        *server = applied(server, patch);
        self.end(patch, End::Done(Box::new(server.clone())));
    }

    fn patch(&mut self) -> Patch {
        match self.machine.poll_output() {
            Some(Output::Patch(patch)) => patch,
            other => panic!("a patch is expected: {other:?}"),
        }
    }

    fn patches(&mut self) -> Vec<Patch> {
        std::iter::from_fn(|| match self.machine.poll_output() {
            Some(Output::Patch(patch)) => Some(patch),
            Some(other) => panic!("only patches are expected: {other:?}"),
            None => None,
        })
        .collect()
    }

    /// To the next deadline.
    fn pass(&mut self) -> Duration {
        let at = self.machine.poll_timeout().expect("a deadline");
        let passed = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        self.machine.handle_timeout(self.now);
        passed
    }
}

#[test]
fn one_patch_per_allocation_and_none_when_nothing_changed() {
    let mut bench = Bench::new(4);
    let mut server = stored(1, &[]);
    bench.seen("a", &server);
    assert_eq!(bench.machine.poll_output(), None, "nothing is written before it is decided");
    bench.want("a", has(&[1]));
    let patch = bench.patch();
    assert_eq!((patch.uid.as_str(), patch.resource_version.as_str()), ("u", "1"));
    assert_eq!(bench.machine.poll_output(), None, "one at a time");
    bench.done(&patch, &mut server);
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
    // Our own write comes back by the watch; it is decided about again.
    bench.seen("a", &server);
    bench.want("a", has(&[1]));
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
    assert_eq!(bench.machine.poll_output(), None);
    assert_eq!(bench.machine.poll_timeout(), None);
    // After a restart too.
    let mut bench = Bench::new(4);
    bench.seen("a", &server);
    bench.want("a", has(&[1]));
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
}

#[test]
fn what_metallb_wrote_is_completed_once() {
    let mut bench = Bench::new(4);
    let mut server = stored(1, &[1]);
    server.ingress[0].as_we_write = false;
    bench.seen("a", &server);
    bench.want("a", has(&[1]));
    let patch = bench.patch();
    assert!(patch.change.addresses.is_some() && patch.change.conditions.is_some());
    bench.done(&patch, &mut server);
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
}

#[test]
fn conditions_of_others_stay_and_ours_keep_their_date() {
    let observed = Observed {
        ours: vec![SeenCondition {
            type_: keys::CONDITION_ALLOCATED.into(),
            status: "True".into(),
            reason: "Allocated".into(),
            message: "old".into(),
            since: Some("then".into()),
            observed_generation: None,
        }],
        foreign: vec![SeenCondition {
            type_: "other".into(),
            since: Some("ever".into()),
            ..Default::default()
        }],
        ..stored(1, &[1])
    };
    let conditions = has(&[1]).change(&observed).unwrap().conditions.unwrap();
    let dates: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.since.as_deref())).collect();
    assert_eq!(dates, [("other", Some("ever")), (keys::CONDITION_ALLOCATED, Some("then"))]);
    let waits = Desired {
        conditions: vec![Condition { status: false, ..condition("No", "") }],
        ..Desired::default()
    };
    let change = waits.change(&observed).unwrap();
    assert_eq!(change.conditions.unwrap()[1].since, None, "another status has another date");
    let gone = Desired::default().change(&observed).unwrap();
    assert_eq!((gone.addresses, gone.conditions.unwrap().len()), (Some(vec![]), 1));
}

#[test]
fn a_move_shows_the_old_address_no_more_before_it_shows_the_new_one() {
    let mut bench = Bench::new(4);
    let mut server = stored(1, &[1]);
    bench.seen("a", &server);
    bench.want("a", has(&[2]));
    let first = bench.patch();
    assert_eq!(first.change.addresses, Some(vec![]));
    bench.done(&first, &mut server);
    let second = bench.patch();
    assert_eq!(second.change.addresses, Some(vec![ip(2)]));
    bench.done(&second, &mut server);
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
}

#[test]
fn an_address_that_is_added_is_announced_by_a_mark() {
    let mut bench = Bench::new(4);
    let mut server = stored(1, &[1]);
    bench.seen("a", &server);
    bench.want("a", has(&[1, 2]));
    let mark = bench.patch();
    assert_eq!(mark.change.addresses, None);
    bench.done(&mark, &mut server);
    assert!(server.may_gain());
    let second = bench.patch();
    assert_eq!(second.change.addresses, Some(vec![ip(1), ip(2)]));
    bench.done(&second, &mut server);
    assert!(!server.may_gain());
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
    // What is taken away needs no mark.
    bench.want("a", has(&[2]));
    assert_eq!(bench.patch().change.addresses, Some(vec![ip(2)]));
}

#[test]
fn an_address_is_shown_again_only_after_it_was_given_up() {
    let mut bench = Bench::new(4);
    let (mut a, b) = (stored(1, &[1]), stored(1, &[]));
    bench.seen("a", &a);
    bench.seen("b", &b);
    // a loses its address to b, and its write fails.
    bench.want("a", Desired::default());
    bench.want("b", has(&[1]));
    let patch = bench.patch();
    assert_eq!(patch.id, service("a"));
    assert_eq!(bench.machine.poll_output(), None, "b waits");
    bench.end(&patch, End::Failed("500".into()));
    assert_eq!(bench.machine.poll_output(), None);
    bench.pass();
    let patch = bench.patch();
    bench.done(&patch, &mut a);
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
    assert_eq!(bench.patch().id, service("b"));
}

#[test]
fn two_that_change_places_do_not_wait_for_one_another() {
    let mut bench = Bench::new(4);
    let mut servers = [stored(1, &[1]), stored(1, &[2])];
    for (name, server) in ["a", "b"].into_iter().zip(&servers) {
        bench.seen(name, server);
    }
    bench.want("a", has(&[2]));
    bench.want("b", has(&[1]));
    let mut settled = 0;
    while settled < 2 {
        match bench.machine.poll_output().expect("it goes on") {
            Output::Patch(patch) => {
                let server = &mut servers[usize::from(patch.id == service("b"))];
                bench.done(&patch, server);
                let shown: Vec<_> = servers.iter().flat_map(Observed::addresses).collect();
                assert!(shown.len() < 2 || shown[0] != shown[1], "{shown:?}");
            }
            Output::Settled(_) => settled += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((servers[0].addresses().next(), servers[1].addresses().next()), (Some(ip(2)), Some(ip(1))));
}

/// Nobody answered: the address may come to be shown, so nobody else gets it until the version tells.
#[test]
fn a_patch_that_ended_in_silence_keeps_its_address() {
    let mut bench = Bench::new(4);
    let (mut a, b) = (stored(1, &[]), stored(1, &[]));
    bench.seen("a", &a);
    bench.seen("b", &b);
    bench.want("a", has(&[1]));
    let lost = bench.patch();
    bench.end(&lost, End::Failed("no answer".into()));
    bench.want("a", has(&[2]));
    bench.want("b", has(&[1]));
    let patch = bench.patch();
    assert_eq!(patch.id, service("a"));
    assert_eq!(bench.machine.poll_output(), None, "b waits for what may come");
    // It came: a's second patch meets another version.
    a = applied(&a, &lost);
    bench.end(&patch, End::Conflict);
    bench.seen("a", &a);
    let patches = bench.patches();
    assert_eq!(patches.iter().map(|p| &p.id).collect::<Vec<_>>(), [&service("a")]);
    bench.done(&patches[0], &mut a);
    let ids: Vec<_> = bench.patches().into_iter().map(|patch| patch.id).collect();
    assert_eq!(ids.len(), 2, "now both: {ids:?}");
}

#[test]
fn a_conflict_waits_for_what_is_newer() {
    let mut bench = Bench::new(4);
    let server = stored(1, &[]);
    bench.seen("a", &server);
    bench.want("a", has(&[1]));
    let patch = bench.patch();
    bench.end(&patch, End::Conflict);
    assert_eq!(bench.machine.poll_output(), None);
    bench.seen("a", &stored(5, &[]));
    let patch = bench.patch();
    assert_eq!(patch.resource_version, "5");
    // The watch may be first.
    bench.seen("a", &stored(6, &[]));
    bench.end(&patch, End::Conflict);
    assert_eq!(bench.patch().resource_version, "6");
    // Older news changes nothing.
    bench.seen("a", &stored(3, &[7]));
    assert!(bench.machine.shows(&service("a"), &Desired::default()));
}

#[test]
fn a_service_that_is_made_again_under_its_name_is_another_one() {
    let mut bench = Bench::new(1);
    bench.seen("a", &stored(1, &[]));
    bench.want("a", has(&[1]));
    let old = bench.patch();
    let new = Observed { uid: "another".into(), ..stored(9, &[]) };
    bench.seen("a", &new);
    assert_eq!(bench.machine.poll_output(), None, "not decided about yet");
    bench.want("a", has(&[2]));
    let patch = bench.patch();
    assert_eq!((patch.uid.as_str(), patch.resource_version.as_str()), ("another", "9"));
    // What came of the old one concerns nobody.
    bench.end(&old, End::Gone);
    assert_eq!(bench.machine.window(), (1, 1));
    bench.put(Input::Gone(service("a")));
    assert_eq!(bench.machine.window(), (0, 1));
}

#[test]
fn too_many_requests_halve_the_window_once_and_it_grows_back() {
    let mut bench = Bench::new(8);
    for n in 0..40 {
        bench.seen(&format!("s{n}"), &stored(1, &[]));
        bench.want(&format!("s{n}"), has(&[n]));
    }
    let patches = bench.patches();
    assert_eq!(patches.len(), 8);
    for patch in &patches {
        bench.end(patch, End::Busy(Some(Duration::from_secs(7))));
    }
    assert_eq!(bench.machine.window(), (0, 4), "eight answers about one moment");
    assert_eq!(bench.machine.poll_output(), None, "nothing before the time that the server asked for");
    assert_eq!(bench.pass(), Duration::from_secs(7));
    let patches = bench.patches();
    assert_eq!(patches.len(), 4);
    for patch in &patches {
        bench.end(patch, End::Busy(None));
    }
    assert_eq!(bench.pass(), Duration::from_secs(1));
    let mut written = 0;
    loop {
        match bench.machine.poll_output() {
            Some(Output::Patch(patch)) => bench.done(&patch, &mut stored(1, &[])),
            Some(Output::Settled(_)) => written += 1,
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    assert_eq!((written, bench.machine.window()), (40, (0, 8)), "all are written, at full width again");
}

#[test]
fn without_a_server_one_tries() {
    let mut bench = Bench::new(8);
    for n in 0..8 {
        bench.seen(&format!("s{n}"), &stored(1, &[]));
        bench.want(&format!("s{n}"), has(&[n]));
    }
    for patch in bench.patches() {
        bench.end(&patch, End::Unreachable("refused".into()));
    }
    let mut pauses = Vec::new();
    for _ in 0..8 {
        pauses.push(bench.pass().as_millis());
        let patches = bench.patches();
        assert_eq!(patches.len(), 1);
        bench.end(&patches[0], End::Unreachable("refused".into()));
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
}

#[test]
fn what_fails_holds_up_nobody_else() {
    let mut bench = Bench::new(8);
    for n in 0..100 {
        let id = ServiceId::new("bad", format!("s{n}"));
        bench.put(Input::Seen(id.clone(), stored(1, &[])));
        bench.put(Input::Want(id, Some(has(&[n]))));
    }
    // The first of the namespace fails; from then on it has a quarter.
    for patch in bench.patches() {
        bench.end(&patch, End::Failed("webhook".into()));
    }
    assert_eq!(bench.patches().len(), 2);
    for n in 0..6 {
        bench.seen(&format!("good{n}"), &stored(1, &[]));
        bench.want(&format!("good{n}"), has(&[100 + n]));
    }
    assert_eq!(bench.patches().len(), 6);
}

#[test]
fn what_is_refused_is_tried_less_and_less_often() {
    let mut bench = Bench::new(2);
    bench.seen("a", &stored(1, &[]));
    bench.want("a", has(&[1]));
    let mut pauses = Vec::new();
    for _ in 0..11 {
        let patch = bench.patch();
        bench.end(&patch, End::Refused("forbidden".into()));
        pauses.push(bench.pass().as_millis());
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    // A new version is a new chance.
    let patch = bench.patch();
    bench.end(&patch, End::Refused("forbidden".into()));
    bench.seen("a", &stored(2, &[]));
    assert_eq!(bench.patch().resource_version, "2");
}

/// Somebody takes out what we write, at once (a mutating webhook): that must not become a loop.
#[test]
fn a_server_that_changes_what_it_takes_is_not_asked_again_at_once() {
    let mut bench = Bench::new(2);
    bench.seen("a", &stored(1, &[]));
    bench.want("a", has(&[1]));
    for version in 2..6 {
        let patch = bench.patch();
        bench.seen("a", &stored(version, &[]));
        bench.end(&patch, End::Done(Box::new(stored(version, &[]))));
        assert_eq!(bench.machine.poll_output(), None);
        bench.pass();
    }
}

#[test]
fn what_somebody_else_writes_is_told_and_taken_out() {
    let mut bench = Bench::new(2);
    let mut server = stored(1, &[]);
    bench.seen("a", &server);
    bench.want("a", has(&[1]));
    let patch = bench.patch();
    server = applied(&server, &patch);
    // Our own write, by the watch and before its answer, is nobody else's.
    bench.seen("a", &server);
    bench.end(&patch, End::Done(Box::new(server.clone())));
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("a"))));
    server = Observed { ours: server.ours, pool: server.pool, ..stored(3, &[9]) };
    bench.seen("a", &server);
    let told = Output::Edited { id: service("a"), addresses: vec![ip(9)] };
    assert_eq!(bench.machine.poll_output(), Some(told));
    let patch = bench.patch();
    assert_eq!(patch.change.addresses, Some(vec![]));
    bench.done(&patch, &mut server);
    let patch = bench.patch();
    bench.done(&patch, &mut server);
    assert_eq!(server.addresses().collect::<Vec<_>>(), [ip(1)]);
}

#[test]
fn a_fence_writes_each_that_could_gain_something_once() {
    let mut bench = Bench::new(8);
    let mut empty = stored(1, &[]);
    let marked = Observed {
        ours: vec![SeenCondition {
            type_: keys::CONDITION_ALLOCATED.into(),
            reason: CHANGING.into(),
            ..Default::default()
        }],
        ..stored(1, &[2])
    };
    bench.seen("empty", &empty);
    bench.seen("marked", &marked);
    bench.seen("holds", &stored(1, &[3]));
    bench.seen("edited", &stored(1, &[]));
    bench.seen("deleted", &stored(1, &[]));
    bench.seen("refused", &stored(1, &[]));
    bench.seen("foreign", &stored(1, &[]));
    let mut services = bench.machine.may_gain(|id| *id != service("foreign"));
    services.sort();
    assert_eq!(services, ["deleted", "edited", "empty", "marked", "refused"].map(service));
    let until = bench.now + Duration::from_secs(30);
    bench.put(Input::Fence { term: "term 2".into(), services, until });
    let patches = bench.patches();
    assert_eq!(patches.len(), 5);
    for patch in &patches {
        assert_eq!((&patch.change.addresses, &patch.change.pool), (&None, &None), "nothing else changes");
        assert_eq!(patch.change.conditions.as_ref().unwrap()[0].reason, LEADER_CHANGED);
        match patch.id.name.as_str() {
            "empty" => bench.done(patch, &mut empty),
            "edited" => bench.end(patch, End::Conflict),
            "deleted" => bench.end(patch, End::Gone),
            "refused" => bench.end(patch, End::Refused("policy".into())),
            _ => bench.done(patch, &mut marked.clone()),
        }
    }
    assert_eq!(bench.machine.poll_output(), None, "one is not certain yet");
    bench.seen("edited", &stored(4, &[]));
    assert_eq!(bench.machine.poll_output(), Some(Output::Fenced { left: vec![] }));
    // And then the ordinary work.
    bench.want("empty", has(&[1]));
    let patch = bench.patch();
    bench.done(&patch, &mut empty);
    assert_eq!(bench.machine.poll_output(), Some(Output::Settled(service("empty"))));
}

#[test]
fn a_fence_does_not_wait_for_ever() {
    let mut bench = Bench::new(8);
    bench.seen("a", &stored(1, &[]));
    let until = bench.now + Duration::from_secs(30);
    let services = vec![service("a")];
    bench.put(Input::Fence { term: "term 2".into(), services: services.clone(), until });
    while bench.now < until {
        for patch in bench.patches() {
            bench.end(&patch, End::Failed("webhook".into()));
        }
        bench.pass();
    }
    assert_eq!(bench.machine.poll_output(), Some(Output::Fenced { left: services }));
    // Nothing to fence: it stands at once.
    let mut bench = Bench::new(8);
    bench.put(Input::Fence { term: "t".into(), services: vec![], until });
    assert_eq!(bench.machine.poll_output(), Some(Output::Fenced { left: vec![] }));
}
