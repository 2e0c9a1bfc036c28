//! TLS: from the files that the settings name to encrypted connections.
//!
//! [`Tls::load`] reads and checks everything in the master, before any worker is forked, so that a
//! mistake is found at the start (on HUP the old certificates stay in use) and workers need no
//! right to read a key. [`Session`] is one connection: ciphertext on a non-blocking socket on one
//! side, plain bytes on the other; it never waits. The protocol itself is rustls's.
//!
//! This layer must not know HTTP, Python, the event loop or the master, and it does not log.

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
pub use self::session::{HandshakeFailure, MOST_UNSENT, Secured, Session, Settled};

/// The most bytes of certificates and keys that a running worker can be given (`tls_watch`); far
/// above the size of real chains.
const PAGE_BYTES: usize = 256 * 1024;

/// What a generation of workers needs to speak TLS. Clones share everything.
#[derive(Clone)]
pub struct Tls {
    acceptor: Acceptor,
    /// The certificates of the acceptor, and the version of the shared page that they came with.
    material: Arc<(CertificateBundle, u64)>,
    basis: Arc<SharedConfig>,
}

/// What stays the same when certificates are replaced.
struct SharedConfig {
    options: TlsOptions,
    /// The files that the certificates were read from, with their stamps from right before.
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// The shared page with which the master passes new certificates to the workers, under
    /// `tls_watch`.
    page: Option<SeqlockPage>,
}

/// The TLS configuration of new connections.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

/// The settings of connections besides certificates and keys.
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
    /// The loaded certificates, ready for use.
    pub tls: Tls,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("options", &self.basis.options)
            .field("files", &self.basis.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks the files that `config` names; `None` if it does not ask for TLS. Relative
    /// paths are taken from the working directory.
    ///
    /// # Errors
    /// The first fault, as a sentence.
    pub fn load(config: &Config) -> Result<Option<LoadedCertificates>, Error> {
        if !config.is_tls() {
            return Ok(None);
        }
        Tls::assemble(config, || Ok((CertificateBundle::read(config)?, TlsOptions::new(config)))).map(Some)
    }

    /// As [`Tls::load`], for certificates and options that `read` supplies, whatever `config` says
    /// of them. The files to watch are those of `config`.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn assemble(
        config: &Config,
        read: impl FnOnce() -> Result<(CertificateBundle, TlsOptions), Error>,
    ) -> Result<LoadedCertificates, Error> {
        // The stamps are taken first, so that a change while the files are read is noticed.
        let files = files::named_in(config).into_iter().map(|path| (path.clone(), Stamp::of(&path))).collect();
        let (material, options) = read()?;
        let mut warnings = material.warnings();
        let acceptor = Acceptor::new(&material, &options, &mut warnings)?;
        let page = if config.tls_watch { Some(SeqlockPage::new(PAGE_BYTES).map_err(Error::NoMemory)?) } else { None };
        let basis = Arc::new(SharedConfig { options, files, page });
        Ok(LoadedCertificates { tls: Tls { acceptor, material: Arc::new((material, 0)), basis }, warnings })
    }

    /// From now on this process reads the shared page, and cannot write to it. For a worker right
    /// after the fork: no other thread may read the page meanwhile.
    ///
    /// # Errors
    /// The kernel has no room for another mapping.
    pub fn give_up_writing(&self) -> io::Result<()> {
        self.basis.page.as_ref().map_or(Ok(()), SeqlockPage::give_up_writing)
    }

    /// The TLS configuration of new connections.
    pub fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// The files that the certificates and keys were first read from, as they were then.
    pub fn files(&self) -> &[(PathBuf, Option<Stamp>)] {
        &self.basis.files
    }

    /// The file of each server certificate in use, as the settings name it, and when that
    /// certificate expires, in seconds since the epoch.
    pub fn expiries(&self) -> Vec<(String, u64)> {
        let own = self.material.0.pairs.iter().map(|pair| &pair.certificates);
        own.filter_map(|file| Some((file.name.clone(), file.expires_at()?))).collect()
    }

    /// Whether the files must be watched.
    pub fn is_watched(&self) -> bool {
        self.basis.page.is_some()
    }

    /// In the master: takes the certificates of `fresh`, for itself and for every worker that has a
    /// clone of this [`Tls`]. The options stay, whatever a hook says of them now: they change with
    /// a reload only.
    ///
    /// # Errors
    /// The certificates do not fit the options, or are too large. Nothing has changed then.
    pub fn renew(&mut self, fresh: &Tls) -> Result<(), Error> {
        let material = fresh.material.0.clone();
        let acceptor = Acceptor::new(&material, &self.basis.options, &mut Vec::new())?;
        let version = match &self.basis.page {
            Some(page) => page.publish(&material.to_bytes()).map_err(|_| Error::TooLong(PAGE_BYTES))?,
            None => 0,
        };
        (self.acceptor, self.material) = (acceptor, Arc::new((material, version)));
        Ok(())
    }

    /// In a worker: takes the certificates that the master has published since, and returns whether
    /// there were any.
    ///
    /// # Errors
    /// They cannot be used; the old ones stay.
    pub fn catch_up(&mut self) -> Result<bool, Error> {
        let Some(page) = &self.basis.page else { return Ok(false) };
        let Some((version, bytes)) = page.read(self.material.1) else { return Ok(false) };
        let material = CertificateBundle::from_bytes(&bytes)
            .ok_or_else(|| Error::Unusable("the shared page holds no certificates".to_owned()))?;
        let acceptor = Acceptor::new(&material, &self.basis.options, &mut Vec::new());
        // This version counts as read even if it cannot be used.
        self.material = Arc::new((material, version));
        self.acceptor = acceptor?;
        Ok(true)
    }
}

impl TlsOptions {
    /// The options of `config`.
    pub fn new(config: &Config) -> TlsOptions {
        TlsOptions { cert_reqs: config.cert_reqs, ciphers: config.ciphers.clone(), tls12: true, tls13: true }
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let known = [(self.tls13, &TLS13), (self.tls12, &TLS12)];
        known.into_iter().filter_map(|(is_on, version)| is_on.then_some(version)).collect()
    }
}

impl Acceptor {
    /// An acceptor with these certificates and options. It adds warnings for the operator to
    /// `warnings`.
    ///
    /// # Errors
    /// The first fault of the certificates or the options.
    fn new(material: &CertificateBundle, options: &TlsOptions, warnings: &mut Vec<String>) -> Result<Acceptor, Error> {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(list) = &options.ciphers {
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
        let verifier = client_verifier(material, options, &provider, warnings)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&options.versions())
            .map_err(|error| Error::Unusable(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificates));
        // Python's contexts choose by the server's order. Without a list of the operator's the
        // client's order is as good.
        config.ignore_client_order = options.ciphers.is_some();
        config.ticketer = Arc::new(Tickets::new(material.ticket_seed));
        Ok(Acceptor { config: Arc::new(config) })
    }
}

fn client_verifier(
    material: &CertificateBundle,
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<String>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let authorities = match (options.cert_reqs, &material.authorities) {
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
    let builder = if options.cert_reqs == CertReqs::Optional { builder.allow_unauthenticated() } else { builder };
    builder
        .build()
        .map(|verifier| verifier as Arc<dyn ClientCertVerifier>)
        .map_err(|error| Error::Unusable(error.to_string()))
}
