"""An application whose background threads are greenlets, because it has patched the standard library."""

from gevent import monkey

monkey.patch_all()

import threading  # noqa: E402
import time  # noqa: E402

ticks = 0


def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1


threading.Thread(target=tick, daemon=True).start()


def application(environ, start_response):
    data = str(ticks).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]
