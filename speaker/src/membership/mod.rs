//! The driver of the membership machines: sockets, keys, deadlines, on a thread of its own. It decides nothing.
//!
//! * here: what is switched on, and with what. * `addresses`: where. * `key`: the secret, followed. * `socket`, `driver`: the
//!   loop. * `metrics`. * `sys`: the thread's priority.

mod addresses;
mod driver;
mod key;
mod metrics;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use patina_runtime::tasks::Tasks;
use patina_speaker_core::membership::{Membership, Settings as Machine, State, envelope::Envelope};
use patina_speaker_core::view::Member;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{mpsc, watch};

pub use self::driver::Driver;
pub use self::metrics::MembershipMetrics;
use self::socket::Sockets;
use crate::fence::Fence;
use crate::settings::{Fencing, Settings};

/// Speakers that watch each one.
const WATCHERS: usize = 3;
/// Hints that wait; they repeat themselves.
const HINTS: usize = 64;

/// What the rest of the speaker has of the membership.
#[derive(Clone, Debug)]
pub struct Members {
    /// Who is alive, what they say, whether we are fenced.
    pub state: watch::Receiver<State>,
    /// What we say of ourselves.
    pub say: watch::Sender<Member>,
    /// A node was heard on the wire that is taken to be dead. May be dropped when full.
    pub hint: mpsc::Sender<String>,
    /// `true`: farewell; the sender is told by the end of the process only.
    pub leave: watch::Sender<bool>,
}

/// Why there is no membership though it is configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag or a variable holds no addresses.
    #[error("{flag}: {found:?} is no IP address; one of each family at most, separated by a comma")]
    Address {
        /// Where it was found.
        flag: &'static str,
        /// What was found there.
        found: String,
    },
    /// The port is taken, or the address is nobody's.
    #[error("cannot listen for the other speakers on UDP {address}")]
    Bind {
        /// Address and port.
        address: std::net::SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The secret.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// No thread.
    #[error("cannot start the membership's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts the membership on a thread of its own. `peers` are the addresses where speakers are said to be, ours may be among
/// them. `fence` is closed before this returns, and opened when the others know us.
///
/// `None`: it is switched off, or nothing says with which key or where; the log has a sentence. Then the API server says who
/// is alive, and the fence is not touched.
///
/// # Errors
/// It is configured, and cannot work so. A speaker that went on alone would announce what others announce, too.
pub fn start(
    settings: &Settings,
    peers: watch::Receiver<Option<BTreeSet<IpAddr>>>,
    fence: Fence,
    metrics: MembershipMetrics,
    tasks: &mut Tasks,
) -> Result<Option<Members>, StartError> {
    let Some((members, driver)) = prepare(settings, peers, fence, metrics)? else { return Ok(None) };
    let shutdown = tasks.shutdown();
    tasks.spawn_thread("membership", move || driver.run(shutdown))?;
    Ok(Some(members))
}

/// All that [`start`] does, but the thread: [`Driver::run`] is to be called on it.
///
/// # Errors
/// As [`start`].
pub fn prepare(
    settings: &Settings,
    peers: watch::Receiver<Option<BTreeSet<IpAddr>>>,
    fence: Fence,
    metrics: MembershipMetrics,
) -> Result<Option<(Members, Driver)>, StartError> {
    let off = |why: &str| {
        tracing::info!("membership is off: {why}; the API server says which speakers are alive");
        metrics.enabled(false);
        Ok(None)
    };
    if settings.ml_labels.is_empty() {
        return off("--ml-labels is empty");
    }
    let Some(source) = key::Source::of(settings) else {
        return off("neither --ml-secret-key-path nor METALLB_ML_SECRET_KEY names a key");
    };
    let addresses = addresses::own(settings)?;
    if addresses.is_empty() {
        return off(
            "neither --ml-bindaddr nor METALLB_POD_IPS says at which address the others reach this speaker",
        );
    }
    let keyring = source.read()?;
    let sockets = Sockets::open(&addresses)?;
    let announced = sockets.addresses();
    tracing::info!(addresses = ?announced, "membership is on");
    metrics.enabled(true);

    let envelope = Envelope::new(keyring, random()?, random()?);
    let machine = Machine {
        node: settings.node_name.clone(),
        addresses: announced,
        heartbeat: settings.membership_heartbeat(),
        detect: settings.membership_detect(),
        watchers: WATCHERS,
        quorum: settings.fencing == Fencing::Quorum,
        incarnation: start_number(),
        seed: u64::from_be_bytes(random()?),
    };
    let machine = Membership::new(std::time::Instant::now(), machine);
    // From now on it is the machine that opens it.
    fence.set(machine.answer_until());
    let (tell, state) = watch::channel(machine.state());
    let (say, said) = watch::channel(Member::default());
    let (hint, hints) = mpsc::channel(HINTS);
    let (leave, leaves) = watch::channel(false);
    let driver = Driver {
        machine,
        envelope,
        sockets,
        unbound: BTreeMap::new(),
        node: settings.node_name.clone(),
        isolated: BTreeSet::new(),
        fence,
        metrics,
        source,
        keys: Vec::new(),
        port: settings.ml_bindport,
        state: tell,
        peers,
        said,
        hints,
        leaves,
    };
    Ok(Some((Members { state, say, hint, leave }, driver)))
}

/// A later start of this node has a greater one, unless its clock was set back: microseconds of the wall clock. The machine
/// of a start that is known under a greater number is told, and goes beyond it.
fn start_number() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(bytes)
}
