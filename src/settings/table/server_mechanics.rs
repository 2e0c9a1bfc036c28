//! The process and its surroundings.

use std::path::{Path, PathBuf};

use super::{number, put, size};
use crate::settings::config::UserSpec;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "preload_app",
        section: Section::ServerMechanics,
        flags: &["--preload"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.preload_app, value.bool()),
            get: |config| config.preload_app.into(),
        },
        doc: "Load the app in the master, before workers are forked.

Workers then start at once and share the memory of the loaded app. The program's master runs Python only with this
setting, or with another that needs it ([internals/threads.md](internals/threads.md#when-the-master-has-an-interpreter)).
A reload (HUP) brings new code, unlike under gunicorn: it is an upgrade in place (as by RTMIN, see `docs/signals.md`), so
settings and app are tried in another process first, and the old workers serve on if that fails. Turning this setting on
takes an upgrade or a start. The loaded objects are hidden from the garbage collector (`gc.freeze`), so that collections
in workers do not copy the shared pages.",
    },
    Setting {
        name: "sendfile",
        section: Section::ServerMechanics,
        flags: &["--no-sendfile"],
        meta: "",
        kind: Kind::SwitchOff,
        default: Default::Environment { variable: "SENDFILE", prefix: "", otherwise: "true" },
        store: Store::Field {
            set: |config, value| put(&mut config.sendfile, sendfile(value)),
            get: |config| config.sendfile.into(),
        },
        doc: "Do not use sendfile(2) for files that the app returns.

In a config file `sendfile = True` means on and `False` off; in gunicorn both turn it off. While it is not set, the
environment's `SENDFILE` decides: `y`, `1`, `yes`, `true` are on, `n`, `0`, `no`, `false` off.",
    },
    Setting {
        name: "chdir",
        section: Section::ServerMechanics,
        flags: &["--chdir"],
        meta: "DIR",
        kind: Kind::Text,
        default: Default::Text("."),
        store: Store::Field {
            set: |config, value| put(&mut config.chdir, directory(value)),
            get: |config| path_value(&config.chdir),
        },
        doc: "The directory to change to before the app is loaded.

It becomes the first entry of `sys.path` as well, in front of the directory where the server was started.",
    },
    Setting {
        name: "daemon",
        section: Section::ServerMechanics,
        flags: &["-D", "--daemon"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.daemon, value.bool()),
            get: |config| config.daemon.into(),
        },
        doc: "Detach from the terminal and run in the background.

Not for systemd, containers or other supervisors, which need the process in the foreground.",
    },
    Setting {
        name: "enable_stdio_inheritance",
        section: Section::ServerMechanics,
        flags: &["-R", "--enable-stdio-inheritance"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.enable_stdio_inheritance, value.bool()),
            get: |config| config.enable_stdio_inheritance.into(),
        },
        doc: "Let a daemon keep its stdout and stderr.

Otherwise they go to /dev/null, and a terminal always does.",
    },
    Setting {
        name: "raw_env",
        section: Section::ServerMechanics,
        flags: &["-e", "--env"],
        meta: "ENV",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.raw_env, variables(value)),
            get: |config| config.raw_env.iter().map(|(name, text)| format!("{name}={text}")).collect(),
        },
        doc: "A variable to set in the environment, NAME=VALUE.

Repeat it for several. They are set before the app is loaded; a reload removes those that are no longer named.",
    },
    Setting {
        name: "pidfile",
        section: Section::ServerMechanics,
        flags: &["-p", "--pid"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.pidfile, value.optional_path()),
            get: |config| Value::from(config.pidfile.as_deref().map(path_value)),
        },
        doc: "The file to write the master's pid to.

Unset, none is written. The server does not start while the file names another living process. During an upgrade by
SIGUSR2 the new master writes the same path with `.2` appended.",
    },
    Setting {
        name: "worker_tmp_dir",
        section: Section::ServerMechanics,
        flags: &["--worker-tmp-dir"],
        meta: "DIR",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.worker_tmp_dir, value.optional_path()),
            get: |config| Value::from(config.worker_tmp_dir.as_deref().map(path_value)),
        },
        doc: "gunicorn's directory of heartbeat files; not needed here.

Accepted so that command lines for gunicorn go on working. Heartbeats are in shared memory: no file is written, and no
directory need be writable.",
    },
    Setting {
        name: "user",
        section: Section::ServerMechanics,
        flags: &["-u", "--user"],
        meta: "USER",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.user, account(value)),
            get: |config| Value::from(config.user.as_ref().map(UserSpec::to_string)),
        },
        doc: "The user that workers run as, by name or number.

Log files and unix sockets are given to it as well. The master keeps the user that started it. Unset, nothing changes.",
    },
    Setting {
        name: "group",
        section: Section::ServerMechanics,
        flags: &["-g", "--group"],
        meta: "GROUP",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.group, account(value)),
            get: |config| Value::from(config.group.as_ref().map(UserSpec::to_string)),
        },
        doc: "The group that workers run as, by name or number.

Unset, nothing changes.",
    },
    Setting {
        name: "umask",
        section: Section::ServerMechanics,
        flags: &["-m", "--umask"],
        meta: "INT",
        kind: Kind::Mode,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.umask, value.mode()),
            get: |config| Value::Int(config.umask.into()),
        },
        doc: "The mode bits to remove from a unix socket.

A number as text with a leading zero is octal: `0007` leaves the socket to its user and group. With 0 every user may
connect.",
    },
    Setting {
        name: "initgroups",
        section: Section::ServerMechanics,
        flags: &["--initgroups"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.initgroups, value.bool()),
            get: |config| config.initgroups.into(),
        },
        doc: "Give workers every group of their user.

Without it they have only `group`.",
    },
    Setting {
        name: "pythonpath",
        section: Section::ServerMechanics,
        flags: &["--pythonpath"],
        meta: "STRING",
        kind: Kind::CommaList,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.pythonpath, directories(value)),
            get: |config| config.pythonpath.iter().map(|path| path_value(path)).collect(),
        },
        doc: "Directories to put in front of sys.path, with commas.

They are put there one by one, so the last one named is searched first. A relative one is seen from `chdir`.",
    },
    Setting {
        name: "tmp_upload_dir",
        section: Section::ServerMechanics,
        flags: &[],
        meta: "DIR",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.tmp_upload_dir, value.optional_path()),
            get: |config| Value::from(config.tmp_upload_dir.as_deref().map(path_value)),
        },
        doc: "The directory for request bodies too large for memory.

The files have no name there: they vanish with the request. Unset, it is the system's directory for temporary files
(`TMPDIR`, `/tmp`). If no file can be made, the body streams to the app.",
    },
    Setting {
        name: "body_buffer",
        section: Section::ServerMechanics,
        flags: &["--body-buffer"],
        meta: "BYTES",
        kind: Kind::Int,
        default: Default::Text("262144"),
        store: Store::Field {
            set: |config, value| put(&mut config.body_buffer, size(value)),
            get: |config| Value::Int(config.body_buffer as i64),
        },
        doc: "Bytes of a request body that are held in memory.

A longer body goes to a file under `tmp_upload_dir`. The app is called when the body is complete, so a slow upload
never occupies a worker. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "body_spool",
        section: Section::ServerMechanics,
        flags: &["--body-spool"],
        meta: "BYTES",
        kind: Kind::Int,
        default: Default::Text("1073741824"),
        store: Store::Field {
            set: |config, value| put(&mut config.body_spool, number(value)),
            get: |config| Value::Int(config.body_spool as i64),
        },
        doc: "Bytes of a request body that may go to a file.

Past that the app is called, and reads the rest from the connection as it comes. Such a body has no `CONTENT_LENGTH`
if it is chunked, and frameworks that need one find no body. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "response_buffer",
        section: Section::ServerMechanics,
        flags: &["--response-buffer"],
        meta: "BYTES",
        kind: Kind::Int,
        default: Default::Text("65536"),
        store: Store::Field {
            set: |config, value| put(&mut config.response_buffer, size(value)),
            get: |config| Value::Int(config.response_buffer as i64),
        },
        doc: "Bytes of a response that are held in memory for a slow client.

What it does not take beyond that goes to a file under `tmp_upload_dir`. The app goes on at once, so a slow reader never holds a worker. A
setting of our own; gunicorn has none.",
    },
    Setting {
        name: "response_spool",
        section: Section::ServerMechanics,
        flags: &["--response-spool"],
        meta: "BYTES",
        kind: Kind::Int,
        default: Default::Text("1073741824"),
        store: Store::Field {
            set: |config, value| put(&mut config.response_spool, number(value)),
            get: |config| Value::Int(config.response_spool as i64),
        },
        doc: "Bytes of a response that may go to a file for a slow client; 0 for none.

Past that, and where no file can be made, the app waits until the client has read. A response with the header
`X-Accel-Buffering: no` never goes to a file: what is live slows down with its reader. A setting of our own; gunicorn
has none.",
    },
    Setting {
        name: "paste",
        section: Section::ServerMechanics,
        flags: &["--paste", "--paster"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.paste, value.optional_text()),
            get: |config| Value::from(config.paste.clone()),
        },
        doc: "A PasteDeploy file that describes the app, FILE or FILE#NAME.

Without a name it is the file's app `main`. It needs the package PasteDeploy. The flag replaces the app's spec; a
section `[loggers]` in the file configures Python's logging, as `logconfig` does.",
    },
    Setting {
        name: "raw_paste_global_conf",
        section: Section::ServerMechanics,
        flags: &["--paste-global"],
        meta: "CONF",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.raw_paste_global_conf, paste_globals(value)),
            get: |config| config.raw_paste_global_conf.iter().map(paste_global).collect(),
        },
        doc: "A variable for the PasteDeploy file, NAME=VALUE.

Repeat it for several. `\\=` is an equals sign in the name.",
    },
];

/// Booleans, and the words that gunicorn takes for "on" in the environment, with their opposites.
fn sendfile(value: &Value) -> Result<bool, ValueError> {
    let word = match value {
        Value::None => return Ok(true),
        Value::Str(word) => word.trim().to_ascii_lowercase(),
        _ => return value.bool(),
    };
    match word.as_str() {
        "y" | "1" | "yes" | "true" => Ok(true),
        "n" | "0" | "no" | "false" | "off" | "" => Ok(false),
        _ => Err(ValueError::new(&word, "is not true or false")),
    }
}

fn directory(value: &Value) -> Result<PathBuf, ValueError> {
    let path = value.text()?;
    if path.is_empty() {
        return Err(ValueError::new(&path, "is not a directory"));
    }
    Ok(PathBuf::from(path))
}

fn directories(value: &Value) -> Result<Vec<PathBuf>, ValueError> {
    Ok(value.comma_separated()?.into_iter().map(PathBuf::from).collect())
}

fn path_value(path: &Path) -> Value {
    Value::Str(path.display().to_string())
}

/// Names and values that the environment can hold. Others would fail only when they are set.
fn variables(value: &Value) -> Result<Vec<(String, String)>, ValueError> {
    let texts = value.texts()?;
    let variable = |text: &String| match text.split_once('=') {
        Some((name, _)) if name.is_empty() || text.contains('\0') => None,
        Some((name, content)) => Some((name.to_owned(), content.to_owned())),
        None => None,
    };
    texts
        .iter()
        .map(|text| variable(text).ok_or_else(|| ValueError::new(text, "is not of the form NAME=VALUE")))
        .collect()
}

/// Digits are an id, anything else a name. An empty name is refused: an unset variable in a script
/// would otherwise leave the workers with the rights of root.
fn account(value: &Value) -> Result<Option<UserSpec>, ValueError> {
    let text = match value {
        Value::None => return Ok(None),
        Value::Int(_) => value.to_string(),
        _ => value.text()?,
    };
    if text.is_empty() {
        return Err(ValueError::new(&text, "is not a name or an id"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Ok(Some(UserSpec::Name(text)));
    }
    match text.parse() {
        // chown(2) and setresuid(2) take the largest id as "leave unchanged".
        Ok(id) if id != u32::MAX => Ok(Some(UserSpec::Id(id))),
        _ => Err(ValueError::new(&text, "is not a name or an id")),
    }
}

/// `NAME=VALUE`, separated by the first equals sign that has no backslash before it.
fn paste_globals(value: &Value) -> Result<Vec<(String, String)>, ValueError> {
    let unescaped = |text: &str| text.replace("\\=", "=");
    let pair = |text: &String| {
        let mut signs = text.match_indices('=').map(|(at, _)| at);
        let at = signs.find(|&at| !text[..at].ends_with('\\'));
        let at = at.ok_or_else(|| ValueError::new(text, "is not of the form NAME=VALUE"))?;
        Ok((unescaped(&text[..at]), unescaped(&text[at + 1..])))
    };
    value.texts()?.iter().map(pair).collect()
}

fn paste_global((name, text): &(String, String)) -> String {
    format!("{}={text}", name.replace('=', "\\="))
}
