"""The autoscaler and the models by themselves: python -m unittest, in this folder."""

import math
import re
import unittest

from autoscaling import DOCUMENTED, OVERLAY_DOWN, OVERLAY_UP, TARGET, WAITS, height_at, judge
from cluster_model import Busy, ClusterModel, Figures, Window, rate
from documented import ROOT
from hpa import DEFAULT_DOWN, DEFAULT_UP, Autoscaler, PodMetric, Policy, Rules, replicas_by_total
from hpa import replicas_by_utilization as by_utilization
from pod_model import App, PodModel


class Replicas(unittest.TestCase):
    """From a metric to a number of pods."""

    def test_a_total_is_divided_by_the_target(self) -> None:
        self.assertEqual(replicas_by_total(6.5, 0.65, current=5), 10)
        self.assertEqual(replicas_by_total(6.51, 0.65, current=5), 11)

    def test_a_tenth_is_tolerated(self) -> None:
        for total in (5.9, 7.1):
            self.assertEqual(replicas_by_total(total, 0.65, current=10), 10)
        for total, replicas in ((5.8, 9), (7.2, 12)):
            self.assertEqual(replicas_by_total(total, 0.65, current=10), replicas)

    def test_a_share_is_held_against_the_target(self) -> None:
        # The example of the documentation: 200m where 100m is wanted doubles the pods.
        self.assertEqual(by_utilization([PodMetric(1.0)] * 3, 0.5, current=3), 6)
        self.assertEqual(by_utilization([PodMetric(0.25)] * 4, 0.5, current=4), 2)

    def test_pods_that_load_their_app_count_as_idle_and_only_upwards(self) -> None:
        loading = PodMetric(3.0, is_ready=True, age=20, ready_for=5, window_age=15)
        self.assertEqual(by_utilization([PodMetric(1.0)] * 2 + [loading] * 2, 0.5, current=4), 4)
        self.assertEqual(by_utilization([PodMetric(1.0)] * 3 + [loading], 0.5, current=4), 6)
        self.assertEqual(by_utilization([PodMetric(0.2)] * 2 + [loading], 0.5, current=3), 1)

    def test_pods_without_a_metric_damp_both_ways(self) -> None:
        self.assertEqual(by_utilization([PodMetric(1.0)] * 2 + [PodMetric(None)] * 2, 0.5, current=4), 4)
        self.assertEqual(by_utilization([PodMetric(0.2)] * 4 + [PodMetric(None)], 0.5, current=5), 4)
        self.assertEqual(by_utilization([PodMetric(None)] * 2, 0.5, current=2), 2)


class Behavior(unittest.TestCase):
    """Windows and policies."""

    def test_by_default_pods_double_or_grow_by_four(self) -> None:
        self.assertEqual(Autoscaler(1, 100, DEFAULT_UP, DEFAULT_DOWN).decide(0, 1, 50), 5)
        self.assertEqual(Autoscaler(1, 100, DEFAULT_UP, DEFAULT_DOWN).decide(0, 10, 50), 20)

    def test_a_policy_counts_from_the_beginning_of_its_period(self) -> None:
        scaler = Autoscaler(1, 1000, Rules(0, (Policy(100, 30),)), DEFAULT_DOWN)
        decided = [scaler.decide(now, current, 100) for now, current in ((0, 10), (15, 20), (30, 20))]
        self.assertEqual(decided, [20, 20, 40])

    def test_down_goes_only_what_every_recommendation_of_the_window_allows(self) -> None:
        scaler = Autoscaler(1, 100, DEFAULT_UP, DEFAULT_DOWN)
        self.assertEqual(scaler.decide(0, 20, 20), 20)
        self.assertEqual([scaler.decide(now, 20, 5) for now in (15, 150, 300)], [20, 20, 20])
        self.assertEqual(scaler.decide(315, 20, 5), 5)

    def test_down_goes_by_a_quarter_where_a_policy_says_so(self) -> None:
        scaler = Autoscaler(1, 100, DEFAULT_UP, Rules(0, (Policy(25, 60),)))
        self.assertEqual([scaler.decide(0, 20, 2), scaler.decide(30, 15, 2), scaler.decide(60, 15, 2)], [15, 15, 11])

    def test_bounds_hold(self) -> None:
        self.assertEqual(Autoscaler(2, 12, DEFAULT_UP, DEFAULT_DOWN).decide(0, 10, 50), 12)
        self.assertEqual(Autoscaler(2, 12, DEFAULT_UP, Rules(0, (Policy(100, 15),))).decide(0, 10, 0), 2)


class Prometheus(unittest.TestCase):
    def test_a_steady_counter_has_its_slope(self) -> None:
        points = [(float(when), 3.0 * when) for when in range(115, 161, 15)]
        self.assertAlmostEqual(rate(points, now=165, window=60), 3.0)

    def test_a_young_counter_is_not_stretched_to_the_whole_window(self) -> None:
        # Two samples: fifteen seconds were seen, ten are added behind, and at most the half of a gap in front.
        self.assertAlmostEqual(rate([(100.0, 60.0), (115.0, 120.0)], now=125, window=60), 60 / 15 * 32.5 / 60)
        self.assertEqual(rate([(100.0, 5.0)], now=110, window=60), 0)


class Pod(unittest.TestCase):
    """The queue against what mathematics has."""

    def test_waits_are_those_of_erlang(self) -> None:
        pod = PodModel(App("waits", 0.1, 0.0), workers=2, threads=4, seed=1)
        pod.advance(4000, 64)
        waiting = erlang_c(8, 6.4)
        self.assertAlmostEqual(pod.busy_seconds / 4000 / 8, 0.8, delta=0.01)
        self.assertAlmostEqual(pod.queue_seconds / pod.begun, waiting * 0.1 / 1.6, delta=0.002)
        self.assertAlmostEqual(sum(wait > 0 for wait in pod.waits) / pod.begun, waiting, delta=0.02)

    def test_threads_of_a_worker_share_its_interpreter(self) -> None:
        pod = PodModel(App("computes", 0.0, 0.05), workers=1, threads=1000, seed=1)
        pod.advance(4000, 14)
        # M/M/1 with a shared processor: rho / (1 - rho) requests at once.
        self.assertAlmostEqual(pod.cpu_seconds / 4000, 0.7, delta=0.02)
        self.assertAlmostEqual(pod.busy_seconds / 4000, 0.7 / 0.3, delta=0.2)

    def test_what_finds_no_room_is_refused(self) -> None:
        pod = PodModel(App("waits", 1.0, 0.0), workers=1, threads=1, seed=1)
        pod.advance(100, 200)
        self.assertGreater(pod.take_refused(), 10_000)
        self.assertEqual((len(pod.queue), pod.take_refused()), (pod.most_waiting, 0))


class Cluster(unittest.TestCase):
    def test_the_same_seed_is_the_same_run(self) -> None:
        def run(seed: int) -> list[Window]:
            scaler = Autoscaler(1, 50)
            return ClusterModel(WAITS, Figures(2.0, 2, 4), Busy(), scaler, first=4, seed=seed).run(lambda _: 300.0, 120)

        self.assertEqual(run(1), run(1))
        self.assertNotEqual(run(1), run(2))

    def test_a_steady_load_is_left_alone(self) -> None:
        scaler = Autoscaler(2, 50)
        model = ClusterModel(WAITS, Figures(2.0, 2, 4), Busy(), scaler, first=20, seed=1)
        windows = model.run(lambda _: 20 * 80 * 0.62, 300)
        self.assertEqual({window.wanted for window in windows}, {20})

    def test_pods_are_ready_after_their_boot_and_not_before(self) -> None:
        model = ClusterModel(WAITS, Figures(2.0, 2, 4), Busy(), Autoscaler(2, 50), first=2, seed=1)
        model.create(40)
        for _ in range(7):
            model.step(100)
        self.assertEqual(model.ready, 2)
        for _ in range(13):
            model.step(100)
        self.assertEqual(model.ready, 42)
        model.remove(41)
        self.assertEqual(model.ready, 1)


class Judgement(unittest.TestCase):
    def test_the_load_rises_tenfold_in_a_minute_and_falls(self) -> None:
        heights = [height_at(now, 840) for now in (0, 60, 90, 120, 960, 990, 1020, 1500)]
        self.assertEqual(heights, [0, 0, 0.5, 1, 1, 0.5, 0, 0])

    def test_up_and_down_and_up_is_two_reversals(self) -> None:
        counts = [2, 4, 8, 8, 6, 6, 8, 8]
        windows = [Window(75.0 + 15 * turn, 1.0, count, count, 0.01, 0.5, 0.0) for turn, count in enumerate(counts)]
        result = judge(DOCUMENTED, windows, enough=8)
        self.assertEqual((result.reversals, result.enough_after, result.short_after), (2, 45, 15))
        self.assertEqual(result.faults(), ["the number of pods goes up and down"])

    def test_a_queue_that_stays_long_is_a_fault(self) -> None:
        windows = [Window(now, 1.0, 8, 8, 0.2, 0.5, 0.0) for now in range(75, 961, 15)]
        self.assertEqual(judge(DOCUMENTED, windows, enough=8).faults(), ["the queue does not stay short"])


class Examples(unittest.TestCase):
    """What is simulated is what the examples have."""

    def test_the_overlay(self) -> None:
        text = (ROOT / "examples/kubernetes/overlays/production/autoscaler.yaml").read_text()
        self.assertEqual(number(text, "averageUtilization"), TARGET * 100)
        up, down = text.split("scaleDown:")
        for part, rules in ((up, OVERLAY_UP), (down, OVERLAY_DOWN)):
            self.assertEqual(number(part, "stabilizationWindowSeconds"), rules.stabilization)
            policies = re.findall(r"- type: (\w+)\n +value: (\d+)\n +periodSeconds: (\d+)", part)
            found = tuple(Policy(int(value), int(period), kind == "Percent") for kind, value, period in policies)
            self.assertEqual(found, rules.policies)

    def test_the_query(self) -> None:
        text = (ROOT / "examples/kubernetes/components/autoscaling-keda/scaledobject.yaml").read_text()
        self.assertIn(f'threshold: "{TARGET}"', text)
        self.assertIn("sum(rate(monoceros_busy_seconds_total", text)
        self.assertIn("[1m]", text)
        self.assertNotIn("behavior", text)


def number(text: str, name: str) -> float:
    found = re.search(rf"{name}: (\d+)", text)
    assert found, name
    return float(found[1])


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that wait."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**count / math.factorial(count) for count in range(servers)) + last)


if __name__ == "__main__":
    unittest.main()
