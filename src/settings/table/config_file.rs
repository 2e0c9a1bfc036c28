//! Where settings and app come from.

use super::put;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::Value;

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "config",
        section: Section::ConfigFile,
        flags: &["-c", "--config"],
        meta: "CONFIG",
        kind: Kind::Text,
        default: Default::Text("./gunicorn.conf.py"),
        store: Store::Field {
            set: |config, value| put(&mut config.config, value.optional_text().map(Option::unwrap_or_default)),
            get: |config| config.config.as_str().into(),
        },
        doc: "The config file: PATH, file:PATH or python:MODULE.

The extension tells the format: `.toml`, `.yaml`, `.yml` and `.json` are data, with settings as their top-level keys;
everything else is executed as Python, and its global names are the settings. `python:MODULE` imports a module.

Without the flag, `gunicorn.conf.py` is read from the directory the server is started in, if it exists.
`--config \"\"` counts as not given. Only the command line and `GUNICORN_CMD_ARGS` can name the file; in a config file
the key has no effect.",
    },
    Setting {
        name: "wsgi_app",
        section: Section::ConfigFile,
        flags: &[],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.wsgi_app, value.optional_text()),
            get: |config| Value::from(config.wsgi_app.clone()),
        },
        doc: "The app, MODULE or MODULE:NAME, when the command line names none.

`MODULE` alone means its attribute `application`. `MODULE:factory()` calls a factory, with literal arguments if any:
`shop.wsgi:make_app(\"live\", debug=False)`.",
    },
];
