"""The pages that compare with peers have the numbers of the measurements on record."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.providers import OURS, PLAIN, TORCH
from docs import comparison_table as comparison
from docs.comparison_table import Row, duration, measured, memory, size
from docs.methods_table import rendered

ROOT = Path(__file__).parent.parent
DENSE, LINEAR = "dense 2048x32000", "linear 2048x512x32000"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def peak(row: Row) -> str:
    return memory(row["peak_bytes"])


def beyond(row: Row) -> str:
    return memory(row["peak_bytes"] - row["gradient_bytes"])


def three(case: str) -> tuple[Row, Row, Row]:
    """Of labelsmooth, of torch smoothed, of torch plain."""
    ours, theirs, plain = (measured("quiet", case, name) for name in (OURS, TORCH, PLAIN))
    return ours, theirs, plain


def test_the_page_is_up_to_date() -> None:
    text = text_of("docs/explanation/comparison.md")
    tables = comparison.TABLES
    assert rendered(comparison.PAGE, text, tables) == text, "run python -m docs.comparison_table"


def test_each_case_comes_from_the_newest_run_that_has_it() -> None:
    for load in ("quiet", "busy"):
        runs = comparison.runs(load)
        assert [run.facts["utc"] for run in runs] == sorted((r.facts["utc"] for r in runs), reverse=True)
        cases = [case for run in runs for case in run.cases]
        assert len(cases) == len(set(cases))
        assert set(cases) == set(comparison.SIDE_BY_SIDE)


def test_where_plain_torch_is_faster_is_what_the_page_says() -> None:
    sizes = {size(ours) for ours, peer, _ in comparison.faster("quiet") if peer["provider"] == PLAIN}
    assert sizes == {"128 x 10"}
    assert "faster for 128 x 10" in text_of("docs/explanation/comparison.md")


def test_no_peer_is_ahead_in_memory() -> None:
    for load in ("quiet", "busy"):
        for run in comparison.runs(load):
            for case in run.cases.values():
                least = min(case[name]["peak_bytes"] for name in case if name in comparison.PEERS)
                assert case[OURS]["peak_bytes"] <= 1.02 * least


def test_no_row_is_of_a_gpu() -> None:
    for load in ("quiet", "busy"):
        for run in comparison.runs(load):
            assert re.search("Processor|EPYC|CPU", run.facts["device"])


def test_the_table_of_the_readme() -> None:
    readme = text_of("README.md")
    ours, theirs, _ = three(DENSE)
    cells = f"{duration(theirs['ms'])}, {peak(theirs)} | **{duration(ours['ms'])}, {peak(ours)}** |"
    assert re.search(rf"^\| loss and gradient of 2048 x 32,000 .*\| {re.escape(cells)}$", readme, re.M)
    ours, theirs, _ = three(LINEAR)
    cells = f"{duration(theirs['ms'])}, {beyond(theirs)} | **{duration(ours['ms'])}, {beyond(ours)}**:"
    assert re.search(rf"^\| linear head, 2048 x 512 to 32,000.*\| {re.escape(cells)} ", readme, re.M)


@pytest.mark.parametrize("case", [c for c in comparison.SIDE_BY_SIDE if not c.startswith("bf16")])
def test_the_table_of_the_engines(case: str) -> None:
    page = text_of("docs/explanation/engines.md")
    rows = three(case)
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {size(rows[0])} |"))
    found = line.replace("*", "").strip("| ").split(" | ")[1:]
    for row, cell in zip(rows, found, strict=True):
        time, _, bytes_ = cell.partition(", ")
        assert time == duration(row["ms"])
        shown = beyond(row) if row.get("D") else peak(row)
        assert bytes_.removesuffix(" beyond the gradients") in ("", shown)


def test_the_busy_times_of_the_engines() -> None:
    pair = [duration(measured("busy", "dense 4096x100", name)["ms"]) for name in (OURS, TORCH)]
    large = [measured("busy", DENSE, name)["ms"] / 1000 for name in (OURS, TORCH)]
    words = (
        f"4096 x 100 takes {pair[0]} against torch's {pair[1]}, "
        f"and 2048 x 32,000 takes {large[0]:.2f} s against {large[1]:.2f} s"
    )
    assert words in " ".join(text_of("docs/explanation/engines.md").split())


def test_a_step_of_trainer() -> None:
    """The README and the page of Transformers have the memory on record."""
    (path,) = (ROOT / "benchmarks" / "results").glob("trainer-*.jsonl")
    rows = {row["way"]: row for row in map(json.loads, path.read_text().splitlines())}
    mib = {way: f"{row['peak_mib']:.0f} MiB" for way, row in rows.items()}
    readme = text_of("README.md")
    assert f"| {mib['label_smoothing_factor']} | **{mib['smooth']}** |" in readme
    page = text_of("docs/how_to/transformers.md").replace("*", "").replace("`", "")
    for way in rows:
        assert re.search(rf"^\| {way}(, unsmoothed)? \| {mib[way]} \|", page, re.M), way
