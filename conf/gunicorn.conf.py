# A config file in Python, as gunicorn's. monoceros reads gunicorn.conf.py from the directory it is started in, or
# any file named with -c. Its global names are settings (docs/settings.md); other names are its own.
#
# A file of data (conf/monoceros.toml) does as well where nothing has to be computed, and needs no Python in the master.

import multiprocessing
import os

# -- Addresses --------------------------------------------------------------------------------------------------------

# "HOST:PORT", "[::1]:PORT", "unix:/run/shop.sock"; a list for several. Without it: 127.0.0.1:8000, or 0.0.0.0:$PORT.
# bind = "127.0.0.1:8000"

# -- Workers ----------------------------------------------------------------------------------------------------------

# With one thread each serves one request at a time. Twice the cores suits an app that waits for a database.
workers = int(os.environ.get("WEB_CONCURRENCY", multiprocessing.cpu_count() * 2))

# A help against slow leaks: each worker is replaced after 1000 to 1100 requests, without a gap.
# max_requests = 1000
# max_requests_jitter = 100

# Seconds that a request may take, and that a stopping worker has to finish.
timeout = 30
graceful_timeout = 30

# Load the app before the workers are forked: they start at once and share its memory.
# preload_app = True

# -- Behind a proxy ---------------------------------------------------------------------------------------------------

# Who may say that the client came by https. "*" only where nobody but the proxy can reach the server.
# forwarded_allow_ips = "10.0.0.0/8"

# -- Logs -------------------------------------------------------------------------------------------------------------

# "-" is stdout for the access log and stderr for the error log.
accesslog = "-"
errorlog = "-"
loglevel = "info"

# -- The app ----------------------------------------------------------------------------------------------------------

# wsgi_app = "shop.wsgi:application"
# raw_env = ["DJANGO_SETTINGS_MODULE=shop.settings"]
