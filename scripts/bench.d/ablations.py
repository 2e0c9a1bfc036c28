"""What each mechanism for speed brings: ours without it beside ours, kept, and as a table in the documents."""

import json
import re
from operator import truediv
from pathlib import Path

import report
import servers

# What the mechanisms are for.
LOADS = ["hello", "browser", "visitors", "close", "post10k", "stream", "flask", "hello-threads"]

KEPT = Path(__file__).with_name("ablations.json")
PAGE = servers.ROOT / "docs" / "internals" / "performance.md"

# The table stands between these two lines of the page.
MARKS = ("<!-- written by scripts/bench --without: begin -->", "<!-- end -->")

# A mechanism that brings less than this on every load is not worth its code.
WORTH = 1.02


def record(result, options):
    """Keeps the ratios of this run in place of those there are for the same mechanisms, and writes the table."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    what = "instructions" if options.instructions else "cpu"
    for name in options.without:
        ratios = {load: ratio(result, load, servers.WITHOUT + name, what) for load in options.loads}
        kept.setdefault(name, {}).setdefault(what, {}).update(
            {load: round(value, 3) for load, value in ratios.items() if value is not None})
    kept = {name: kept[name] for name in servers.mechanisms() if name in kept}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    page = PAGE.read_text()
    between = re.compile(re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1]), re.DOTALL)
    PAGE.write_text(between.sub("\n".join([MARKS[0], *table(kept), MARKS[1]]), page))


def ratio(result, load, row, what):
    """How much more a request costs without the mechanism; None where one side was not measured."""
    if what == "instructions":
        figures = result["instructions"][load]
        return figures[row] / figures[servers.OURS] if row in figures and servers.OURS in figures else None
    ours = report.compare(result["rounds"][load], row, "cpu_us", truediv)
    return 1 / ours if ours else None


def table(kept):
    """The lines of the table: processor time, then instructions, of ours without the mechanism as a ratio to ours."""
    yield "| without | " + " | ".join(LOADS) + " |"
    yield "|---|" + "---|" * len(LOADS)
    for name, figures in kept.items():
        cells = (cell(figures, load) for load in LOADS)
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def cell(figures, load):
    both = (figures.get(what, {}).get(load) for what in ("cpu", "instructions"))
    return " / ".join("-" if value is None else emphasised(value) for value in both)


def emphasised(value):
    return f"**{value:.2f}**" if value >= WORTH else f"{value:.2f}"
