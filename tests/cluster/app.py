"""The application of the laboratory. `/sleep?SECONDS` waits; a POST is an order, which is noted in the pod's ledger
before it is answered; `/grow?MEGABYTES` keeps memory.

APP_BOOT_SECONDS is how long it takes to load; APP_BROKEN has it fail; APP_LEDGER is the ledger's path.
"""

import os
import time

if os.environ.get("APP_BROKEN"):
    raise RuntimeError("a release that cannot be loaded")
time.sleep(float(os.environ.get("APP_BOOT_SECONDS", "0")))

ledger = os.open(os.environ.get("APP_LEDGER", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
kept: list[bytes] = []


def app(environ, start_response):
    body = b"a page\n"
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read()
        os.write(ledger, body + b"\n")
    elif environ["PATH_INFO"] == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    elif environ["PATH_INFO"] == "/grow":
        kept.append(os.urandom(1024) * 1024 * int(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
