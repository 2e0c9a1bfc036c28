"""Tests the metrics, with a socket in the place of the agent."""

import socket

from support import DURATION, ENVIRON, REQUEST, RESPONSE, FacadeTest, configured

from gunicorn.instrument.statsd import Statsd


class Metrics(FacadeTest):
    def setUp(self):
        super().setUp()
        self.agent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.agent.close)
        self.agent.bind(("127.0.0.1", 0))
        self.agent.settimeout(10)

    def statsd(self, **settings):
        address = f"127.0.0.1:{self.agent.getsockname()[1]}"
        statsd = Statsd(configured(statsd_host=address, errorlog=str(self.folder / "error"), **settings))
        self.addCleanup(statsd.sock.close)
        return statsd

    def sent(self, statsd):
        """What has been sent since it was last asked for."""
        statsd.gauge("end", 0)
        metrics = []
        while not (metric := self.agent.recv(999).decode()).split(":")[0].endswith("end"):
            metrics.append(metric)
        return metrics

    def test_requests(self):
        statsd = self.statsd()
        statsd.access(RESPONSE, REQUEST, ENVIRON, DURATION)
        self.assertEqual(self.sent(statsd), [
            "gunicorn.request.duration:1002.345|ms", "gunicorn.requests:1|c|@1.0",
            "gunicorn.request.status.200:1|c|@1.0",
        ])

    def test_records(self):
        statsd = self.statsd()
        for name in ("critical", "error", "warning", "exception", "info", "debug"):
            getattr(statsd, name)("x")
        self.assertEqual(self.sent(statsd), [
            f"gunicorn.log.{name}:1|c|@1.0" for name in ("critical", "error", "warning", "exception")
        ])

    def test_extra(self):
        statsd = self.statsd()
        for kind in ("gauge", "counter", "histogram", "timer", "nope"):
            statsd.info("m", extra={"metric": "a.b", "value": 3, "mtype": kind})
        statsd.debug("", extra={"metric": "c", "value": 0, "mtype": "gauge"})
        self.assertEqual(self.sent(statsd), ["a.b:3|g", "a.b:3|c|@1.0", "a.b:3|h", "a.b:3|ms", "c:0|g"])
        self.assertEqual((self.folder / "error").read_text().count("[INFO] m"), 5)

    def test_prefix_and_tags(self):
        for prefix, dotted in (("shop", "shop."), ("shop.", "shop."), ("shop..", "shop."), ("s", "s"), ("", "")):
            statsd = self.statsd(statsd_prefix=prefix, dogstatsd_tags="a:b,c")
            statsd.increment("n", 2, 0.5)
            self.assertEqual(self.sent(statsd), [f"{dotted}n:2|c|@0.5|#a:b,c"])

    def test_unix_sockets(self):
        path = str(self.folder / "agent")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
            agent.bind(path)
            agent.settimeout(10)
            statsd = Statsd(configured(statsd_host=f"unix://{path}", errorlog=str(self.folder / "error")))
            self.addCleanup(statsd.sock.close)
            statsd.gauge("g", 1)
            self.assertEqual(agent.recv(99), b"g:1|g")
            # A full queue holds nothing up.
            for _ in range(10_000):
                statsd.gauge("g", 1)

    def test_no_agent(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            refusing = f"127.0.0.1:{closed.getsockname()[1]}"
        for number, (address, complaints) in enumerate({"unix:///not/here": 0, refusing: 1}.items()):
            errorlog = self.folder / str(number)
            statsd = Statsd(configured(statsd_host=address, errorlog=str(errorlog)))
            for _ in range(20):
                statsd.info("", extra={"metric": "m", "value": 1, "mtype": "gauge"})
            self.assertEqual(errorlog.read_text().count("Error sending message to statsd"), complaints)
            if statsd.sock:
                statsd.sock.close()

    def test_the_servers_own_metrics(self):
        address = f"127.0.0.1:{self.agent.getsockname()[1]}"
        bridge = self.bridge({"statsd_host": address, "errorlog": str(self.folder / "error")})
        self.addCleanup(bridge.log.sock.close)
        bridge.metric("2 workers", "gunicorn.workers", 2, "gauge")
        bridge.record(40, "down")
        self.assertEqual(self.sent(bridge.log), ["gunicorn.workers:2|g", "gunicorn.log.error:1|c|@1.0"])
