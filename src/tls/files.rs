//! Certificates and keys as bytes: read from files, checked, and packed to go from the master to
//! its workers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::{Decode, SliceReader};

use super::error::Error;
use crate::settings::{CertificateFiles, Config};

/// The largest file that is read: a mistaken path must not fill the memory.
const LONGEST_FILE: u64 = 8 * 1024 * 1024;

/// A server's certificates and keys, with what belongs to them.
#[derive(Clone)]
pub struct CertificateBundle {
    /// The server's certificates, the default one first. Never empty.
    pub pairs: Vec<CertifiedPair>,
    /// The certificate authorities for clients' certificates.
    pub authorities: Option<Pem>,
    /// The seed of the keys that encrypt session tickets. All workers share it. It is new each time
    /// certificates are read, so that no session outlives the certificates it was made with.
    pub ticket_seed: [u8; 32],
}

/// A certificate with its chain, and its key.
#[derive(Clone)]
pub struct CertifiedPair {
    /// The certificates, the server's own first.
    pub certificates: Pem,
    /// The key.
    pub key: Pem,
}

/// A file's content.
#[derive(Clone)]
pub struct Pem {
    /// The file, as the settings name it.
    pub name: String,
    /// The file's bytes.
    pub text: Vec<u8>,
}

impl CertificateBundle {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// A file cannot be read, or certfile is missing.
    pub fn read(config: &Config) -> Result<CertificateBundle, Error> {
        if config.certfile.is_none() && config.keyfile.is_some() {
            return Err(Error::KeyAlone);
        }
        let authorities = config.ca_certs.as_ref().map(|path| Pem::read("ca_certs", path)).transpose()?;
        CertificateBundle::of(&certificates_named_in(config), authorities)
    }

    /// Reads these certificates and keys.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(certificates: &[CertificateFiles], authorities: Option<Pem>) -> Result<CertificateBundle, Error> {
        let pairs = certificates.iter().map(|files| CertifiedPair::read(&files.certificate, files.key.as_ref()));
        let pairs = pairs.collect::<Result<_, _>>()?;
        let mut ticket_seed = [0; 32];
        rand::fill(&mut ticket_seed).map_err(|_| Error::Unusable("there are no random numbers".to_owned()))?;
        Ok(CertificateBundle { pairs, authorities, ticket_seed })
    }

    /// Faults that do not keep the server from starting, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.pairs.iter().filter_map(|pair| pair.certificates.chain_gap()).collect()
    }

    /// The bundle as bytes, for [`CertificateBundle::from_bytes`]: a sequence of parts, each
    /// preceded by its length. They are the seed, the authorities' name and text (both empty
    /// without them), then four parts for each pair.
    pub fn to_bytes(&self) -> Vec<u8> {
        let authorities = self.authorities.as_ref().map_or([&[][..], &[]], Pem::parts);
        let mut parts: Vec<&[u8]> = vec![&self.ticket_seed, authorities[0], authorities[1]];
        for CertifiedPair { certificates, key } in &self.pairs {
            parts.extend(certificates.parts());
            parts.extend(key.parts());
        }
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        bytes
    }

    /// What [`CertificateBundle::to_bytes`] has packed; `None` for anything else.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<CertificateBundle> {
        let mut parts = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let (part, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            parts.push(part);
            bytes = rest;
        }
        let [seed, authority, certificates, pairs @ ..] = &parts[..] else { return None };
        if pairs.is_empty() || pairs.len() % 4 != 0 || !bytes.is_empty() {
            return None;
        }
        Some(CertificateBundle {
            ticket_seed: (*seed).try_into().ok()?,
            authorities: if authority.is_empty() { None } else { Some(Pem::from_parts(authority, certificates)?) },
            pairs: pairs.chunks_exact(4).map(CertifiedPair::from_parts).collect::<Option<_>>()?,
        })
    }
}

impl CertifiedPair {
    fn read(certificate: &Path, key: Option<&PathBuf>) -> Result<CertifiedPair, Error> {
        let certificates = Pem::read("certfile", certificate)?;
        let key = match key {
            Some(path) => Pem::read("keyfile", path)?,
            None => certificates.clone(),
        };
        Ok(CertifiedPair { certificates, key })
    }

    fn from_parts(parts: &[&[u8]]) -> Option<CertifiedPair> {
        let [certificates_name, certificates, key_name, key] = parts else { return None };
        Some(CertifiedPair {
            certificates: Pem::from_parts(certificates_name, certificates)?,
            key: Pem::from_parts(key_name, key)?,
        })
    }
}

impl Pem {
    fn read(what: &'static str, path: &Path) -> Result<Pem, Error> {
        let name = path.display().to_string();
        let length = fs::metadata(path).map(|found| found.len());
        let text = match length {
            Ok(length) if length > LONGEST_FILE => {
                return Err(Error::BadPem(name, format!("it is longer than {LONGEST_FILE} bytes")));
            }
            _ => fs::read(path),
        };
        match text {
            Ok(text) => Ok(Pem { name, text }),
            Err(error) => Err(Error::Unreadable(what, name, error)),
        }
    }

    fn parts(&self) -> [&[u8]; 2] {
        [self.name.as_bytes(), &self.text]
    }

    fn from_parts(name: &[u8], text: &[u8]) -> Option<Pem> {
        Some(Pem { name: String::from_utf8(name.to_vec()).ok()?, text: text.to_vec() })
    }

    /// The certificates, in their order; at least one.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        let found = found.map_err(|error| Error::BadPem(self.name.clone(), error.to_string()))?;
        if found.is_empty() { Err(Error::NoCertificate(self.name.clone())) } else { Ok(found) }
    }

    /// When the first certificate expires, in seconds since the epoch.
    pub(super) fn expires_at(&self) -> Option<u64> {
        let own = parse(self.certificates().ok()?.first()?)?;
        Some(own.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
    }

    /// The first private key: PKCS#8, PKCS#1 or SEC1.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        // PKCS#8's own encryption, and OpenSSL's older one.
        if contains(&self.text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(&self.text, b"Proc-Type: 4,ENCRYPTED") {
            return Err(Error::EncryptedKey(self.name.clone()));
        }
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => Error::NoKey(self.name.clone()),
            error => Error::BadPem(self.name.clone(), error.to_string()),
        })
    }

    /// A sentence about a certificate that is followed by one which did not sign it: clients cannot
    /// verify such a chain.
    fn chain_gap(&self) -> Option<String> {
        let chain = self.certificates().ok()?;
        let parsed: Vec<Certificate> = chain.iter().filter_map(|der| parse(der)).collect();
        let gap = parsed.windows(2).position(|two| two[0].tbs_certificate.issuer != two[1].tbs_certificate.subject)?;
        let [below, above] = [&parsed[gap].tbs_certificate, &parsed[gap + 1].tbs_certificate];
        Some(format!(
            "the chain in \"{}\" is broken: '{}' is signed by '{}', but '{}' follows",
            self.name, below.subject, below.issuer, above.subject
        ))
    }
}

/// Tells whether a file has changed: device, inode, size, and the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    /// The stamp of the file at `path`; `None` while there is none.
    pub fn of(path: &Path) -> Option<Stamp> {
        let found = fs::metadata(path).ok()?;
        Some(Stamp(found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    }
}

/// The absolute paths of the files that `config` names, which are watched for changes.
pub(super) fn named_in(config: &Config) -> Vec<PathBuf> {
    let certificates = certificates_named_in(config);
    let pairs = certificates.iter().flat_map(|files| std::iter::once(&files.certificate).chain(&files.key));
    pairs.chain(&config.ca_certs).map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect()
}

/// The certificates of the settings, the default one first.
fn certificates_named_in(config: &Config) -> Vec<CertificateFiles> {
    let main = config
        .certfile
        .as_ref()
        .map(|certificate| CertificateFiles { certificate: certificate.clone(), key: config.keyfile.clone() });
    main.into_iter().chain(config.tls_certificates.iter().cloned()).collect()
}

/// Decodes a certificate; bytes behind its end are ignored.
pub(super) fn parse(der: &CertificateDer<'_>) -> Option<Certificate> {
    let mut reader = SliceReader::new(der).ok()?;
    Certificate::decode(&mut reader).ok()
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(text, words).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> Pem {
        Pem { name: name.to_owned(), text: name.repeat(3).into_bytes() }
    }

    #[test]
    fn a_bundle_is_unpacked_as_it_was_packed() {
        for authorities in [None, Some(pem("ca"))] {
            let pair = |name: &str| CertifiedPair { certificates: pem(name), key: pem("key") };
            let material = CertificateBundle { pairs: vec![pair("a"), pair("b")], authorities, ticket_seed: [7; 32] };
            let bytes = material.to_bytes();
            let found = CertificateBundle::from_bytes(&bytes).unwrap();
            assert_eq!(found.to_bytes(), bytes);
            assert_eq!((found.pairs.len(), found.authorities.is_some()), (2, material.authorities.is_some()));
            for length in 0..bytes.len() {
                assert!(
                    CertificateBundle::from_bytes(&bytes[..length]).is_none_or(|part| part.pairs.len() < 2),
                    "{length}"
                );
            }
        }
    }
}
