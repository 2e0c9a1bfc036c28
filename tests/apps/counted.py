"""prometheus_client with several processes: every worker writes files of its own, and any of them answers for all."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

requests = Counter("shop_requests", "Requests.")
in_use = Gauge("shop_in_use", "Workers that have served.", multiprocess_mode="livesum")


def application(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        requests.inc()
        in_use.set(1)
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
