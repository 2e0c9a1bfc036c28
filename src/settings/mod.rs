//! Every setting of the server, as one table of rows.
//!
//! A row (`table/`) holds a setting's name, flags, kind, default, how it is stored and what it
//! means. The command line, `--help`, `--print-config`, the keys of a config file, the
//! environment's defaults and `docs/settings.md` are made from the rows. The rest of the program
//! reads [`Config`]: plain typed fields.
//!
//! This layer turns text into values and nothing more. It must not know Python (a Python config
//! file arrives as a list of [`Value`]s). It opens no socket, looks up no user and never logs: it
//! returns sentences, and `lib.rs` prints them.

#![forbid(unsafe_code)]

mod address;
mod completions;
mod config;
mod document;
mod error;
mod file;
mod load;
mod man_page;
mod platform;
mod program_flags;
mod setting;
mod source;
mod static_map;
mod suggest;
mod table;
mod trust;
mod value;

pub use self::address::Address;
pub use self::completions::{completions, worker_classes};
pub use self::config::{
    AppSpec, CertReqs, CertificateFiles, Config, DirtyConfig, HeaderMap, LogFormat, MemoryMeasure, Protocol,
    ProxyProtocol, ReloadEngine, SyslogFormat, UserSpec, WorkerClass, WorkersSetting,
};
pub use self::document::{USAGE, current_configuration, help, print_config, reference_markdown};
pub use self::error::{Error, ValueOrigin};
pub use self::file::read_file;
pub use self::load::{Assignment, FileOrigin, LoadedSettings, Origins, Sources, load};
pub use self::man_page::man_page;
pub use self::program_flags::{PROGRAM_FLAGS, ProgramFlag, Shell};
pub use self::setting::{Kind, Setting, Store};
pub use self::source::{ConfigSource, config_path};
pub use self::static_map::{AccelMap, Immutable, StaticMap};
pub use self::table::{NOT_SUPPORTED, all, find, is_gunicorns};
pub use self::trust::Trusted;
pub use self::value::Value;
