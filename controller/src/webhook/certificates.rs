//! Which certificates there should be. Values in, values out: what the Secret holds, the time, and how long the API server is
//! known to trust a bundle lead to the next content of the Secret, or to the moment to look again.
//!
//! The Secret has the keys of MetalLB's (and cert-manager's): `ca.crt`, `ca.key`, `tls.crt`, `tls.key`. The first certificate
//! of `ca.crt` signs; any behind it are predecessors that are trusted while a certificate of theirs may be served.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Clocks of API server and controller may differ by this much.
const SKEW: Duration = Duration::from_secs(300);

/// How long things are good for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) ca: Duration,
    pub(crate) server: Duration,
    /// A certificate is renewed when it is good for no longer than this.
    pub(crate) renew_ahead: Duration,
    /// How long the API server must have trusted a new CA before a certificate of it is served, and how long after that the old
    /// CA is trusted, too.
    pub(crate) overlap: Duration,
}

/// The data of the Secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// `ca.crt`, PEM: what the API server should trust.
    pub(crate) bundle: String,
    /// `ca.key`, PEM. Absent when somebody else makes the certificates.
    pub(crate) ca_key: Option<String>,
    /// `tls.crt`, PEM.
    pub(crate) certificate: String,
    /// `tls.key`, PEM.
    pub(crate) key: String,
}

/// Without the keys.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("bundle", &self.bundle)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Stored {
    /// What of a Secret's data matters; what is missing is empty.
    pub(crate) fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key: &str| data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        Self {
            bundle: text("ca.crt").unwrap_or_default(),
            ca_key: text("ca.key").filter(|key| !key.is_empty()),
            certificate: text("tls.crt").unwrap_or_default(),
            key: text("tls.key").unwrap_or_default(),
        }
    }

    /// As the Secret has it.
    pub(crate) fn data(&self) -> BTreeMap<String, ByteString> {
        let entries = [
            ("ca.crt", Some(&self.bundle)),
            ("ca.key", self.ca_key.as_ref()),
            ("tls.crt", Some(&self.certificate)),
        ];
        let entries = entries.into_iter().chain([("tls.key", Some(&self.key))]);
        let some = entries.filter_map(|(key, text)| Some((key, text?)));
        some.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).collect()
    }

    /// Until when the server's certificate is good.
    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        Some(Facts::first(&self.certificate)?.not_after)
    }
}

/// What to do about the Secret.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is as it should be; look again then.
    Keep(SystemTime),
    /// Write this, for this reason.
    Write(Stored, &'static str),
}

/// Keys or certificates could not be made; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate for the webhook: {0}")]
pub(crate) struct MakeError(#[from] rcgen::Error);

/// The next step. `names` are the server's; `trusted` says since when the API server has had exactly the bundle of `stored`,
/// as far as is known.
pub(crate) fn next(
    stored: &Stored,
    names: &[String],
    now: SystemTime,
    trusted: Option<SystemTime>,
    lifetimes: &Lifetimes,
) -> Result<Step, MakeError> {
    let bundle = good(&stored.bundle, now);
    let signer = bundle.first().filter(|ca| ca.not_after > now + lifetimes.renew_ahead).and_then(|ca| {
        let key = KeyPair::from_pem(stored.ca_key.as_deref()?).ok()?;
        (ca.public_key == key.public_key_raw()).then_some((ca, key))
    });
    let served = Facts::first(&stored.certificate).filter(|cert| {
        cert.not_before <= now + SKEW
            && now < cert.not_after
            && names.iter().all(|name| cert.names.contains(name))
            && bundle.iter().any(|ca| ca.signed(cert))
            && KeyPair::from_pem(&stored.key).is_ok_and(|key| key.public_key_raw() == cert.public_key)
    });
    let Some((ca, ca_key)) = signer else {
        return new_authority(stored, &bundle, served.is_some(), names, now, lifetimes);
    };
    let renew = |why| {
        let (certificate, key) =
            sign(Issuer::from_ca_cert_pem(&ca.pem, ca_key)?, ca.not_after, names, now, lifetimes)?;
        Ok(Step::Write(Stored { certificate, key, ..stored.clone() }, why))
    };
    let Some(served) = served else { return renew("there is no certificate that can be served") };
    if !ca.signed(&served) {
        // The last moment at which the new CA may be waited for.
        let expiring = served.not_after.checked_sub(SKEW.min(lifetimes.renew_ahead / 2)).unwrap_or(now);
        let due = trusted.map_or(expiring, |since| (since + lifetimes.overlap).min(expiring));
        return if due <= now { renew("the API server trusts the new CA") } else { Ok(Step::Keep(due)) };
    }
    let due = served.not_after.checked_sub(lifetimes.renew_ahead).unwrap_or(now);
    if due <= now && served.not_after < ca.not_after {
        return renew("the certificate ends soon");
    }
    let ca_due = ca.not_after.checked_sub(lifetimes.renew_ahead).unwrap_or(now);
    let mut again = if due > now { due.min(ca_due) } else { ca_due };
    if blocks(&stored.bundle).len() > 1 {
        let alone = served.not_before + SKEW + lifetimes.overlap;
        if alone <= now {
            return Ok(Step::Write(
                Stored { bundle: format!("{}\n", ca.pem), ..stored.clone() },
                "the old CA is done",
            ));
        }
        again = again.min(alone);
    }
    Ok(Step::Keep(again))
}

/// A new CA in front of those before it. What is served goes on as long as it can: first the API server learns to trust.
fn new_authority(
    stored: &Stored,
    bundle: &[Facts],
    serves: bool,
    names: &[String],
    now: SystemTime,
    lifetimes: &Lifetimes,
) -> Result<Step, MakeError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("patina-webhook-ca-{}", seconds(now)));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = (now - SKEW).into();
    params.not_after = (now + lifetimes.ca).into();
    let key = KeyPair::generate()?;
    let (pem, key_pem) = (params.self_signed(&key)?.pem(), key.serialize_pem());
    let older: String = bundle.iter().map(|ca| format!("{}\n", ca.pem)).collect();
    let (certificate, server_key, why) = if serves {
        (stored.certificate.clone(), stored.key.clone(), "a new CA, beside the old one at first")
    } else {
        let issuer = Issuer::new(params, key);
        let (certificate, key) = sign(issuer, now + lifetimes.ca, names, now, lifetimes)?;
        (certificate, key, "there is no CA that can be used")
    };
    let bundle = pem + &older;
    Ok(Step::Write(Stored { bundle, ca_key: Some(key_pem), certificate, key: server_key }, why))
}

/// A certificate for the server and its key, PEM.
fn sign(
    issuer: Issuer<'_, KeyPair>,
    at_most: SystemTime,
    names: &[String],
    now: SystemTime,
    lifetimes: &Lifetimes,
) -> Result<(String, String), MakeError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = names.first() {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - SKEW).into();
    params.not_after = (now + lifetimes.server).min(at_most).into();
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

/// What matters of a certificate.
#[derive(Debug)]
struct Facts {
    pem: String,
    der: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<String>,
    public_key: Vec<u8>,
}

impl Facts {
    /// Of the first certificate of a PEM text.
    fn first(pem: &str) -> Option<Self> {
        Self::of(blocks(pem).first()?)
    }

    fn of(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, cert) = X509Certificate::from_der(&der).ok()?;
        let names = match cert.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(dns_name).collect(),
            _ => Vec::new(),
        };
        let at = |time: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(time).ok()?));
        let not_before = at(cert.validity().not_before.timestamp())?;
        let not_after = at(cert.validity().not_after.timestamp())?;
        let public_key = cert.public_key().subject_public_key.data.to_vec();
        Some(Self { pem: pem.to_owned(), der, not_before, not_after, names, public_key })
    }

    /// By its name and, where both tell, by the identifier of its key. Whether the signature holds is checked by who trusts.
    fn signed(&self, other: &Self) -> bool {
        let read = |facts: &'_ Self| {
            X509Certificate::from_der(&facts.der).ok().map(|(_, cert)| {
                let mut ids = (None, None);
                for extension in cert.extensions() {
                    match extension.parsed_extension() {
                        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                            ids.0 = Some(id.0.to_vec())
                        }
                        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                            ids.1 = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                        }
                        _ => {}
                    }
                }
                (cert.subject().as_raw().to_vec(), cert.issuer().as_raw().to_vec(), ids.0, ids.1)
            })
        };
        let (Some((subject, _, own_id, _)), Some((_, issuer, _, wanted_id))) = (read(self), read(other))
        else {
            return false;
        };
        subject == issuer && (own_id.is_none() || wanted_id.is_none() || own_id == wanted_id)
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    }
}

/// The certificates of a bundle that are not over.
fn good(bundle: &str, now: SystemTime) -> Vec<Facts> {
    blocks(bundle).into_iter().filter_map(Facts::of).filter(|ca| now < ca.not_after).collect()
}

/// The certificates of a PEM text, each as text.
fn blocks(pem: &str) -> Vec<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let ends = pem.match_indices(END).map(|(at, _)| at + END.len());
    let mut from = 0;
    let mut out = Vec::new();
    for end in ends {
        let block = pem.get(from..end).unwrap_or_default();
        if let Some(begin) = block.rfind("-----BEGIN CERTIFICATE-----") {
            out.extend(block.get(begin..));
        }
        from = end;
    }
    out
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const LIFETIMES: Lifetimes = Lifetimes {
        ca: Duration::from_secs(3600 * 100),
        server: Duration::from_secs(3600 * 10),
        renew_ahead: HOUR,
        overlap: SKEW,
    };

    fn names() -> Vec<String> {
        vec!["hook.ns.svc".to_owned(), "hook".to_owned()]
    }

    fn at(hours: u32) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + HOUR * hours
    }

    fn step(stored: &Stored, now: SystemTime, trusted: Option<SystemTime>) -> Step {
        next(stored, &names(), now, trusted, &LIFETIMES).unwrap()
    }

    fn written(step: Step) -> (Stored, &'static str) {
        match step {
            Step::Write(stored, why) => (stored, why),
            Step::Keep(until) => panic!("kept until {until:?}"),
        }
    }

    fn kept(step: Step) -> SystemTime {
        match step {
            Step::Keep(until) => until,
            Step::Write(_, why) => panic!("written: {why}"),
        }
    }

    fn signer_is_first(stored: &Stored) -> bool {
        Facts::first(&stored.bundle).unwrap().signed(&Facts::first(&stored.certificate).unwrap())
    }

    #[test]
    fn the_first_one_is_made_of_nothing_and_renewed_ahead_of_its_end() {
        let (first, _) = written(step(&Stored::default(), at(0), None));
        assert!(signer_is_first(&first));
        assert_eq!(first.expiry(), Some(at(10)));
        assert_eq!(Stored::read(&first.data()), first);
        assert!(!format!("{first:?}").contains("PRIVATE"), "keys are not shown");
        assert_eq!(kept(step(&first, at(1), None)), at(9));

        let (second, why) = written(step(&first, at(9), None));
        assert_eq!(why, "the certificate ends soon");
        assert_eq!((second.bundle, second.ca_key), (first.bundle, first.ca_key), "by the same CA");
        assert_eq!(Facts::first(&second.certificate).unwrap().not_after, at(19));
        assert_ne!(second.key, first.key);
    }

    #[test]
    fn a_new_ca_is_trusted_before_a_certificate_of_it_is_served_and_the_old_one_goes_last() {
        let (mut stored, _) = written(step(&Stored::default(), at(0), None));
        for hour in 1..99 {
            if let Step::Write(next, _) = step(&stored, at(hour), None) {
                assert_eq!(blocks(&next.bundle).len(), 1, "hour {hour}");
                stored = next;
            }
        }
        let (both, why) = written(step(&stored, at(99), None));
        assert_eq!(why, "a new CA, beside the old one at first");
        assert_eq!(blocks(&both.bundle).len(), 2);
        assert_eq!((&both.certificate, &both.key), (&stored.certificate, &stored.key));
        assert!(!signer_is_first(&both) && both.bundle.ends_with(&stored.bundle));

        assert!(kept(step(&both, at(99), None)) > at(99), "nobody trusts it yet");
        assert_eq!(kept(step(&both, at(99), Some(at(99)))), at(99) + SKEW, "not long enough");
        let now = at(99) + SKEW;
        let (new, _) = written(step(&both, now, Some(at(99))));
        assert!(signer_is_first(&new));
        assert_eq!(new.bundle, both.bundle, "another replica may still serve the old one");

        assert_eq!(kept(step(&new, now, Some(at(99)))), now + SKEW);
        let (alone, why) = written(step(&new, now + SKEW, Some(at(99))));
        assert_eq!((why, blocks(&alone.bundle).len()), ("the old CA is done", 1));
        assert!(signer_is_first(&alone));
        kept(step(&alone, now + SKEW, None));
    }

    #[test]
    fn what_cannot_be_served_is_replaced_at_once() {
        let (good, _) = written(step(&Stored::default(), at(0), None));
        let (other, _) = written(step(&Stored::default(), at(0), None));
        let broken = [
            Stored { certificate: "none".to_owned(), ..good.clone() },
            Stored { key: other.key.clone(), ..good.clone() },
            Stored { certificate: other.certificate.clone(), key: other.key.clone(), ..good.clone() },
        ];
        for stored in broken {
            let (mended, _) = written(step(&stored, at(1), None));
            assert_eq!(mended.bundle, good.bundle);
            assert!(signer_is_first(&mended));
        }
        let (mended, _) = written(step(&good, at(11), None));
        assert_eq!(mended.expiry(), Some(at(21)), "an expired one");
        let renamed = vec!["other.ns.svc".to_owned()];
        assert!(matches!(next(&good, &renamed, at(1), None, &LIFETIMES).unwrap(), Step::Write(..)));
    }

    #[test]
    fn a_lost_ca_key_leads_to_a_new_ca_beside_the_old_one() {
        let (good, _) = written(step(&Stored::default(), at(0), None));
        let (both, _) = written(step(&Stored { ca_key: None, ..good.clone() }, at(1), None));
        assert_eq!((blocks(&both.bundle).len(), &both.certificate), (2, &good.certificate));
        let (new, _) = written(step(&both, at(10), None));
        assert!(signer_is_first(&new), "the old one ends: trusted or not");
    }
}
