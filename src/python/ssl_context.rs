//! The `ssl_context` hook: the options of the context that it returns, as plain values. Python code
//! reads them (`gunicorn._ssl_context`).

use std::path::PathBuf;

use pyo3::prelude::*;

use super::hooks::{HookError, Hooks, refusal};
use crate::settings::{CertReqs, CertificateFiles};

const HOOK: &str = "ssl_context";

/// The options of a context.
pub struct ContextTerms {
    /// The certificates that it has loaded, at least one.
    pub certificates: Vec<CertificateFiles>,
    /// The certificate authorities of clients' certificates, in PEM; may be empty.
    pub authorities: Vec<u8>,
    /// Whether clients send certificates.
    pub cert_reqs: CertReqs,
    /// Its cipher list, if one was set.
    pub ciphers: Option<String>,
    /// Whether it speaks TLS 1.2.
    pub tls12: bool,
    /// Whether it speaks TLS 1.3.
    pub tls13: bool,
}

/// Calls the hook, if there is one.
///
/// # Errors
/// It raised, or the context has options that are not supported.
pub fn ask(hooks: &Hooks) -> Result<Option<ContextTerms>, HookError> {
    let Some(bridge) = hooks.bridge_of(HOOK) else { return Ok(None) };
    Python::attach(|py| {
        let asked = bridge.bind(py).call_method0(HOOK).and_then(|values| read(&values));
        asked.map(Some).map_err(|error| refusal(py, &error))
    })
}

fn read(values: &Bound<'_, PyAny>) -> PyResult<ContextTerms> {
    let pairs: Vec<(PathBuf, Option<PathBuf>)> = values.get_item("pairs")?.extract()?;
    let certificates = pairs.into_iter().map(|(certificate, key)| CertificateFiles { certificate, key });
    Ok(ContextTerms {
        certificates: certificates.collect(),
        authorities: values.get_item("authorities")?.extract::<String>()?.into_bytes(),
        cert_reqs: match values.get_item("verify_mode")?.extract::<u8>()? {
            0 => CertReqs::None,
            1 => CertReqs::Optional,
            _ => CertReqs::Required,
        },
        ciphers: values.get_item("ciphers")?.extract()?,
        tls12: values.get_item("tls12")?.extract()?,
        tls13: values.get_item("tls13")?.extract()?,
    })
}
