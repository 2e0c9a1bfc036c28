"""A config as a platform's starter project has it: everything from the environment, and most of it as strings."""

import os

wsgi_app = "site_project.wsgi"
bind = [f"[::]:{os.environ['PORT']}"]
worker_class = "gthread"
threads = 5
workers = os.environ.get("WEB_CONCURRENCY", "1")
keepalive = 95
timeout = 20
graceful_timeout = 20
reuse_port = True
preload_app = True
forwarded_allow_ips = "*"
accesslog = "-"
errorlog = "-"
access_log_format = (
    'at=%(s)s method=%(m)s path="%(U)s" request_id=%({x-request-id}i)s fwd="%({x-forwarded-for}i)s" '
    "service=%(M)sms bytes=%(B)s"
)


def when_ready(server):
    server.log.info("%d workers of %s", server.num_workers, server.cfg.worker_class_str)
