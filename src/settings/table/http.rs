//! How requests are read, and which peers are trusted.

use super::put;
use crate::settings::config::{HeaderMap, Protocol, ProxyProtocol};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::trust::Trusted;
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "forwarded_allow_ips",
        section: Section::Http,
        flags: &["--forwarded-allow-ips"],
        meta: "STRING",
        kind: Kind::CommaList,
        default: Default::Environment { variable: "FORWARDED_ALLOW_IPS", prefix: "", otherwise: "127.0.0.1,::1" },
        store: Store::Field {
            set: |config, value| put(&mut config.forwarded_allow_ips, Trusted::read(value)),
            get: |config| config.forwarded_allow_ips.to_value(),
        },
        doc: "Proxies whose headers are trusted, with commas.

Addresses, networks (`10.0.0.0/8`) and `*` for everyone. Only they may set the client's scheme
(`secure_scheme_headers`) and send `forwarder_headers`. Peers on a unix socket are always trusted. Behind a PROXY
header the client that it names is compared, since a TCP balancer passes on what its clients write. `*` is safe behind
a balancer that speaks HTTP and replaces these headers, if no client can bypass it. While it is not set, the
environment's `FORWARDED_ALLOW_IPS` decides.",
    },
    Setting {
        name: "secure_scheme_headers",
        section: Section::Http,
        flags: &[],
        meta: "DICT",
        kind: Kind::Map,
        default: Default::Map(&[
            ("X-FORWARDED-PROTOCOL", "ssl"),
            ("X-FORWARDED-PROTO", "https"),
            ("X-FORWARDED-SSL", "on"),
        ]),
        store: Store::Field {
            set: |config, value| put(&mut config.secure_scheme_headers, scheme_headers(value)),
            get: |config| map_value(&config.secure_scheme_headers),
        },
        doc: "Headers by which a proxy says that the client uses https.

Names, and the one value of each that means https; any other value means http. Two headers that disagree are answered
with 400. Only peers in `forwarded_allow_ips` are trusted.",
    },
    Setting {
        name: "forwarder_headers",
        section: Section::Http,
        flags: &["--forwarder-headers"],
        meta: "STRING",
        kind: Kind::CommaList,
        default: Default::Text("SCRIPT_NAME,PATH_INFO"),
        store: Store::Field {
            set: |config, value| put(&mut config.forwarder_headers, upper_case_names(value)),
            get: |config| config.forwarder_headers.iter().map(String::as_str).collect(),
        },
        doc: "Headers with an underscore that a proxy may send, with commas.

`*` means all. `SCRIPT_NAME` sets the environ's key of that name; the others become `HTTP_` keys. Only peers in
`forwarded_allow_ips` may send them.",
    },
    Setting {
        name: "header_map",
        section: Section::Http,
        flags: &["--header-map"],
        meta: "CHOICE",
        kind: Kind::Text,
        default: Default::Text("drop"),
        store: Store::Field {
            set: |config, value| put(&mut config.header_map, header_map(value)),
            get: |config| header_map_word(config.header_map).into(),
        },
        doc: "Headers with an underscore: drop, refuse or dangerous.

The environ has one key for `A-B` and `A_B`, so a client could forge what a proxy sets. `drop` leaves such headers
out, `refuse` answers 400, `dangerous` passes them on. `forwarder_headers` of a trusted proxy are always passed on.",
    },
    Setting {
        name: "proxy_protocol",
        section: Section::Http,
        flags: &["--proxy-protocol"],
        meta: "MODE",
        kind: Kind::OptionalText { bare: "auto" },
        default: Default::Text("off"),
        store: Store::Field {
            set: |config, value| put(&mut config.proxy_protocol, proxy_protocol(value)),
            get: |config| proxy_protocol_word(config.proxy_protocol).into(),
        },
        doc: "The PROXY protocol: off, v1, v2 or auto.

With it a balancer such as HAProxy names the client at the start of a connection. The flag alone means `auto`, which
tells the two versions apart. The app's spec must not follow the bare flag: it would be read as the mode.",
    },
    Setting {
        name: "proxy_allow_ips",
        section: Section::Http,
        flags: &["--proxy-allow-from"],
        meta: "STRING",
        kind: Kind::CommaList,
        default: Default::Text("127.0.0.1,::1"),
        store: Store::Field {
            set: |config, value| put(&mut config.proxy_allow_ips, Trusted::read(value)),
            get: |config| config.proxy_allow_ips.to_value(),
        },
        doc: "Balancers that may send a PROXY header, with commas.

Addresses, networks and `*` for everyone. Such a header from any other peer is answered with 403.",
    },
    Setting {
        name: "require_proxy_header",
        section: Section::Http,
        flags: &["--require-proxy-header"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.require_proxy_header, value.bool()),
            get: |config| config.require_proxy_header.into(),
        },
        doc: "Refuse connections without a PROXY header.

It has an effect if `proxy_protocol` is on. In gunicorn the header is optional; with this setting no request gets the
address of a balancer that did not send it. A setting of our own.",
    },
    Setting {
        name: "protocol",
        section: Section::Http,
        flags: &["--protocol"],
        meta: "CHOICE",
        kind: Kind::Text,
        default: Default::Text("http"),
        store: Store::Field {
            set: |config, value| put(&mut config.protocol, protocol(value)),
            get: |config| protocol_word(config.protocol).into(),
        },
        doc: "What is spoken on connections: http or uwsgi.

`uwsgi` is for nginx's `uwsgi_pass`, and holds for every address of `bind`. What the proxy sends (`uwsgi_param`) are
keys of the environ, the client's address among them. The scheme is `https` where `HTTPS` is `on`, or where
`UWSGI_SCHEME` or `REQUEST_SCHEME` says so. A connection is for one request. A head has at most 64 KiB and 1000
variables; `limit_request_line`, `limit_request_fields`, `limit_request_field_size`, `proxy_protocol` and the settings
about headers of proxies have no effect. Checks that speak HTTP go to the proxy, or to `metrics_bind`. See
[nginx by uwsgi](hosts/process-managers.md#nginx-by-uwsgi).",
    },
    Setting {
        name: "uwsgi_allow_ips",
        section: Section::Http,
        flags: &["--uwsgi-allow-from"],
        meta: "STRING",
        kind: Kind::CommaList,
        default: Default::Text("127.0.0.1,::1"),
        store: Store::Field {
            set: |config, value| put(&mut config.uwsgi_allow_ips, Trusted::read(value)),
            get: |config| config.uwsgi_allow_ips.to_value(),
        },
        doc: "Proxies that may speak uwsgi, with commas.

Addresses, networks and `*` for everyone; in gunicorn a network names nobody. Any other peer is answered with 403.
Peers on a unix socket always may. Whoever may is believed in all that it says of its client.",
    },
    Setting {
        name: "permit_missing_host",
        section: Section::Http,
        flags: &["--permit-missing-host"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.permit_missing_host, value.bool()),
            get: |config| config.permit_missing_host.into(),
        },
        doc: "Accept HTTP/1.1 requests without a Host.

gunicorn does; RFC 9112, section 3.2, demands 400. A setting of our own.",
    },
    Setting {
        name: "strict_host",
        section: Section::Http,
        flags: &["--strict-host"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.strict_host, value.bool()),
            get: |config| config.strict_host.into(),
        },
        doc: "Refuse a target that contradicts the Host header.

A request may name its host twice: in a target such as `http://shop.example/cart`, and by `Host`. The target's host is
then `HTTP_HOST`, and the header is ignored (RFC 9112, section 3.2.2). With this setting a request in which the two
differ is answered with 400; a port that is the scheme's default may be missing on either side. For servers whose
proxies route by the header. A setting of our own; gunicorn uses the header.",
    },
    Setting {
        name: "permit_obsolete_folding",
        section: Section::Http,
        flags: &["--permit-obsolete-folding"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.permit_obsolete_folding, value.bool()),
            get: |config| config.permit_obsolete_folding.into(),
        },
        doc: "Accept header lines folded over several lines.

RFC 9112, section 5.2, removed them from HTTP. For old clients only.",
    },
    Setting {
        name: "strip_header_spaces",
        section: Section::Http,
        flags: &["--strip-header-spaces"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.strip_header_spaces, value.bool()),
            get: |config| config.strip_header_spaces.into(),
        },
        doc: "Accept spaces between a header's name and its colon.

Servers that read such lines differently allow request smuggling; RFC 9112, section 5.1, demands 400.",
    },
    Setting {
        name: "permit_unconventional_http_method",
        section: Section::Http,
        flags: &["--permit-unconventional-http-method"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.permit_unconventional_http_method, value.bool()),
            get: |config| config.permit_unconventional_http_method.into(),
        },
        doc: "Accept any token as a method.

Otherwise a method has 3 to 20 characters, no lower-case letter and no `#`.",
    },
    Setting {
        name: "permit_unconventional_http_version",
        section: Section::Http,
        flags: &["--permit-unconventional-http-version"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.permit_unconventional_http_version, value.bool()),
            get: |config| config.permit_unconventional_http_version.into(),
        },
        doc: "Accept HTTP versions other than 1.x.

They are read by the rules of HTTP/1.1.",
    },
    Setting {
        name: "casefold_http_method",
        section: Section::Http,
        flags: &["--casefold-http-method"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.casefold_http_method, value.bool()),
            get: |config| config.casefold_http_method.into(),
        },
        doc: "Turn methods into upper case.

Methods are case-sensitive in HTTP (RFC 9110, section 9.1).",
    },
];

/// Header names are compared in upper case.
fn scheme_headers(value: &Value) -> Result<Vec<(String, String)>, ValueError> {
    let headers = value.map_of_texts()?;
    Ok(headers.into_iter().map(|(name, secure)| (name.to_ascii_uppercase(), secure)).collect())
}

fn map_value(entries: &[(String, String)]) -> Value {
    Value::Map(entries.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect())
}

fn upper_case_names(value: &Value) -> Result<Vec<String>, ValueError> {
    Ok(value.comma_separated()?.iter().map(|name| name.to_ascii_uppercase()).collect())
}

fn header_map(value: &Value) -> Result<HeaderMap, ValueError> {
    let word = value.text()?;
    match word.to_ascii_lowercase().as_str() {
        "drop" => Ok(HeaderMap::Drop),
        "refuse" => Ok(HeaderMap::Refuse),
        "dangerous" => Ok(HeaderMap::Dangerous),
        _ => Err(ValueError::new(&word, "is not one of 'drop', 'refuse', 'dangerous'")),
    }
}

fn header_map_word(map: HeaderMap) -> &'static str {
    match map {
        HeaderMap::Drop => "drop",
        HeaderMap::Refuse => "refuse",
        HeaderMap::Dangerous => "dangerous",
    }
}

fn protocol(value: &Value) -> Result<Protocol, ValueError> {
    let word = value.text()?;
    match word.to_ascii_lowercase().as_str() {
        "http" => Ok(Protocol::Http),
        "uwsgi" => Ok(Protocol::Uwsgi),
        _ => Err(ValueError::new(&word, "is not one of 'http', 'uwsgi'")),
    }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Uwsgi => "uwsgi",
    }
}

/// The modes, and the booleans that gunicorn took before it had modes.
fn proxy_protocol(value: &Value) -> Result<ProxyProtocol, ValueError> {
    let word = match value {
        Value::None => return Ok(ProxyProtocol::Off),
        Value::Bool(_) | Value::Int(_) => value.to_string(),
        _ => value.text()?,
    };
    match word.to_ascii_lowercase().as_str() {
        "off" | "false" | "none" | "0" | "" => Ok(ProxyProtocol::Off),
        "v1" => Ok(ProxyProtocol::V1),
        "v2" => Ok(ProxyProtocol::V2),
        "auto" | "true" | "1" => Ok(ProxyProtocol::Auto),
        _ => Err(ValueError::new(&word, "is not one of 'off', 'v1', 'v2', 'auto'")),
    }
}

fn proxy_protocol_word(mode: ProxyProtocol) -> &'static str {
    match mode {
        ProxyProtocol::Off => "off",
        ProxyProtocol::V1 => "v1",
        ProxyProtocol::V2 => "v2",
        ProxyProtocol::Auto => "auto",
    }
}
