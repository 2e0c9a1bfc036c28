"""Stands in for the native module: the settings as the server would tell them, and a memory of what it was told."""

VERSION = "0.2.0"
SERVER_SOFTWARE = "monoceros/0.2.0"

# What the server has made of its loglevel.
level = 20


def log_level():
    return level


def access_log():
    return None, False, None


def has_access_syslog():
    return False


def loggers_are(as_made, level):
    seen.append((as_made, level))


# What the facade has said, in order.
seen = []
records = []
raw = []
reopened = []
wanted = []

# name, flags, kind, default; the section is the line without a bar before them.
_TABLE = """
Config File
config | -c --config | text | "./gunicorn.conf.py"
wsgi_app | | text | None
Server Socket
bind | -b --bind | list | ["127.0.0.1:8000"]
backlog | --backlog | int | 2048
reuse_port | --reuse-port | switch | False
Worker Processes
workers | -w --workers | int or auto | 1
worker_class | -k --worker-class | text | "sync"
threads | --threads | int | 1
worker_connections | --worker-connections | int | 1000
max_requests | --max-requests | int | 0
max_requests_jitter | --max-requests-jitter | int | 0
timeout | -t --timeout | int | 30
request_timeout | --request-timeout | int | 0
graceful_timeout | --graceful-timeout | int | 30
keepalive | --keep-alive | int | None
Security
limit_request_line | --limit-request-line | int | 4094
Debugging
reload | --reload | switch | False
reload_extra_files | --reload-extra-file | list | []
check_config | --check-config | switch | False
Server Mechanics
preload_app | --preload | switch | False
sendfile | --no-sendfile | switch off | None
chdir | --chdir | text | "."
daemon | -D --daemon | switch | False
raw_env | -e --env | list | []
pidfile | -p --pid | text | None
user | -u --user | text | None
group | -g --group | text | None
umask | -m --umask | mode | 0
pythonpath | --pythonpath | comma list | []
secure_scheme_headers | | map | {"X-FORWARDED-PROTO": "https"}
forwarded_allow_ips | --forwarded-allow-ips | comma list | ["127.0.0.1", "::1"]
forwarder_headers | --forwarder-headers | comma list | ["SCRIPT_NAME", "PATH_INFO"]
header_map | --header-map | text | "drop"
proxy_protocol | --proxy-protocol | optional text | "off"
proxy_allow_ips | --proxy-allow-from | comma list | ["127.0.0.1", "::1"]
protocol | --protocol | text | "http"
uwsgi_allow_ips | --uwsgi-allow-from | comma list | ["127.0.0.1", "::1"]
paste | --paste --paster | text | None
raw_paste_global_conf | --paste-global | list | []
Logging
accesslog | --access-logfile | text | None
access_log_format | --access-logformat | text | '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
errorlog | --error-logfile --log-file | text | "-"
loglevel | --log-level | text | "info"
capture_output | --capture-output | switch | False
logger_class | --logger-class | text | "gunicorn.glogging.Logger"
logconfig | --log-config | text | None
logconfig_dict | | map | {}
logconfig_json | --log-config-json | text | None
syslog_addr | --log-syslog-to | text | "udp://localhost:514"
syslog | --log-syslog | switch | False
syslog_prefix | --log-syslog-prefix | text | None
syslog_facility | --log-syslog-facility | text | "user"
disable_redirect_access_to_syslog | --disable-redirect-access-to-syslog | switch | False
statsd_host | --statsd-host | text | None
dogstatsd_tags | --dogstatsd-tags | text | ""
statsd_prefix | --statsd-prefix | text | ""
Process Naming
proc_name | -n --name | text | None
default_proc_name | | text | "monoceros"
SSL
keyfile | --keyfile | text | None
certfile | --certfile | text | None
ssl_version | --ssl-version | text | "2"
cert_reqs | --cert-reqs | int | 0
ca_certs | --ca-certs | text | None
suppress_ragged_eofs | --suppress-ragged-eofs | switch | True
do_handshake_on_connect | --do-handshake-on-connect | switch | False
ciphers | --ciphers | text | None
Not supported
http_protocols | --http-protocols | comma list | None
http2_max_frame_size | --http2-max-frame-size | int | None
root_path | --root-path | text | None
Server Hooks
on_starting | | hook | None
on_reload | | hook | None
when_ready | | hook | None
pre_fork | | hook | None
post_fork | | hook | None
post_worker_init | | hook | None
worker_int | | hook | None
worker_abort | | hook | None
pre_exec | | hook | None
pre_request | | hook | None
post_request | | hook | None
child_exit | | hook | None
worker_exit | | hook | None
nworkers_changed | | hook | None
on_exit | | hook | None
ssl_context | | hook | None
"""


def settings():
    rows, section = [], None
    for line in _TABLE.strip().splitlines():
        if "|" not in line:
            section = line
            continue
        name, flags, kind, default = (cell.strip() for cell in line.split("|", 3))
        rows.append({
            "name": name, "section": section, "flags": flags.split(), "meta": "", "kind": kind,
            "default": eval(default), "doc": f"About {name}.\n\nMore of it.", "supported": True,
        })
    return rows


def log(level, text, failure=None):
    records.append((level, text))


def write_error(text):
    raw.append(text)


def reopen_logs():
    reopened.append(True)


def want_workers(count):
    wanted.append(count)


def forget():
    for memory in (records, raw, reopened, seen, wanted):
        memory.clear()

