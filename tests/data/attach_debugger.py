"""A client of debugpy, for tests: sets a breakpoint in each process of a server, and says where the first stops.

    attach_debugger.py ADDRESS FILE LINE URL

It attaches to the debugger at ADDRESS (host:port), and to each process that this tells of; asks for URL once a child is
attached; prints why that stops, its pid and the function it is in; has it go on, and prints the answer. The protocol is
the Debug Adapter Protocol: JSON behind a Content-Length header.
"""

import json
import socket
import sys
import threading
import time
import urllib.request

PATIENCE = 60


class Session:
    """A connection to the adapter for one process."""

    def __init__(self, address):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.socket = socket.create_connection(address, timeout=PATIENCE)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.stream = self.socket.makefile("rb")
        self.serial = 0
        self.events = []

    def send(self, command, **arguments):
        self.serial += 1
        message = {"seq": self.serial, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(message).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        return self.serial

    def receive(self):
        length = 0
        while line := self.stream.readline().strip():
            name, _, value = line.partition(b":")
            if name == b"Content-Length":
                length = int(value)
        if not length:
            sys.exit("the debugger has closed the connection")
        return json.loads(self.stream.read(length))

    def answer_to(self, serial):
        while True:
            message = self.receive()
            if message["type"] == "event":
                self.events.append(message)
            elif message["type"] == "response" and message["request_seq"] == serial:
                assert message["success"], message
                return message.get("body", {})

    def event(self, name):
        while True:
            found = next((event for event in self.events if event["event"] == name), None)
            if found:
                self.events.remove(found)
                return found.get("body")
            message = self.receive()
            if message["type"] == "event":
                self.events.append(message)

    def attach(self, path, line, **arguments):
        self.answer_to(self.send("initialize", adapterID="test", clientID="test"))
        attached = self.send("attach", justMyCode=False, subProcess=True, **arguments)
        self.event("initialized")
        self.answer_to(self.send("setBreakpoints", source={"path": path}, breakpoints=[{"line": line}]))
        self.answer_to(self.send("configurationDone"))
        self.answer_to(attached)


def main(address, path, line, url):
    host, _, port = address.rpartition(":")
    master = Session((host, int(port)))
    master.attach(path, int(line))
    child = master.event("debugpyAttach")
    worker = Session((child["connect"]["host"], child["connect"]["port"]))
    worker.attach(path, int(line), subProcessId=child["subProcessId"])

    answers = []
    asking = threading.Thread(target=lambda: answers.append(urllib.request.urlopen(url, timeout=PATIENCE).read()))
    asking.start()
    stopped = worker.event("stopped")
    frames = worker.answer_to(worker.send("stackTrace", threadId=stopped["threadId"]))["stackFrames"]
    print(stopped["reason"], child["subProcessId"], frames[0]["name"], flush=True)
    worker.answer_to(worker.send("continue", threadId=stopped["threadId"]))
    asking.join(PATIENCE)
    print(answers[0].decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
