//! Certificates, X.509 v3 all of them: rustls takes nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::{io, path::Path};

/// A certificate authority of our own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub fn create() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "boltz-harness");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes `<name>.crt` and `<name>.key` for a server on loopback.
    pub fn issue_server(&self, folder: &Path, name: &str) -> io::Result<()> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "kubernetes.default.svc".to_owned()];
        self.issue(folder, name, names, ExtendedKeyUsagePurpose::ServerAuth, name, None)
    }

    /// Writes `<name>.crt` and `<name>.key` for a user of the API server.
    pub fn issue_client(&self, folder: &Path, name: &str, user: &str, group: Option<&str>) -> io::Result<()> {
        self.issue(folder, name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, user, group)
    }

    fn issue(
        &self,
        folder: &Path,
        name: &str,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
        common_name: &str,
        organization: Option<&str>,
    ) -> io::Result<()> {
        let certify = || {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, common_name);
            if let Some(organization) = organization {
                params.distinguished_name.push(DnType::OrganizationName, organization);
            }
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            Ok::<_, rcgen::Error>((params.signed_by(&key, &self.issuer)?, key))
        };
        let (certificate, key) = certify().map_err(io::Error::other)?;
        std::fs::write(folder.join(format!("{name}.crt")), certificate.pem())?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())
    }
}

/// Writes a key pair for signing ServiceAccount tokens: `<name>.key` and `<name>.pub`.
pub fn write_signing_key(folder: &Path, name: &str) -> io::Result<()> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    std::fs::write(folder.join(format!("{name}.pub")), key.public_key_pem())
}
