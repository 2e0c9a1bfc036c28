//! Limits against hostile clients.

use super::{number, put, size};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

/// gunicorn's longest request line; it cuts larger limits down to this silently.
const MAX_REQUEST_LINE: usize = 8190;

/// gunicorn's most header fields, which 0 stands for as well.
const MAX_REQUEST_FIELDS: usize = 32768;

/// What a field size of 0 means in gunicorn, whose documentation calls it unlimited.
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

A request with more is answered with 431. The most there can be is 32768, which 0 stands for.",
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
