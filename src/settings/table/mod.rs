//! The rows, chapter by chapter. They have the order of help and of the reference.
//!
//! A row names a field of `Config` and everything that is known about it. The setters are one
//! expression each: a reader of `Value`, and the field for its result.

mod config_file;
mod debugging;
mod dirty_workers;
mod http;
mod logging;
mod naming;
mod not_supported;
mod observing;
mod security;
mod server_hooks;
mod server_mechanics;
mod server_socket;
mod static_files;
mod tls;
mod worker_processes;

use super::setting::Setting;
use super::value::{Value, ValueError};

pub use self::not_supported::NOT_SUPPORTED;

static CHAPTERS: [&[Setting]; 14] = [
    config_file::ROWS,
    server_socket::ROWS,
    worker_processes::ROWS,
    security::ROWS,
    debugging::ROWS,
    server_mechanics::ROWS,
    http::ROWS,
    static_files::ROWS,
    tls::ROWS,
    logging::ROWS,
    observing::ROWS,
    naming::ROWS,
    server_hooks::ROWS,
    dirty_workers::ROWS,
];

/// The settings that gunicorn does not have.
static OWN: &[&str] = &[
    "wsgi_file",
    "autodetect",
    "platform_bind",
    "defer_accept",
    "max_workers",
    "autoscale",
    "max_worker_lifetime",
    "max_worker_lifetime_jitter",
    "max_worker_memory",
    "max_worker_memory_jitter",
    "worker_memory_measure",
    "request_timeout",
    "boot_timeout",
    "shutdown_delay",
    "health_path",
    "live_path",
    "reload_surge",
    "limit_request_body",
    "client_header_timeout",
    "client_body_timeout",
    "client_body_min_rate",
    "write_timeout",
    "worker_buffer",
    "worker_spool",
    "body_buffer",
    "body_spool",
    "response_buffer",
    "response_spool",
    "require_proxy_header",
    "permit_missing_host",
    "strict_host",
    "static_map",
    "x_sendfile",
    "x_accel_map",
    "tls_certificates",
    "tls_watch",
    "log_format",
    "request_id_header",
    "queue_time",
    "syslog_format",
    "statsd_interval",
    "metrics_bind",
    "slow_request",
    "slow_request_stack",
];

/// Whether gunicorn has the setting, too.
pub fn is_gunicorns(setting: &Setting) -> bool {
    !OWN.contains(&setting.name)
}

/// Every setting that the server has, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    CHAPTERS.into_iter().flatten()
}

/// The row of that name, supported or not.
pub fn find(name: &str) -> Option<&'static Setting> {
    all().chain(NOT_SUPPORTED).find(|setting| setting.name == name)
}

/// The largest number of seconds: over a hundred years, and still small enough to be added to a
/// clock without overflow.
const MAX_SECONDS: i64 = u32::MAX as i64;

/// Stores the result of a reader, or returns its error.
fn put<T>(field: &mut T, read: Result<T, ValueError>) -> Result<(), ValueError> {
    *field = read?;
    Ok(())
}

/// Stores a text. None, as of a variable that is not set, leaves the setting as it is.
fn put_text(field: &mut String, value: &Value) -> Result<(), ValueError> {
    if *value == Value::None { Ok(()) } else { put(field, value.text()) }
}

/// A number of seconds.
fn seconds(value: &Value) -> Result<u64, ValueError> {
    value.count(MAX_SECONDS).map(|seconds| seconds as u64)
}

/// A number of bytes, or of anything else.
fn number(value: &Value) -> Result<u64, ValueError> {
    value.count(i64::MAX).map(|number| number as u64)
}

/// A number of bytes, or of anything else, that fits in memory.
fn size(value: &Value) -> Result<usize, ValueError> {
    value.count(isize::MAX as i64).map(|number| number as usize)
}

/// A number of bytes: plain, or followed by K, M or G (powers of 1024).
fn bytes(value: &Value) -> Result<u64, ValueError> {
    let Value::Str(text) = value else { return number(value) };
    let text = text.trim();
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let unit = units.into_iter().find(|(letter, _)| text.ends_with([*letter, letter.to_ascii_lowercase()]));
    let (digits, unit) = unit.map_or((text, 1), |(_, unit)| (&text[..text.len() - 1], unit));
    let count = Value::from(digits).count(i64::MAX / unit);
    count.map(|count| (count * unit) as u64).map_err(|_| ValueError::new(text, "is not a number of bytes such as 400M"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::settings::Config;
    use crate::settings::setting::{Default, Kind, Section, Store};

    /// Every setting of gunicorn 27.0.1.
    const GUNICORN: &str = "
        config wsgi_app bind backlog workers worker_class threads worker_connections max_requests
        max_requests_jitter timeout graceful_timeout keepalive limit_request_line limit_request_fields
        limit_request_field_size reload reload_engine reload_extra_files spew check_config print_config preload_app
        sendfile reuse_port chdir daemon raw_env pidfile worker_tmp_dir user group umask initgroups tmp_upload_dir
        secure_scheme_headers forwarded_allow_ips accesslog disable_redirect_access_to_syslog access_log_format
        errorlog loglevel capture_output logger_class logconfig logconfig_dict logconfig_json syslog_addr syslog
        syslog_prefix syslog_facility enable_stdio_inheritance statsd_host dogstatsd_tags statsd_prefix
        enable_backlog_metric proc_name default_proc_name pythonpath paste on_starting on_reload when_ready pre_fork
        post_fork post_worker_init worker_int worker_abort pre_exec pre_request post_request child_exit worker_exit
        nworkers_changed on_exit ssl_context proxy_protocol proxy_allow_ips protocol uwsgi_allow_ips keyfile certfile
        ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect ciphers http_protocols
        http2_cleartext http2_max_concurrent_streams http2_initial_window_size http2_max_frame_size
        http2_max_header_list_size raw_paste_global_conf permit_obsolete_folding strip_header_spaces
        permit_unconventional_http_method permit_unconventional_http_version casefold_http_method forwarder_headers
        header_map asgi_loop asgi_lifespan asgi_disconnect_grace_period websocket_max_message_size http_parser
        root_path dirty_apps dirty_workers dirty_timeout dirty_threads dirty_graceful_timeout on_dirty_starting
        dirty_post_fork dirty_worker_init dirty_worker_exit control_socket control_socket_mode
        control_socket_disable";

    #[test]
    fn every_setting_of_gunicorn_has_a_row() {
        let names: Vec<&str> = GUNICORN.split_whitespace().collect();
        assert_eq!(names.len(), 120);
        for name in &names {
            assert!(find(name).is_some(), "{name}");
        }
        let own: Vec<&str> = all().map(|setting| setting.name).filter(|name| !names.contains(name)).collect();
        assert_eq!(own, OWN);
    }

    #[test]
    fn bytes_may_have_a_unit() {
        let cases =
            [("0", Some(0)), ("12", Some(12)), ("2K", Some(2048)), ("400M", Some(400 << 20)), ("1g", Some(1 << 30))];
        for (text, expected) in cases {
            assert_eq!(bytes(&Value::from(text)).ok(), expected, "{text}");
        }
        for text in ["", "M", "4T", "-1", "1.5G", "99999999999G"] {
            assert!(bytes(&Value::from(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_that_no_worker_fits_into_is_refused() {
        let row = all().find(|setting| setting.name == "max_worker_memory").unwrap();
        let Store::Field { set, .. } = row.store else { panic!("it is stored in a field") };
        let mut config = Config::default();
        for (text, is_taken) in [("0", true), ("400", false), ("1023K", false), ("1M", true), ("400M", true)] {
            assert_eq!(set(&mut config, &Value::from(text)).is_ok(), is_taken, "{text}");
        }
    }

    #[test]
    fn names_and_flags_are_unique() {
        let mut seen = HashSet::from(["-h", "--help", "-v", "--version"]);
        for setting in all().chain(NOT_SUPPORTED) {
            assert!(seen.insert(setting.name), "{}", setting.name);
            for flag in setting.flags {
                assert!(seen.insert(flag), "{flag}");
                assert!(flag.starts_with("--") || flag.len() == 2, "{flag}");
            }
        }
    }

    #[test]
    fn rows_say_what_help_and_reference_need() {
        for setting in all() {
            let (name, summary) = (setting.name, setting.summary());
            assert!(summary.len() < 80 && summary.ends_with('.'), "{name}: {summary}");
            let has_no_value = matches!(setting.kind, Kind::Switch | Kind::SwitchOff | Kind::Hook);
            assert_eq!(setting.meta.is_empty(), has_no_value, "{name}");
            assert_ne!(setting.section, Section::NotSupported, "{name}");
            assert_eq!(matches!(setting.store, Store::Hook), setting.kind == Kind::Hook, "{name}");
            assert!(!matches!(setting.store, Store::Missing(_)), "{name}");
        }
    }

    #[test]
    fn rows_of_a_chapter_are_adjacent() {
        let mut sections: Vec<Section> = all().map(|setting| setting.section).collect();
        sections.dedup();
        assert_eq!(sections, Section::ALL);
    }

    #[test]
    fn a_value_printed_reads_back_as_itself() {
        let defaults = Config::default();
        for setting in all() {
            let Store::Field { set, get } = &setting.store else {
                continue;
            };
            let mut config = Config::blank();
            let value = get(&defaults);
            set(&mut config, &value).unwrap_or_else(|error| panic!("{}: {error}", setting.name));
            assert_eq!(get(&config), value, "{}", setting.name);
        }
    }

    #[test]
    fn a_switch_is_off_and_its_opposite_on_by_default() {
        for setting in all() {
            let Store::Field { get, .. } = &setting.store else {
                continue;
            };
            match setting.kind {
                // The only switch of gunicorn that is on by default.
                Kind::Switch if setting.name == "suppress_ragged_eofs" => {}
                Kind::Switch => assert_eq!(get(&Config::default()), Value::Bool(false), "{}", setting.name),
                Kind::SwitchOff => assert_eq!(get(&Config::default()), Value::Bool(true), "{}", setting.name),
                _ => assert!(!matches!(setting.default, Default::Bool(_)), "{}", setting.name),
            }
        }
    }
}
