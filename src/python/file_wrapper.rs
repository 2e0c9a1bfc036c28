//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

/// A file to be sent: by the kernel where it is a regular file, block by block where it is anything
/// else that can be read.
#[pyclass(frozen, subclass, module = "monoceros")]
pub struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    blksize: usize,
}

/// The part of a regular file that a wrapper stands for: from its current position to its end.
pub struct FileRange {
    /// A descriptor of our own for the file.
    pub file: OwnedFd,
    /// Where to start.
    pub offset: u64,
    /// How many bytes follow.
    pub length: u64,
}

impl FileWrapper {
    /// The range for `sendfile(2)`; `None` where the file must be read block by block (no
    /// descriptor, a pipe, a closed file).
    pub fn range(&self, py: Python<'_>) -> Option<FileRange> {
        let filelike = self.filelike.bind(py);
        let descriptor: RawFd = filelike.call_method0("fileno").ok()?.extract().ok()?;
        // The position the application sees; the descriptor's own may be ahead of it by what Python
        // has buffered.
        let offset: u64 = filelike.call_method0("tell").ok()?.extract().ok()?;
        let file = File::from(duplicate(descriptor)?);
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
        Some(FileRange { file: file.into(), offset, length: metadata.len().saturating_sub(offset) })
    }
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize=8192))]
    fn new(filelike: Py<PyAny>, blksize: usize) -> Self {
        FileWrapper { filelike, blksize }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1("read", (self.blksize,))?;
        Ok(if block.is_truthy()? { Some(block) } else { None })
    }

    /// The sequence protocol that gunicorn's wrapper offers: the key is ignored, each access reads
    /// on.
    fn __getitem__<'py>(&self, py: Python<'py>, _key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.__next__(py)?.ok_or_else(|| PyIndexError::new_err("end of file"))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.filelike.bind(py).getattr_opt("close")? {
            Some(close) => close.call0().map(|_| ()),
            None => Ok(()),
        }
    }
}

fn duplicate(descriptor: RawFd) -> Option<OwnedFd> {
    if descriptor < 0 {
        return None;
    }
    // SAFETY: borrowed for one call, which fails cleanly (EBADF) should the application have closed
    // it; -1 was excluded above.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned().ok()
}
