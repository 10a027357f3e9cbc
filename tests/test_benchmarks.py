"""The benchmarks run end to end, and their arithmetic is right. No time is asserted."""

import io
import json
import re
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from benchmarks import __main__ as command_line
from benchmarks import machine, results
from benchmarks.cases import CASES, Case, Entrant, Goal, Size
from benchmarks.machine import file_name
from benchmarks.measure import QUICK, SPIN, Effort, busy, in_turns, measure, peak
from benchmarks.providers import (
    DENSE,
    GENERAL,
    GENERAL_LINEAR,
    LINEAR,
    OURS,
    PLAIN,
    PRODUCTS,
    TORCH,
    Provider,
)
from benchmarks.report import case_table, goal_table
from benchmarks.results import Measurement

ROOT = Path(__file__).parent.parent
SIZE = Size(6, 11)


def entrant(label: str = OURS, baseline: str = TORCH) -> Entrant:
    return Entrant(label, DENSE[label], SIZE, baseline)


def measured(label: str, times: tuple[float, ...], peak: int = 264, gradients: int = 264) -> Measurement:
    return Measurement(entrant(label), times, peak, gradients)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--quick", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("load", ["quiet", "busy"])
def test_a_run_ends_in_tables_and_rows(tmp_path: Path, load: str):
    file = tmp_path / "rows.jsonl"
    arguments = ["--only", "dense 128x10", "--save", str(file), *(["--load"] if load == "busy" else [])]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "[1/1] dense 128x10" in done.stderr
    assert "20 to 80 %" in done.stdout
    assert "the goals" in done.stdout
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    providers = [row["provider"] for row in rows if row["kind"] == "measurement"]
    assert providers == [e.label for e in CASES[4].entrants if not e.provider.cuda_only]
    for row in rows:
        assert (row["load"], row["allocator"]) == (load, "system")
        assert row["torch"] == torch.__version__
        assert row["cores"] >= 1
        assert row["device"]
        if row["kind"] == "measurement":
            assert row["ms_p20"] <= row["ms"] <= row["ms_p80"]
            assert len(row["ms_rounds"]) >= 2
            assert row["page_faults"] >= 0
            assert row["peak_bytes"] >= row["gradient_bytes"] == 4 * row["N"] * row["K"]
            assert (row["ratio"], row["peak_ratio"]) == (1, 1) or row["provider"] != TORCH
    goals = [row for row in rows if row["kind"] == "goal"]
    expected = {"quiet": (PLAIN, 1.3), "busy": (TORCH, 1.0)}
    assert [(row["against"], row["goal"]) for row in goals] == [expected[load]]
    assert goals[0]["figure"] > 0
    assert goals[0]["met"] is None  # the sizes are not the goal's


@pytest.mark.slow
def test_a_case_that_is_not_there_is_refused():
    done = run("--only", "dense 3x3")
    assert done.returncode == 2
    assert "--only 'dense 3x3' matches no case; choose from: dense 2048x32000, " in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_library("jemalloc") is None, reason="jemalloc is not installed")
def test_jemalloc_serves_all(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    done = run("--only", "dense 512x128256", "--allocator", "jemalloc", "--save", str(file))
    assert done.returncode == 0, done.stderr
    assert "ERROR: ld.so" not in done.stderr
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {(row["allocator"], row["malloc_conf"]) for row in rows} == {
        ("jemalloc", "dirty_decay_ms:-1,muzzy_decay_ms:-1")
    }
    goals = [row for row in rows if row["kind"] == "goal"]
    assert [(row["against"], row["goal"]) for row in goals] == [(TORCH, 0.25)]


@pytest.mark.parametrize(
    ("library", "preloaded"),
    [(None, ""), ("libjemalloc.so.2", "libjemalloc.so.2")],
    ids=["absent", "refused"],
)
def test_without_jemalloc_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str | None, preloaded: str
):
    monkeypatch.setattr(machine, "find_library", lambda _: library)
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    with pytest.raises(SystemExit):
        command_line.main(["--quick", "--allocator", "jemalloc"])
    assert capsys.readouterr().err.endswith(
        "error: --allocator jemalloc: jemalloc cannot be preloaded: install it where the loader finds it "
        "(libjemalloc2)\n"
    )


@pytest.mark.parametrize(("native", "measured"), [(True, ["bf16, linear 2048x512x32000"]), (False, [])])
def test_products_in_bfloat16_need_its_instructions(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    native: bool,
    measured: list[str],
):
    cases: list[str] = []
    monkeypatch.setattr(command_line, "measure", lambda case, *_: cases.append(case.name) or [])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": native})
    command_line.main(["--quick", "--only", "bf16, linear", "--save", str(tmp_path / "rows.jsonl")])
    assert cases == measured
    left_out = "bf16, linear 2048x512x32000: left out, as this CPU has no instructions for bfloat16"
    assert (left_out in capsys.readouterr().out) is not native


@pytest.mark.parametrize(("label", "code"), [(OURS, 1), (TORCH, 0)])
def test_only_a_failure_of_ours_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str, code: int
):
    failed = [Measurement(entrant(label), failure="wrong loss")]
    monkeypatch.setattr(command_line, "measure", lambda *_: failed)
    file = tmp_path / "new" / "rows.jsonl"
    assert command_line.main(["--only", "dense 128x10", "--save", str(file)]) == code
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert (rows[0]["provider"], rows[0]["failure"]) == (label, "wrong loss")
    assert [row["met"] for row in rows[1:]] == [None]


def test_quantiles():
    assert results.quantiles([5.0, 1.0, 2.0, 3.0, 4.0, 60.0]) == (2.0, 3.5, 5.0)
    assert results.quantiles([7.0]) == (7.0, 7.0, 7.0)


def test_a_time_ratio_is_taken_within_rounds():
    """Ours is at its slowest where both are, torch not: the ratio of the medians would be 5."""
    ours, torch_ = (1.0, 10.0, 10.0), (2.0, 20.0, 2.0)
    assert results.time_ratio(ours, torch_) == 0.5


@pytest.mark.parametrize(
    ("goal", "figure", "met"),
    [
        (Goal("time", TORCH, 0.5), 0.5, True),
        (Goal("time", TORCH, 0.49), 0.5, False),
        (Goal("time", PLAIN, 1.0), None, None),
        (Goal("peak", TORCH, 0.5), 0.4, True),
        (Goal("peak", None, 1.01), 300 / 264, False),
        (Goal("peak beyond the gradients", TORCH, 0.1), 36 / 486, True),
    ],
)
def test_goals_are_judged(goal: Goal, figure: float | None, met: bool | None):
    missing = Measurement(entrant(PLAIN), failure="ImportError: no")
    case = Case("case", (entrant(), entrant(TORCH)), (goal,))
    found = [measured(OURS, (1.0, 2.0), peak=300), measured(TORCH, (2.0, 4.0), peak=750), missing]
    [judged] = results.judge(case, found, device="cpu", load="quiet", allocator="system", quick=False)
    assert (judged.figure, judged.met) == (figure and pytest.approx(figure), met)
    assert results.judge(case, found, device="cpu", load="busy", allocator="system", quick=False) == []
    assert results.judge(case, found, device="cpu", load="quiet", allocator="jemalloc", quick=False) == []
    assert results.judge(case, found, device="cuda", load="quiet", allocator="system", quick=False) == []
    assert (
        results.judge(case, found, device="cpu", load="quiet", allocator="system", quick=True)[0].met is None
    )


def test_nothing_beyond_the_gradients_is_no_ratio():
    assert results.peak_ratio(3, 0) is None


def test_tables_show_ratios_to_the_baseline_and_verdicts():
    case = Case("case", (entrant(), entrant(TORCH)), (Goal("time", TORCH, 0.5), Goal("time", PLAIN, 2.0)))
    found = [measured(OURS, (1.0, 1.0), peak=3 * 2**20), measured(TORCH, (1234.5, 1234.5), peak=2**19)]
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(case_table(case, found))
    console.print(
        goal_table(results.judge(case, found, device="cpu", load="quiet", allocator="system", quick=False))
    )
    lines = [re.split(r" {2,}", line.strip()) for line in console.export_text().splitlines()]
    ours = ["labelsmooth", "1", "1 to 1", "0.00081", "3 MiB", "3 MiB", "6"]
    torch_ = ["torch", "1234", "1234 to 1234", "1", "512 KiB", "512 KiB", "1"]
    verdicts = [
        ["case", "labelsmooth", "time", "torch", "≤ 0.5", "0.00081", "met"],
        ["case", "labelsmooth", "time", "torch plain", "≤ 2", "-"],
    ]
    assert [line for line in lines if line[0] in (OURS, TORCH)] == [ours, torch_]
    assert [line[: len(v)] for line, v in zip(lines[-2:], verdicts, strict=True)] == verdicts


def test_rows_carry_the_facts_and_the_failures():
    case = Case("case", (entrant(), entrant(TORCH)), (Goal("time", TORCH, 0.5),))
    found = [measured(OURS, (1.0, 3.0)), Measurement(entrant(TORCH), failure="ImportError: no")]
    judged = results.judge(case, found, device="cpu", load="quiet", allocator="system", quick=False)
    ours, theirs, goal = results.rows(case, found, judged, {"commit": "abc"})
    assert ours["ms"] == 2.0
    assert ours["ratio"] is None
    assert theirs["failure"] == "ImportError: no"
    assert "ms" not in theirs
    assert (goal["kind"], goal["figure"], goal["met"]) == ("goal", None, None)
    assert {row["commit"] for row in (ours, theirs, goal)} == {"abc"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_refer_to_what_they_measure(case: Case):
    labels = [e.label for e in case.entrants]
    assert len(set(labels)) == len(labels)
    assert {e.baseline for e in case.entrants} <= set(labels)
    assert {g.entrant for g in case.goals} <= set(labels)
    compiled_too = {g.against for g in case.goals if g.device == "cpu" and g.against}
    assert compiled_too <= set(labels)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name.startswith("growth")], ids=lambda case: case.name
)
def test_growth_is_fourfold_small_or_not(case: Case):
    for sized in (case, case.small()):
        for base, rows, classes in zip(*(iter(sized.entrants),) * 3, strict=True):
            assert rows.baseline == classes.baseline == base.label
            assert (rows.size.rows, rows.size.classes) == (4 * base.size.rows, base.size.classes)
            assert (classes.size.rows, classes.size.classes) == (base.size.rows, 4 * base.size.classes)


def test_three_products_are_a_heads():
    h, weight = torch.arange(6.0).view(3, 2), torch.arange(8.0).view(4, 2)
    step = LINEAR[PRODUCTS].build()
    at = step(h, weight, torch.zeros(3)).data_ptr()
    found = step(h, weight, torch.zeros(3))
    assert found.equal((h @ weight.T).T @ h)
    assert found.data_ptr() == at  # in memory already in use


def test_who_fails_or_errs_is_left_out_and_the_others_are_measured():
    def broken():
        raise ImportError("not here\nand more")

    providers = (
        DENSE[TORCH],
        Provider(name="absent", build=broken),
        Provider(name="wrong", build=lambda: F.cross_entropy),
        Provider(name="on CUDA", build=broken, cuda_only=True),
    )
    case = Case("case", tuple(Entrant(p.name, p, SIZE, TORCH) for p in providers))
    said: list[str] = []
    right, absent, wrong = measure(case, "cpu", QUICK, said.append)
    assert right.failure is None
    assert len(right.times) >= QUICK.min_rounds
    assert absent.failure == "ImportError: not here"
    assert wrong.failure is not None
    assert wrong.failure.startswith("wrong loss")
    assert said[:2] == ["absent left out: ImportError: not here", f"wrong left out: {wrong.failure}"]


@pytest.mark.parametrize(
    ("rounds", "seconds", "enough"),
    [(5, 9.9, False), (5, 10.0, True), (4, 10.0, False), (3, 30.0, True), (2, 99.0, False), (7, 0.0, True)],
)
def test_rounds_go_on_until_the_seconds_are_over(rounds: int, seconds: float, enough: bool):
    assert Effort(seconds=10.0, few_rounds=3, min_rounds=5, max_rounds=7).enough(rounds, seconds) is enough


def test_all_take_one_turn_in_each_round():
    calls: list[int] = []
    effort = Effort(seconds=0.0, few_rounds=4, min_rounds=4, max_rounds=4, sample_ms=0.0)
    times = in_turns([lambda i=i: calls.append(i) for i in range(3)], "cpu", effort)
    assert [len(t) for t in times] == [4, 4, 4]
    rounds = [calls[-12:][start : start + 3] for start in range(0, 12, 3)]
    assert [sorted(r) for r in rounds] == [[0, 1, 2]] * 4
    assert len({tuple(r) for r in rounds}) > 1


def test_the_peak_is_what_is_held_at_once():
    def step():
        a = torch.empty(1000, dtype=torch.float64)
        del a
        b = torch.empty(500, dtype=torch.float64), torch.empty(250, dtype=torch.float64)
        del b

    assert peak(step, "cpu") == 8000


def test_the_cores_are_busy_until_the_end():
    with busy(2) as spinning:
        assert [process.poll() for process in spinning] == [None, None]
    assert None not in [process.poll() for process in spinning]


def test_the_load_ends_with_the_run_however_it_ends():
    """The number is no process's, so that this one is not the parent it expects."""
    done = subprocess.run([sys.executable, "-c", SPIN, "-1"], timeout=30)
    assert done.returncode == 0


def test_a_file_is_named_by_machine_time_and_commit():
    about: dict[str, object] = {
        "device": "Some CPU(R) @ 2.6GHz",
        "cores": 2,
        "utc": "2026-01-02T03:04:05+00:00",
        "commit": "abc1234",
        "load": "quiet",
        "allocator": "system",
    }
    assert file_name(about) == "some-cpu-r-2-6ghz-2-cores-20260102T0304-abc1234.jsonl"
    assert file_name(about | {"load": "busy"}).endswith("-abc1234-busy.jsonl")
    assert file_name(about | {"allocator": "jemalloc"}).endswith("-abc1234-jemalloc.jsonl")


def test_every_provider_is_in_a_case():
    used = {e.provider for case in CASES for e in case.entrants}
    assert used == {p for table in (DENSE, LINEAR, GENERAL, GENERAL_LINEAR) for p in table.values()}
