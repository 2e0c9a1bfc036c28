"""What the laboratory decides by itself: python -m unittest, in this folder."""

import unittest
from pathlib import Path

import documented
from control import choose
from networks import rules
from pods import Endpoint


class Endpoints(unittest.TestCase):
    READY, ENDING, GONE = Endpoint("a", True, True), Endpoint("b", False, True), Endpoint("c", False, False)

    def test_ready_ones_get_everything(self) -> None:
        self.assertEqual(choose([self.READY, self.ENDING, self.GONE]), ["a"])

    def test_while_none_is_ready_those_that_end_and_serve_get_it(self) -> None:
        self.assertEqual(choose([self.ENDING, self.GONE]), ["b"])
        self.assertEqual(choose([self.GONE]), [])

    def test_a_service_without_endpoints_is_refused(self) -> None:
        self.assertIn("reject", rules([]))
        self.assertIn("mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 } : 8000", rules(["10.0.0.1", "10.0.0.2"]))


class Documented(unittest.TestCase):
    """The examples hold the arithmetic of docs/hosts/kubernetes.md, as the laboratory reads them."""

    def test_the_arithmetic(self) -> None:
        template = documented.template(Path("."))
        delay, patience = documented.setting("shutdown_delay"), documented.setting("graceful_timeout")
        self.assertGreaterEqual(template.grace, delay + patience + 5)
        readiness, liveness = template.readiness, template.liveness
        self.assertGreater(readiness.period * readiness.failures, delay)
        self.assertGreater(liveness.period * liveness.failures, delay + patience)


if __name__ == "__main__":
    unittest.main()
