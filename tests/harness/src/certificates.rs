//! Certificates, X.509 v3 all of them: rustls takes nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::{fmt, io, path::Path};

/// A certificate and its private key, both PEM.
pub struct Credential {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Credential {
    /// Writes `<name>.crt` and `<name>.key`.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<()> {
        std::fs::write(folder.join(format!("{name}.crt")), &self.certificate)?;
        std::fs::write(folder.join(format!("{name}.key")), &self.key)
    }
}

/// A certificate authority of our own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authority")
    }
}

impl Authority {
    /// With a new key.
    pub fn create() -> io::Result<Self> {
        let create = || {
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name.push(DnType::CommonName, "boltz-harness");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            let key = KeyPair::generate()?;
            let pem = params.self_signed(&key)?.pem();
            Ok(Self { issuer: Issuer::new(params, key), pem })
        };
        create().map_err(|error: rcgen::Error| io::Error::other(error))
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For a server with these names and addresses.
    pub fn issue_server(&self, server: &str, names: &[&str]) -> io::Result<Credential> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, server, None)
    }

    /// For a user of the API server, which takes the common name as the user's and the organization as the group.
    pub fn issue_client(&self, user: &str, group: Option<&str>) -> io::Result<Credential> {
        self.issue(Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, user, group)
    }

    fn issue(
        &self,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
        common_name: &str,
        organization: Option<&str>,
    ) -> io::Result<Credential> {
        let issue = || {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, common_name);
            if let Some(organization) = organization {
                params.distinguished_name.push(DnType::OrganizationName, organization);
            }
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &self.issuer)?.pem();
            Ok(Credential { certificate, key: key.serialize_pem() })
        };
        issue().map_err(|error: rcgen::Error| io::Error::other(error))
    }
}

/// Writes a key pair for signing ServiceAccount tokens: `<name>.key` and `<name>.pub`.
pub fn write_signing_key(folder: &Path, name: &str) -> io::Result<()> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    std::fs::write(folder.join(format!("{name}.pub")), key.public_key_pem())
}
