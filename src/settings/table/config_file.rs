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
    Setting {
        name: "wsgi_file",
        section: Section::ConfigFile,
        flags: &["--wsgi-file"],
        meta: "PATH",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.wsgi_file, value.optional_text()),
            get: |config| Value::from(config.wsgi_file.clone()),
        },
        doc: "The app's script, PATH or PATH:NAME, in the place of a module.

A Python file of any suffix, or none, as `mod_wsgi` loads it: `wsgi/application`. Its app is called `application`, unless
a name or a factory follows behind a colon. The path is relative to `chdir`, and what lies beside the script can be
imported. It cannot be given together with APP_MODULE; a flag comes before `wsgi_app` of a config file. A setting of our
own; gunicorn has none.",
    },
    Setting {
        name: "autodetect",
        section: Section::ConfigFile,
        flags: &["--autodetect"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.autodetect, value.bool()),
            get: |config| config.autodetect.into(),
        },
        doc: "Look for the app if none is named.

In the directory `chdir`, the first of these:

1. the script that the variable `OPENSHIFT_PYTHON_WSGI_APPLICATION` names, or the app that `APP_MODULE` does;
2. `wsgi.py`, with its `application`;
3. the scripts `wsgi/application` and `ROOT/application`;
4. `app.py`, if a line in it defines `application` or `app`;
5. for Django, the only `*/wsgi.py` beside `manage.py`.

`manage.py` may lie one folder deeper: then 2, 4 and 5 are about that folder, and the server changes to it. With a
`pyproject.toml` or `setup.py`, a folder `src` can be imported from. The log says what was found, and the command line
that does the same. A reload looks again. A setting of our own; gunicorn has none.",
    },
];
