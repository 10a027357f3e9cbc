"""What is seen while a study runs, with few arms and with many."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from labelsmooth.study.arms.specs import parse
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.report.progress import Progress, Summary
from labelsmooth.study.trials.files import Job

EVERY = [str(parse(name)) for name in ARMS]


def seen(arms: Sequence[str], accuracies: dict[tuple[str, int], float]) -> list[str]:
    progress = Progress(["plenty, noisy", "[b]other"], arms, 10, shown=False)
    for (arm, seed), accuracy in accuracies.items():
        progress.update("plenty, noisy", Job(arm, seed), Summary(0.5, accuracy, "rows"))
    file = io.StringIO()
    Console(file=file, width=80).print(progress)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_few_arms_have_a_column_each():
    arms = ["hard", "ls:eps=0.1", "kl:eps=0.1"]
    lines = seen(arms, {("hard", 0): 0.9, ("hard", 1): 0.8, ("ls:eps=0.1", 0): 0.92, ("kl:eps=0.1", 2): 0.7})
    text = "\n".join(lines)
    assert "test accuracy, each minus hard, in points; pairs so far" in text
    header = next(line for line in lines if "eps 0.1" in line)
    assert [cell.strip() for cell in header.split("┃")[1:-1]] == ["setting", "eps 0.1", "kl"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows == [["plenty, noisy", "+2.0 (1)", "-"], ["[b]other", "-", "-"]]


def test_of_many_arms_the_best_so_far_are_shown():
    accuracies = {("hard", seed): 0.9 for seed in (0, 1)}
    accuracies |= {(arm, 0): 0.9 - 0.01 * i for i, arm in enumerate(EVERY[1:], 1)}
    accuracies |= {("ols:eps=0.5", 0): 0.93, ("ols:eps=0.5", 1): 0.94, ("maxsup:eps=0.1", 0): 0.92}
    lines = seen(EVERY, accuracies)
    row = next(line for line in lines if "ols" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["plenty, noisy", "ols +3.5 (2)", "maxsup +2.0 (1)", "eps 0.1 -1.0 (1)"]
    assert max(map(len, lines)) <= 80
    assert "test accuracy, the best minus hard" in "\n".join(lines)


@pytest.mark.parametrize("arms", [EVERY[:3], EVERY])
def test_nothing_is_shown_of_what_has_no_pair(arms: Sequence[str]):
    lines = seen(arms, {(arms[1], 0): 0.9})
    row = next(line for line in lines if "plenty, noisy" in line and "│" in line)
    assert {cell.strip() for cell in row.split("│")[2:-1]} == {"-"}


@pytest.mark.parametrize(
    ("seconds", "left"), [(0.2, "2 s"), (10, "80 s"), (12, "2 min"), (450, "60 min"), (750, "1.7 h")]
)
def test_the_time_left_is_that_of_what_was_trained_here(
    seconds: float, left: str, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr("labelsmooth.study.report.progress.time.monotonic", lambda: now[0])
    progress = Progress(["a"], ["hard", "ls:eps=0.1"], 12, shown=False)
    file = io.StringIO()
    progress.update("a", Job("hard", 0), Summary(0.5, 0.9, "rows"), trained=False)
    Console(file=file, width=80).print(progress)
    for seed in (1, 2):  # the first load what the others find loaded
        now[0] += 1e6
        progress.update("a", Job("hard", seed), Summary(0.5, 0.9, "rows"))
    Console(file=file, width=80).print(progress)
    assert "left" not in file.getvalue()
    now[0] += seconds
    progress.update("a", Job("hard", 3), Summary(0.5, 0.9, "rows"))
    Console(file=file, width=80).print(progress)
    assert f"about {left} left" in file.getvalue()
    # It grows less while the next is trained.
    now[0] += 5 * seconds
    file = io.StringIO()
    Console(file=file, width=80).print(progress)
    assert "left" in file.getvalue()
    assert f"about {left} left" not in file.getvalue()
