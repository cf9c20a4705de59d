//! Secrets, what is derived of them, and which of them are in use.

use std::fmt;
use std::time::{Duration, Instant};

use ring::hmac;

use super::Epoch;

/// The shortest secret that is taken, in bytes of its text.
pub const LEAST_SECRET: usize = 16;
/// Keys that are no longer configured, kept for opening.
const MAX_RETIRED: usize = 2;
/// A key that is no longer configured opens for this long at least: datagrams may be late.
const RETIRED_LEAST: Duration = Duration::from_secs(30);
/// And for this long at most: somebody may want to be rid of it.
const RETIRED_MOST: Duration = Duration::from_secs(600);

/// Names a secret without telling it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a secret is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Everybody could guess it.
    #[error("the secret is {found} bytes long; at least {LEAST_SECRET} are needed")]
    TooShort {
        /// Without the white space around it.
        found: usize,
    },
}

/// The secrets that are configured: one, or during a rotation two.
#[derive(Clone)]
pub struct Keyring(Vec<Secret>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|secret| secret.id)).finish()
    }
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.ids().eq(other.ids())
    }
}

impl Eq for Keyring {}

impl Keyring {
    /// Of the text of a secret (any: white space around it does not count), and of the one before it.
    ///
    /// # Errors
    /// One of them is too short.
    pub fn new(newest: &[u8], previous: Option<&[u8]>) -> Result<Self, KeyError> {
        let mut secrets = vec![Secret::new(newest)?];
        if let Some(previous) = previous {
            let previous = Secret::new(previous)?;
            if secrets.iter().all(|secret| secret.id != previous.id) {
                secrets.push(previous);
            }
        }
        Ok(Self(secrets))
    }

    /// Their names, newest first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.0.iter().map(|secret| secret.id)
    }
}

/// The pseudorandom key of a secret (RFC 5869, 2.2).
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) id: KeyId,
    prk: hmac::Key,
}

impl Secret {
    fn new(text: &[u8]) -> Result<Self, KeyError> {
        let text = text.trim_ascii();
        if text.len() < LEAST_SECRET {
            return Err(KeyError::TooShort { found: text.len() });
        }
        let salt = hmac::Key::new(hmac::HMAC_SHA256, b"patina membership 1");
        let prk = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salt, text).as_ref());
        let [a, b, c, d, ..] = expand(&prk, &[b"key id"]);
        Ok(Self { id: KeyId([a, b, c, d]), prk })
    }

    /// The key under which the speaker with this epoch writes.
    pub(super) fn epoch_key(&self, epoch: &Epoch) -> [u8; 32] {
        expand(&self.prk, &[b"epoch", epoch])
    }
}

/// A key under which we write.
#[derive(Clone)]
pub(super) struct EpochKey {
    pub(super) id: KeyId,
    pub(super) bytes: [u8; 32],
}

struct Held {
    secret: Secret,
    own: EpochKey,
    /// Since when it is no longer configured.
    retired: Option<Instant>,
}

/// The secrets in use: the configured ones, newest first; then those that were configured. Never empty.
pub(super) struct Keys {
    newest: Held,
    others: Vec<Held>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl Keys {
    pub(super) fn new(keyring: Keyring, epoch: Epoch) -> Self {
        let mut held = keyring.0.into_iter().map(|secret| Held::new(secret, epoch));
        // A keyring has one secret at least; without any, one that nobody else can have stands for it.
        let newest = held.next().unwrap_or_else(|| {
            let prk = hmac::Key::new(hmac::HMAC_SHA256, &epoch);
            Held::new(Secret { id: KeyId([0; 4]), prk }, epoch)
        });
        Self { newest, others: held.collect() }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.held().map(|held| held.secret.id)
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&Secret> {
        self.held().map(|held| &held.secret).find(|secret| secret.id == id)
    }

    pub(super) fn own(&self, id: KeyId) -> Option<&EpochKey> {
        self.held().map(|held| &held.own).find(|own| own.id == id)
    }

    pub(super) fn newest(&self) -> &EpochKey {
        &self.newest.own
    }

    /// For somebody of whom nothing is known: each key in turn.
    pub(super) fn in_turn(&self, turn: usize) -> &EpochKey {
        let place = turn % (1 + self.others.len());
        self.held().nth(place).map_or(&self.newest.own, |held| &held.own)
    }

    /// For a speaker whose newest key is `newest`, and which last wrote to us under `under`. The second counts when it has
    /// a key that we do not have yet.
    pub(super) fn for_peer(&self, newest: KeyId, under: KeyId) -> &EpochKey {
        self.own(newest).or_else(|| self.own(under)).unwrap_or(&self.newest.own)
    }

    pub(super) fn rotate(&mut self, now: Instant, keyring: Keyring, epoch: Epoch) -> bool {
        let configured = self.held().filter(|held| held.retired.is_none()).map(|held| held.secret.id);
        if configured.eq(keyring.ids()) {
            return false;
        }
        let next = Self::new(keyring, epoch);
        let before = std::mem::replace(self, next);
        let mut retired: Vec<Held> = std::iter::once(before.newest)
            .chain(before.others)
            .filter(|held| self.get(held.secret.id).is_none())
            .map(|held| Held { retired: held.retired.or(Some(now)), ..held })
            .collect();
        retired.truncate(MAX_RETIRED);
        self.others.extend(retired);
        true
    }

    /// We write with another epoch from now on.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        for held in std::iter::once(&mut self.newest).chain(&mut self.others) {
            held.own.bytes = held.secret.epoch_key(&epoch);
        }
    }

    /// Gives up what is no longer configured nor needed. `all_current` says whether everybody we know writes to us under a
    /// key that passes the test: only then does everybody have one, and know that we do.
    pub(super) fn tidy(&mut self, now: Instant, all_current: impl Fn(&dyn Fn(KeyId) -> bool) -> bool) {
        if self.others.iter().all(|held| held.retired.is_none()) {
            return;
        }
        let configured: Vec<KeyId> =
            self.held().filter(|held| held.retired.is_none()).map(|held| held.secret.id).collect();
        let unneeded = all_current(&|id| configured.contains(&id));
        self.others.retain(|held| {
            held.retired.is_none_or(|since| {
                let age = now.saturating_duration_since(since);
                age < RETIRED_LEAST || (age < RETIRED_MOST && !unneeded)
            })
        });
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        std::iter::once(&self.newest).chain(&self.others)
    }
}

impl Held {
    fn new(secret: Secret, epoch: Epoch) -> Self {
        let own = EpochKey { id: secret.id, bytes: secret.epoch_key(&epoch) };
        Self { secret, own, retired: None }
    }
}

/// Epochs after the first one: as random as the seed.
pub(super) fn later_epoch(seed: &[u8; 32], number: u64) -> Epoch {
    let prk = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let bytes = expand(&prk, &[b"epoch of our own", &number.to_be_bytes()]);
    let mut epoch = Epoch::default();
    epoch.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    epoch
}

/// HKDF-Expand (RFC 5869, 2.3) of 32 bytes, which is one block: T(1) = HMAC(PRK, info | 0x01).
fn expand(prk: &hmac::Key, info: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(prk);
    info.iter().for_each(|part| context.update(part));
    context.update(&[1]);
    let mut out = [0; 32];
    out.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
    out
}
