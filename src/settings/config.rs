//! What the program reads: one typed field for each setting, under gunicorn's names.
//!
//! A field holds the user's value in the program's own types. Names that must be looked up in the
//! system (a user, a host) stay names: `sys/` and `lib.rs` resolve them when they are needed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::address::Address;
use super::static_map::{AccelMap, StaticMap};
use super::trust::Trusted;
use super::value::Value;

/// Every setting, resolved from defaults, config file, environment and command line. Made by
/// [`super::load()`].
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The location of the config file (`-c`), as given.
    pub config: String,
    /// The app's spec, `module:name`, when the command line names none.
    pub wsgi_app: Option<String>,
    /// The path of a WSGI script, when the command line names no module.
    pub wsgi_file: Option<String>,
    /// Whether an app is looked for where none is named.
    pub autodetect: bool,
    /// The app to serve: the command line's, else `wsgi_file` or `wsgi_app`. It is not a setting.
    pub app: Option<AppSpec>,

    /// Addresses to listen on, at least one. When one of them is a descriptor, all of them are.
    pub bind: Vec<Address>,
    /// Whether the address may be the one that a platform's variables name.
    pub platform_bind: bool,
    /// The backlog handed to listen(2).
    pub backlog: u32,
    /// Whether each worker has a socket of its own, bound with `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// Whether TCP clients are accepted only once they have sent something (TCP_DEFER_ACCEPT).
    pub defer_accept: bool,

    /// Worker processes to keep running.
    pub workers: WorkersSetting,
    /// The most workers that [`WorkersSetting::Auto`] means; 0 is no limit.
    pub max_workers: usize,
    /// Whether the number of workers follows the load.
    pub autoscale: bool,
    /// The kind of worker.
    pub worker_class: WorkerClass,
    /// Threads of a worker that run the app.
    pub threads: usize,
    /// Connections that one worker holds open at once.
    pub worker_connections: usize,
    /// Requests after which a worker is replaced; 0 means never.
    pub max_requests: u64,
    /// The largest random number that is added to `max_requests`, drawn for each worker.
    pub max_requests_jitter: u64,
    /// Seconds after which a worker is replaced; 0 means never.
    pub max_worker_lifetime: u64,
    /// The largest random number that is added to `max_worker_lifetime`, drawn for each worker.
    pub max_worker_lifetime_jitter: u64,
    /// Bytes of memory above which a worker is replaced; 0 means never.
    pub max_worker_memory: u64,
    /// The largest random number that is added to `max_worker_memory`, drawn for each worker.
    pub max_worker_memory_jitter: u64,
    /// What counts as a worker's memory.
    pub worker_memory_measure: MemoryMeasure,
    /// Seconds without a heartbeat after which the master kills a worker; 0 means never.
    pub timeout: u64,
    /// Seconds that one request may take in the app before the master kills its worker; 0 means no
    /// limit.
    pub request_timeout: u64,
    /// Seconds that a worker may take to load the app before the master kills it; 0 means no limit.
    pub boot_timeout: u64,
    /// Seconds that a stopping worker has to finish its requests.
    pub graceful_timeout: u64,
    /// Seconds between the signal to stop and the moment when workers stop accepting.
    pub shutdown_delay: u64,
    /// The path at which the server itself answers health checks; `None` leaves every path to the
    /// app.
    pub health_path: Option<String>,
    /// The path at which the server itself answers whether it lives; `None` for none.
    pub live_path: Option<String>,
    /// Workers that a reload boots at the same time; 0 means all of them.
    pub reload_surge: usize,
    /// Seconds for which an idle connection is kept; 0 closes after every response. With `None` the
    /// worker class decides.
    pub keepalive: Option<u64>,

    /// Longest request line in bytes without its CRLF; 0 is unlimited, never above 8190.
    pub limit_request_line: usize,
    /// Most header fields of a request, 1 to 32768.
    pub limit_request_fields: usize,
    /// Longest header line in bytes with its CRLF; never 0.
    pub limit_request_field_size: usize,
    /// Longest request body in bytes; 0 is unlimited.
    pub limit_request_body: u64,
    /// Seconds from a request's first byte to the end of its head; 0 means no limit.
    pub client_header_timeout: u64,
    /// Seconds between two arrivals of a body's bytes; 0 means no limit.
    pub client_body_timeout: u64,
    /// The minimum rate of a body, in bytes per second on average; 0 means any rate.
    pub client_body_min_rate: u64,
    /// Seconds in which a client must take some bytes of its response; 0 means no limit.
    pub write_timeout: u64,
    /// Bytes of memory for the unfinished requests of all connections of a worker; 0 means no
    /// limit.
    pub worker_buffer: u64,
    /// Bytes of files for the request bodies of all connections of a worker; 0 means no limit.
    pub worker_spool: u64,

    /// Whether workers are replaced when code changes.
    pub reload: bool,
    /// How changes of the code are noticed.
    pub reload_engine: ReloadEngine,
    /// Print every line of Python that runs.
    pub spew: bool,
    /// More files to watch while `reload` is on: paths or glob patterns.
    pub reload_extra_files: Vec<String>,
    /// Load config and app, then exit.
    pub check_config: bool,
    /// Print the config, then do as `check_config`.
    pub print_config: bool,

    /// Load the app in the master, before the first fork.
    pub preload_app: bool,
    /// Whether `wsgi.file_wrapper` may use sendfile(2).
    pub sendfile: bool,
    /// The directory to change to before the app is loaded; `.` changes nothing.
    pub chdir: PathBuf,
    /// Whether the server becomes a daemon.
    pub daemon: bool,
    /// Whether a daemon keeps its stdout and stderr where they are no terminal.
    pub enable_stdio_inheritance: bool,
    /// Variables to set in the environment: names (never empty, no NUL) and values.
    pub raw_env: Vec<(String, String)>,
    /// The pid file.
    pub pidfile: Option<PathBuf>,
    /// gunicorn's directory for heartbeat files. This server needs none.
    pub worker_tmp_dir: Option<PathBuf>,
    /// The user that workers run as; `None` is the one that started the server.
    pub user: Option<UserSpec>,
    /// The group that workers run as; `None` is the one that started the server.
    pub group: Option<UserSpec>,
    /// The file mode bits that are removed from a unix socket.
    pub umask: u32,
    /// Whether workers take on all groups of `user`.
    pub initgroups: bool,
    /// The directory of request bodies too large for memory; `None` is the system's.
    pub tmp_upload_dir: Option<PathBuf>,
    /// Bytes of a request body that are held in memory before it goes to a file.
    pub body_buffer: usize,
    /// Bytes of a request body that may go to a file before the rest is streamed to the app.
    pub body_spool: u64,
    /// Bytes of a response that are held in memory for a client that does not take them.
    pub response_buffer: usize,
    /// Bytes of a response that may go to a file for such a client.
    pub response_spool: u64,
    /// Directories put in front of `sys.path`, one by one in this order.
    pub pythonpath: Vec<PathBuf>,
    /// A PasteDeploy file that describes the app, `FILE` or `FILE#NAME`. It takes precedence over
    /// the app.
    pub paste: Option<String>,
    /// The global configuration of the PasteDeploy file.
    pub raw_paste_global_conf: Vec<(String, String)>,

    /// Peers whose scheme and forwarder headers are believed. Peers on a unix socket always are.
    pub forwarded_allow_ips: Trusted,
    /// Headers that say the client's scheme: name in upper case, and the value that means https.
    pub secure_scheme_headers: Vec<(String, String)>,
    /// Headers with an underscore that a trusted peer may send, in upper case; `*` means all.
    pub forwarder_headers: Vec<String>,
    /// What happens to other headers with an underscore.
    pub header_map: HeaderMap,
    /// The protocol that is spoken on connections.
    pub protocol: Protocol,
    /// Peers that may speak uwsgi, where that is spoken. Peers on a unix socket always may.
    pub uwsgi_allow_ips: Trusted,
    /// Which PROXY protocol connections begin with.
    pub proxy_protocol: ProxyProtocol,
    /// Peers that may send a PROXY header.
    pub proxy_allow_ips: Trusted,
    /// Refuse connections without a PROXY header, where it is looked for.
    pub require_proxy_header: bool,
    /// Accept HTTP/1.1 requests without a Host.
    pub permit_missing_host: bool,
    /// Refuse a target that contradicts the Host header.
    pub strict_host: bool,
    /// Accept header lines folded over several lines.
    pub permit_obsolete_folding: bool,
    /// Accept spaces between a header's name and its colon.
    pub strip_header_spaces: bool,
    /// Accept methods of unusual letters or length.
    pub permit_unconventional_http_method: bool,
    /// Accept versions other than 1.x.
    pub permit_unconventional_http_version: bool,
    /// Turn methods into upper case.
    pub casefold_http_method: bool,

    /// The server's certificate and chain; with it, or `tls_certificates`, every socket speaks TLS.
    pub certfile: Option<PathBuf>,
    /// The key of `certfile`; `None`: it is in the same file.
    pub keyfile: Option<PathBuf>,
    /// Whether clients show certificates.
    pub cert_reqs: CertReqs,
    /// The file with the certificate authorities of clients' certificates.
    pub ca_certs: Option<PathBuf>,
    /// gunicorn's setting for closes without close_notify. It has no effect.
    pub suppress_ragged_eofs: bool,
    /// gunicorn's setting for the moment of the handshake. It has no effect.
    pub do_handshake_on_connect: bool,
    /// An OpenSSL cipher list.
    pub ciphers: Option<String>,
    /// More certificates, for other host names.
    pub tls_certificates: Vec<CertificateFiles>,
    /// Whether certificates are read again when their files change.
    pub tls_watch: bool,

    /// What the server sends without the app.
    pub static_map: Vec<StaticMap>,
    /// The directories of which the app may send files by `X-Sendfile`.
    pub x_sendfile: Vec<PathBuf>,
    /// The directories that stand for the prefixes of `X-Accel-Redirect`.
    pub x_accel_map: Vec<AccelMap>,

    /// The access log: a file, `-` for stdout; `None` writes none.
    pub accesslog: Option<String>,
    /// The format of an access line.
    pub access_log_format: String,
    /// The error log: a file, or `-` for stderr.
    pub errorlog: String,
    /// The least severe level that is logged, as given.
    pub loglevel: String,
    /// Whether the app's stdout and stderr go to the error log's file.
    pub capture_output: bool,
    /// Whether the config file has changed gunicorn's own class of loggers, whose lines then count.
    /// It is no setting.
    pub logger_is_patched: bool,
    /// The form of the lines of both logs.
    pub log_format: LogFormat,
    /// The header with the id of each request, where requests have ids.
    pub request_id_header: Option<String>,
    /// Whether the app is told how long its requests have waited.
    pub queue_time: bool,
    /// The class of the hooks' logger: its name, or the class itself. Unless it is the default, it
    /// also writes the logs.
    pub logger_class: Value,
    /// A file for Python's `logging.config.fileConfig`.
    pub logconfig: Option<PathBuf>,
    /// A dict for Python's `logging.config.dictConfig`: a map, or an object if it holds Python
    /// objects.
    pub logconfig_dict: Value,
    /// A JSON file with such a dict.
    pub logconfig_json: Option<PathBuf>,
    /// Whether both logs go to syslog as well.
    pub syslog: bool,
    /// The address of syslog, as given.
    pub syslog_addr: String,
    /// The prefix of `.error` and `.access` in syslog, instead of the process's name.
    pub syslog_prefix: Option<String>,
    /// The facility of syslog, as given.
    pub syslog_facility: String,
    /// The form of lines in syslog.
    pub syslog_format: SyslogFormat,
    /// Whether access lines stay out of syslog.
    pub disable_redirect_access_to_syslog: bool,
    /// The address of statsd, as given.
    pub statsd_host: Option<String>,
    /// Tags behind each metric, with commas between them.
    pub dogstatsd_tags: String,
    /// The prefix of each metric's name.
    pub statsd_prefix: String,
    /// Seconds between two reports of the server's own to statsd; 0 tells statsd of each request.
    pub statsd_interval: u64,
    /// Whether the length of the listeners' backlogs is sent to statsd.
    pub enable_backlog_metric: bool,

    /// Where metrics can be read; `None` for nowhere.
    pub metrics_bind: Option<Address>,
    /// Seconds after which a request that still runs is told in the log; 0 for never.
    pub slow_request: u64,
    /// Whether the log then shows where in the app the request is.
    pub slow_request_stack: bool,
    /// The path of the control socket, or `default`.
    pub control_socket: Option<String>,
    /// The mode of the control socket's file.
    pub control_socket_mode: u32,
    /// Whether there is no control socket, whatever its path.
    pub control_socket_disable: bool,

    /// The name in the process titles.
    pub proc_name: Option<String>,
    /// The name in the process titles while `proc_name` is not set.
    pub default_proc_name: String,

    /// The pool of dirty workers.
    pub dirty: DirtyConfig,

    /// The server hooks that the user has set: their names, and the functions as Python shows them.
    pub hooks: BTreeMap<&'static str, String>,
}

impl Config {
    /// Where a log's lines go, given the setting's text: `-`, or a file whose path stays the same
    /// when the application changes the working directory.
    pub fn log_target(&self, given: &str) -> String {
        if given == "-" {
            return given.to_owned();
        }
        self.chdir.join(given).into_os_string().into_string().unwrap_or_else(|_| given.to_owned())
    }

    /// The class of the workers that run. With more than one thread sync becomes gthread, as in
    /// gunicorn.
    pub fn effective_worker_class(&self) -> WorkerClass {
        match &self.worker_class {
            WorkerClass::Sync if self.threads > 1 => WorkerClass::Gthread,
            chosen => chosen.clone(),
        }
    }

    /// The threads of a worker that run the application. Under gevent one runs all greenlets,
    /// whatever `threads` says.
    pub fn app_threads(&self) -> usize {
        if self.worker_class == WorkerClass::Gevent { 1 } else { self.threads }
    }

    /// Whether the listeners speak TLS. As in gunicorn a key alone asks for it too; that mistake is
    /// found when the files are read.
    pub fn is_tls(&self) -> bool {
        self.certfile.is_some() || self.keyfile.is_some() || !self.tls_certificates.is_empty()
    }

    /// Whether records and access lines go through Python's logging, because a setting configures
    /// it.
    pub fn logs_through_python(&self) -> bool {
        self.logger_is_patched
            || !["gunicorn.glogging.Logger", "simple"].map(Value::from).contains(&self.logger_class)
            || self.logconfig.is_some()
            || self.logconfig_dict != Value::Map(Vec::new())
            || self.logconfig_json.is_some()
            || self.syslog && self.syslog_format == SyslogFormat::Gunicorn
            || self.statsd_host.is_some() && !self.has_statsd_interval()
    }

    /// Whether the server itself tells statsd, from the scoreboard.
    pub fn pushes_to_statsd(&self) -> bool {
        self.statsd_host.is_some() && self.has_statsd_interval() && !self.logs_through_python()
    }

    /// Not under a worker class of another package: it counts no statuses on the scoreboard.
    fn has_statsd_interval(&self) -> bool {
        self.statsd_interval > 0 && !matches!(self.worker_class, WorkerClass::Foreign(_))
    }

    /// Whether the server itself sends lines to syslog.
    pub fn sends_to_syslog(&self) -> bool {
        self.syslog && !self.logs_through_python()
    }

    /// Where the control socket is, if there is to be one.
    pub fn control_path(&self) -> Option<PathBuf> {
        let path = self.control_socket.as_deref().filter(|_| !self.control_socket_disable)?;
        if path != "default" {
            return Some(self.chdir.join(path));
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".gunicorn"));
        Some(runtime.or_else(home)?.join("gunicorn.ctl"))
    }

    /// The name that the process titles show.
    pub fn name(&self) -> &str {
        self.proc_name.as_deref().unwrap_or(&self.default_proc_name)
    }
}

/// The pool of dirty workers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirtyConfig {
    /// The apps, each `module:Class` or `module:Class:N`.
    pub apps: Vec<String>,
    /// How many workers there are to be; 0 means none.
    pub workers: usize,
    /// Seconds that an action may take; 0 means no limit.
    pub timeout: u64,
    /// Threads of a worker that run actions.
    pub threads: usize,
    /// Seconds that a worker which is told to end has for its actions.
    pub graceful_timeout: u64,
}

impl DirtyConfig {
    /// Whether there is to be a pool: both apps and workers are given.
    pub fn is_on(&self) -> bool {
        self.workers > 0 && !self.apps.is_empty()
    }
}

/// What to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppSpec {
    /// `module`, `module:name` or `module:factory("x", k=1)`.
    Module(String),
    /// The path of a file of whatever suffix, from the directory `chdir`; perhaps with a name or a
    /// factory behind a colon.
    Script(String),
}

impl AppSpec {
    /// The spec as the user has written it.
    pub fn text(&self) -> &str {
        match self {
            AppSpec::Module(text) | AppSpec::Script(text) => text,
        }
    }
}

/// How `reload` notices that code has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadEngine {
    /// By inotify, where it is available.
    Auto,
    /// By polling once a second.
    Poll,
    /// By inotify only.
    Inotify,
}

impl fmt::Display for ReloadEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReloadEngine::Auto => "auto",
            ReloadEngine::Poll => "poll",
            ReloadEngine::Inotify => "inotify",
        })
    }
}

/// The number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkersSetting {
    /// A fixed number.
    Count(usize),
    /// As many as fit the processors and the memory that the server may use.
    Auto,
}

impl WorkersSetting {
    /// Whether there may be more than one.
    pub fn may_be_several(self) -> bool {
        self != WorkersSetting::Count(1)
    }
}

/// What counts as a worker's memory (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMeasure {
    /// Resident set size: every page in memory, shared ones too.
    Rss,
    /// Proportional set size: a shared page counts for its part.
    Pss,
}

impl fmt::Display for MemoryMeasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MemoryMeasure::Rss => "rss",
            MemoryMeasure::Pss => "pss",
        })
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// gunicorn's lines.
    Text,
    /// One JSON object per line, by names of our own.
    Json,
    /// As `Json`, by the names of Elastic Common Schema.
    JsonEcs,
    /// As `Json`, by the names of Google Cloud Logging.
    JsonGcp,
    /// As `Json`, by the names of OpenTelemetry.
    JsonOtel,
}

impl LogFormat {
    /// All of them.
    pub const ALL: [LogFormat; 5] =
        [LogFormat::Text, LogFormat::Json, LogFormat::JsonEcs, LogFormat::JsonGcp, LogFormat::JsonOtel];
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
            LogFormat::JsonEcs => "json-ecs",
            LogFormat::JsonGcp => "json-gcp",
            LogFormat::JsonOtel => "json-otel",
        })
    }
}

/// The form of lines in syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogFormat {
    /// That of Python's handler, which gunicorn uses.
    Gunicorn,
    /// RFC 5424.
    Rfc5424,
}

impl fmt::Display for SyslogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyslogFormat::Gunicorn => "gunicorn",
            SyslogFormat::Rfc5424 => "rfc5424",
        })
    }
}

/// The kinds of worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerClass {
    /// One request at a time.
    Sync,
    /// Several threads, each with one request at a time.
    Gthread,
    /// A class of Python that serves by itself, by name: an alias, a dotted path, an entry point.
    Foreign(String),
    /// Greenlets of one thread, each with one request at a time.
    Gevent,
}

impl fmt::Display for WorkerClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WorkerClass::Sync => "sync",
            WorkerClass::Gthread => "gthread",
            WorkerClass::Foreign(name) => name,
            WorkerClass::Gevent => "gevent",
        })
    }
}

/// A user or a group as given; `sys::user` finds its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSpec {
    /// A name from the system's tables.
    Name(String),
    /// A uid or gid, which may be in no table.
    Id(u32),
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserSpec::Name(name) => f.write_str(name),
            UserSpec::Id(id) => write!(f, "{id}"),
        }
    }
}

/// Whether clients show certificates; the numbers are those of Python's `ssl.VerifyMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertReqs {
    /// The server does not ask for them.
    None,
    /// A certificate that a client sends must be valid.
    Optional,
    /// Every client must send a valid one.
    Required,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// Its key; `None`: it is in the same file.
    pub key: Option<PathBuf>,
}

impl fmt::Display for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{},{}", self.certificate.display(), key.display()),
            None => write!(f, "{}", self.certificate.display()),
        }
    }
}

/// What happens to a header whose name contains an underscore, since `A_B` and `A-B` share one
/// environ key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMap {
    /// Dropped silently.
    Drop,
    /// The request is refused with 400.
    Refuse,
    /// Passed on.
    Dangerous,
}

/// The protocol that is spoken on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// uwsgi, nginx's `uwsgi_pass`.
    Uwsgi,
}

/// Which versions of the PROXY protocol are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None.
    Off,
    /// The text form.
    V1,
    /// The binary form.
    V2,
    /// Either, recognised by the first bytes.
    Auto,
}

/// The server's defaults in an empty environment.
impl Default for Config {
    fn default() -> Config {
        super::load::defaults()
    }
}

impl Config {
    /// The state before [`super::load()`] sets anything. It is not a usable config, and so not
    /// public: the real defaults are in the table and pass through the same setters as the user's
    /// values.
    pub(super) fn blank() -> Config {
        Config {
            config: String::new(),
            wsgi_app: None,
            wsgi_file: None,
            autodetect: false,
            app: None,
            bind: Vec::new(),
            platform_bind: false,
            backlog: 0,
            reuse_port: false,
            defer_accept: false,
            workers: WorkersSetting::Count(0),
            max_workers: 0,
            autoscale: false,
            worker_class: WorkerClass::Sync,
            threads: 0,
            worker_connections: 0,
            max_requests: 0,
            max_requests_jitter: 0,
            max_worker_lifetime: 0,
            max_worker_lifetime_jitter: 0,
            max_worker_memory: 0,
            max_worker_memory_jitter: 0,
            worker_memory_measure: MemoryMeasure::Rss,
            timeout: 0,
            request_timeout: 0,
            boot_timeout: 0,
            graceful_timeout: 0,
            shutdown_delay: 0,
            health_path: None,
            live_path: None,
            reload_surge: 0,
            keepalive: None,
            limit_request_line: 0,
            limit_request_fields: 0,
            limit_request_field_size: 0,
            limit_request_body: 0,
            client_header_timeout: 0,
            client_body_timeout: 0,
            client_body_min_rate: 0,
            write_timeout: 0,
            worker_buffer: 0,
            worker_spool: 0,
            reload: false,
            reload_engine: ReloadEngine::Auto,
            spew: false,
            reload_extra_files: Vec::new(),
            check_config: false,
            print_config: false,
            preload_app: false,
            sendfile: false,
            chdir: PathBuf::new(),
            daemon: false,
            enable_stdio_inheritance: false,
            raw_env: Vec::new(),
            pidfile: None,
            worker_tmp_dir: None,
            user: None,
            group: None,
            umask: 0,
            initgroups: false,
            tmp_upload_dir: None,
            body_buffer: 0,
            body_spool: 0,
            response_buffer: 0,
            response_spool: 0,
            pythonpath: Vec::new(),
            paste: None,
            raw_paste_global_conf: Vec::new(),
            forwarded_allow_ips: Trusted::Networks(Vec::new()),
            secure_scheme_headers: Vec::new(),
            forwarder_headers: Vec::new(),
            header_map: HeaderMap::Drop,
            protocol: Protocol::Http,
            uwsgi_allow_ips: Trusted::Networks(Vec::new()),
            proxy_protocol: ProxyProtocol::Off,
            proxy_allow_ips: Trusted::Networks(Vec::new()),
            require_proxy_header: false,
            permit_missing_host: false,
            strict_host: false,
            permit_obsolete_folding: false,
            strip_header_spaces: false,
            permit_unconventional_http_method: false,
            permit_unconventional_http_version: false,
            casefold_http_method: false,
            certfile: None,
            keyfile: None,
            cert_reqs: CertReqs::None,
            ca_certs: None,
            suppress_ragged_eofs: false,
            do_handshake_on_connect: false,
            ciphers: None,
            tls_certificates: Vec::new(),
            static_map: Vec::new(),
            x_sendfile: Vec::new(),
            x_accel_map: Vec::new(),
            tls_watch: false,
            accesslog: None,
            access_log_format: String::new(),
            errorlog: String::new(),
            loglevel: String::new(),
            capture_output: false,
            logger_is_patched: false,
            log_format: LogFormat::Text,
            request_id_header: None,
            queue_time: false,
            logger_class: Value::None,
            logconfig: None,
            logconfig_dict: Value::None,
            logconfig_json: None,
            syslog: false,
            syslog_addr: String::new(),
            syslog_prefix: None,
            syslog_facility: String::new(),
            syslog_format: SyslogFormat::Gunicorn,
            disable_redirect_access_to_syslog: false,
            statsd_host: None,
            dogstatsd_tags: String::new(),
            statsd_prefix: String::new(),
            statsd_interval: 0,
            enable_backlog_metric: false,
            metrics_bind: None,
            slow_request: 0,
            slow_request_stack: false,
            control_socket: None,
            control_socket_mode: 0,
            control_socket_disable: false,
            proc_name: None,
            default_proc_name: String::new(),
            dirty: DirtyConfig::default(),
            hooks: BTreeMap::new(),
        }
    }
}
