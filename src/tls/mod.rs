//! TLS: from the files that the settings name to connections that are encrypted.
//!
//! [`Tls::load`] reads and checks everything in the master, before any worker is forked, so that a
//! mistake is found at the start (or keeps the old certificates, on HUP) and workers need not be
//! able to read a key. [`Session`] is one connection: ciphertext on a non-blocking socket on one
//! side, plain bytes on the other; it never waits. The protocol itself is rustls's.
//!
//! It must not know HTTP, Python, the event loop or the master, and it does not log.

mod ciphers;
mod client_certificate;
mod error;
mod files;
mod names;
mod session;
mod tickets;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::settings::{CertReqs, Config};
use crate::sys::seqlock::SeqlockPage;

use self::names::Certificates;
use self::tickets::Tickets;

pub use self::client_certificate::ClientCertificate;
pub use self::error::Error;
pub use self::files::{CertificateBundle, CertifiedPair, Pem, Stamp};
pub use self::session::{HandshakeFailure, MOST_UNSENT, Secured, Session};

/// The most bytes of certificates and keys that a running worker can be given (`tls_watch`); far
/// above what chains are.
const BULLETIN_BYTES: usize = 256 * 1024;

/// What a generation of workers speaks TLS with. Clones share everything.
#[derive(Clone)]
pub struct Tls {
    acceptor: Acceptor,
    /// What the acceptor was made of, and the bulletin's edition that this stood in.
    material: Arc<(CertificateBundle, u64)>,
    basis: Arc<SharedConfig>,
}

/// What stays the same when certificates are renewed.
struct SharedConfig {
    terms: TlsOptions,
    /// The files that the material is from, as they were right before they were read.
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// Where the master leaves new certificates for the workers, under `tls_watch`.
    page: Option<SeqlockPage>,
}

/// What new connections are accepted with.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

/// What holds of connections besides certificates and keys.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Whether clients show certificates.
    pub cert_reqs: CertReqs,
    /// An OpenSSL cipher list.
    pub ciphers: Option<String>,
    /// Whether TLS 1.2 is spoken.
    pub tls12: bool,
    /// Whether TLS 1.3 is spoken.
    pub tls13: bool,
}

/// The outcome of [`Tls::load`].
pub struct LoadedCertificates {
    /// What to speak TLS with.
    pub tls: Tls,
    /// What the operator should hear about, a sentence each.
    pub warnings: Vec<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("terms", &self.basis.terms)
            .field("files", &self.basis.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks what `config` names; `None` where it asks for no TLS. Relative paths are
    /// taken from the working directory.
    ///
    /// # Errors
    /// The first thing that is wrong, as a sentence.
    pub fn load(config: &Config) -> Result<Option<LoadedCertificates>, Error> {
        if !config.is_tls() {
            return Ok(None);
        }
        Tls::assemble(config, || Ok((CertificateBundle::read(config)?, TlsOptions::new(config)))).map(Some)
    }

    /// The same of material and on terms that `read` knows, whatever `config` says of them; the
    /// files to watch are those of `config`.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn assemble(
        config: &Config,
        read: impl FnOnce() -> Result<(CertificateBundle, TlsOptions), Error>,
    ) -> Result<LoadedCertificates, Error> {
        // First, so that a change while they are read is one that will be seen.
        let files = files::named_in(config).into_iter().map(|path| (path.clone(), Stamp::of(&path))).collect();
        let (material, terms) = read()?;
        let mut warnings = material.warnings();
        let acceptor = Acceptor::new(&material, &terms, &mut warnings)?;
        let page = match config.tls_watch {
            true => Some(SeqlockPage::new(BULLETIN_BYTES).map_err(Error::NoMemory)?),
            false => None,
        };
        let basis = Arc::new(SharedConfig { terms, files, page });
        Ok(LoadedCertificates { tls: Tls { acceptor, material: Arc::new((material, 0)), basis }, warnings })
    }

    /// From now on this process takes certificates, and hands out none. For a worker right after
    /// the fork: no other thread may look meanwhile.
    ///
    /// # Errors
    /// The kernel has no room for another mapping.
    pub fn give_up_writing(&self) -> io::Result<()> {
        self.basis.page.as_ref().map_or(Ok(()), SeqlockPage::give_up_writing)
    }

    /// What new connections are accepted with.
    pub fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// The files that the certificates and keys were from at first, as they were then.
    pub fn files(&self) -> &[(PathBuf, Option<Stamp>)] {
        &self.basis.files
    }

    /// Whether the files are to be watched.
    pub fn is_watched(&self) -> bool {
        self.basis.page.is_some()
    }

    /// In the master: takes the certificates of `fresh`, for this and for every worker that has a
    /// clone of it. The terms stay, whatever a hook says of them now: what is agreed on with
    /// clients changes with a reload.
    ///
    /// # Errors
    /// They do not go with the terms, or are too many; nothing has changed then.
    pub fn renew(&mut self, fresh: &Tls) -> Result<(), Error> {
        let material = fresh.material.0.clone();
        let acceptor = Acceptor::new(&material, &self.basis.terms, &mut Vec::new())?;
        let version = match &self.basis.page {
            Some(page) => page.publish(&material.to_bytes()).map_err(|_| Error::TooLong(BULLETIN_BYTES))?,
            None => 0,
        };
        (self.acceptor, self.material) = (acceptor, Arc::new((material, version)));
        Ok(())
    }

    /// In a worker: takes what the master has published since, and says whether there was anything.
    ///
    /// # Errors
    /// It cannot be used after all; what was there stays.
    pub fn catch_up(&mut self) -> Result<bool, Error> {
        let Some(page) = &self.basis.page else { return Ok(false) };
        let Some((version, bytes)) = page.read(self.material.1) else { return Ok(false) };
        let material = CertificateBundle::from_bytes(&bytes)
            .ok_or_else(|| Error::Unusable("the bulletin is garbled".to_owned()))?;
        let acceptor = Acceptor::new(&material, &self.basis.terms, &mut Vec::new());
        // Whatever comes of it, this edition has been seen.
        self.material = Arc::new((material, version));
        self.acceptor = acceptor?;
        Ok(true)
    }
}

impl TlsOptions {
    /// What `config` says.
    pub fn new(config: &Config) -> TlsOptions {
        TlsOptions { cert_reqs: config.cert_reqs, ciphers: config.ciphers.clone(), tls12: true, tls13: true }
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let known = [(self.tls13, &TLS13), (self.tls12, &TLS12)];
        known.into_iter().filter_map(|(is_on, version)| is_on.then_some(version)).collect()
    }
}

impl Acceptor {
    /// An acceptor made of `material`, on these terms; what the operator should hear is added to
    /// `warnings`.
    ///
    /// # Errors
    /// What is wrong with the one or the other.
    fn new(material: &CertificateBundle, terms: &TlsOptions, warnings: &mut Vec<String>) -> Result<Acceptor, Error> {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(list) = &terms.ciphers {
            let chosen = ciphers::choose(list, &provider.cipher_suites);
            if !chosen.unmatched.is_empty() {
                warnings.push(format!("no cipher suite here matches {} of 'ciphers'", chosen.unmatched.join(", ")));
            }
            if chosen.suites.is_empty() {
                return Err(Error::NoCipher(list.clone()));
            }
            provider.cipher_suites = chosen.suites;
        }
        let provider = Arc::new(provider);
        let certificates = Certificates::new(&material.pairs, &provider)?;
        let verifier = client_verifier(material, terms, &provider, warnings)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&terms.versions())
            .map_err(|error| Error::Unusable(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificates));
        // Python's contexts choose by the server's order; without a list of the operator's there is
        // nothing to insist on.
        config.ignore_client_order = terms.ciphers.is_some();
        config.ticketer = Arc::new(Tickets::new(material.ticket_seed));
        Ok(Acceptor { config: Arc::new(config) })
    }
}

fn client_verifier(
    material: &CertificateBundle,
    terms: &TlsOptions,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<String>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let authorities = match (terms.cert_reqs, &material.authorities) {
        (CertReqs::None, _) => return Ok(Arc::new(NoClientAuth)),
        (CertReqs::Required, None) => return Err(Error::NoAuthorities),
        (CertReqs::Optional, None) => {
            let odd = "cert_reqs asks for client certificates, but there are no ca_certs to check them with: none is asked for";
            warnings.push(odd.to_owned());
            return Ok(Arc::new(NoClientAuth));
        }
        (CertReqs::Optional | CertReqs::Required, Some(authorities)) => authorities,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities.certificates()?);
    if added == 0 {
        return Err(Error::NoCertificate(authorities.name.clone()));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if terms.cert_reqs == CertReqs::Optional { builder.allow_unauthenticated() } else { builder };
    builder
        .build()
        .map(|verifier| verifier as Arc<dyn ClientCertVerifier>)
        .map_err(|error| Error::Unusable(error.to_string()))
}
