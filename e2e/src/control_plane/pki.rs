//! The cluster's certificates: one authority, the server's certificate, a client certificate per user, and the key
//! that signs service account tokens.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// A certificate authority and where it writes.
#[derive(Debug)]
pub(super) struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Pki {
    /// A new authority; writes `ca.crt` and the service account key `sa.key`, `sa.pub`.
    pub(super) fn create(dir: PathBuf) -> Result<Pki> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name("patina-lab-ca", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let ca_pem = params.self_signed(&key)?.pem();
        let pki = Pki { dir, ca_pem, ca: Issuer::new(params, key) };
        pki.write("ca.crt", &pki.ca_pem)?;
        let sa = KeyPair::generate()?;
        pki.write("sa.key", &sa.serialize_pem())?;
        pki.write("sa.pub", &sa.public_key_pem())?;
        Ok(pki)
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// Writes `apiserver.crt` and `apiserver.key` for all names and addresses it is reached at.
    pub(super) fn server(&self, addresses: &[IpAddr]) -> Result<()> {
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut params = CertificateParams::new(names.map(str::to_owned).to_vec())?;
        params.distinguished_name = name("kube-apiserver", &[]);
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        let identity = self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)?;
        self.write("apiserver.crt", &identity.certificate)?;
        self.write("apiserver.key", &identity.key)
    }

    /// A client certificate: the API server takes CN as the user and each O as a group.
    pub(super) fn client(&self, user: &str, groups: &[&str]) -> Result<Identity> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name(user, groups);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.ca)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        write(&self.dir.join(file), text)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn name(common: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name
}
