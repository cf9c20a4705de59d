//! 50 ms x 3 while every core has more to do than it can. `PATINA_BFD_SECONDS=600` makes it ten minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use patina_e2e::wait::{self, Seen, secs};

use crate::us::{Net, Us, key, settings};

#[test]
fn on_a_busy_machine_nothing_goes_down() {
    let seconds = std::env::var("PATINA_BFD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (us, them) = (Us::start(&a), Us::start(&b));
    let pairs = [(key(b.v4), key(a.v4)), (key(b.v6), key(a.v6))];
    for (ours, theirs) in &pairs {
        us.add(ours.clone(), settings());
        them.add(theirs.clone(), settings());
    }
    for (ours, theirs) in &pairs {
        us.until_up(ours);
        them.until_up(theirs);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().unwrap().get();
    let busy: Vec<_> = (0..2 * cores)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
        })
        .collect();
    let began = Instant::now();
    let waited = wait::until_blocking("the time is over", secs(seconds + 60), || {
        Ok(Seen::when(began.elapsed() >= Duration::from_secs(seconds), ()))
    });
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    waited.unwrap();
    for (ours, theirs) in &pairs {
        let downs = [us.status(ours).unwrap().downs, them.status(theirs).unwrap().downs];
        let series = format!("metallb_bfd_control_packet_input{{peer=\"{}\",vrf=\"\"}}", ours.peer);
        println!("{ours}: {downs:?} downs, {} packets in {seconds} s", us.metric(&series));
        assert!(us.metric(&series) > seconds * 18, "it did talk");
        assert_eq!(downs, [0, 0]);
    }
}
