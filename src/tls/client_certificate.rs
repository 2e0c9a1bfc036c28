//! The fields of a client's certificate, as mod_ssl's and nginx's variables show them.

use rustls::pki_types::CertificateDer;
use x509_cert::der::pem::{LineEnding, encode_string};

use super::files::parse;

/// A client's certificate, which the handshake has verified.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// The certificate in PEM.
    pub pem: String,
    /// The subject: a distinguished name as RFC 4514 writes it.
    pub subject: String,
    /// The issuer, written as the subject.
    pub issuer: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
}

impl ClientCertificate {
    /// Reads a certificate; names that cannot be read are empty.
    pub(super) fn new(der: &CertificateDer<'_>) -> ClientCertificate {
        let found = parse(der).map(|found| found.tbs_certificate);
        let serial = found.as_ref().map_or_else(String::new, |found| hexadecimal(found.serial_number.as_bytes()));
        ClientCertificate {
            der: der.to_vec(),
            pem: encode_string("CERTIFICATE", LineEnding::LF, der).unwrap_or_default(),
            subject: found.as_ref().map_or_else(String::new, |found| found.subject.to_string()),
            issuer: found.as_ref().map_or_else(String::new, |found| found.issuer.to_string()),
            serial,
        }
    }
}

/// The digits of a DER integer, without the leading zero that marks it as positive.
fn hexadecimal(integer: &[u8]) -> String {
    let digits = match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    digits.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_shown_without_its_sign() {
        assert_eq!(hexadecimal(&[0, 0xa1, 0x0b]), "A10B");
        assert_eq!(hexadecimal(&[0]), "00");
        assert_eq!(hexadecimal(&[0x7f]), "7F");
    }
}
