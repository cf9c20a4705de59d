//! The connection to the API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A connection that is not up after this long is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that gets no byte for this long is given up. Longer than a watch may be silent ([`crate::watch::TIMEOUT`]).
const READ_TIMEOUT: Duration = Duration::from_secs(75);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no client. Nothing was connected.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of `--kubeconfig`.
    #[error("cannot use kubeconfig {path}: {source}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// A context was named, and the default kubeconfig does not have it.
    #[error("cannot use the kubeconfig: {0}")]
    Context(#[source] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor a Pod.
    #[error(
        "no API server known: give --kubeconfig FILE, set KUBECONFIG, or run in a Pod with a ServiceAccount ({0})"
    )]
    Infer(#[source] kube::config::InferConfigError),
    /// Certificates or keys that cannot be used.
    #[error("cannot set up the connection to the API server: {0}")]
    Setup(#[source] kube::Error),
}

/// A client from `kubeconfig`, else `$KUBECONFIG` or `~/.kube/config`, else the Pod's ServiceAccount. It connects when it
/// is used: an API server that is down now is no error here.
///
/// Requests are not repeated behind the caller's back (kube's own retries can take minutes): who writes, retries.
///
/// # Errors
/// No usable configuration.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    Client::try_from(config(kubeconfig, None).await?).map_err(ClientError::Setup)
}

/// The configuration behind [`connect`], for callers that choose a context or need its namespace.
///
/// # Errors
/// As [`connect`].
pub async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, ClientError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = match kubeconfig {
        Some(path) => {
            let wrap = |source| ClientError::Kubeconfig { path: path.to_owned(), source };
            let file = Kubeconfig::read_from(path).map_err(wrap)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(wrap)?
        }
        None if context.is_some() => Config::from_kubeconfig(&options).await.map_err(ClientError::Context)?,
        None => Config::infer().await.map_err(ClientError::Infer)?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    config.write_timeout = Some(WRITE_TIMEOUT);
    config.default_retry = false;
    Ok(config)
}

/// An error of a request in one line: what the API server said, or the error with its causes. (kube's own text of an
/// answer has the whole Status in it.)
#[must_use]
pub fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => {
            format!("{} ({})", status.message.trim(), status.code)
        }
        kube::Error::Api(status) => format!("HTTP status {}", status.code),
        other => with_causes(other),
    }
}

/// An error and those beneath it that it does not already quote.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let status = kube::core::Status::failure("pods is forbidden", "Forbidden").with_code(403);
        assert_eq!(brief(&kube::Error::Api(status.boxed())), "pods is forbidden (403)");
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = connect(Some(Path::new("/nowhere/kubeconfig"))).await.err().unwrap();
        assert!(error.to_string().contains("/nowhere/kubeconfig"), "{error}");
    }
}
