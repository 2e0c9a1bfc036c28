"""What error trackers and metric clients do: a thread that sends in the background, and a last flush at exit."""

import atexit
import os
import pathlib
import queue
import threading
import time

sent = pathlib.Path(os.environ["GATE"]) / "sent"
events = queue.Queue()


def send():
    while True:
        event = events.get()
        time.sleep(0.05)
        with open(sent, "a") as file:
            file.write(f"{os.getpid()} {event}\n")
        events.task_done()


thread = None


def start_once():
    """After the fork: a thread does not survive one."""
    global thread
    if thread is None:
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        atexit.register(events.join)


def application(environ, start_response):
    start_once()
    events.put(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "0")])
    return []
