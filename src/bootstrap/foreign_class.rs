//! The settings that have no effect under a worker class of another package: such a class reads
//! requests and writes responses itself, without the event loop.

use crate::settings::{self, Config, WorkerClass};

/// The settings that a class of another package does not heed, unless gunicorn's code runs it.
const OF_OWN_WORKERS: &[&str] = &[
    "threads",
    "limit_request_line",
    "limit_request_fields",
    "limit_request_field_size",
    "protocol",
    "uwsgi_allow_ips",
    "proxy_protocol",
    "proxy_allow_ips",
    "secure_scheme_headers",
    "forwarder_headers",
    "header_map",
    "permit_obsolete_folding",
    "strip_header_spaces",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "casefold_http_method",
];

/// The settings that gunicorn does not have, and that its code therefore does not heed either.
const OF_THIS_SERVER: &[&str] = &[
    "request_timeout",
    "health_path",
    "live_path",
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
    "request_id_header",
    "queue_time",
    "slow_request",
    "slow_request_stack",
    "statsd_interval",
];

/// The warning about settings that were given and have no effect under the class, if there are any.
/// A class `of_gunicorn` is run by an installed gunicorn's code.
pub fn warning(config: &Config, of_gunicorn: bool) -> Option<String> {
    let WorkerClass::Foreign(class) = &config.worker_class else { return None };
    let defaults = Config::default();
    let is_given = |name: &&str| {
        settings::find(name).is_some_and(|setting| setting.value_in(config) != setting.value_in(&defaults))
    };
    let of_own_workers = if of_gunicorn { &[] } else { OF_OWN_WORKERS };
    let given: Vec<&str> = of_own_workers.iter().chain(OF_THIS_SERVER).copied().filter(|name| is_given(name)).collect();
    (!given.is_empty()).then(|| {
        format!(
            "these settings have no effect under worker_class {class:?}, which reads requests itself: {}",
            given.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the master, or any worker, heeds of the settings that gunicorn does not have.
    const HEEDED: &[&str] = &[
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
        "boot_timeout",
        "shutdown_delay",
        "reload_surge",
        "log_format",
        "syslog_format",
        "metrics_bind",
    ];

    #[test]
    fn every_setting_of_our_own_is_heeded_or_warned_of() {
        let own = settings::all().filter(|setting| !settings::is_gunicorns(setting)).map(|setting| setting.name);
        let mut known = [OF_THIS_SERVER, HEEDED].concat();
        known.sort_unstable();
        let mut own: Vec<&str> = own.collect();
        own.sort_unstable();
        assert_eq!(known, own);
        assert!(OF_OWN_WORKERS.iter().all(|name| settings::find(name).is_some_and(settings::is_gunicorns)));
    }

    #[test]
    fn only_what_was_given_is_named_and_only_under_such_a_class() {
        let config = |worker_class| Config { worker_class, threads: 4, request_timeout: 9, ..Config::default() };
        assert_eq!(warning(&config(WorkerClass::Gthread), false), None);
        assert_eq!(
            warning(&config(WorkerClass::Foreign("a.B".to_owned())), false).as_deref(),
            Some(
                "these settings have no effect under worker_class \"a.B\", which reads requests itself: \
                 threads, request_timeout"
            )
        );
        let bare = Config { worker_class: WorkerClass::Foreign("a.B".to_owned()), ..Config::default() };
        assert_eq!(warning(&bare, false), None);
        let by_gunicorn = warning(&config(WorkerClass::Foreign("a.B".to_owned())), true);
        assert!(by_gunicorn.is_some_and(|text| text.ends_with(": request_timeout")));
    }
}
