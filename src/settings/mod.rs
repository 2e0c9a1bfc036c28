//! Every setting of the server: one table of rows, and loops over it.
//!
//! A row (`table/`) says a setting's name, flags, kind, default, how it is stored and what it
//! means. From the rows come the command line, `--help`, `--print-config`, the keys of a config
//! file, the environment's defaults and `docs/settings.md`. What the program reads in the end is
//! [`Config`]: plain typed fields.
//!
//! This floor turns text into values and nothing more. It must not know Python (a Python config
//! file arrives as a list of [`Value`]s), opens no socket, looks up no user and never logs: it
//! returns sentences, `lib.rs` prints them.

#![forbid(unsafe_code)]

mod address;
mod config;
mod document;
mod error;
mod file;
mod load;
mod setting;
mod source;
mod suggest;
mod table;
mod trust;
mod value;

pub use self::address::Address;
pub use self::config::{
    CertReqs, CertificateFiles, Config, HeaderMap, LogFormat, MemoryMeasure, ProxyProtocol, ReloadEngine, UserSpec,
    WorkerClass, Workers,
};
pub use self::document::{USAGE, current_configuration, help, print_config, reference_markdown};
pub use self::error::{Error, ValueOrigin};
pub use self::file::read_file;
pub use self::load::{Assignment, FileOrigin, LoadedSettings, Origins, Sources, load};
pub use self::setting::{Kind, Setting, Store};
pub use self::source::{ConfigSource, config_path};
pub use self::table::{NOT_SUPPORTED, all, find, is_gunicorns};
pub use self::trust::Trusted;
pub use self::value::Value;
