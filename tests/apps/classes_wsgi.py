"""A WSGI application for worker classes that run requests in greenlets."""

import io
import time

import classes_gate


def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if environ["PATH_INFO"] == "/file":
        environ["wsgi.errors"].write("from the app")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"a file"))
    if environ["PATH_INFO"] == "/wait":
        classes_gate.enter()
        while not classes_gate.is_released():
            time.sleep(classes_gate.LOOK)
    data = classes_gate.text(environ["QUERY_STRING"], len(body)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]
