//! Chooses the certificate for a client: the one for the host that it names (SNI, RFC 6066, section
//! 3), else the default.

use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Encode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::error::Error;
use super::files::{CertifiedPair, parse};

/// The server's certificates, with keys ready for signing. The first is the default.
pub(super) struct Certificates(Vec<Named>);

struct Named {
    key: Arc<CertifiedKey>,
    /// DNS names in lower case, as the certificate has them.
    names: Vec<String>,
}

impl Certificates {
    /// Prepares `pairs` for signing.
    ///
    /// # Errors
    /// A certificate or key that cannot be used, or two that do not belong together.
    pub fn new(pairs: &[CertifiedPair], provider: &CryptoProvider) -> Result<Certificates, Error> {
        pairs.iter().map(|pair| Named::new(pair, provider)).collect::<Result<_, _>>().map(Certificates)
    }

    /// The certificate for `host`, among those whose signatures the client can verify.
    fn choose(&self, host: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Named> {
        let can_check = |named: &&Named| named.key.key.choose_scheme(schemes).is_some();
        let of_host = host.and_then(|host| {
            let host = host.to_ascii_lowercase();
            self.0.iter().filter(|named| named.is_for(&host)).find(can_check)
        });
        // If the client can verify none of them, the choice does not matter: rustls refuses the
        // client.
        of_host.or_else(|| self.0.iter().find(can_check)).or(self.0.first())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).map(|named| named.key.clone())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|named| &named.names)).finish()
    }
}

impl Named {
    fn new(pair: &CertifiedPair, provider: &CryptoProvider) -> Result<Named, Error> {
        let chain = pair.certificates.certificates()?;
        let own = parse(&chain[0]).ok_or_else(|| Error::BadCertificate(pair.certificates.name.clone()))?;
        let key = provider
            .key_provider
            .load_private_key(pair.key.key()?)
            .map_err(|error| Error::BadKey(pair.key.name.clone(), reason(&error)))?;
        // rustls's own check is not enough: it cannot read certificates of version 1, which OpenSSL
        // makes and serves.
        let public = own.tbs_certificate.subject_public_key_info.to_der().ok();
        if let (Some(theirs), Some(ours)) = (public, key.public_key())
            && *ours != theirs
        {
            let (certificate, key) = (pair.certificates.name.clone(), pair.key.name.clone());
            return Err(Error::Mismatch { certificate, key });
        }
        Ok(Named { names: names(&own), key: Arc::new(CertifiedKey::new(chain, key)) })
    }

    fn is_for(&self, host: &str) -> bool {
        self.names.iter().any(|name| matches(name, host))
    }
}

/// The DNS names of subjectAltName.
fn names(certificate: &Certificate) -> Vec<String> {
    let Ok(Some((_, alternatives))) = certificate.tbs_certificate.get::<SubjectAltName>() else { return Vec::new() };
    let dns = alternatives.0.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// Whether a certificate's name matches `host`. A star matches the first label, and one label only
/// (RFC 6125, 6.4.3).
fn matches(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(first, domain)| !first.is_empty() && domain == rest),
        None => name == host,
    }
}

fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::General(text) => text.clone(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let cases = [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", "example", false),
            ("*.example", ".example", false),
        ];
        for (name, host, expected) in cases {
            assert_eq!(matches(name, host), expected, "{name} {host}");
        }
    }
}
