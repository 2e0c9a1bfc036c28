//! Logs.

use super::{put, put_text, seconds};
use crate::settings::config::{LogFormat, SyslogFormat};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

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
            set: |config, value| put_text(&mut config.access_log_format, value),
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
            set: |config, value| put(&mut config.errorlog, errorlog(value)),
            get: |config| config.errorlog.as_str().into(),
        },
        doc: "The file of the error log; - is stderr.

Files are opened again on SIGUSR1. With None, in a config file, no error log is written.",
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
    Setting {
        name: "log_format",
        section: Section::Logging,
        flags: &["--log-format"],
        meta: "FORMAT",
        kind: Kind::Text,
        default: Default::Text("text"),
        store: Store::Field {
            set: |config, value| put(&mut config.log_format, log_format(value)),
            get: |config| config.log_format.to_string().into(),
        },
        doc: "The form of the lines of both logs: text, or json by one of four schemas.

`text`: gunicorn's lines. The others: one object per line, without `access_log_format`. Their fields are named by
ourselves (`json`), by Elastic Common Schema (`json-ecs`), by Google Cloud Logging (`json-gcp`) or by OpenTelemetry
(`json-otel`); [observability.md](observability.md#logs-that-join-up) has the names. Lines of a request say its id
(`request_id_header`) and the trace of its header `traceparent`, those of an exception its class and its traceback. The
setting has no effect if Python's logging writes the logs. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "request_id_header",
        section: Section::Logging,
        flags: &["--request-id-header"],
        meta: "NAME",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.request_id_header, header_name(value)),
            get: |config| Value::from(config.request_id_header.clone()),
        },
        doc: "The header with the id of each request, such as X-Request-ID.

A peer that `forwarded_allow_ips` names may send an id: up to 128 letters, digits and `._~+/=-`. For every other request
the server makes one, of 32 hexadecimal digits, whatever the client has sent. The app finds it as that header of the
request. The response has the header as well, unless the app sets it itself. Each line of the error log that is written
in a request begins with its id in brackets, or has it as a field under `log_format`; in the access log
`%({x-request-id}i)s` shows it. Unset, requests have no ids. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "queue_time",
        section: Section::Logging,
        flags: &["--queue-time"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.queue_time, value.bool()),
            get: |config| config.queue_time.into(),
        },
        doc: "Tell the app how long each request has waited, as monoceros.queue_time.

That key of the environ is a float: the seconds from the arrival of the request, in the kernel as far as a new TCP
connection's clock tells, until the app was called. Agents and middleware can put it into their traces. A setting of our
own; gunicorn has none.",
    },
    Setting {
        name: "logger_class",
        section: Section::Logging,
        flags: &["--logger-class"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Text("gunicorn.glogging.Logger"),
        store: Store::Field {
            set: |config, value| put(&mut config.logger_class, logger_class(value)),
            get: |config| config.logger_class.clone(),
        },
        doc: "The class of the logger: where to import it from, or the class itself.

A subclass of `gunicorn.glogging.Logger`, which this server contains. With any class but the default one, both logs
are written by Python's logging.",
    },
    Setting {
        name: "logconfig",
        section: Section::Logging,
        flags: &["--log-config"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.logconfig, value.optional_path()),
            get: |config| Value::from(config.logconfig.as_ref().map(|path| path.display().to_string())),
        },
        doc: "A file that configures Python's logging, for logging.config.fileConfig.

The loggers are `gunicorn.error` and `gunicorn.access`. With it both logs are written by Python's logging.",
    },
    Setting {
        name: "logconfig_dict",
        section: Section::Logging,
        flags: &[],
        meta: "DICT",
        kind: Kind::Map,
        default: Default::Map(&[]),
        store: Store::Field {
            set: |config, value| put(&mut config.logconfig_dict, dict(value)),
            get: |config| config.logconfig_dict.clone(),
        },
        doc: "A dict that configures Python's logging, for logging.config.dictConfig.

Its keys replace those of gunicorn's `CONFIG_DEFAULTS`. It takes precedence over `logconfig_json` and `logconfig`.
With it both logs are written by Python's logging.",
    },
    Setting {
        name: "logconfig_json",
        section: Section::Logging,
        flags: &["--log-config-json"],
        meta: "FILE",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.logconfig_json, value.optional_path()),
            get: |config| Value::from(config.logconfig_json.as_ref().map(|path| path.display().to_string())),
        },
        doc: "The same dict as a JSON file.

A missing file is ignored, as in gunicorn. With it both logs are written by Python's logging.",
    },
    Setting {
        name: "syslog",
        section: Section::Logging,
        flags: &["--log-syslog"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.syslog, value.bool()),
            get: |config| config.syslog.into(),
        },
        doc: "Send both logs to syslog as well.

With it both logs are written by Python's logging, unless `syslog_format` is `rfc5424`.",
    },
    Setting {
        name: "syslog_addr",
        section: Section::Logging,
        flags: &["--log-syslog-to"],
        meta: "SYSLOG_ADDR",
        kind: Kind::Text,
        default: Default::Text("udp://localhost:514"),
        store: Store::Field {
            set: |config, value| put_text(&mut config.syslog_addr, value),
            get: |config| config.syslog_addr.as_str().into(),
        },
        doc: "The address of syslog.

`udp://HOST:PORT`, `tcp://HOST:PORT`, or `unix://PATH`, to which `#dgram` or `#stream` may be added.",
    },
    Setting {
        name: "syslog_prefix",
        section: Section::Logging,
        flags: &["--log-syslog-prefix"],
        meta: "SYSLOG_PREFIX",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.syslog_prefix, value.optional_text()),
            get: |config| Value::from(config.syslog_prefix.clone()),
        },
        doc: "The name in lines of syslog, instead of the process's.

They begin with `gunicorn.<prefix>.error` and `gunicorn.<prefix>.access`.",
    },
    Setting {
        name: "syslog_facility",
        section: Section::Logging,
        flags: &["--log-syslog-facility"],
        meta: "SYSLOG_FACILITY",
        kind: Kind::Text,
        default: Default::Text("user"),
        store: Store::Field {
            set: |config, value| put_text(&mut config.syslog_facility, value),
            get: |config| config.syslog_facility.as_str().into(),
        },
        doc: "The facility of lines in syslog, such as user or local3.",
    },
    Setting {
        name: "syslog_format",
        section: Section::Logging,
        flags: &["--log-syslog-format"],
        meta: "FORMAT",
        kind: Kind::Text,
        default: Default::Text("gunicorn"),
        store: Store::Field {
            set: |config, value| put(&mut config.syslog_format, syslog_format(value)),
            get: |config| config.syslog_format.to_string().into(),
        },
        doc: "The form of lines in syslog: gunicorn or rfc5424.

`gunicorn`: that of Python's handler, which writes them. `rfc5424`: that of RFC 5424, written by the server itself:
`syslog_prefix`, else the process's name, is the APP-NAME, `error` or `access` the MSGID; over TCP the length stands
before each message, over UDP a message is cut to 2048 bytes. A daemon that is away or does not read costs a moment, and
the lines it misses. If another setting has Python's logging write the logs, this one has no effect. A setting of our
own; gunicorn has none.",
    },
    Setting {
        name: "disable_redirect_access_to_syslog",
        section: Section::Logging,
        flags: &["--disable-redirect-access-to-syslog"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.disable_redirect_access_to_syslog, value.bool()),
            get: |config| config.disable_redirect_access_to_syslog.into(),
        },
        doc: "Keep access lines out of syslog.",
    },
    Setting {
        name: "statsd_host",
        section: Section::Logging,
        flags: &["--statsd-host"],
        meta: "STATSD_ADDR",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.statsd_host, value.optional_text()),
            get: |config| Value::from(config.statsd_host.clone()),
        },
        doc: "Where statsd listens: HOST:PORT, or unix://PATH.

gunicorn's metrics: `gunicorn.requests`, `gunicorn.request.duration`, `gunicorn.request.status.NNN`,
`gunicorn.workers`, `gunicorn.log.error` and its kin, and those that `log.info(..., extra={...})` names. With it both
logs are written by Python's logging, unless `statsd_interval` is set.",
    },
    Setting {
        name: "dogstatsd_tags",
        section: Section::Logging,
        flags: &["--dogstatsd-tags"],
        meta: "DOGSTATSD_TAGS",
        kind: Kind::Text,
        default: Default::Text(""),
        store: Store::Field {
            set: |config, value| put_text(&mut config.dogstatsd_tags, value),
            get: |config| config.dogstatsd_tags.as_str().into(),
        },
        doc: "Tags of each metric, separated by commas.",
    },
    Setting {
        name: "statsd_prefix",
        section: Section::Logging,
        flags: &["--statsd-prefix"],
        meta: "STATSD_PREFIX",
        kind: Kind::Text,
        default: Default::Text(""),
        store: Store::Field {
            set: |config, value| put_text(&mut config.statsd_prefix, value),
            get: |config| config.statsd_prefix.as_str().into(),
        },
        doc: "The prefix of each metric's name.

A dot is added if it does not end with one.",
    },
    Setting {
        name: "statsd_interval",
        section: Section::Logging,
        flags: &["--statsd-interval"],
        meta: "SECONDS",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.statsd_interval, seconds(value)),
            get: |config| Value::Int(config.statsd_interval as i64),
        },
        doc: "Seconds between two reports to statsd; 0 tells it of each request.

With 0 Python's logging writes the logs and sends a datagram for each request, as gunicorn does. Otherwise the server
sends what the requests of all workers come to, once in so many seconds and without Python: the same counters and
gauges, durations as timings with a sample rate, and some of its own ([observability.md](observability.md#statsd)).
Metrics in records of the app's or of hooks (`extra`) are then not sent. If another setting has Python's logging write
the logs, this one has no effect. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "enable_backlog_metric",
        section: Section::Logging,
        flags: &["--enable-backlog-metric"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.enable_backlog_metric, value.bool()),
            get: |config| config.enable_backlog_metric.into(),
        },
        doc: "Send how many connections wait to be accepted, as gunicorn.backlog.

Once a second, to `statsd_host`; TCP sockets only.",
    },
];

/// The error log's target where a config file asks for none.
const NOWHERE: &str = "/dev/null";

fn errorlog(value: &Value) -> Result<String, ValueError> {
    if *value == Value::None { Ok(NOWHERE.to_owned()) } else { value.text() }
}

fn log_format(value: &Value) -> Result<LogFormat, ValueError> {
    let text = value.text()?;
    let found = LogFormat::ALL.into_iter().find(|format| format.to_string() == text);
    found.ok_or_else(|| ValueError::new(&text, "is not one of 'text', 'json', 'json-ecs', 'json-gcp', 'json-otel'"))
}

/// Headers that mean something else to the server or to proxies, and cannot hold the id.
const TAKEN: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "server",
    "set-cookie",
    "transfer-encoding",
    "upgrade",
];

/// Longer names are a mistake.
const LONGEST_NAME: usize = 64;

fn header_name(value: &Value) -> Result<Option<String>, ValueError> {
    let Some(name) = value.optional_text()? else { return Ok(None) };
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_plain || name.len() > LONGEST_NAME {
        return Err(ValueError::new(&name, "is not a header such as X-Request-ID"));
    }
    if TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
        return Err(ValueError::new(&name, "is a header that means something else"));
    }
    Ok(Some(name))
}

fn syslog_format(value: &Value) -> Result<SyslogFormat, ValueError> {
    let text = value.text()?;
    let found = [SyslogFormat::Gunicorn, SyslogFormat::Rfc5424].into_iter().find(|format| format.to_string() == text);
    found.ok_or_else(|| ValueError::new(&text, "is not one of 'gunicorn', 'rfc5424'"))
}

fn logger_class(value: &Value) -> Result<Value, ValueError> {
    match value {
        Value::Object(_) => Ok(value.clone()),
        _ => Ok(value.optional_text()?.map_or_else(|| "gunicorn.glogging.Logger".into(), Value::from)),
    }
}

/// A dict, whose content Python's logging checks.
fn dict(value: &Value) -> Result<Value, ValueError> {
    match value {
        Value::None => Ok(Value::Map(Vec::new())),
        Value::Map(_) | Value::Object(_) => Ok(value.clone()),
        _ => Err(ValueError::new(&value.to_string(), "is not a dict")),
    }
}
