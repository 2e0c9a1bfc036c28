"""The application of a new gear. The platform's health checks ask for /health."""


def application(environ, start_response):
    body = b"1" if environ["PATH_INFO"] == "/health" else b"Hello from monoceros\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
