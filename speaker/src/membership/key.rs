//! The secret of the membership: where it is, and what it is now.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use patina_speaker_core::membership::envelope::{self, Keyring};
use tokio::sync::mpsc;

use crate::settings::{Hidden, Settings};

/// Between two readings. A kubelet changes a mounted Secret by one rename; looking is cheaper than being told.
const PERIOD: Duration = Duration::from_secs(5);
/// Names of the files in a directory: the key of the Secret that MetalLB has, and ours beside it.
const NEWEST: &str = "secretkey";
const PREVIOUS: &str = "secretkey-previous";
/// Of a file that is longer, something else was meant.
const LONGEST: u64 = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file.
    #[error("cannot read the membership's key, {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is longer than any key.
    #[error("the membership's key, {}: more than {LONGEST} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not one that can be used.
    #[error("the membership's key, {place}: {source}")]
    Unfit {
        /// Path or variable.
        place: String,
        /// What is wrong.
        source: envelope::KeyError,
    },
}

/// Where the key is.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Path(PathBuf),
    Text(Hidden),
}

impl Source {
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let path = settings.ml_secret_key_path.clone().map(Self::Path);
        path.or_else(|| settings.ml_secret_key.clone().map(Self::Text))
    }

    /// What it is now.
    pub(super) fn read(&self) -> Result<Keyring, KeyError> {
        let (place, newest, previous) = match self {
            Self::Text(Hidden(text)) => ("METALLB_ML_SECRET_KEY".to_owned(), text.clone().into_bytes(), None),
            Self::Path(path) if path.is_dir() => {
                let previous = path.join(PREVIOUS);
                let previous = if previous.exists() { Some(read(&previous)?) } else { None };
                (path.display().to_string(), read(&path.join(NEWEST))?, previous)
            }
            Self::Path(path) => (path.display().to_string(), read(path)?, None),
        };
        Keyring::new(&newest, previous.as_deref()).map_err(|source| KeyError::Unfit { place, source })
    }

    /// Reads again and again, and tells what is new. What cannot be read changes nothing; that is said once.
    pub(super) async fn follow(self, tell: mpsc::Sender<Keyring>) {
        let (mut last, mut said) = (None, None);
        loop {
            tokio::time::sleep(PERIOD).await;
            let source = self.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || source.read()).await else { continue };
            match read {
                Ok(keyring) => {
                    said = None;
                    if last.as_ref() != Some(&keyring) {
                        if tell.send(keyring.clone()).await.is_err() {
                            return;
                        }
                        last = Some(keyring);
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        tracing::error!("{text}; the keys that were read before stay in use");
                        said = Some(text);
                    }
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let path = || path.to_owned();
    let file = std::fs::File::open(path()).map_err(|source| KeyError::Read { path: path(), source })?;
    let mut bytes = Vec::new();
    let taken = file.take(LONGEST + 1).read_to_end(&mut bytes);
    taken.map_err(|source| KeyError::Read { path: path(), source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err(KeyError::TooLong { path: path() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("patina-key-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_mounted_secret_has_one_key_or_two() {
        let path = directory("two");
        std::fs::write(path.join(NEWEST), "0123456789abcdefghijkl\n").unwrap();
        let one = Source::Path(path.clone()).read().unwrap();
        assert_eq!(one.ids().count(), 1);
        assert_eq!(Source::Path(path.join(NEWEST)).read().unwrap(), one);
        assert_eq!(Source::Text(Hidden("0123456789abcdefghijkl".to_owned())).read().unwrap(), one);
        std::fs::write(path.join(PREVIOUS), "lkjihgfedcba9876543210").unwrap();
        let two = Source::Path(path.clone()).read().unwrap();
        assert_eq!((two.ids().count(), two.ids().next()), (2, one.ids().next()));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_shown() {
        let path = directory("bad");
        let source = Source::Path(path.clone());
        let file = path.join(NEWEST);
        let shown = path.display();
        assert_eq!(
            source.read().unwrap_err().to_string(),
            format!(
                "cannot read the membership's key, {}: No such file or directory (os error 2)",
                file.display()
            )
        );
        std::fs::write(&file, "tooshort").unwrap();
        assert_eq!(
            source.read().unwrap_err().to_string(),
            format!("the membership's key, {shown}: the secret is 8 bytes long; at least 16 are needed")
        );
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        let text = source.read().unwrap_err().to_string();
        assert!(text.ends_with("more than 4096 bytes"), "{text}");
        std::fs::remove_dir_all(path).unwrap();
        assert_eq!(format!("{:?}", Source::Text(Hidden("geheim".to_owned()))), "Text((hidden))");
    }
}
