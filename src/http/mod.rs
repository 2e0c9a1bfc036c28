//! HTTP/1.1 as a language: bytes in, values out, and back.
//!
//! This layer reads request heads, request bodies, PROXY headers and uwsgi packets, and writes
//! response heads, chunk frames and error pages. It knows RFC 9110, RFC 9112 and gunicorn's policy
//! on top of them. It must not know sockets, threads, clocks, Python or the log. So every rule here
//! is tested with byte strings, and fuzzed alone.
//!
//! In reading order: [`request`] (the incremental head parser) calls `request_line` and `fields`,
//! which lean on `authority`, `lenient` and `grammar`; [`header_cache`] recognises header blocks
//! that were read before; [`body`] decodes what follows the head; [`response`] writes the answer;
//! [`connection`] is the state between them, from one request to the next. [`path`],
//! [`conditional`], [`range`] and [`accept_encoding`] decide which file, and what of it, a request
//! gets from the server itself. [`request_id`] reads the ids that join up the log lines of a
//! request. [`uwsgi`] reads what a proxy sends in a head's place.
#![forbid(unsafe_code)]

pub mod accept_encoding;
pub mod body;
pub mod conditional;
pub mod connection;
pub mod date;
pub mod encode;
pub mod error;
pub mod header_cache;
pub mod path;
pub mod policy;
pub mod proxy;
pub mod range;
pub mod request;
pub mod request_id;
pub mod request_start;
pub mod response;
pub mod uwsgi;

mod authority;
mod chunked;
mod fields;
mod grammar;
mod lenient;
mod request_line;

#[cfg(test)]
mod cases;
