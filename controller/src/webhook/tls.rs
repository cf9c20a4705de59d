//! TLS of the server: what is offered, and the certificate of the moment.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedCipherSuite};

use super::certificates::Stored;

/// `--tls-min-version` and `--tls-cipher-suites`, checked.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    provider: Arc<CryptoProvider>,
    tls12: bool,
}

/// MetalLB's words for versions.
const VERSIONS: [(&str, bool); 2] = [("VersionTLS12", true), ("VersionTLS13", false)];

impl Offer {
    /// Understands the flags; `suites` is a list with commas, empty for all.
    pub(crate) fn read(min_version: &str, suites: &str) -> Result<Self, String> {
        let tls12 = VERSIONS.iter().find(|(word, _)| *word == min_version).map(|(_, tls12)| *tls12);
        let tls12 = tls12.ok_or_else(|| {
            format!("--tls-min-version: found {min_version:?}; allowed are VersionTLS12 and VersionTLS13")
        })?;
        let mut provider = ring::default_provider();
        let wanted: Vec<&str> = suites.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if !wanted.is_empty() {
            if !tls12 {
                return Err(
                    "--tls-cipher-suites chooses among those of TLS 1.2, those of 1.3 are fixed; add \
                            --tls-min-version=VersionTLS12, or leave it out"
                        .to_owned(),
                );
            }
            let known: Vec<(String, SupportedCipherSuite)> = provider
                .cipher_suites
                .iter()
                .filter(|s| s.tls13().is_none())
                .map(|s| (name_of(*s), *s))
                .collect();
            let mut chosen: Vec<SupportedCipherSuite> =
                provider.cipher_suites.iter().copied().filter(|suite| suite.tls13().is_some()).collect();
            for name in wanted {
                let Some((_, suite)) = known.iter().find(|(known, _)| known == name) else {
                    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
                    return Err(format!(
                        "--tls-cipher-suites: found {name:?}; allowed are {}",
                        names.join(", ")
                    ));
                };
                chosen.push(*suite);
            }
            provider.cipher_suites = chosen;
        }
        Ok(Self { provider: Arc::new(provider), tls12 })
    }

    /// For the server that shows the certificate of `served`.
    pub(crate) fn config(&self, served: &Served) -> Result<Arc<ServerConfig>, tokio_rustls::rustls::Error> {
        let versions: &[_] = if self.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(served.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Go and rustls both call the suites of TLS 1.2 as IANA does.
fn name_of(suite: SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().to_owned()
}

/// The certificate of the moment. Clones share it; a handshake takes the newest.
#[derive(Clone, Default)]
pub(crate) struct Served(Arc<RwLock<Option<Pair>>>);

/// A certificate ready for handshakes, and what it was made of.
type Pair = (Arc<CertifiedKey>, Stored);

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("any", &self.any()).finish_non_exhaustive()
    }
}

impl Served {
    /// Whether there is one.
    pub(crate) fn any(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether it is this one.
    pub(crate) fn is(&self, stored: &Stored) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(|(_, now)| now.certificate == stored.certificate && now.key == stored.key)
    }

    /// From now on this one. One that cannot be served leaves the last in place; the reason says which part is wrong.
    pub(crate) fn load(&self, stored: &Stored) -> Result<(), String> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(stored.certificate.as_bytes()).collect();
        let chain = chain.map_err(|error| format!("tls.crt cannot be read: {error}"))?;
        if chain.is_empty() {
            return Err("tls.crt has no certificate".to_owned());
        }
        // The parser's error never quotes the text.
        let key = PrivateKeyDer::from_pem_slice(stored.key.as_bytes())
            .map_err(|error| format!("tls.key cannot be read: {error}"))?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| format!("tls.crt and tls.key do not go together: {error}"))?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((Arc::new(key), stored.clone()));
        Ok(())
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(key, _)| Arc::clone(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_metallb_are_understood_or_refused_with_those_there_are() {
        assert!(Offer::read("VersionTLS13", "").is_ok_and(|offer| !offer.tls12));
        let some = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
        let offer = Offer::read("VersionTLS12", some).unwrap();
        assert_eq!(offer.provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count(), 2);
        for (version, suites, hint) in [
            ("VersionTLS11", "", "allowed are VersionTLS12"),
            ("VersionTLS13", some, "those of 1.3 are fixed"),
            ("VersionTLS12", "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ] {
            let error = Offer::read(version, suites).unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_served_leaves_the_last_in_place() {
        let served = Served::default();
        let error = served.load(&Stored::default()).unwrap_err();
        assert!(error.contains("tls.crt has no certificate") && !served.any(), "{error}");
    }
}
