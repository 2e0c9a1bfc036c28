"""Prints streams of requests and what h11, a strict parser of another make, reads in them: h11_requests.py COUNT.

The streams are the rows of http-cases.json and COUNT mutations of them, the same ones every time. One JSON object a
line: the stream's bytes, and the complete requests that h11 accepts in it, as a WSGI application would see them.
"""

import json
import pathlib
import random
import sys

import h11

WORDS = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"_", b"+", b"\x85", b"\xa0", b"0"]
WORDS += [b"chunked", b"gzip, chunked"]
WORDS += [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n"]
WORDS += [b"HTTP/1.0", b"HTTP/1.2", b"Connection: close\r\n"]
WORDS += [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"9223372036854775808"]
WORDS += [b"http://a/", b"%2f", b"#", b"?"]


def main(count):
    chance = random.Random(4)
    rows = json.loads(pathlib.Path(__file__).with_name("http-cases.json").read_text())["cases"]
    seeds = [bytes_of(case) for case in rows]
    # Everything is to be read, so that what was read can be compared.
    seeds = [seed.replace(b"/noread", b"/") for seed in seeds if len(seed) < 4000]
    streams = seeds + [mutated(chance, seeds) for _ in range(count)]
    for stream in streams:
        # The answer to HEAD has no body that could tell what the server saw.
        if b"HEAD" not in stream:
            print(json.dumps({"bytes": stream.decode("latin-1"), "requests": list(requests(stream))}))


def bytes_of(case):
    parts = [part for step in case["steps"] for part in step.get("send", [])]
    runs = [(part, 1) if isinstance(part, str) else part for part in parts]
    return b"".join(text.encode("latin-1") * times for text, times in runs)


def mutated(chance, seeds):
    stream = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(stream))
        end = min(at + chance.randint(0, 8), len(stream))
        kind = chance.randrange(5)
        if kind == 0:
            del stream[at:end]
        elif kind == 1:
            stream[at:at] = chance.choice(WORDS)
        elif kind == 2:
            stream[at:end] = chance.choice(WORDS)
        elif kind == 3:
            stream[at:at] = stream[at:end]
        else:
            stream[at:] = chance.choice(seeds)[chance.randrange(40):]
    return bytes(stream)


def requests(stream):
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(stream)
        while True:
            request, body = None, b""
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                    return
                if isinstance(event, h11.Request):
                    request = event
                else:
                    body += event.data
            yield seen(request, body)
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()
    except h11.ProtocolError:
        return


def seen(request, body):
    return {
        "REQUEST_METHOD": request.method.decode("latin-1"),
        "RAW_URI": request.target.decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/" + request.http_version.decode("latin-1"),
        "body": body.decode("latin-1"),
        "environ": environ(request.headers),
    }


def environ(headers):
    keys = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").upper(), raw_value.decode("latin-1")
        # Headers with an underscore are dropped unless it is set otherwise.
        if "_" in name:
            continue
        key = ("" if name in ("CONTENT-TYPE", "CONTENT-LENGTH") else "HTTP_") + name.replace("-", "_")
        joint = "; " if name == "COOKIE" else ","
        keys[key] = keys[key] + joint + value if key in keys else value
    return keys


main(int(sys.argv[1]))
