//! Tools for developers.

use super::put;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "reload",
        section: Section::Debugging,
        flags: &["--reload"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.reload, value.bool()),
            get: |config| config.reload.into(),
        },
        doc: "Replace workers when code changes.

For development. The files of every imported module are watched, and those of `reload_extra_files`.",
    },
    Setting {
        name: "reload_extra_files",
        section: Section::Debugging,
        flags: &["--reload-extra-file"],
        meta: "FILES",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.reload_extra_files, value.texts()),
            get: |config| config.reload_extra_files.iter().map(String::as_str).collect(),
        },
        doc: "A file that reload watches as well; repeat it for several.

A path, or a pattern with `*`, `?`, `[...]` or `**`, which finds files that appear later too. A path must exist.",
    },
    Setting {
        name: "check_config",
        section: Section::Debugging,
        flags: &["--check-config"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.check_config, value.bool()),
            get: |config| config.check_config.into(),
        },
        doc: "Load settings and app, and exit.

The exit status is 0 when both can be loaded, 1 when they cannot. No socket is opened.",
    },
    Setting {
        name: "print_config",
        section: Section::Debugging,
        flags: &["--print-config"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.print_config, value.bool()),
            get: |config| config.print_config.into(),
        },
        doc: "Print every setting as it was resolved, then check as check_config.",
    },
];
