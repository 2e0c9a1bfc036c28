//! Logs.

use super::put;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::Value;

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "accesslog",
        section: Section::Logging,
        flags: &["--access-logfile"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.accesslog, value.optional_text()),
            get: |config| Value::from(config.accesslog.clone()),
        },
        doc: "The file of the access log; - is stdout.

Unset, none is written. Files are opened again on SIGUSR1.",
    },
    Setting {
        name: "access_log_format",
        section: Section::Logging,
        flags: &["--access-logformat"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Text(r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#),
        store: Store::Field {
            set: |config, value| put(&mut config.access_log_format, value.text()),
            get: |config| config.access_log_format.as_str().into(),
        },
        doc: r#"The format of the lines in the access log.

| atom | means |
|---|---|
| `%(h)s` | the client's address |
| `%(l)s` | `-` |
| `%(u)s` | the user name of basic authentication |
| `%(t)s` | the time, `[20/Nov/2026:07:37:16 +0000]` |
| `%(r)s` | the request line |
| `%(m)s` | the method |
| `%(U)s` | the path, without the query |
| `%(q)s` | the query |
| `%(H)s` | the protocol |
| `%(s)s` | the status |
| `%(B)s` | bytes of the response's body |
| `%(b)s` | the same |
| `%(f)s` | the referrer |
| `%(a)s` | the user agent |
| `%(T)s` | the time the request took, in seconds |
| `%(M)s` | in milliseconds |
| `%(D)s` | in microseconds |
| `%(L)s` | in seconds, with six decimals |
| `%(p)s` | the process id, `<1234>` |
| `%({x-name}i)s` | a header of the request |
| `%({x-name}o)s` | a header of the response |
| `%({NAME}e)s` | a key of the environ |"#,
    },
    Setting {
        name: "errorlog",
        section: Section::Logging,
        flags: &["--error-logfile", "--log-file"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Text("-"),
        store: Store::Field {
            set: |config, value| put(&mut config.errorlog, value.text()),
            get: |config| config.errorlog.as_str().into(),
        },
        doc: "The file of the error log; - is stderr.

Files are opened again on SIGUSR1.",
    },
    Setting {
        name: "loglevel",
        section: Section::Logging,
        flags: &["--log-level"],
        meta: "LEVEL",
        kind: Kind::Text,
        default: Default::Text("info"),
        store: Store::Field {
            set: |config, value| put(&mut config.loglevel, value.text()),
            get: |config| config.loglevel.as_str().into(),
        },
        doc: "The least level that the error log takes.

`debug`, `info`, `warning`, `error` or `critical`. Any other word counts as `info`, as in gunicorn.",
    },
    Setting {
        name: "capture_output",
        section: Section::Logging,
        flags: &["--capture-output"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.capture_output, value.bool()),
            get: |config| config.capture_output.into(),
        },
        doc: "Send the app's stdout and stderr to the error log's file.

Nothing changes while the error log is stderr.",
    },
];
