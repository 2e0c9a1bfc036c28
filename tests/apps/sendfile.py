"""Answers with the status and the headers that the query string holds, as JSON, and a body that a file should replace.

`/wrapper` gives the body as a file, `/write` by the callable, `/twice` after another head.
"""

import json
from io import BytesIO
from urllib.parse import unquote

BODY = b"not what was asked for"


def application(environ, start_response):
    status, headers = json.loads(unquote(environ["QUERY_STRING"]) or '["200 OK", []]')
    headers = [tuple(header) for header in headers]
    path = environ["PATH_INFO"]
    if path == "/twice":
        start_response("200 OK", [("X-Sendfile", "/etc/passwd")])
        try:
            raise ValueError("on second thoughts")
        except ValueError as error:
            start_response(status, headers, (type(error), error, None))
        return [BODY]
    write = start_response(status, headers)
    if path == "/write":
        write(BODY)
        return []
    if path == "/wrapper":
        return environ["wsgi.file_wrapper"](BytesIO(BODY))
    if path == "/generator":
        return iter([BODY] * 3)
    return [BODY]
