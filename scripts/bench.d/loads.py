"""The loads: what wrk sends, what the servers run, and what monoceros is to reach."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Goal:
    """No more than `times` what another needs, or `plus_us` microseconds beyond it.

    The other is the best peer, or the `server` of that name, or our own on the `load` of that name, which is then
    measured in the same rounds.
    """

    times: float = 1.0
    plus_us: float = 0.0
    server: str = ""
    load: str = ""


@dataclass(frozen=True)
class Load:
    """One way of asking.

    Its goals bound our CPU per request.
    """

    app: str
    says: str
    script: str = "report.lua"
    client: str = "wrk"  # or s_time, of openssl, which resumes no session
    connections: int = 32
    threads: int = 1
    access_log: bool = False
    method: str = "GET"
    request_body: int = 0
    response_body: int = 13
    blocks: int = 0
    closes: bool = False
    # Then only servers that run such workers, and our own with threads in place of greenlets, are measured.
    worker_class: str = ""
    path: str = "/"
    is_static: bool = False  # a file below servers.STATIC, at /static
    tls: str = ""  # the kind of key in the certificate: ecdsa or rsa
    packages: tuple = ()
    options: tuple = ()  # of ours: then no peer is measured
    goals: list = field(default_factory=list)


LOADS = {
    "hello": Load("hello", "32 kept-alive connections", goals=[Goal(0.95), Goal(1.35, server="floor")]),
    "browser": Load("hello", "hello with a browser's 14 headers", script="browser.lua",
                    goals=[Goal(0.72), Goal(1.35, server="floor")]),
    "visitors": Load("hello", "browser's headers with other cookies in each request", script="visitors.lua"),
    "close": Load("hello", "a connection for each request", script="close.lua", closes=True,
                  goals=[Goal(0.95, server="bjoern")]),
    "post10k": Load("echo", "10 KB sent and sent back", script="post10k.lua", method="POST",
                    request_body=10240, response_body=10240, goals=[Goal(0.90)]),
    "big100k": Load("big", "100 KB from one bytes object", response_body=100_000, goals=[Goal(1.0)]),
    "stream": Load("stream", "64 blocks of 1 KB from a generator", response_body=65536, blocks=64,
                   goals=[Goal(0.60, server="granian")]),
    "flask": Load("flask_app", "hello through Flask", packages=("flask==3.1.3",), goals=[Goal(1.0, server="bjoern")]),
    "c1": Load("hello", "hello over 1 connection", connections=1, goals=[Goal(1.0)]),
    "c1000": Load("hello", "hello over 1000 connections", connections=1000, goals=[Goal(1.1, load="hello")]),
    "threads": Load("mixed", "4 threads, half of the requests wait 20 ms", script="mixed.lua", threads=4),
    "hello-threads": Load("hello", "hello with 4 threads", threads=4,
                          goals=[Goal(1.25, load="hello"), Goal(1.0, server="granian")]),
    "tls-hello": Load("hello", "hello over 32 kept-alive TLS connections", tls="ecdsa",
                      goals=[Goal(1.0, server="granian")]),
    "tls-handshake": Load("hello", "a whole TLS handshake for each request, P-256", client="s_time",
                          closes=True, tls="ecdsa",
                          goals=[Goal(1.0, server="granian")]),
    "tls-handshake-rsa": Load("hello", "a whole TLS handshake for each request, RSA 2048", client="s_time", closes=True,
                              tls="rsa", goals=[Goal(1.0, server="granian")]),
    # wrk keeps its sessions from connection to connection.
    "tls-resume": Load("hello", "a resumed TLS session for each request", script="close.lua", closes=True, tls="ecdsa",
                       goals=[Goal(1.0, server="granian")]),
    "hello-metrics": Load("hello", "hello with metrics to be scraped", options=("--metrics-bind", "127.0.0.1:0"),
                          goals=[Goal(1.02, load="hello")]),
    "gevent-hello": Load("hello", "browser's headers, over 16 connections, each request in a greenlet",
                         script="browser.lua", connections=16, worker_class="gevent", packages=("gevent==26.9.0",),
                         goals=[Goal(0.20, server="gunicorn-gevent"), Goal(1.0, server="gevent-pywsgi")]),
    "gevent-sleep": Load("sleep", "every request waits 20 ms, over 500 connections", connections=500,
                         worker_class="gevent", packages=("gevent==26.9.0",),
                         goals=[Goal(0.35, server="gunicorn-gevent"), Goal(1.0, server="gevent-pywsgi"),
                                Goal(1.0, server="monoceros-512")]),
    "static-1k": Load("hello", "a file of 1 KB, 32 kept-alive connections", path="/static/1k.js", is_static=True,
                      response_body=1024, packages=("whitenoise==6.12.0",),
                      goals=[Goal(1.3, server="nginx"), Goal(1.0)]),
    "static-100k": Load("hello", "a file of 100 KB, 32 kept-alive connections", path="/static/100k.js",
                        is_static=True, response_body=100_000, packages=("whitenoise==6.12.0",),
                        goals=[Goal(1.3, server="nginx"), Goal(1.0)]),
    "hello-log": Load("hello", "hello with the access log on, to a file", access_log=True,
                      goals=[Goal(plus_us=1.0, load="hello")]),
}
