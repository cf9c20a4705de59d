//! The addresses are on a network of their own; API server, Pods and membership on another, where nothing ever happens.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use patina_e2e::lan::{Cut, Lan};
use patina_e2e::wait::{self, Seen, secs};

use super::cases::{On, Scene};

pub(crate) fn silent() -> Result<()> {
    Scene::play_on(On::Second, 4, |scene| {
        let (victim, mac) = scene.settled()?;
        isolated(&scene.lan, None)?;
        let (vip, cut) = (scene.vip()?, SystemTime::now());
        scene.lan.cut_second(victim, Cut::Silent)?;
        scene.taken(cut, mac)?;
        let (owner, second) = scene.settled()?;
        ensure!(owner != victim && second != mac, "node {owner} has it, which nobody reaches");
        isolated(&scene.lan, Some(victim))?;
        let silence = scene.prober.timeline()?.longest_silence(vip, cut, SystemTime::now());
        eprintln!("nobody answered for {silence:.0?}");
        ensure!(silence < secs(2), "nobody answered for {silence:?}");

        let mended = SystemTime::now();
        scene.lan.mend_second(victim)?;
        scene.taken(mended, second)?;
        let (owner, _) = scene.settled()?;
        ensure!(owner == victim, "node {owner} has it, not {victim}");
        isolated(&scene.lan, None)?;
        let two = scene.two(mended)?;
        eprintln!("two answered for {two:.0?}");
        ensure!(two < secs(1), "two answered for {two:?}");
        let silence = scene.prober.timeline()?.longest_silence(vip, mended, SystemTime::now());
        ensure!(silence < Duration::from_millis(150), "nobody answered for {silence:?} when it was mended");
        // Whoever does not answer there lives all the same.
        for node in scene.lan.nodes() {
            let down = node.metric("patina_membership_down_total", "")?;
            ensure!(down == Some(0.0), "for {} {down:?} speakers were dead", node.name);
        }
        Ok(())
    })
}

/// Waits until each node listens on its second network, and exactly this one reaches nobody there.
fn isolated(lan: &Lan, wanted: Option<usize>) -> Result<()> {
    wait::until_blocking(&format!("{wanted:?} is isolated"), secs(10), || {
        let mut wrong = Vec::new();
        for (index, node) in lan.nodes().iter().enumerate() {
            let listening = node.metric("patina_membership_further_addresses", r#"state="listening""#)?;
            let isolated = node.metric("patina_membership_isolated_interfaces", "")?;
            let right = if wanted == Some(index) { 1.0 } else { 0.0 };
            if (listening, isolated) != (Some(1.0), Some(right)) {
                wrong.push(format!("{}: listening {listening:?}, isolated {isolated:?}", node.name));
            }
        }
        Ok(if wrong.is_empty() { Seen::Done(()) } else { Seen::Not(wrong.join("; ")) })
    })
}
