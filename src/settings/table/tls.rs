//! TLS on the server's own sockets: gunicorn's chapter "SSL", and two settings of our own.

use std::path::PathBuf;

use super::put;
use crate::settings::config::{CertReqs, CertificateFiles};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "keyfile",
        section: Section::Tls,
        flags: &["--keyfile"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.keyfile, value.optional_path()),
            get: |config| path_value(config.keyfile.as_ref()),
        },
        doc: "The file with the private key of certfile; without it, certfile has both.

PEM: PKCS#8, PKCS#1 or SEC1, an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key, not encrypted. The master reads it,
before workers change their user.",
    },
    Setting {
        name: "certfile",
        section: Section::Tls,
        flags: &["--certfile"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.certfile, value.optional_path()),
            get: |config| path_value(config.certfile.as_ref()),
        },
        doc: "The file with the server's certificate; with it every socket speaks TLS.

PEM: the server's certificate first, then the others of its chain, each signed by the next. TLS 1.2 and 1.3 are spoken.
The files are read at the start and on HUP; see `tls_watch` for what happens between.",
    },
    Setting {
        name: "cert_reqs",
        section: Section::Tls,
        flags: &["--cert-reqs"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.cert_reqs, cert_reqs(value)),
            get: |config| Value::Int(config.cert_reqs as i64),
        },
        doc: "Client certificates: 0 not asked for, 1 optional, 2 required.

Python's `ssl.CERT_NONE`, `CERT_OPTIONAL` and `CERT_REQUIRED`. A client's certificate must be signed by one of
`ca_certs`, else the handshake fails. The app finds it in its environ: `SSL_CLIENT_VERIFY` (`SUCCESS` or `NONE`),
`SSL_CLIENT_S_DN`, `SSL_CLIENT_I_DN`, `SSL_CLIENT_M_SERIAL` and `SSL_CLIENT_CERT`, and by
`environ['gunicorn.socket'].getpeercert()`.",
    },
    Setting {
        name: "ca_certs",
        section: Section::Tls,
        flags: &["--ca-certs"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.ca_certs, value.optional_path()),
            get: |config| path_value(config.ca_certs.as_ref()),
        },
        doc: "The file with the certificate authorities of client certificates.

PEM. It has an effect with `cert_reqs` only.",
    },
    Setting {
        name: "suppress_ragged_eofs",
        section: Section::Tls,
        flags: &["--suppress-ragged-eofs"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(true),
        store: Store::Field {
            set: |config, value| put(&mut config.suppress_ragged_eofs, value.bool()),
            get: |config| config.suppress_ragged_eofs.into(),
        },
        doc: "Accepted for compatibility: a close without close_notify is an end.

Many clients close so. HTTP itself tells whether a request is complete, and an incomplete one never reaches the app as
a complete one, whatever the value.",
    },
    Setting {
        name: "do_handshake_on_connect",
        section: Section::Tls,
        flags: &["--do-handshake-on-connect"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.do_handshake_on_connect, value.bool()),
            get: |config| config.do_handshake_on_connect.into(),
        },
        doc: "Accepted for compatibility: handshakes never block a worker.

A handshake goes on as its bytes arrive, and no other client waits for it, so there is nothing to choose. It must be
complete within `client_header_timeout`.",
    },
    Setting {
        name: "ciphers",
        section: Section::Tls,
        flags: &["--ciphers"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.ciphers, value.optional_text()),
            get: |config| config.ciphers.clone().into(),
        },
        doc: "The cipher suites for TLS 1.2, as an OpenSSL cipher list.

`ECDHE+AESGCM:!aNULL` and its like, or names. There are six suites for TLS 1.2, ECDHE with AES-GCM or
ChaCha20-Poly1305; entries that match none of them are named in a warning, and if no suite is left the server does not
start. The suites of TLS 1.3 are always on, as in OpenSSL; a list that names only them turns TLS 1.2 off. With this
setting the server's order of the suites counts.",
    },
    Setting {
        name: "tls_certificates",
        section: Section::Tls,
        flags: &["--tls-certificate"],
        meta: "CERT[,KEY]",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.tls_certificates, certificates(value)),
            get: |config| config.tls_certificates.iter().map(CertificateFiles::to_string).collect(),
        },
        doc: "One more certificate, for its own host names; repeat it for several.

A certificate file and, behind a comma, its key file if that is another one. A client that names a host (SNI) gets the
first certificate with that name in its subjectAltName, `*.example.com` included, whose kind of key it can verify; one
that names none, or another host, gets `certfile`, or the first of these. A setting of our own.",
    },
    Setting {
        name: "tls_watch",
        section: Section::Tls,
        flags: &["--tls-watch"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.tls_watch, value.bool()),
            get: |config| config.tls_watch.into(),
        },
        doc: "Use new certificates and keys when their files change.

The master looks at the files once a second and passes new certificates to the workers, which go on without a restart.
Open connections keep theirs. Files that do not fit together change nothing, and the log says so. A setting of our
own; without it, HUP reads the files again.",
    },
];

fn path_value(path: Option<&PathBuf>) -> Value {
    path.map(|path| path.display().to_string()).into()
}

fn cert_reqs(value: &Value) -> Result<CertReqs, ValueError> {
    Ok(match value.count(2)? {
        0 => CertReqs::None,
        1 => CertReqs::Optional,
        _ => CertReqs::Required,
    })
}

fn certificates(value: &Value) -> Result<Vec<CertificateFiles>, ValueError> {
    value.texts()?.iter().map(|text| certificate(text)).collect()
}

fn certificate(text: &str) -> Result<CertificateFiles, ValueError> {
    let (certificate, key) = match text.split_once(',') {
        Some((certificate, key)) => (certificate.trim(), Some(key.trim())),
        None => (text.trim(), None),
    };
    if certificate.is_empty() || key == Some("") {
        return Err(ValueError::new(
            text,
            "is not a certificate file, or a certificate and a key file with a comma between",
        ));
    }
    Ok(CertificateFiles { certificate: certificate.into(), key: key.map(PathBuf::from) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_may_bring_its_key_along() {
        let read = |text: &str| certificates(&Value::from(text)).ok().map(|found| found[0].to_string());
        assert_eq!(read("a.pem").as_deref(), Some("a.pem"));
        assert_eq!(read("a.pem, a.key").as_deref(), Some("a.pem,a.key"));
        for wrong in [",a.key", "a.pem,", " "] {
            assert!(certificates(&Value::from_iter([wrong])).is_err(), "{wrong}");
        }
    }
}
