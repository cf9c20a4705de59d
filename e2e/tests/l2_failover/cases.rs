//! Each case has a LAN of its own.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use patina_e2e::lan::{Cut, Lan, Programs};
use patina_e2e::neighbour::Mac;
use patina_e2e::prober::Prober;
use patina_e2e::prober::timeline::{Heard, How, gap};
use patina_e2e::stranger::{Injector, datagram, eavesdrop, forged};
use patina_e2e::wait::secs;
use serde_json::json;

use super::second_network;

/// A test: a sentence, and what makes it true.
pub(crate) type Case = (&'static str, fn() -> Result<()>);

/// All of them.
pub(crate) const ALL: &[Case] = &[
    ("another_speaker_answers_when_the_announcer_is_killed_and_it_gets_the_address_back", killed),
    ("a_cable_that_is_cut_moves_the_address_and_one_answers_when_it_is_mended", cable_with_carrier_loss),
    (
        "a_cable_that_passes_nothing_moves_the_address_and_one_answers_when_it_is_mended",
        cable_without_carrier_loss,
    ),
    ("both_halves_of_a_split_network_answer_and_one_does_when_it_is_joined", split),
    (
        "a_stopped_speaker_loses_the_address_and_answers_nothing_when_it_is_woken_before_it_takes_it_back",
        stopped,
    ),
    ("with_failback_never_a_stopped_speaker_that_is_woken_answers_nothing", stopped_for_good),
    ("addresses_change_hands_while_the_api_server_is_dead_or_frozen", without_api),
    ("a_speaker_that_ends_in_order_leaves_no_question_unanswered", ends_in_order),
    ("a_node_that_drains_hands_its_addresses_over_and_gets_them_back", drained),
    ("a_second_network_that_passes_nothing_moves_its_address_and_nobody_is_dead", second_network::silent),
    ("datagrams_of_strangers_neither_kill_a_speaker_nor_hide_a_death", strangers),
];

/// Between two questions.
const EVERY: Duration = Duration::from_millis(10);
/// For what takes a third of a second when nothing else wants the machine.
const SOON: Duration = secs(5);

/// A LAN, some addresses, a client that asks for them.
pub(crate) struct Scene {
    runtime: tokio::runtime::Runtime,
    pub(crate) lan: Lan,
    vips: Vec<Ipv4Addr>,
    pub(crate) prober: Prober,
}

/// Which network has the addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// The one on which everything else is, too.
    TheOnly,
    /// Another.
    Second,
}

impl Scene {
    fn new(speakers: usize, vips: usize, on: On) -> Result<Scene> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (lan, vips) = runtime.block_on(async {
            let mut lan = Lan::start(Programs::debug()?).await?;
            let vips = async {
                if on == On::Second {
                    lan.second_network().await?;
                }
                lan.grow(speakers).await?;
                lan.services(0..vips).await
            };
            let vips = vips.await.inspect_err(|_| told(&lan))?;
            anyhow::Ok((lan, vips))
        })?;
        let prober = match on {
            On::TheOnly => lan.prober(&vips, EVERY)?,
            On::Second => lan.prober_there(&vips, EVERY)?,
        };
        Ok(Scene { runtime, lan, vips, prober })
    }

    /// Runs the case and tells what the speakers said when it fails.
    fn play(speakers: usize, case: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
        Self::play_on(On::TheOnly, speakers, case)
    }

    pub(crate) fn play_on(
        on: On,
        speakers: usize,
        case: impl FnOnce(&mut Scene) -> Result<()>,
    ) -> Result<()> {
        let mut scene = Scene::new(speakers, 1, on)?;
        case(&mut scene).inspect_err(|_| told(&scene.lan))
    }

    pub(crate) fn vip(&self) -> Result<Ipv4Addr> {
        self.vips.first().copied().context("no address")
    }

    /// Waits until the speakers know each other and one answers alone: its number and MAC address.
    pub(crate) fn settled(&mut self) -> Result<(usize, Mac)> {
        self.runtime.block_on(self.lan.whole(secs(30)))?;
        let mac = self.prober.sole_owner(self.vip()?, Duration::from_millis(500), secs(15))?;
        Ok((self.lan.index_of(mac)?, mac))
    }

    /// Waits until another than `than` has answered.
    pub(crate) fn taken(&self, since: SystemTime, than: Mac) -> Result<Mac> {
        let vip = self.vip()?;
        let heard = self.prober.wait(since, SOON, |h| h.ip == vip && h.how == How::Reply && h.mac != than)?;
        eprintln!("taken over after {:.0?}", gap(since, heard.at));
        Ok(heard.mac)
    }

    /// How long two answered since then.
    pub(crate) fn two(&self, since: SystemTime) -> Result<Duration> {
        let questions = self.prober.timeline()?.answered_by_two(self.vip()?, since).len();
        Ok(EVERY * u32::try_from(questions)?)
    }
}

fn told(lan: &Lan) {
    lan.keep_logs();
    eprintln!("{}", lan.log_tails());
}

fn killed() -> Result<()> {
    Scene::play(3, |scene| {
        let (victim, mac) = scene.settled()?;
        let at = scene.lan.node_mut(victim)?.kill();
        let successor = scene.taken(at, mac)?;
        ensure!(scene.lan.index_of(successor)? != victim);
        // With the default policy the address goes back to whom the order of candidates names.
        scene.lan.start_speaker(victim)?;
        let (owner, _) = scene.settled()?;
        ensure!(owner == victim, "node {owner} has it, not {victim}");
        Ok(())
    })
}

fn cable_with_carrier_loss() -> Result<()> {
    cable(Cut::Carrier)
}

fn cable_without_carrier_loss() -> Result<()> {
    cable(Cut::Silent)
}

fn cable(how: Cut) -> Result<()> {
    Scene::play(4, |scene| {
        let (victim, mac) = scene.settled()?;
        let at = SystemTime::now();
        scene.lan.cut(victim, how)?;
        scene.taken(at, mac)?;
        let mended = SystemTime::now();
        scene.lan.mend(victim)?;
        scene.settled()?;
        let two = scene.two(mended)?;
        ensure!(two < secs(1), "two answered for {two:?}");
        Ok(())
    })
}

fn split() -> Result<()> {
    Scene::play(4, |scene| {
        let (victim, mac) = scene.settled()?;
        let gone = [victim, (victim + 1) % 4];
        let at = SystemTime::now();
        for node in gone {
            scene.lan.cut(node, Cut::Moved)?;
        }
        scene.taken(at, mac)?;
        let mended = SystemTime::now();
        for node in gone {
            scene.lan.mend(node)?;
        }
        scene.settled()?;
        let two = scene.two(mended)?;
        ensure!(two < secs(1), "two answered for {two:?}");
        Ok(())
    })
}

fn stopped() -> Result<()> {
    Scene::play(3, |scene| {
        let (victim, mac) = scene.settled()?;
        let woken = sleep(scene, victim, mac)?;
        let (owner, _) = scene.settled()?;
        ensure!(owner == victim, "node {owner} has it, not {victim}");
        let its = frames(scene, mac, woken)?;
        let before = its.iter().take_while(|heard| heard.how == How::Reply).count();
        ensure!(
            before == 0,
            "the woken speaker answered {before} times before it announced the address again"
        );
        Ok(())
    })
}

fn stopped_for_good() -> Result<()> {
    Scene::play(3, |scene| {
        let failback = json!({"patina.io/failback": "never"});
        scene.runtime.block_on(scene.lan.annotate_advertisement(failback))?;
        let (victim, mac) = scene.settled()?;
        let woken = sleep(scene, victim, mac)?;
        let (owner, _) = scene.settled()?;
        let its = frames(scene, mac, woken)?;
        ensure!(its.is_empty(), "the woken speaker said {} times that it has the address", its.len());
        ensure!(owner != victim, "the address went back");
        Ok(())
    })
}

/// Stops the speaker until another has answered. When it was woken.
fn sleep(scene: &mut Scene, victim: usize, mac: Mac) -> Result<SystemTime> {
    let at = scene.lan.node_mut(victim)?.stop()?;
    let taken = scene.taken(at, mac);
    let woken = scene.lan.node_mut(victim)?.wake()?;
    taken.map(|_| woken)
}

/// What a station said about the address since then.
fn frames(scene: &Scene, mac: Mac, since: SystemTime) -> Result<Vec<Heard>> {
    let vip = scene.vip()?;
    let heard = scene.prober.timeline()?.heard;
    Ok(heard.into_iter().filter(|h| h.ip == vip && h.mac == mac && h.at >= since).collect())
}

fn without_api() -> Result<()> {
    Scene::play(4, |scene| {
        let mut victims = Vec::new();
        scene.settled()?;
        scene.lan.plane.stop_apiserver();
        let (victim, mac) = scene.settled()?;
        let at = scene.lan.node_mut(victim)?.kill();
        scene.taken(at, mac)?;
        victims.push(victim);
        scene.runtime.block_on(scene.lan.plane.start_apiserver())?;

        scene.lan.plane.freeze_apiserver()?;
        let (victim, mac) = scene.settled()?;
        let at = scene.lan.node_mut(victim)?.kill();
        let taken = scene.taken(at, mac);
        victims.push(victim);
        scene.lan.plane.wake_apiserver()?;
        taken?;
        scene.runtime.block_on(scene.lan.plane.start_apiserver())?;
        for victim in victims {
            scene.lan.start_speaker(victim)?;
        }
        scene.settled().map(drop)
    })
}

/// The longest that a question may be unanswered in a planned handover: a few of ours, on a machine with other work.
const HANDOVER: Duration = Duration::from_millis(150);

fn ends_in_order() -> Result<()> {
    Scene::play(3, |scene| {
        let (victim, mac) = scene.settled()?;
        let vip = scene.vip()?;
        let began = SystemTime::now();
        let in_order = scene.lan.node_mut(victim)?.terminate(secs(10));
        ensure!(in_order, "it did not end within 10 s of SIGTERM");
        scene.taken(began, mac)?;
        let now = SystemTime::now();
        let silence = scene.prober.timeline()?.longest_silence(vip, began, now);
        ensure!(silence < HANDOVER, "nobody answered for {silence:?}");
        scene.lan.start_speaker(victim)?;
        let before = SystemTime::now();
        scene.settled()?;
        let silence = scene.prober.timeline()?.longest_silence(vip, before, SystemTime::now());
        ensure!(silence < HANDOVER, "nobody answered for {silence:?} when it came back");
        Ok(())
    })
}

fn drained() -> Result<()> {
    Scene::play(3, |scene| {
        let (victim, mac) = scene.settled()?;
        let vip = scene.vip()?;
        let began = SystemTime::now();
        let annotate = |value| json!({"metadata": {"annotations": {"patina.io/drain": value}}});
        scene.runtime.block_on(scene.lan.patch_node(victim, &annotate(json!("true"))))?;
        scene.taken(began, mac)?;
        let (owner, second) = scene.settled()?;
        ensure!(owner != victim, "node {owner} drains and answers");
        let released = SystemTime::now();
        scene.runtime.block_on(scene.lan.patch_node(victim, &annotate(json!(null))))?;
        scene.taken(released, second)?;
        let (owner, _) = scene.settled()?;
        ensure!(owner == victim, "node {owner} has it, not {victim}");
        let silence = scene.prober.timeline()?.longest_silence(vip, began, SystemTime::now());
        ensure!(silence < HANDOVER, "nobody answered for {silence:?}");
        Ok(())
    })
}

fn strangers() -> Result<()> {
    Scene::play(3, |scene| {
        scene.settled()?;
        let stranger = scene.lan.stranger(None)?;
        let heard = eavesdrop(scene.lan.net(), secs(3), 200)?;
        ensure!(!heard.is_empty(), "the speakers sent each other nothing in 3 s");
        let mut frames = Vec::new();
        for frame in &heard {
            frames.push(forged(frame, stranger.mac, |_| {})?);
            frames.push(forged(frame, stranger.mac, |payload| payload.truncate(payload.len() / 2))?);
            frames.push(forged(frame, stranger.mac, |payload| {
                payload.iter_mut().last().into_iter().for_each(|b| *b ^= 1)
            })?);
        }
        for node in scene.lan.nodes() {
            frames.push(datagram(stranger.mac, stranger.v4, node.mac, node.v4, vec![0x5a; 700])?);
        }
        let injector = Injector::start(&stranger.netns, frames, Some(5_000))?;
        let (victim, mac) = scene.settled()?;
        let vip = scene.vip()?;
        let began = SystemTime::now();
        std::thread::sleep(secs(2)); // a span to look at, not something that is waited for
        let changes = scene.prober.timeline()?.changes(vip).into_iter().filter(|c| c.at >= began).count();
        ensure!(changes == 0, "the address changed hands {changes} times while nobody died");
        let at = scene.lan.node_mut(victim)?.kill();
        scene.taken(at, mac)?;
        scene.lan.start_speaker(victim)?;
        scene.settled()?;
        ensure!(injector.sent() > 1_000, "{} datagrams were sent", injector.sent());
        Ok(())
    })
}
