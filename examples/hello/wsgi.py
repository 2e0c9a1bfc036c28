"""The smallest WSGI app there is: no framework, no dependency.

    monoceros --chdir examples/hello wsgi

`wsgi` names this module; with no ":name" after it the server looks for `application`.
"""


def application(environ, start_response):
    """Answer every request with the same line."""
    body = b"Hello from monoceros\n"
    # A Content-Length lets the server send head and body in one write and keep the connection.
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
