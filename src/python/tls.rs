//! TLS as the application sees it: the environ's keys, under mod_ssl's names (gunicorn has none),
//! and the methods of Python's `ssl.SSLSocket` that ask about the connection.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::raw::latin1;
use crate::tls::Secured;

/// Constant keys and values, made once.
pub(super) struct TlsKeys {
    https: Py<PyString>,
    on: Py<PyString>,
    verify: Py<PyString>,
    none: Py<PyString>,
    success: Py<PyString>,
    subject: Py<PyString>,
    issuer: Py<PyString>,
    serial: Py<PyString>,
    certificate: Py<PyString>,
}

impl TlsKeys {
    /// The keys.
    pub fn new(py: Python<'_>) -> Self {
        let text = |text| PyString::intern(py, text).unbind();
        TlsKeys {
            https: text("HTTPS"),
            on: text("on"),
            verify: text("SSL_CLIENT_VERIFY"),
            none: text("NONE"),
            success: text("SUCCESS"),
            subject: text("SSL_CLIENT_S_DN"),
            issuer: text("SSL_CLIENT_I_DN"),
            serial: text("SSL_CLIENT_M_SERIAL"),
            certificate: text("SSL_CLIENT_CERT"),
        }
    }

    /// Adds the values of a connection. A client with an invalid certificate does not get this far.
    pub fn set(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, secured: &Secured) -> PyResult<()> {
        environ.set_item(&self.https, &self.on)?;
        let Some(certificate) = &secured.certificate else { return environ.set_item(&self.verify, &self.none) };
        environ.set_item(&self.verify, &self.success)?;
        let texts = [
            (&self.subject, &certificate.subject),
            (&self.issuer, &certificate.issuer),
            (&self.serial, &certificate.serial),
            (&self.certificate, &certificate.pem),
        ];
        for (key, text) in texts {
            // PEP 3333: bytes as code points, here those of UTF-8.
            environ.set_item(key, latin1(py, text.as_bytes())?)?;
        }
        Ok(())
    }
}

/// The methods of `ssl.SSLSocket` that ask about the connection, for `gunicorn.socket`.
#[pyclass(frozen, module = "monoceros")]
pub(super) struct TlsSocketMethods {
    secured: Arc<Secured>,
}

impl TlsSocketMethods {
    /// Their names.
    pub const NAMES: [&str; 5] = ["getpeercert", "cipher", "version", "selected_alpn_protocol", "pending"];

    /// The methods for a connection.
    pub fn new(secured: Arc<Secured>) -> Self {
        TlsSocketMethods { secured }
    }
}

#[pymethods]
impl TlsSocketMethods {
    #[pyo3(signature = (binary_form=false))]
    fn getpeercert<'py>(&self, py: Python<'py>, binary_form: bool) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(certificate) = &self.secured.certificate else { return Ok(None) };
        if binary_form {
            Ok(Some(PyBytes::new(py, &certificate.der).into_any()))
        } else {
            decode(py, &certificate.pem).map(Some)
        }
    }

    /// Name, protocol, bits.
    fn cipher(&self) -> (&str, &str, u16) {
        (&self.secured.cipher, self.secured.protocol, self.secured.bits)
    }

    fn version(&self) -> &str {
        self.secured.protocol
    }

    fn selected_alpn_protocol(&self) -> Option<&str> {
        None
    }

    /// No decrypted bytes are buffered: a socket that `select` finds unreadable has nothing to
    /// read.
    fn pending(&self) -> usize {
        0
    }
}

/// The certificate as the dict that Python's `ssl` makes of it, made by the same code. That code
/// reads files only, so the certificate is put into a file in memory.
fn decode<'py>(py: Python<'py>, pem: &str) -> PyResult<Bound<'py, PyAny>> {
    let os = py.import("os")?;
    let file = os.call_method1("memfd_create", ("certificate",))?;
    let decoded = os
        .call_method1("write", (&file, PyBytes::new(py, pem.as_bytes())))
        .and_then(|_| py.import("_ssl")?.call_method1("_test_decode_cert", (format!("/proc/self/fd/{file}"),)));
    os.call_method1("close", (&file,))?;
    decoded
}
