//! Process titles.

use super::{put, put_text};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::Value;

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "proc_name",
        section: Section::ProcessNaming,
        flags: &["-n", "--name"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.proc_name, value.optional_text()),
            get: |config| Value::from(config.proc_name.clone()),
        },
        doc: "The name in the titles of the processes.

It distinguishes several servers on one machine in ps and top. While it is not set, `default_proc_name` is used.",
    },
    Setting {
        name: "default_proc_name",
        section: Section::ProcessNaming,
        flags: &[],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Text("monoceros"),
        store: Store::Field {
            set: |config, value| put_text(&mut config.default_proc_name, value),
            get: |config| config.default_proc_name.as_str().into(),
        },
        doc: "The name in the titles while proc_name is not set.

The name of an app on the command line replaces it.",
    },
];
