"""What was measured, as tables for people: medians, ratios, goals."""

from operator import sub, truediv
from statistics import median

from servers import OURS, PEERS

COLUMNS = [("req/s", "requests_per_second", "{:,.0f}"), ("CPU us/req", "cpu_us", "{:.2f}"),
           ("p50 us", "p50_us", "{:,.0f}"), ("p99 us", "p99_us", "{:,.0f}"),
           ("PSS MB", "pss_mb", "{:.1f}"), ("start ms", "start_ms", "{:.0f}"), ("bytes", "response_bytes", "{:,.0f}"),
           ("errors", "errors", "{:.0f}")]


def medians(rounds):
    """The median of each figure over the rounds of one row that did not fail."""
    return {name: middle([one[name] for one in rounds if one]) for _, name, _ in COLUMNS}


def middle(values):
    """The median; None where the client tells no such figure."""
    return None if None in values else median(values)


def own(load):
    """The row of our own server on another load, for comparison."""
    return f"our {load}"


def print_load(name, load, rounds, figures, notes):
    """The table of one load: a row for each server, best first, with our CPU and throughput as a ratio to it."""
    print(f"\n{name}: {load.says}")
    rows = [["server", *(title for title, _, _ in COLUMNS), "our CPU", "our req/s", ""]]
    for row, values in sorted(figures.items(), key=lambda item: item[1]["cpu_us"]):
        cells = ["-" if values[column] is None else text.format(values[column]) for _, column, text in COLUMNS]
        ratios = ["-", "-"]
        if row != OURS and OURS in figures:
            compared = [compare(rounds, row, column, truediv) for column in ("cpu_us", "requests_per_second")]
            ratios = ["-" if value is None else f"{value:.2f}x" for value in compared]
        rows.append([row, *cells, *ratios, notes.get(row, "")])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        first, last = row[0].ljust(widths[0]), row[-1]
        padded = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        print("  " + "  ".join([first, *padded, last]).rstrip())
    for row, note in notes.items():
        if row not in figures:
            print(f"  {row}: {note}")


def compare(rounds, row, column, how):
    """The median over the rounds of `how(ours, theirs)`, our figure and that row's; None without a round that has both
    (a server may take less processor time than the kernel counts)."""
    pairs = zip(rounds[OURS], rounds[row], strict=False)
    both = [(ours[column], theirs[column]) for ours, theirs in pairs if ours and theirs and theirs[column]]
    return median(how(*pair) for pair in both) if both else None


def print_goals(loads, all_rounds):
    """For each goal whose two sides were measured: how our CPU per request compares, and whether that meets it."""
    lines = []
    for name, rounds in all_rounds.items():
        for goal in loads[name].goals:
            row = other_side(goal, rounds)
            if row is None or not any(rounds.get(OURS, [])):
                continue
            if goal.plus_us:
                reached, bound = compare(rounds, row, "cpu_us", sub), goal.plus_us
                form = "{:+.2f} us to {}, goal {:+.2f}: {}"
            else:
                reached, bound = compare(rounds, row, "cpu_us", truediv), goal.times
                form = "{:.2f}x {}, goal {:.2f}x: {}"
            if reached is not None:
                verdict = "met" if reached <= bound else "NOT MET"
                lines.append(f"  {name}: " + form.format(reached, row, bound, verdict))
    if lines:
        print("\nGoals (our CPU per request)")
        print("\n".join(lines))


def other_side(goal, rounds):
    """The row that a goal compares with; None where it was not measured."""
    if goal.load or goal.server:
        row = own(goal.load) if goal.load else goal.server
        return row if any(rounds.get(row, [])) else None
    peers = [(medians(rounds[peer])["cpu_us"], peer) for peer in PEERS if any(rounds.get(peer, []))]
    return min(peers)[1] if peers else None
