//! Which Python runs here, in words.

use pyo3::prelude::*;

/// `CPython 3.12.3, /srv/venv/bin/python, in the virtual environment /srv/venv of /usr`. The
/// interpreter must run.
///
/// # Errors
/// Something has taken away parts of `sys`.
pub fn describe() -> PyResult<String> {
    Python::attach(|py| {
        let sys = py.import("sys")?;
        let text = |name: &str| sys.getattr(name)?.str()?.extract::<String>();
        let (prefix, base) = (text("prefix")?, text("base_prefix")?);
        let version = text("version")?;
        let version = version.split_whitespace().next().unwrap_or_default().to_owned();
        let place = if prefix == base {
            format!("in {prefix}")
        } else {
            format!("in the virtual environment {prefix} of {base}")
        };
        Ok(format!("CPython {version}, {}, {place}", text("executable")?))
    })
}
