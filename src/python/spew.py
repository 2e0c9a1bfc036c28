"""Prints every line of Python before it runs, for `--spew`.

Only lines, never values: what they hold may be secret or endless.
"""

import linecache
import sys
import threading


def trace(frame, event, argument):
    if event == "line":
        module = frame.f_globals.get("__name__", "[unknown]")
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)
        print(f"{module}:{frame.f_lineno}: {line.rstrip()}")
    return trace


def start():
    threading.settrace(trace)
    sys.settrace(trace)
