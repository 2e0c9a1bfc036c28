//! The dynamic linker (dlopen(3)) and the environment, for the launcher: its only unsafe code.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn setenv(name: *const c_char, value: *const c_char, replace: c_int) -> c_int;
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;

/// Where the names of a library are found.
pub enum Scope {
    /// Also by the libraries that are opened later.
    Shared,
    /// Only by [`Library::entry`].
    Own,
}

/// A library that stays loaded until the process ends.
pub struct Library(*mut c_void);

impl Library {
    /// Loads the library; a bare name is looked for where the system's libraries are.
    ///
    /// # Errors
    /// The dynamic linker's own words.
    pub fn open(file: &Path, scope: Scope) -> Result<Library, String> {
        let name = text(file.as_os_str())?;
        let flags = match scope {
            Scope::Shared => RTLD_NOW | RTLD_GLOBAL,
            Scope::Own => RTLD_NOW,
        };
        // SAFETY: the name is a live C string. What the library runs when it is loaded is as
        // trusted as an interpreter that somebody has chosen, or as this program.
        let handle = unsafe { dlopen(name.as_ptr(), flags) };
        if handle.is_null() { Err(last_error()) } else { Ok(Library(handle)) }
    }

    /// The function with this name, which takes nothing and returns a status.
    pub fn entry(&self, name: &CStr) -> Option<extern "C" fn() -> c_int> {
        // SAFETY: the handle is that of a loaded library, and the name a live C string.
        let address = unsafe { dlsym(self.0, name.as_ptr()) };
        // SAFETY: the one name that is asked for is such a function in the server's library, which
        // is built and installed together with this program. It stays loaded.
        (!address.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(address) })
    }
}

/// Sets a variable of the environment, where the libraries loaded later read it.
///
/// # Errors
/// The value has a zero byte, or there is no memory.
pub fn set_variable(name: &str, value: &Path) -> Result<(), String> {
    let (name, value) = (text(OsStr::new(name))?, text(value.as_os_str())?);
    // SAFETY: both are live C strings, which setenv(3) copies; this process has one thread.
    let result = unsafe { setenv(name.as_ptr(), value.as_ptr(), 1) };
    if result == 0 { Ok(()) } else { Err("cannot set a variable of the environment".to_owned()) }
}

fn last_error() -> String {
    // SAFETY: dlerror(3) takes nothing; its text lives until the next call of its kind, and is
    // copied before.
    let said = unsafe {
        let said = dlerror();
        (!said.is_null()).then(|| CStr::from_ptr(said).to_string_lossy().into_owned())
    };
    said.unwrap_or_else(|| "the dynamic linker gives no reason".to_owned())
}

fn text(words: &OsStr) -> Result<CString, String> {
    CString::new(words.as_bytes()).map_err(|_| format!("{} has a zero byte in it", words.display()))
}
