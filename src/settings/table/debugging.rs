//! Tools for developers.

use super::put;
use crate::settings::config::ReloadEngine;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

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
        name: "reload_engine",
        section: Section::Debugging,
        flags: &["--reload-engine"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Text("auto"),
        store: Store::Field {
            set: |config, value| put(&mut config.reload_engine, reload_engine(value)),
            get: |config| config.reload_engine.to_string().into(),
        },
        doc: "How reload notices changes: auto, poll or inotify.

`poll` looks at the files once a second. With `inotify` the kernel reports a change at once; the server still looks
once a second as well, for file systems that report nothing (network file systems, shared folders of a virtual
machine). `auto` is `inotify` if the kernel allows it, else `poll`. No package is needed.",
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
        name: "spew",
        section: Section::Debugging,
        flags: &["--spew"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.spew, value.bool()),
            get: |config| config.spew.into(),
        },
        doc:
            "Print every line of Python that runs.

Each as `module:number: line` on stdout, from the import of the app on, in every thread. It makes everything very slow.",
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

The exit status is 0 if both can be loaded, else 1. No socket is opened.",
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

fn reload_engine(value: &Value) -> Result<ReloadEngine, ValueError> {
    let name = value.text()?;
    let known = [ReloadEngine::Auto, ReloadEngine::Poll, ReloadEngine::Inotify];
    let named = known.into_iter().find(|engine| engine.to_string() == name);
    named.ok_or_else(|| ValueError::new(&name, "is not one of 'auto', 'poll', 'inotify'"))
}
