//! gunicorn's settings that this server does not have, each with the reason.
//!
//! They are rows as well, so that the command line knows their flags and answers with the reason
//! instead of "unrecognized arguments". A value that asks for nothing, such as gunicorn's default,
//! passes. If the server does its whole work without the setting, or the setting only adjusts
//! another one of this list, a warning is enough.

use crate::settings::setting::{Default, Kind, Missing, Section, Setting, Severity, Store};

/// The settings of gunicorn 27 that are not supported, in gunicorn's order.
pub static NOT_SUPPORTED: &[Setting] = &[
    ignored(
        "ssl_version",
        &["--ssl-version"],
        Kind::Text,
        &["2", "None", ""],
        "gunicorn ignores it as well; TLS 1.2 and 1.3 are spoken",
    ),
    refused("http_protocols", &["--http-protocols"], Kind::CommaList, &["h1"], HTTP2),
    refused("http2_cleartext", &["--http2-cleartext"], Kind::Text, &["off", "False", "None"], HTTP2),
    ignored("http2_max_concurrent_streams", &["--http2-max-concurrent-streams"], Kind::Int, &["100"], HTTP2),
    ignored("http2_initial_window_size", &["--http2-initial-window-size"], Kind::Int, &["65535"], HTTP2),
    ignored("http2_max_frame_size", &["--http2-max-frame-size"], Kind::Int, &["16384"], HTTP2),
    ignored("http2_max_header_list_size", &["--http2-max-header-list-size"], Kind::Int, &["65536"], HTTP2),
    ignored("asgi_loop", &["--asgi-loop"], Kind::Text, &["auto"], ASGI),
    ignored("asgi_lifespan", &["--asgi-lifespan"], Kind::Text, &["auto"], ASGI),
    ignored("asgi_disconnect_grace_period", &["--asgi-disconnect-grace-period"], Kind::Int, &["3"], ASGI),
    ignored("websocket_max_message_size", &["--websocket-max-message-size"], Kind::Int, &["16777216"], ASGI),
    ignored("http_parser", &["--http-parser"], Kind::Text, EVERY, "there is one parser, a native one"),
    ignored("root_path", &["--root-path"], Kind::Text, &["None", ""], ASGI),
];

const EVERY: &[&str] = &["*"];
const HTTP2: &str = "HTTP/2 is not supported yet";
const ASGI: &str = "ASGI apps are not supported yet";

/// A setting with which the server does not start.
const fn refused(
    name: &'static str,
    flags: &'static [&'static str],
    kind: Kind,
    harmless: &'static [&'static str],
    reason: &'static str,
) -> Setting {
    missing(name, flags, kind, Missing { harmless, reason, severity: Severity::Refuse })
}

/// A setting that the server ignores with a warning.
const fn ignored(
    name: &'static str,
    flags: &'static [&'static str],
    kind: Kind,
    harmless: &'static [&'static str],
    reason: &'static str,
) -> Setting {
    missing(name, flags, kind, Missing { harmless, reason, severity: Severity::Warn })
}

const fn missing(name: &'static str, flags: &'static [&'static str], kind: Kind, missing: Missing) -> Setting {
    Setting {
        name,
        section: Section::NotSupported,
        flags,
        meta: "VALUE",
        kind,
        default: Default::Unset,
        doc: missing.reason,
        store: Store::Missing(missing),
    }
}
