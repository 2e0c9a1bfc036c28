"""The servers: how each is installed, and the command that makes it serve a load with one process."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "bench"
VENV = WORK / "venv"
PYTHON = VENV / "bin" / "python"
STATIC = WORK / "static"
# A target directory of its own, so that the build that people run is never the one that can do without its parts.
ABLATION_TARGET = WORK / "ablation"

OURS = "monoceros"
WHEEL = "monoceros-wheel"
# Ours with many threads, where others have greenlets.
THREADS = "monoceros-512"
FLOOR = "floor"
# The measure for TLS and files: it answers by itself and runs no Python.
NGINX = "nginx"


class Unsupported(Exception):
    """The server has no such mode; it is left out of this load."""


class NotInstalled(Exception):
    """The server could not be installed or built; the text says why."""


# What pip installs for each peer, and what it needs before it can be built.
PACKAGES = {
    "gunicorn-sync": ["gunicorn==27.0.1"],
    "gunicorn-gthread": ["gunicorn==27.0.1"],
    "gunicorn-gevent": ["gunicorn==27.0.1", "packaging", "gevent==26.9.0"],
    "gevent-pywsgi": ["gevent==26.9.0"],
    "granian": ["granian==2.8.7"],
    "bjoern": ["bjoern==3.2.2"],
    "fastwsgi": ["fastwsgi==0.0.9"],
    "fastpysgi": ["fastpysgi==0.6"],
    "pyuwsgi": ["pyuwsgi==2.0.30.post1"],
    "waitress": ["waitress==3.0.2"],
}
BUILD_TOOLS = {"fastwsgi": ["setuptools<80", "wheel"]}
HINTS = {"bjoern": "it needs libev: apt-get install libev-dev"}

PEERS = list(PACKAGES)
ALL = [OURS, WHEEL, THREADS, FLOOR, *PEERS, NGINX]

# An older build of ours, and its path, where the command line names one.
BEFORE = "monoceros-before"
older_build: "Path | None" = None

# Rows of ours without one mechanism that exists for speed (src/base/ablation.rs), and whether there are any: then our
# own row is of the same build.
WITHOUT = "without "
has_ablations = False


def make_venv(python, packages):
    """The virtual environment that every server runs in, with the `packages` of the apps; kept from run to run."""
    if not PYTHON.exists():
        subprocess.run([python, "-m", "venv", str(VENV)], check=True)
    if packages:
        pip_install(packages)


def install(server):
    """Makes `server` ready to run, or raises NotInstalled."""
    if server in (OURS, THREADS):
        build_ours()
    elif server == BEFORE or server.startswith(WITHOUT):
        pass
    elif server == WHEEL:
        install_wheel()
    elif server == FLOOR:
        build_floor()
    elif server == NGINX:
        if find_nginx() is None:
            raise NotInstalled("there is no nginx: apt-get install nginx-light")
    else:
        try:
            if server in BUILD_TOOLS:
                pip_install(BUILD_TOOLS[server])
            pip_install(PACKAGES[server], isolated=server not in BUILD_TOOLS)
        except subprocess.CalledProcessError as error:
            reason = HINTS.get(server) or last_line(error.stderr)
            raise NotInstalled(f"pip could not install {PACKAGES[server][0]}; {reason}") from None


def pip_install(packages, isolated=True):
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    if not isolated:
        command.append("--no-build-isolation")
    subprocess.run(command, check=True, capture_output=True, text=True)


def build_ours():
    # The same interpreter as the peers: the program embeds the one it was built for.
    environment = {**os.environ, "PYO3_PYTHON": str(PYTHON)}
    command = ["cargo", "build", "--release"]
    if has_ablations:
        command += ["--features", "ablation", "--target-dir", str(ABLATION_TARGET)]
    built = subprocess.run(command, check=False, cwd=ROOT, env=environment)
    if built.returncode != 0:
        raise NotInstalled("cargo build --release failed")


def install_wheel():
    """The same server as pip gives it, in the interpreter that its script starts."""
    built = subprocess.run([ROOT / "scripts" / "wheels", PYTHON], check=False, cwd=ROOT, stdout=subprocess.DEVNULL)
    question = "import sys; print('cp%d%d' % sys.version_info[:2])"
    tag = subprocess.run([PYTHON, "-c", question], check=True, capture_output=True, text=True)
    wheels = sorted((ROOT / "target" / "wheels").glob(f"monoceros-*-{tag.stdout.strip()}-*.whl"))
    if built.returncode != 0 or not wheels:
        raise NotInstalled("scripts/wheels failed")
    pip_install(["--no-deps", "--force-reinstall", str(wheels[-1])])


def build_floor():
    command = ["cc", "-O2", "-o", str(WORK / "floor"), str(HERE / "floor.c")]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    if built.returncode != 0:
        raise NotInstalled("cc could not build floor.c: " + last_line(built.stderr))


def mechanisms():
    """The names of the mechanisms, from where the program has them."""
    text = (ROOT / "src" / "base" / "ablation.rs").read_text()
    return re.findall(r'\(Mechanism::\w+, "([a-z-]+)"\)', text)


def find_nginx():
    # Debian puts it where only root's PATH looks.
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def certificate(kind):
    """A self-signed certificate and its key, made once: their paths."""
    certificate, key = WORK / f"{kind}.pem", WORK / f"{kind}.key"
    if not key.exists():
        algorithm = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[kind]
        subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", *algorithm, "-keyout", key, "-out", certificate,
                        "-days", "365", "-subj", "/CN=localhost"], check=True, capture_output=True)
    return certificate, key


def make_files():
    """The files of the static loads, written an hour ago: a new one has weak validators."""
    STATIC.mkdir(parents=True, exist_ok=True)
    for name, length in (("1k.js", 1024), ("100k.js", 100_000)):
        (STATIC / name).write_bytes(b"x" * length)
        then = time.time() - 3600
        os.utime(STATIC / name, (then, then))


def last_line(text):
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def our_program():
    if has_ablations:
        return ABLATION_TARGET / "release" / "monoceros"
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / target / "release" / "monoceros"


def command(server, load, port):
    """The command line that serves `load` on 127.0.0.1:`port` with one worker process."""
    app = f"apps:{load.app}"
    bind = f"127.0.0.1:{port}"
    log = str(WORK / f"access-{server}.log")
    scripts = VENV / "bin"
    if server == THREADS:
        require(load.worker_class)
        return [our_program(), "-b", bind, "-w", "1", "--threads", "512", app]
    if server in (OURS, BEFORE, WHEEL) or server.startswith(WITHOUT):
        program = {OURS: our_program(), BEFORE: older_build, WHEEL: scripts / "monoceros"}.get(server, our_program())
        files = ["--static-map", f"/static={STATIC}"] if load.is_static else []
        return [program, "-b", bind, "-w", "1", *files, *load.options, *gunicorn_options(load, log), app]
    require(not load.options)
    if server == "gunicorn-gevent":
        require(load.worker_class == "gevent")
        return [scripts / "gunicorn", "-b", bind, "-w", "1", *gunicorn_options(load, log), app]
    if server == "gevent-pywsgi":
        require(load.worker_class == "gevent")
        return [PYTHON, HERE / "serve.py", "gevent_pywsgi", load.app, str(port), str(load.threads)]
    require(not load.worker_class)
    if server == FLOOR:
        require(load.app in ("hello", "echo", "big", "stream") and load.threads == 1 and not load.access_log)
        require(not load.tls and not load.is_static)
        sizes = [load.request_body, load.response_body, load.blocks, int(load.closes)]
        return [WORK / "floor", str(port), *map(str, sizes)]
    if server in ("gunicorn-sync", "gunicorn-gthread") and load.is_static:
        app = "apps:static_app"
    if server == "gunicorn-sync":
        require(load.threads == 1)
        return [scripts / "gunicorn", "-b", bind, "-w", "1", *gunicorn_options(load, log), app]
    if server == "gunicorn-gthread":
        return [scripts / "gunicorn", "-b", bind, "-w", "1", "-k", "gthread", *gunicorn_options(load, log), app]
    if server == "granian":
        options = ["--access-log"] if load.access_log else []
        if load.tls:
            certfile, keyfile = certificate(load.tls)
            options += ["--ssl-certificate", certfile, "--ssl-keyfile", keyfile]
        if load.is_static:
            options += ["--static-path-route", "/static", "--static-path-mount", str(STATIC)]
        return [scripts / "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port),
                "--workers", "1", "--runtime-threads", "1", "--blocking-threads", str(load.threads),
                "--http", "1", "--no-ws", *options, app]
    if server == NGINX:
        return nginx_command(load, port)
    require(not load.tls)
    if server == "pyuwsgi":
        options = ["--logto", log] if load.access_log else ["--disable-logging"]
        if load.threads > 1:
            options += ["--threads", str(load.threads)]
        if load.is_static:
            options += ["--static-map", f"/static={STATIC}"]
        return [scripts / "pyuwsgi", "--master", "--die-on-term", "--need-app", "--http11-socket", bind,
                "--processes", "1", "--enable-threads", *options, "--wsgi", app]
    require(not load.access_log and not load.is_static and (load.threads == 1 or server == "waitress"))
    return [PYTHON, HERE / "serve.py", server, load.app, str(port), str(load.threads)]


def gunicorn_options(load, log):
    options = ["--threads", str(load.threads)] if load.threads > 1 else []
    if load.worker_class:
        options += ["-k", load.worker_class]
    if load.access_log:
        options += ["--access-logfile", log]
    if load.tls:
        certfile, keyfile = certificate(load.tls)
        options += ["--certfile", certfile, "--keyfile", keyfile]
    return options


NGINX_CONF = """
daemon off;
pid {work}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  types {{ text/javascript js; }}
  client_body_temp_path {work}/nginx-body;
  proxy_temp_path {work}/nginx-proxy;
  fastcgi_temp_path {work}/nginx-fastcgi;
  uwsgi_temp_path {work}/nginx-uwsgi;
  scgi_temp_path {work}/nginx-scgi;
  keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{port}{ssl};
    {terms}
    location / {{ default_type text/plain; return 200 "Hello, world!"; }}
    location /static/ {{ alias {static}/; }}
  }}
}}
"""


def nginx_command(load, port):
    require(load.is_static or (load.tls and load.app == "hello"))
    ssl, terms = "", ""
    if load.tls:
        certfile, keyfile = certificate(load.tls)
        ssl = " ssl"
        terms = f"ssl_certificate {certfile}; ssl_certificate_key {keyfile}; ssl_protocols TLSv1.2 TLSv1.3;"
    conf = WORK / "nginx.conf"
    conf.write_text(NGINX_CONF.format(work=WORK, port=port, ssl=ssl, terms=terms, static=STATIC))
    return [find_nginx(), "-c", conf, "-p", WORK]


def require(supported):
    if not supported:
        raise Unsupported


def environment(server):
    """The same for every server, but for what ours does without: nothing of the caller's Python, the load's apps, the
    venv."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    if server.startswith(WITHOUT):
        kept["MONOCEROS_WITHOUT"] = server.removeprefix(WITHOUT)
    return {
        **kept,
        "VIRTUAL_ENV": str(VENV),
        "PYTHONPATH": str(HERE),
        "PYTHONHASHSEED": "0",
        "PYTHONPYCACHEPREFIX": str(WORK / "pycache"),
    }
