"""The HorizontalPodAutoscaler as Kubernetes documents it: from metrics to a number of pods, once in a period.

Times are seconds, and are given: this module knows no clock. What is here: the ratio with its tolerance, pods that are
not ready or have no metric yet, stabilization windows, scaling policies. What is not: several metrics at once, of which
the largest answer counts.
Source: kubernetes.io, "Horizontal Pod Autoscaling", sections "Algorithm details" and "Configurable scaling behavior".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SYNC_SECONDS = 15.0
TOLERANCE = 0.1
# --horizontal-pod-autoscaler-cpu-initialization-period and -initial-readiness-delay.
CPU_INITIALIZATION_SECONDS, INITIAL_READINESS_SECONDS = 300.0, 30.0


@dataclass(frozen=True)
class Policy:
    """At most so many pods, or so many hundredths of them, in so many seconds."""

    value: float
    period: float
    is_percent: bool = True


@dataclass(frozen=True)
class Rules:
    """One direction: the policy that allows most counts (`selectPolicy: Max`)."""

    stabilization: float
    policies: tuple[Policy, ...]


DEFAULT_UP = Rules(0, (Policy(100, 15), Policy(4, 15, is_percent=False)))
DEFAULT_DOWN = Rules(300, (Policy(100, 15),))


@dataclass(frozen=True)
class PodMetric:
    """A pod as the autoscaler sees it. `value` is a share of what the pod requests; None: there is no metric yet."""

    value: float | None
    is_ready: bool = True
    # Seconds since the pod began, since it became ready, and since the window of its metric began.
    age: float = 1e9
    ready_for: float = 1e9
    window_age: float = 15.0


def replicas_by_total(total: float, target: float, current: int, tolerance: float = TOLERANCE) -> int:
    """An external metric with an AverageValue: the total over the target, if that is far enough from what there is."""
    if abs(1 - total / (target * current)) <= tolerance:
        return current
    return math.ceil(total / target)


def replicas_by_utilization(
    pods: Sequence[PodMetric], target: float, current: int, tolerance: float = TOLERANCE
) -> int:
    """A resource metric with an averageUtilization."""
    measured = [pod.value for pod in pods if pod.value is not None and not is_unready(pod)]
    unready = [pod for pod in pods if pod.value is not None and is_unready(pod)]
    missing = [pod for pod in pods if pod.value is None]
    if not measured:
        return current
    ratio = sum(measured) / len(measured) / target
    set_aside = unready if ratio > 1 else []
    if not set_aside and not missing:
        return current if abs(1 - ratio) <= tolerance else math.ceil(ratio * len(measured))
    # Conservative both ways: who has not said counts as idle when more pods are due, as full when fewer are.
    values = measured + [0.0 if ratio > 1 else 1.0] * len(missing) + [0.0] * len(set_aside)
    damped = sum(values) / len(values) / target
    if abs(1 - damped) <= tolerance or (ratio < 1) != (damped < 1):
        return current
    wanted = math.ceil(damped * len(values))
    changes_direction = wanted > current if damped < 1 else wanted < current
    return current if changes_direction else wanted


def is_unready(pod: PodMetric) -> bool:
    """Whether the processor time of a pod says nothing yet: it loads its app."""
    if pod.age < CPU_INITIALIZATION_SECONDS:
        return not pod.is_ready or pod.window_age > pod.ready_for
    return not pod.is_ready and pod.age - pod.ready_for < INITIAL_READINESS_SECONDS


@dataclass
class Autoscaler:
    """What remembers: recommendations for the stabilization windows, changes for the policies."""

    least: int
    most: int
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN
    recommendations: list[tuple[float, int]] = field(default_factory=list)
    # When, and by how many pods; negative for fewer.
    changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now: float, current: int, wanted: int) -> int:
        """The number of pods from now on, where the metrics want `wanted`."""
        stable = self.stabilize(now, current, wanted)
        decided = self.limit(now, current, stable)
        if decided != current:
            self.changes.append((now, decided - current))
        return decided

    def stabilize(self, now: float, current: int, wanted: int) -> int:
        """Up only to what every recommendation of the window wants, down only to what each of them allows."""
        self.recommendations.append((now, wanted))
        longest = max(self.up.stabilization, self.down.stabilization)
        self.recommendations = [one for one in self.recommendations if one[0] >= now - longest]
        ups = [pods for when, pods in self.recommendations if when >= now - self.up.stabilization]
        downs = [pods for when, pods in self.recommendations if when >= now - self.down.stabilization]
        return min(max(current, min(ups)), max(downs))

    def limit(self, now: float, current: int, wanted: int) -> int:
        if wanted > current:
            allowed = max(self.allowance(policy, now, current, 1) for policy in self.up.policies)
            return min(wanted, max(allowed, current), self.most)
        if wanted < current:
            allowed = min(self.allowance(policy, now, current, -1) for policy in self.down.policies)
            return max(wanted, min(allowed, current), self.least)
        return current

    def allowance(self, policy: Policy, now: float, current: int, sign: int) -> int:
        """How far a policy lets the number go, counted from what it was when its period began."""
        begun = current - sum(pods for when, pods in self.changes if when > now - policy.period)
        if not policy.is_percent:
            return int(begun + sign * policy.value)
        share = begun * (1 + sign * policy.value / 100)
        return math.ceil(share) if sign > 0 else int(share)
