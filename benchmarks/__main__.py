"""The command line: ``python -m benchmarks --help``."""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from benchmarks import __doc__ as description
from benchmarks.cases import CASES, Load
from benchmarks.machine import HERE, facts, file_name, num_cores
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
    return chosen


def main(arguments: list[str] | None = None) -> int:
    chosen = parse(arguments)
    load: Load = "busy" if chosen.load else "quiet"
    about = facts(chosen.device, load, chosen.quick)
    file: Path = chosen.save or HERE / "results" / file_name(about)
    file.parent.mkdir(parents=True, exist_ok=True)
    cases = [case.small() if chosen.quick else case for case in CASES if chosen.only in case.name]
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print("\n".join(f"{name}: {value}" for name, value in about.items()), highlight=False)
    judged: list[Judged] = []
    failed = False
    with busy(num_cores()) if chosen.load else nullcontext(), file.open("w", encoding="utf-8") as lines:
        for number, case in enumerate(cases, 1):

            def say(text: str, progress: str = f"[{number}/{len(cases)}] {case.name}") -> None:
                print(f"{progress}: {text}", file=sys.stderr, flush=True)

            say("checking against float64")
            effort = QUICK if chosen.quick else Effort(seconds=chosen.seconds)
            measured = measure(case, chosen.device, effort, say)
            verdicts = judge(case, measured, device=chosen.device, load=load, quick=chosen.quick)
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
