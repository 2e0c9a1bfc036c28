//! Limits against hostile clients.

use super::{number, put, seconds, size};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

/// gunicorn's longest request line; it cuts larger limits down to this silently.
const MAX_REQUEST_LINE: usize = 8190;

/// gunicorn's highest number of header fields, which 0 stands for as well.
const MAX_REQUEST_FIELDS: usize = 32768;

/// The meaning of a field size of 0 in gunicorn, whose documentation calls it unlimited.
const DEFAULT_FIELD_SIZE: usize = 8190;

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "limit_request_line",
        section: Section::Security,
        flags: &["--limit-request-line"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("4094"),
        store: Store::Field {
            set: |config, value| put(&mut config.limit_request_line, request_line(value)),
            get: |config| Value::Int(config.limit_request_line as i64),
        },
        doc: "Longest request line in bytes; 0 is unlimited.

Method, target and version, without the line end. A longer one is answered with 414. Numbers above 8190 count as 8190,
as in gunicorn.",
    },
    Setting {
        name: "limit_request_fields",
        section: Section::Security,
        flags: &["--limit-request-fields"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("100"),
        store: Store::Field {
            set: |config, value| put(&mut config.limit_request_fields, request_fields(value)),
            get: |config| Value::Int(config.limit_request_fields as i64),
        },
        doc: "Most header fields of a request.

A request with more is answered with 431. The largest number is 32768, which 0 stands for.",
    },
    Setting {
        name: "limit_request_field_size",
        section: Section::Security,
        flags: &["--limit-request-field_size"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("8190"),
        store: Store::Field {
            set: |config, value| put(&mut config.limit_request_field_size, field_size(value)),
            get: |config| Value::Int(config.limit_request_field_size as i64),
        },
        doc: "Longest header line in bytes.

Name, value and line end. A longer one is answered with 431. 0 stands for 8190.",
    },
    Setting {
        name: "limit_request_body",
        section: Section::Security,
        flags: &["--limit-request-body"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.limit_request_body, number(value)),
            get: |config| Value::Int(config.limit_request_body as i64),
        },
        doc: "Longest request body in bytes; 0 is unlimited.

A longer one is answered with 413 before the app is called. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "client_header_timeout",
        section: Section::Security,
        flags: &["--client-header-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("60"),
        store: Store::Field {
            set: |config, value| put(&mut config.client_header_timeout, seconds(value)),
            get: |config| Value::Int(config.client_header_timeout as i64),
        },
        doc: "Seconds that a request's head may take to arrive; 0 means no limit.

From the head's first byte, or from the connection's start, to the empty line at its end, however the bytes are spread
over that time. A client that has begun a request is answered with 408; the connection of one that has sent nothing is
closed. A setting of our own; gunicorn waits until its worker is killed.",
    },
    Setting {
        name: "client_body_timeout",
        section: Section::Security,
        flags: &["--client-body-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("60"),
        store: Store::Field {
            set: |config, value| put(&mut config.client_body_timeout, seconds(value)),
            get: |config| Value::Int(config.client_body_timeout as i64),
        },
        doc: "Seconds between two arrivals of a request body's bytes; 0 means no limit.

A client that pauses for longer is answered with 408, and the app is not called; while a body streams (see
`body_spool`), reading `wsgi.input` fails instead. A setting of our own.",
    },
    Setting {
        name: "client_body_min_rate",
        section: Section::Security,
        flags: &["--client-body-min-rate"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("240"),
        store: Store::Field {
            set: |config, value| put(&mut config.client_body_min_rate, number(value)),
            get: |config| Value::Int(config.client_body_min_rate as i64),
        },
        doc: "Minimum rate of a request body, in bytes per second; 0 means none.

On average since the body began, after a grace of `client_body_timeout`; so a client that sends a byte now and then
does not keep its connection for ever. Only time spent on waiting for the client counts. A slower one is answered as
under `client_body_timeout`. A setting of our own.",
    },
    Setting {
        name: "write_timeout",
        section: Section::Security,
        flags: &["--write-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("60"),
        store: Store::Field {
            set: |config, value| put(&mut config.write_timeout, seconds(value)),
            get: |config| Value::Int(config.write_timeout as i64),
        },
        doc: "Seconds in which a client must take some of its response; 0 means no limit.

A client that takes nothing for longer is disconnected. If the app is still producing the response, it gets an error.
A setting of our own.",
    },
    Setting {
        name: "worker_buffer",
        section: Section::Security,
        flags: &["--worker-buffer"],
        meta: "BYTES",
        kind: Kind::Int,
        default: Default::Text("67108864"),
        store: Store::Field {
            set: |config, value| put(&mut config.worker_buffer, number(value)),
            get: |config| Value::Int(config.worker_buffer as i64),
        },
        doc: "Bytes of memory that a worker's unfinished requests may take; 0 means no limit.

Heads, bodies and waiting responses of all its connections together. While more than half of it is in use, bodies go to files earlier than
at `body_buffer`. Past it the requests go that have held most for longest, bytes times seconds, with 503. A setting of
our own.",
    },
    Setting {
        name: "worker_spool",
        section: Section::Security,
        flags: &["--worker-spool"],
        meta: "BYTES",
        kind: Kind::Int,
        default: Default::Text("2147483648"),
        store: Store::Field {
            set: |config, value| put(&mut config.worker_spool, number(value)),
            get: |config| Value::Int(config.worker_spool as i64),
        },
        doc: "Bytes of files that a worker's bodies and responses may take; 0 is any number.

The files of all its connections together (`body_spool` and `response_spool` bound one). Past it the uploads go that have
held most for longest, as under `worker_buffer`, and apps wait for clients that do not read. Several times that must fit
under `tmp_upload_dir`: once for each worker. A setting of our own.",
    },
];

fn request_line(value: &Value) -> Result<usize, ValueError> {
    size(value).map(|limit| limit.min(MAX_REQUEST_LINE))
}

fn request_fields(value: &Value) -> Result<usize, ValueError> {
    size(value).map(|limit| if limit == 0 { MAX_REQUEST_FIELDS } else { limit.min(MAX_REQUEST_FIELDS) })
}

fn field_size(value: &Value) -> Result<usize, ValueError> {
    size(value).map(|limit| if limit == 0 { DEFAULT_FIELD_SIZE } else { limit })
}
