//! Files that the server sends by itself.

use std::path::PathBuf;

use super::put;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::static_map::{AccelMap, StaticMap};
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "static_map",
        section: Section::StaticFiles,
        flags: &["--static-map"],
        meta: "/PREFIX=PATH",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.static_map, read(value, StaticMap::parse)),
            get: |config| config.static_map.iter().map(StaticMap::to_string).collect(),
        },
        doc: "Files that the server sends without the app; repeat it for several.

`/static=DIR` answers requests below `/static/` with the files below `DIR`; `/favicon.ico=FILE` answers one path. Of
several prefixes the longest counts. Relative paths begin at `chdir`. Options follow behind commas: `max-age=SECONDS`
(Cache-Control), `immutable` (a year for names with a hash in them) or `immutable=all`, `index` or `index=NAME` (what is
sent of a directory), `symlinks` (links may lead out of the directory), `fall-through` (the app gets what is not there).
See [static-files.md](static-files.md). A setting of our own.",
    },
    Setting {
        name: "x_sendfile",
        section: Section::StaticFiles,
        flags: &["--x-sendfile"],
        meta: "DIR",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.x_sendfile, directories(value)),
            get: |config| config.x_sendfile.iter().map(|path| path.display().to_string()).collect(),
        },
        doc: "Directories of files that an app may name in X-Sendfile; may be repeated.

A response with the header `X-Sendfile: /path/of/a/file` goes out with that file as its body, sent by the server. Files
outside of these directories are refused with 500. Without this setting the header goes to the client like any other.
See [static-files.md](static-files.md#files-of-the-app). A setting of our own.",
    },
    Setting {
        name: "x_accel_map",
        section: Section::StaticFiles,
        flags: &["--x-accel-map"],
        meta: "/PREFIX=DIR",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.x_accel_map, read(value, AccelMap::parse)),
            get: |config| config.x_accel_map.iter().map(AccelMap::to_string).collect(),
        },
        doc: "Prefixes that an app may use in X-Accel-Redirect; repeat it for several.

As `x_sendfile`, for apps that are written for nginx: with `/protected=/srv/files` a response with
`X-Accel-Redirect: /protected/a.pdf` goes out with the file `/srv/files/a.pdf`. Clients cannot ask for these paths. A
setting of our own.",
    },
];

fn read<T>(value: &Value, parse: impl Fn(&str) -> Result<T, ValueError>) -> Result<Vec<T>, ValueError> {
    value.texts()?.iter().map(|text| parse(text)).collect()
}

fn directories(value: &Value) -> Result<Vec<PathBuf>, ValueError> {
    read(value, |text| match text.trim() {
        "" => Err(ValueError::new(text, "names no directory")),
        path => Ok(path.into()),
    })
}
