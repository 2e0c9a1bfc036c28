"""What was measured, as tables for people: medians, ratios, goals."""

from statistics import median

from servers import FLOOR, OURS, WHEEL

COLUMNS = [("req/s", "requests_per_second", "{:,.0f}"), ("CPU us/req", "cpu_us", "{:.2f}"), ("p50 us", "p50_us", "{:,.0f}"),
           ("p99 us", "p99_us", "{:,.0f}"), ("PSS MB", "pss_mb", "{:.1f}"), ("start ms", "start_ms", "{:.0f}"),
           ("bytes", "response_bytes", "{:,.0f}"), ("errors", "errors", "{:.0f}")]


def medians(rounds):
    """The median of each figure over the rounds of one server."""
    return {name: middle([one[name] for one in rounds]) for _, name, _ in COLUMNS}


def middle(values):
    """The median; None where the client tells no such figure."""
    return None if None in values else median(values)


def print_load(name, load, figures, notes):
    """The table of one load: a row for each server, best first, with our CPU and throughput as a ratio to it."""
    print(f"\n{name}: {load.says}")
    ours = figures.get(OURS)
    rows = [["server", *(title for title, _, _ in COLUMNS), "our CPU", "our req/s", ""]]
    for server, values in sorted(figures.items(), key=lambda item: item[1]["cpu_us"]):
        cells = ["-" if values[column] is None else text.format(values[column]) for _, column, text in COLUMNS]
        rows.append([server, *cells, ratio(ours, values, "cpu_us"), ratio(ours, values, "requests_per_second"),
                     notes.get(server, "")])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        first, last = row[0].ljust(widths[0]), row[-1]
        print("  " + "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:])), last]).rstrip())
    for server, note in notes.items():
        if server not in figures:
            print(f"  {server}: {note}")


def ratio(ours, theirs, column):
    if ours is None or ours is theirs or not theirs[column]:
        return "-"
    return f"{ours[column] / theirs[column]:.2f}x"


def print_goals(loads, all_figures):
    """For each goal whose two sides were measured: the ratio of CPU per request, and whether it is met."""
    lines = []
    for name, load in loads.items():
        ours = all_figures.get(name, {}).get(OURS)
        for other, bound in load.goals:
            theirs = goal_side(other, all_figures, name)
            if ours and theirs and theirs[1]["cpu_us"]:
                reached = ours["cpu_us"] / theirs[1]["cpu_us"]
                verdict = "met" if reached <= bound else "NOT MET"
                lines.append(f"  {name}: {reached:.2f}x {theirs[0]}, goal {bound:.2f}x: {verdict}")
    if lines:
        print("\nGoals (our CPU per request)")
        print("\n".join(lines))


def goal_side(other, all_figures, name):
    """What a goal compares with: (its name, its medians), or None where that was not measured."""
    if other.startswith("LOAD "):
        load = other.removeprefix("LOAD ")
        figures = all_figures.get(load, {}).get(OURS)
        return (f"our own {load}", figures) if figures else None
    figures = all_figures.get(name, {})
    if other != "best":
        return (other, figures[other]) if other in figures else None
    peers = [(values["cpu_us"], server) for server, values in figures.items() if server not in (OURS, WHEEL, FLOOR)]
    return (min(peers)[1], figures[min(peers)[1]]) if peers else None
