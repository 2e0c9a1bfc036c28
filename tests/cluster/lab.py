"""The rollout laboratory: the real server in pods behind a service's address, while things happen to them.

    lab.py [--network any|namespaces|loopback] PROOF

`lab.py --help` lists the proofs. It ends with status 0 if the proof held, and prints `PROOF: held`.
MONOCEROS_TEST_PROGRAM is the server. `fifty` and `table` are the long form; they print the tables of
docs/internals/rollouts.md.
"""

import argparse
import concurrent.futures
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import documented
import networks
import scenarios
from clients import MIX
from control import Failure, expect
from pods import Probe
from scenarios import QUICK, Lab, Outcome, must_lose_nothing

# Seconds for one proof, after which it has failed: many times what it takes.
SHORT_LIMIT, LONG_LIMIT = 120, 3600
# Rollouts of the long form, spread over the lags; so many clusters live at once.
ROLLOUTS, LAGS, AT_ONCE = 50, (0, 1, 2, 3, 4), 2


def main() -> None:
    options = parse_arguments()
    expect(documented.PROGRAM, "MONOCEROS_TEST_PROGRAM names the server")
    proof = PROOFS[options.proof]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SHORT_LIMIT if proof in (short, rollout) else LONG_LIMIT)
    try:
        proof(options)
    except Failure as failure:
        sys.exit(f"{options.proof}: {failure}")
    print(f"{options.proof}: held", flush=True)


def parse_arguments() -> argparse.Namespace:
    names = "\n".join(f"  {name:<18}{(proof.__doc__ or '').strip()}" for name, proof in PROOFS.items())
    parser = argparse.ArgumentParser(epilog=names, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proof", choices=PROOFS, metavar="PROOF")
    parser.add_argument("--network", choices=("any", "namespaces", "loopback"), default="any")
    parser.add_argument("--lag", type=int, default=1, help="of `rollouts`, in seconds")
    parser.add_argument("--rounds", type=int, default=1, help="of `rollouts`")
    return parser.parse_args()


def too_late(*_: object) -> None:
    raise Failure("it takes too long")


def lab(options: argparse.Namespace) -> AbstractContextManager[Lab]:
    network = networks.choose(options.network)
    print(f"network: {network.name}", flush=True)
    return Lab(network).opened()


# The short form: its parts wait most of the time, so they live side by side, each in a cluster of its own.


def short(options: argparse.Namespace) -> None:
    """rolling updates, an eviction, a broken release: nothing is lost; and much where a server stops at once"""
    with lab(options) as here, concurrent.futures.ThreadPoolExecutor() as executor:
        parts = [executor.submit(one, here) for one in (releases, only_pod, no_delay)]
        for each in parts:
            each.result(SHORT_LIMIT)


def rollout(options: argparse.Namespace) -> None:
    """a rolling update behind two proxies, one of which hears of it late: nothing is lost"""
    with lab(options) as here:
        outcome = scenarios.rollout(here, [0, 1], "--shutdown-delay", "4", startup=QUICK)
        must_lose_nothing(outcome, margin=2)
        say("rollout", outcome)


def releases(here: Lab) -> None:
    """A release that cannot be loaded gets nowhere, a good one gets through, behind two proxies: nothing is lost."""
    outcome = scenarios.broken_release(here, [0, 1], "--shutdown-delay", "4", startup=QUICK)
    must_lose_nothing(outcome, margin=2)
    say("a broken release and a good one", outcome)


def only_pod(here: Lab) -> None:
    """The only pod of a service is evicted: it serves until its successor does."""
    outcome = scenarios.drain(here, 0.2, "--shutdown-delay", "7", startup=QUICK)
    must_lose_nothing(outcome, margin=2)
    say("an only pod evicted", outcome)


def no_delay(here: Lab) -> None:
    """Servers that stop at TERM, while the proxy still sends to them: without it the rest would say nothing."""
    outcome = scenarios.rollout(here, [1], "--shutdown-delay", "0", startup=QUICK)
    expect(outcome.lost > 0, "what is sent to a server that has gone is lost")
    expect(outcome.killed == 0, "every pod ends by itself", outcome.log())
    say("no delay", outcome)


# The long form.


def rollouts(options: argparse.Namespace) -> None:
    """some rolling updates with the documented values and one lag: a part of `fifty`"""
    with lab(options) as here:
        outcome = scenarios.rollout(here, [options.lag], rounds=options.rounds)
        must_lose_nothing(outcome, margin=documented.setting("shutdown_delay") - options.lag - 1)
        kinds = outcome.tally.answered
        new = sum(number for kind, number in kinds.items() if kind.startswith("one-shot"))
        posts = sum(number for kind, number in kinds.items() if kind.endswith("POST"))
        tally = outcome.tally
        print(
            f"| {options.lag} s | {options.rounds} | {new} | {tally.count - new} | {posts} | {tally.told_to_close} "
            f"| {tally.closed_while_idle} | {tally.causes()} |",
            flush=True,
        )


def fifty(options: argparse.Namespace) -> None:
    """50 rolling updates with the documented values, with lags of 0 to 4 s: nothing is lost"""
    print("| lag | rollouts | new connections | kept ones | POSTs among them | told to close | closed idle | lost |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as executor:
        parts = [executor.submit(part, options, lag) for lag in LAGS]
        for each in parts:
            print(each.result(), flush=True)


def part(options: argparse.Namespace, lag: int) -> str:
    """A line of the table, from a process of its own for each lag: a process has one network."""
    words = [sys.executable, __file__, "--network", options.network, "--lag", str(lag)]
    words += ["--rounds", str(ROLLOUTS // len(LAGS)), "rollouts"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LONG_LIMIT)
    expect(done.returncode == 0, f"rollouts with a lag of {lag} s lose nothing", f"{done.stdout}{done.stderr}")
    return next(line for line in done.stdout.splitlines() if line.startswith("|"))


@dataclass
class Row:
    """A line of the table: what is lost with which values, and whether anything must be; None: chance decides."""

    what: str
    run: Callable[[Lab], Outcome]
    loses: bool | None


def delay(seconds: int) -> tuple[str, str]:
    return ("--shutdown-delay", str(seconds))


HEALTH_AT_ONCE = Probe("/healthz", 1, 1, 1)
LIVE_AT_ONCE = Probe("/livez", 1, 1, 1)
ROLLS = [
    Row("`shutdown_delay` 0, lag 0", lambda lab: scenarios.rollout(lab, [0], *delay(0)), None),
    Row("`shutdown_delay` 0, lag 1 s", lambda lab: scenarios.rollout(lab, [1], *delay(0)), True),
    Row("`shutdown_delay` 0, lag 2 s", lambda lab: scenarios.rollout(lab, [2], *delay(0)), True),
    Row("`shutdown_delay` 0, lag 4 s", lambda lab: scenarios.rollout(lab, [4], *delay(0)), True),
    Row("`shutdown_delay` 1, lag 2 s", lambda lab: scenarios.rollout(lab, [2], *delay(1)), True),
    Row("`shutdown_delay` 2, lag 4 s", lambda lab: scenarios.rollout(lab, [4], *delay(2)), True),
    Row("`shutdown_delay` 2, two proxies with lags 0 and 4 s",
        lambda lab: scenarios.rollout(lab, [0, 4], *delay(2)), True),
    Row("as documented (10), two proxies with lags 0 and 4 s", lambda lab: scenarios.rollout(lab, [0, 4]), False),
    Row("`shutdown_delay` 0, `preStop` sleep 10, lag 4 s",
        lambda lab: scenarios.rollout(lab, [4], *delay(0), pre_stop=10.0), False),
    Row("grace period 30 (Kubernetes' default), requests of 42 s",
        lambda lab: scenarios.long_requests(lab, 42, grace=30.0), True),
    Row("as documented (50), requests of 42 s", lambda lab: scenarios.long_requests(lab, 42), False),
    Row("one replica drained, as documented, the next boots in 4 s", lambda lab: scenarios.drain(lab, 4), False),
    Row("one replica drained, as documented, the next boots in 14 s", lambda lab: scenarios.drain(lab, 14), True),
    Row("one replica drained, readiness `health_path` 1 s x 1, 4 s",
        lambda lab: scenarios.drain(lab, 4, readiness=HEALTH_AT_ONCE), True),
    Row("one replica drained, readiness `live_path` 1 s x 1, 4 s",
        lambda lab: scenarios.drain(lab, 4, "--live-path", "/livez", readiness=LIVE_AT_ONCE), False),
    Row("a release that cannot be loaded, as documented", lambda lab: scenarios.broken_release(lab, [1]), False),
    Row("10 workers ended by the kernel, one by one", lambda lab: scenarios.killed_workers(lab, 10), True),
    Row("2 containers ended by the kernel, lag 1 s", lambda lab: scenarios.killed_containers(lab, 2), True),
    Row("workers that grow, `max_worker_memory` 60M",
        lambda lab: scenarios.growing_workers(lab, "--max-worker-memory", "60M"), False),
]  # fmt: skip


def table(options: argparse.Namespace) -> None:
    """what is lost with other values than the documented ones, and in other events than rollouts"""
    wrong = []
    with lab(options) as here:
        print("| case | requests | lost | pods killed |\n|---|---|---|---|", flush=True)
        for row in ROLLS:
            outcome = row.run(here)
            print(f"| {row.what} | {outcome.tally.count} | {outcome.tally.causes()} | {outcome.killed} |", flush=True)
            if row.loses is not None and bool(outcome.lost) != row.loses:
                wrong.append(f"{row.what}: {outcome.tally.lost}\n{outcome.log()}")
        outcome, outside = scenarios.scale_to_zero(here)
        what = "to no pod and back: lost while a pod listened"
        print(f"| {what} | {outcome.tally.count - outcome.lost + outside} | {outside} | {outcome.killed} |", flush=True)
        if outside:
            wrong.append(f"{what}: {outcome.tally.lost}")
    expect(not wrong, "each case loses or not as it says", "\n".join(wrong))


def say(proof: str, outcome: Outcome) -> None:
    tally = outcome.tally
    print(
        f"{proof}: {tally.count} requests of {len(MIX)} kinds, {tally.told_to_close} told to close, "
        f"{tally.closed_while_idle} closed while idle, lost {tally.causes()}; {outcome.seconds:.1f} s",
        flush=True,
    )


PROOFS: dict[str, Callable[[argparse.Namespace], None]] = {
    proof.__name__: proof for proof in (short, rollout, rollouts, fifty, table)
}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
