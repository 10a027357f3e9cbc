"""Writes the tables of comparison.md from benchmarks/results: python -m docs.comparison_table

A case comes from the newest run that has it, so that the cases of a load may be of several runs.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.providers import (
    CHUNKED,
    COMPILED,
    FLOOR,
    HF,
    OURS,
    PLAIN,
    PLAIN_COMPILED,
    PRODUCTS,
    SEED,
    TIMM,
    TORCH,
)
from benchmarks.results import time_ratio
from docs.methods_table import rendered, table

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PAGE = "explanation/comparison.md"
SHOWN = {
    OURS: "labelsmooth",
    TORCH: "torch",
    PLAIN: "torch, plain",
    COMPILED: "torch, compiled",
    PLAIN_COMPILED: "torch, plain, compiled",
    CHUNKED: "torch, plain, in chunks",
    TIMM: "timm's formula",
    HF: "Hugging Face's formula",
    SEED: "one-hot `KLDivLoss`",
    FLOOR: "a read and a copy",
    PRODUCTS: "the three products",
}
PEERS = [name for name in SHOWN if name not in (OURS, FLOOR, PRODUCTS)]

Row = dict[str, Any]  # a line of a file of results


@dataclass(frozen=True, slots=True)
class Run:
    """A file of results: a row for each case and provider."""

    facts: Row
    cases: Mapping[str, Mapping[str, Row]]

    @classmethod
    def read(cls, path: Path) -> "Run":
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        cases: dict[str, dict[str, Row]] = {}
        for row in lines:
            if row["kind"] == "measurement" and "failure" not in row:
                cases.setdefault(_current(row["case"]), {})[row["provider"]] = row
        return cls(lines[0], cases)

    def is_usual(self, load: str) -> bool:
        """Whether it has the goals' sizes, torch's own allocator and this load."""
        facts = self.facts
        return (facts["load"], facts["quick"], facts.get("allocator", "system")) == (load, False, "system")

    def providers(self, names: Iterable[str]) -> list[str]:
        """Those of the names that were measured in any case."""
        return [name for name in names if any(name in case for case in self.cases.values())]


def _current(case: str) -> str:
    """The name that the case has now."""
    return f"segmentation {case}" if case.startswith("maps ") else case


# The cases whose ratios are to torch's smoothed loss of the same size.
SIDE_BY_SIDE = [c.name for c in CASES if any((e.label, e.baseline) == (OURS, TORCH) for e in c.entrants)]


@cache
def runs(load: str) -> list[Run]:
    """The newest first, each with the cases that no newer one has."""
    found = [Run.read(path) for path in RESULTS.glob("*-cores-*.jsonl")]
    found = [run for run in found if run.is_usual(load)]
    kept, seen = list[Run](), set[str]()
    for run in sorted(found, key=lambda run: run.facts["utc"], reverse=True):
        cases = {c: run.cases[c] for c in SIDE_BY_SIDE if c in run.cases and c not in seen}
        seen |= cases.keys()
        if cases:
            kept.append(replace(run, cases=cases))
    return kept


def measured(load: str, case: str, provider: str) -> Row:
    return next(run.cases[case][provider] for run in runs(load) if case in run.cases)


def size(row: Row) -> str:
    """The size of a case, as it is written in a table."""
    n, k, features, side = row["N"], row["K"], row["D"], row.get("side")
    if side is not None:
        text = f"segmentation maps, {n // side**2} x {k} x {side} x {side}"
    elif features is not None:
        text = f"linear head, {count(n)} x {features} to {count(k)}"
    else:
        text = f"{count(n)} x {count(k)}"
    return text if row["dtype"] == "float32" else f"{text}, {row['dtype']}"


def count(n: int) -> str:
    return f"{n:,}" if n >= 10_000 else str(n)


def duration(ms: float) -> str:
    if ms >= 1000:
        return f"{ms / 1000:.2f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms"


def memory(size: float) -> str:
    unit = "MiB" if size >= 2**20 else "KiB"
    size /= 2**20 if unit == "MiB" else 2**10
    return f"{size:.0f} {unit}" if size >= 10 else f"{size:.1f} {unit}"


def unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def machine(run: Run) -> str:
    facts = run.facts
    kernel = (facts["engines"] or {}).get("dense")
    return (
        f"{facts['device']}, {facts['cores']} cores{f', kernel {kernel}' if kernel else ''}; "
        f"torch {facts['torch']}, Python {facts['python']}; {facts['utc'][:10]}, commit {facts['commit']}:"
    )


def times(load: str) -> str:
    """The median time, and the median ratio to torch's smoothed loss of the same round."""

    def cells(case: Mapping[str, Row], names: Sequence[str]) -> list[str]:
        best = min(row["ms"] for name, row in case.items() if name in (OURS, *PEERS))
        found = []
        for row in map(case.get, names):
            text = unbroken(duration(row["ms"])) if row else "–"
            text = f"**{text}**" if row and row["ms"] == best else text
            found.append(f"{text}<br>{row['ratio']:.2f}" if row else text)
        return found

    return _tables(load, SHOWN, (), cells)


def peaks(load: str) -> str:
    """The bytes that a step allocates at most."""

    def cells(case: Mapping[str, Row], names: Sequence[str]) -> list[str]:
        found = [memory(row["peak_bytes"]) if row else "–" for row in map(case.get, names)]
        return [unbroken(text) for text in (memory(case[OURS]["gradient_bytes"]), *found)]

    return _tables(load, (OURS, *PEERS), ("its gradients",), cells)


def _tables(
    load: str,
    names: Iterable[str],
    before: Sequence[str],
    cells: Callable[[Mapping[str, Row], Sequence[str]], list[str]],
) -> str:
    parts = []
    for run in runs(load):
        there = run.providers(names)
        rows = [(size(case[OURS]), *cells(case, there)) for case in run.cases.values()]
        head = ("rows x classes", *before, *(SHOWN[name] for name in there))
        parts.append(f"{machine(run)}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def faster(load: str) -> list[tuple[Row, Row, float]]:
    """Our row and a peer's, and the median ratio of ours to it in a round, where it is faster."""
    found = []
    for run in runs(load):
        for case in run.cases.values():
            ours = case[OURS]
            for name in PEERS:
                ratio = time_ratio(ours["ms_rounds"], case[name]["ms_rounds"]) if name in case else 0
                if ratio > 1:
                    found.append((ours, case[name], ratio))
    return found


def peers_ahead() -> str:
    rows = []
    for load in ("quiet", "busy"):
        for ours, peer, ratio in faster(load):
            pair = (unbroken(duration(row["ms"])) for row in (peer, ours))
            rows.append((load, size(ours), SHOWN[peer["provider"]], *pair, f"{ratio:.2f}"))
    return table(("load", "rows x classes", "peer", "its time", "labelsmooth", "ratio"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "peers ahead": peers_ahead,
    "time": lambda: times("quiet"),
    "memory": lambda: peaks("quiet"),
    "time, busy": lambda: times("busy"),
}


if __name__ == "__main__":
    path = DOCS / PAGE
    path.write_text(rendered(PAGE, path.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
