//! What can be wrong with certificates, keys and ciphers: one sentence each, with the name of the
//! file.

use std::fmt;
use std::io;

/// Why there can be no TLS.
#[derive(Debug)]
pub enum Error {
    /// A file that cannot be read: what it is for, its name, why.
    Unreadable(&'static str, String, io::Error),
    /// A file that is not PEM: its name, and what is wrong.
    BadPem(String, String),
    /// A file without a certificate.
    NoCertificate(String),
    /// A certificate that cannot be read.
    BadCertificate(String),
    /// A file without a private key.
    NoKey(String),
    /// A key that is encrypted with a pass phrase.
    EncryptedKey(String),
    /// A key that rustls cannot sign with: the file, and why.
    BadKey(String, String),
    /// Certificate and key do not belong together.
    Mismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// A key is given without a certificate.
    KeyAlone,
    /// Client certificates are required, but no certificate authorities are given.
    NoAuthorities,
    /// A cipher list that matches no suite.
    NoCipher(String),
    /// Certificates and keys are larger, in bytes, than what a running worker can be given.
    TooLong(usize),
    /// The kernel has no room for sharing certificates with the workers.
    NoMemory(io::Error),
    /// Anything else that rustls rejects.
    Unusable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // gunicorn's words.
            Error::Unreadable(what, name, error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "{what} \"{name}\" does not exist")
            }
            Error::Unreadable(what, name, error) => write!(f, "{what} \"{name}\" cannot be read: {error}"),
            Error::BadPem(name, why) => write!(f, "\"{name}\" is not a PEM file that can be read: {why}"),
            Error::NoCertificate(name) => write!(f, "\"{name}\" holds no certificate that can be used"),
            Error::BadCertificate(name) => write!(f, "the certificate in \"{name}\" is broken"),
            Error::NoKey(name) => write!(f, "\"{name}\" holds no private key"),
            Error::EncryptedKey(name) => write!(
                f,
                "the key in \"{name}\" is encrypted, and a server cannot ask for its pass phrase: write it without one \
                 (openssl pkey -in {name})"
            ),
            Error::BadKey(name, why) => write!(f, "the key in \"{name}\" cannot be used: {why}"),
            Error::Mismatch { certificate, key } => {
                write!(f, "the key in \"{key}\" does not belong to the certificate in \"{certificate}\"")
            }
            Error::KeyAlone => f.write_str("keyfile is set, but no certfile"),
            Error::NoAuthorities => f.write_str(
                "cert_reqs demands client certificates, but without ca_certs none can be accepted: name the file of the certificate authorities",
            ),
            Error::NoCipher(list) => write!(f, "no cipher suite is left by 'ciphers' ('{list}')"),
            Error::TooLong(most) => {
                write!(f, "certificates and keys of more than {most} bytes can be changed by HUP only")
            }
            Error::NoMemory(error) => write!(f, "no memory to hand certificates to the workers: {error}"),
            Error::Unusable(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl std::error::Error for Error {}
