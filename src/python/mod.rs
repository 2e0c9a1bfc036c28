//! CPython. Only this layer knows it.
//!
//! [`python_home`] and [`interpreter`] start and end it; [`config_file`] and [`app`] run the
//! operator's code. [`call`] takes one request through the application: [`environ`] describes the
//! request; `input`, `errors`, `start_response` and `extras` make the objects that the application
//! is given; [`response_writer`] turns its answers into HTTP. The connection is known only as an
//! [`crate::exchange::Exchange`].
//!
//! The application, and all code that touches its objects, runs attached. Code that may block (a
//! slow client, a slow log, the event loop's poll) runs detached. No Rust lock is held across a
//! call into Python. Python references are dropped while attached.

/// The text of a Python file of this layer, as a C string.
macro_rules! embedded_source {
    ($file:literal) => {
        match std::ffi::CStr::from_bytes_with_nul(concat!(include_str!($file), "\0").as_bytes()) {
            Ok(source) => source,
            Err(_) => panic!(concat!($file, " holds a NUL byte")),
        }
    };
}

pub mod app;
pub mod call;
pub mod config_file;
pub mod dirty;
pub mod embedder;
pub mod environ;
pub mod environment;
mod errors;
mod extras;
pub mod facade;
mod file_response;
mod file_wrapper;
pub mod foreign_worker;
pub mod greenlets;
mod header_line_cache;
mod header_names;
pub mod hooks;
mod hub;
pub mod idle;
mod input;
pub mod interpreter;
pub mod log_queue;
pub mod loggers;
mod native;
pub mod panics;
pub mod python_home;
mod raw;
pub mod request_context;
mod request_hooks;
pub mod response_writer;
pub mod signals;
pub mod spew;
pub mod ssl_context;
mod start_response;
pub mod threads;
pub mod title;
mod tls;
mod value_cache;
pub mod version;
mod waiting;

pub use errors::{Exit, failure, traceback};
/// The token of a thread that is attached to the interpreter; the worker only passes it to this
/// layer.
pub use pyo3::{PyErr, Python};
