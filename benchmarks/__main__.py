"""The command line: ``python -m benchmarks --help``."""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from benchmarks import __doc__ as description
from benchmarks.cases import CASES, Case, Load
from benchmarks.machine import (
    HERE,
    allocator,
    facts,
    file_name,
    has_native_bf16,
    num_cores,
    under_jemalloc,
)
from benchmarks.measure import QUICK, Effort, busy, measure
from benchmarks.providers import OURS, OURS_PLAIN
from benchmarks.report import case_table, goal_table
from benchmarks.results import Judged, judge, rows


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="run the cases whose name contains TEXT")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: tests the benchmarks")
    parser.add_argument("--load", action="store_true", help="keep every core busy with other processes")
    parser.add_argument(
        "--allocator", default="system", choices=("system", "jemalloc"), help="jemalloc: in a process with it"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=Effort().seconds, help="time for each case")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="JSON lines; default: a new file in results"
    )
    chosen = parser.parse_args(arguments)
    if not any(chosen.only in case.name for case in CASES):
        parser.error(
            f"--only {chosen.only!r} matches no case; choose from: {', '.join(c.name for c in CASES)}"
        )
    if chosen.allocator == "jemalloc" != allocator():
        rerun(parser, sys.argv[1:] if arguments is None else arguments)
    return chosen


def rerun(parser: argparse.ArgumentParser, arguments: list[str]) -> NoReturn:
    """Become a process with jemalloc."""
    try:
        environment = under_jemalloc()
    except OSError as error:
        parser.error(f"--allocator jemalloc: {error}")
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *arguments], environment)


def main(arguments: list[str] | None = None) -> int:
    chosen = parse(arguments)
    load: Load = "busy" if chosen.load else "quiet"
    about = facts(chosen.device, load, chosen.quick)
    file: Path = chosen.save or HERE / "results" / file_name(about)
    file.parent.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print("\n".join(f"{name}: {value}" for name, value in about.items()), highlight=False)
    cases: list[Case] = []
    for case in CASES:
        if chosen.only not in case.name:
            continue
        if case.native_bf16 and chosen.device == "cpu" and not has_native_bf16():
            console.print(
                f"{case.name}: left out, as this CPU has no instructions for bfloat16", soft_wrap=True
            )
            continue
        cases.append(case.small() if chosen.quick else case)
    judged: list[Judged] = []
    failed = False
    with busy(num_cores()) if chosen.load else nullcontext(), file.open("w", encoding="utf-8") as lines:
        for number, case in enumerate(cases, 1):

            def say(text: str, progress: str = f"[{number}/{len(cases)}] {case.name}") -> None:
                print(f"{progress}: {text}", file=sys.stderr, flush=True)

            say("checking against float64")
            effort = QUICK if chosen.quick else Effort(seconds=chosen.seconds)
            measured = measure(case, chosen.device, effort, say)
            verdicts = judge(
                case,
                measured,
                device=chosen.device,
                load=load,
                allocator=allocator(),
                quick=chosen.quick,
            )
            for row in rows(case, measured, verdicts, about):
                print(json.dumps(row), file=lines, flush=True)
            failed |= any(m.failure and m.entrant.provider.name in (OURS, OURS_PLAIN) for m in measured)
            judged += verdicts
            console.print(case_table(case, measured), "")
    if judged:
        console.print(goal_table(judged), "")
    console.print(f"rows: {file}", soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
