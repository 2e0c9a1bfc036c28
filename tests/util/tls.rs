//! Certificates made for a test, clients that trust them, and TLS programs.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::server::Plan;
use super::venv;

/// A connection of the tests' own client.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

/// The authorities that a client trusts, and its own certificate.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    host: &'static str,
}

/// The kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Rsa,
    Ecdsa,
    Ed25519,
}

impl Authority {
    /// A root authority.
    pub fn root(name: &str) -> Authority {
        let (params, key) = authority(name);
        Authority(CertifiedIssuer::self_signed(params, key).expect("a root"))
    }

    /// An intermediate authority, signed by this one.
    pub fn intermediate(&self, name: &str) -> Authority {
        let (params, key) = authority(name);
        Authority(CertifiedIssuer::signed_by(params, key, &self.0).expect("an intermediate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names, and for 127.0.0.1.
    pub fn server(&self, key: Key, names: &[&str]) -> Issued {
        let mut all = vec!["127.0.0.1".to_string()];
        all.extend(names.iter().map(|name| name.to_string()));
        let mut params = CertificateParams::new(all).expect("good names");
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("127.0.0.1"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, key)
    }

    /// A client's certificate, good until that year's first day.
    pub fn client(&self, name: &str, until: i32) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Monoceros");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0x1b, 0x2c]));
        params.not_after = date_time_ymd(until, 1, 1);
        self.issue(params, Key::Ecdsa)
    }

    /// The trust of a client that knows this authority.
    pub fn trust(&self) -> Trust {
        self.trust_with(None)
    }

    /// The same for a client with a certificate of its own.
    pub fn trust_as(&self, client: &Issued) -> Trust {
        self.trust_with(Some(client))
    }

    fn trust_with(&self, client: Option<&Issued>) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows both")
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = CertificateDer::pem_slice_iter(client.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().expect("a chain");
                let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        Trust { config: Arc::new(config), host: "localhost" }
    }

    fn issue(&self, mut params: CertificateParams, key: Key) -> Issued {
        // RFC 5280, 4.2.1.1; Python asks for it from 3.13 on.
        params.use_authority_key_identifier_extension = true;
        let pair = match key {
            Key::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Key::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Key::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
        };
        let pair = pair.expect("a key");
        let certificate = params.signed_by(&pair, &self.0).expect("a certificate");
        Issued { certificate: certificate.pem(), key: pair.serialize_pem() }
    }
}

fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let algorithm: &'static SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params, KeyPair::generate_for(algorithm).expect("a key"))
}

impl Trust {
    /// The same, asking for another host.
    pub fn asking_for(&self, host: &'static str) -> Trust {
        Trust { host, ..self.clone() }
    }

    /// Connects; the handshake goes on as it is needed.
    pub fn connect(&self, port: u16) -> io::Result<TlsStream> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(StreamOwned::new(self.session(), stream))
    }

    /// A session with nothing below it.
    pub fn session(&self) -> ClientConnection {
        let name = ServerName::try_from(self.host).expect("a host name");
        ClientConnection::new(self.config.clone(), name).expect("a session")
    }

    /// The certificate that the server shows.
    pub fn certificate_of(&self, port: u16) -> io::Result<Vec<u8>> {
        let mut stream = self.connect(port)?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
        Ok(shown.expect("a server shows one").to_vec())
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Trust) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.host == other.host
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "as {}", self.host)
    }
}

impl Issued {
    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate").to_vec()
    }

    /// The same with what an intermediate needs behind it.
    pub fn chained(&self, through: &Authority) -> Issued {
        Issued { certificate: self.certificate.clone() + &through.pem(), key: self.key.clone() }
    }
}

impl Plan {
    /// The files `NAME.pem` and `NAME.key`, in the test's folder.
    pub fn pair(self, name: &str, issued: &Issued) -> Plan {
        self.file(&format!("{name}.pem"), &issued.certificate).file(&format!("{name}.key"), &issued.key)
    }

    /// TLS with that pair of files.
    pub fn tls(self, issued: &Issued) -> Plan {
        let plan = self.pair("server", issued);
        let [certificate, key] = ["server.pem", "server.key"].map(|name| plan.path(name).display().to_string());
        plan.args(["--certfile", &certificate, "--keyfile", &key])
    }
}

/// What a program printed, on both streams, and whether it succeeded.
pub struct Ran {
    pub text: String,
    pub succeeded: bool,
}

/// Runs openssl; `input` is typed to it, and its end comes when `openssl` has ended by itself or
/// its input is used up.
pub fn openssl(arguments: &[&str], input: &str) -> Ran {
    run(Command::new("openssl").args(arguments), input)
}

pub fn curl(arguments: &[&str]) -> Ran {
    run(Command::new("curl").args(["--silent", "--show-error", "--max-time", "60"]).args(arguments), "")
}

/// Runs a script with the tests' Python, which must succeed, and gives what it printed.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) -> String {
    let ran = run(Command::new(venv().join("bin/python")).arg("-c").arg(script).args(arguments), "");
    assert!(ran.succeeded, "{}", ran.text);
    ran.text.trim().to_string()
}

/// Whether the server sent close_notify, as a client sees it that checks.
const ENDS: &str = r#"
import socket, ssl, sys
port, root, version, request = int(sys.argv[1]), sys.argv[2], getattr(ssl.TLSVersion, sys.argv[3]), sys.argv[4]
context = ssl.create_default_context(cafile=root)
context.minimum_version = context.maximum_version = version
raw = socket.create_connection(("127.0.0.1", port))
with context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as tls:
    tls.sendall(request.encode().decode("unicode_escape").encode())
    try:
        while tls.recv(65536):
            pass
        print("announced")
    except ssl.SSLEOFError:
        print("ragged")
"#;

/// How the server ends the connection behind its answers to this request, where `\r` and `\n` stand
/// for line ends: `announced`, by close_notify, or `ragged`. `version` is one of Python's names.
pub fn end_of(port: u16, root: &Path, version: &str, request: &str) -> String {
    python(ENDS, &[&port.to_string(), &word(root), version, request])
}

fn run(command: &mut Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; on Debian and Ubuntu: apt-get install openssl curl"));
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that does not read has said so by its exit status.
    let _ = io::Write::write_all(&mut stdin, input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("our own child");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ran { text, succeeded: output.status.success() }
}

/// A path as an argument.
pub fn word(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
