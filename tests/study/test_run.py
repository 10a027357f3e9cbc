"""A study runs to its end, goes on where it stopped, and gives the same numbers each time."""

import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from labelsmooth.study import DigitsFit, FitResult, Results
from labelsmooth.study.analysis.verdict import answer
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.trials.files import load
from labelsmooth.study.trials.workers import deaf_workers

from . import made_up
from .made_up import LinearFit, Log, altered, bare, counted, study, written

DIGITS = DigitsFit(rows=60, epochs=2, hidden=8)


def trial_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("trials/*/*.safetensors"))


@pytest.mark.usefixtures("no_report")
def test_every_smoothing_is_trained_with_every_seed_once(tmp_path: Path):
    fit, calls = counted()
    results = study(fit, tmp_path, eps=[0.3, 0.1, 0.1, 0], seeds=3)
    (setting,) = results.settings
    assert [arm.eps for arm in setting.arms] == [0, 0.1, 0.3]
    assert sorted(calls) == [(eps, seed) for eps in (0.0, 0.1, 0.3) for seed in range(3)]
    # First what tells whether the fit can be studied, then in the order that completes pairs: what an
    # interruption leaves can be compared.
    assert calls[:3] == [(0, 0), (0.1, 0), (0, 1)]
    assert [seed for _, seed in calls[3:]] == sorted(seed for _, seed in calls[3:])
    assert (setting.name, setting.description, setting.seeds, setting.test_rows) == ("your data", "", 3, 50)
    assert len(trial_files(tmp_path)) == 9


@pytest.mark.usefixtures("no_report")
def test_the_second_call_trains_nothing_and_returns_the_same(tmp_path: Path):
    fit, calls = counted()
    first = study(fit, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    calls.clear()
    assert study(fit, tmp_path) == first == Results.load(tmp_path)
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("lost", ["results.json", "report.html", "study.json"])
def test_what_was_lost_is_made_again_without_training(lost: str, emptied: bool, tmp_path: Path):
    fit, calls = counted()
    first = study(fit, tmp_path)
    (tmp_path / lost).unlink()
    if emptied:
        (tmp_path / lost).touch()
    calls.clear()
    assert study(fit, tmp_path) == first
    assert calls == []
    assert (tmp_path / lost).read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("interruption", "n"), [(KeyboardInterrupt, 0), (KeyboardInterrupt, 3), (RuntimeError, 3)]
)
def test_an_interrupted_study_goes_on(interruption: type[BaseException], n: int, tmp_path: Path):
    fit, calls = counted()
    limit = Log([n])

    def interrupted(criterion: Criterion, seed: int) -> FitResult:
        if len(calls) == limit[0]:
            raise interruption("stopped here")
        return fit(criterion, seed)

    with pytest.raises(interruption, match="stopped here"):
        study(interrupted, tmp_path, seeds=3)
    assert len(trial_files(tmp_path)) == n
    assert not (tmp_path / "results.json").exists()

    first, limit[0] = calls.copy(), -1
    calls.clear()
    results = study(interrupted, tmp_path, seeds=3)
    assert sorted(first + calls) == [(eps, seed) for eps in (0.0, 0.1) for seed in range(3)]
    assert results.settings == study(counted()[0], tmp_path / "at once", seeds=3).settings


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_more_seeds_and_more_smoothings_add_to_the_earlier(tmp_path: Path):
    fit, calls = counted()
    study(fit, tmp_path)
    calls.clear()
    study(fit, tmp_path, seeds=3)
    assert sorted(calls) == [(0, 2), (0.1, 2)]
    calls.clear()
    study(fit, tmp_path, eps=[0.1, 0.2], seeds=3)
    assert sorted(calls) == [(0.2, 0), (0.2, 1), (0.2, 2)]
    calls.clear()
    # Fewer again: nothing to train, and the numbers are of these alone.
    assert study(fit, tmp_path).settings == study(counted()[0], tmp_path / "new").settings
    assert calls == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_other_settings_never_mix(tmp_path: Path):
    fit, calls = counted()
    first = study(fit, tmp_path, settings={"data": 1})
    calls.clear()
    study(fit, tmp_path, settings={"data": 2})
    assert len(calls) == 4
    calls.clear()
    # The earlier is still there, and its own.
    assert study(fit, tmp_path, settings={"data": 1}) == first
    assert calls == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_another_fit_is_not_taken_for_the_earlier(tmp_path: Path):
    earlier = study(LinearFit(steps=2), tmp_path)
    later = study(LinearFit(steps=6), tmp_path)
    assert earlier.settings != later.settings
    assert later.settings == study(LinearFit(steps=6), tmp_path / "new").settings


@pytest.mark.slow
def test_two_fresh_runs_give_the_same_bytes(tmp_path: Path):
    first, second = (written(study(DIGITS, tmp_path / name)) for name in ("first", "second"))
    models = {"models/your-data.safetensors", "models/your-data.json"}
    assert {"results.json", "report.html", "study.json"} | models < first.keys()
    assert len(first) == 5 + 5
    assert first == second


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_a_mapping_of_fits_gives_a_setting_each_in_its_order(tmp_path: Path):
    results = study({"second": LinearFit(), "first": bare}, tmp_path)
    assert [(s.name, s.description) for s in results.settings] == [("second", "made-up rows"), ("first", "")]
    alone = study({"first": bare}, tmp_path / "alone")
    assert results.settings[1] == alone.settings[0]
    assert str(results).splitlines() == [f"{s.name}: {answer(s)}" for s in results.settings]


@pytest.mark.usefixtures("no_report")
def test_the_recommended_model_gives_the_logits_of_its_run(tmp_path: Path):
    results = study({"small digits": DIGITS}, tmp_path)
    content = json.loads((tmp_path / "models" / "small-digits.json").read_text())
    fit = DigitsFit(**content["fit"])
    assert fit == DIGITS
    model = fit.model()
    model.load_state_dict(load_file(tmp_path / "models" / "small-digits.safetensors"))

    arm = results.settings[0].hard if content["arm"] == "hard" else results.settings[0].chosen
    assert (content["arm"], content["seed"]) == (arm.name, arm.best_seed)
    (path,) = tmp_path.glob(f"trials/*/{arm.name.replace(':', '-')}-seed{arm.best_seed}.safetensors")
    outcome = load(path)
    from labelsmooth.study.data.digits import digits

    x, y = digits().test
    with torch.no_grad():
        assert torch.equal(model(x), outcome.test[0])
    assert torch.equal(y, outcome.test[1])
    assert content["temperature"] == outcome.temperature


@pytest.mark.usefixtures("no_report")
def test_pairs_start_from_the_same_numbers_and_each_seed_from_its_own(tmp_path: Path):
    seen: list[tuple[float, float, float]] = Log()

    def fit(criterion: Criterion, seed: int) -> FitResult:
        seen.append((torch.rand(1).item(), float(np.random.rand()), random.random()))  # noqa: NPY002
        return bare(criterion, seed)

    study(fit, tmp_path)
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    for one, another in zip(seen[0], seen[2], strict=True):
        assert one != another
    torch_generator = torch.Generator().manual_seed(1)
    assert seen[2] == (
        torch.rand(1, generator=torch_generator).item(),
        np.random.RandomState(1).rand(),
        random.Random(1).random(),
    )


def test_processes_that_are_started_do_not_hear_ctrl_c():
    # They would each print a traceback; the process that started them stops them.
    before = signal.getsignal(signal.SIGINT)
    ask = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT).name)"]
    with deaf_workers():
        assert subprocess.check_output(ask, text=True) == "SIG_IGN\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("fails", [False, True])
def test_the_generators_and_threads_are_left_as_they_were(fails: bool, tmp_path: Path):
    def fit(criterion: Criterion, seed: int) -> FitResult:
        torch.rand(1)
        random.random()
        if fails:
            raise RuntimeError("failed")
        return bare(criterion, seed)

    def state() -> tuple[object, ...]:
        numpy: Any = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
        return torch.get_rng_state().tolist(), random.getstate(), numpy.tolist()

    before, threads = state(), torch.get_num_threads()
    if fails:
        with pytest.raises(RuntimeError, match="failed"):
            study(fit, tmp_path)
    else:
        study(fit, tmp_path)
    assert state() == before
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_what_a_fit_need_not_return_is_missing_from_the_report_alone(tmp_path: Path):
    study({"bare": bare}, tmp_path / "bare")
    page = (tmp_path / "bare" / "report.html").read_text()
    assert "Accuracy against eps" in page
    for absent in ("Training curves", "Penultimate layer", "memorised"):
        assert absent not in page
    assert not (tmp_path / "bare" / "models").exists()
    # One fit that returns more beside it, in either order.
    study({"bare": bare, "more": LinearFit()}, tmp_path / "both")
    page = (tmp_path / "both" / "report.html").read_text()
    for present in ("Training curves", "Penultimate layer", "memorised"):
        assert present in page


@pytest.mark.slow
def test_a_history_may_end_early_or_be_empty(tmp_path: Path):
    early = altered(history=lambda seed, _: {"loss": [1.0] * (2 + seed), "nothing": []})
    study({"early": early}, tmp_path, eps=[0.1], seeds=3)
    page = (tmp_path / "report.html").read_text()
    # Seeds of 2, 3 and 4 epochs have a mean for 2.
    rows = [line for line in page.splitlines() if "<td>loss</td><td>0.1</td>" in line]
    assert "<td>0.1</td><td>2</td><td>1.0000</td>" in rows[0]
    assert "<td>0.1</td><td>3</td>" not in rows[0]
    assert "<td>nothing</td>" not in page


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_labels_may_be_integers_of_any_type(dtype: torch.dtype, tmp_path: Path):
    def retyped(seed: int, pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return pair[0].bfloat16().float(), pair[1].to(dtype)

    def short(seed: int, pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return pair[0].bfloat16(), pair[1]

    # Short logits are not rounded again by the temperature they are divided by.
    first = study(altered(val=retyped, test=retyped, train=retyped), tmp_path / "typed")
    assert first.settings == study(altered(val=short, test=short, train=short), tmp_path / "short").settings


def test_digits_depend_on_the_seed_and_the_criterion_alone(one_thread: None):
    hard, smooth = made_up.hard(), Criterion(torch.nn.CrossEntropyLoss(label_smoothing=0.5))
    with torch.random.fork_rng():
        results = []
        for criterion, seed in ((hard, 1), (hard, 1), (hard, 2), (smooth, 1)):
            torch.manual_seed(seed)
            results.append(DIGITS(criterion, seed))
    first, same, other_seed, smoothed = results
    assert torch.equal(first["test"][0], same["test"][0])
    assert first["history"] == same["history"]
    assert not torch.equal(first["test"][0], other_seed["test"][0])
    assert not torch.equal(first["test"][0], smoothed["test"][0])
    assert torch.equal(first["clean"], smoothed["clean"])
    assert {len(curve) for curve in first["history"].values()} == {2}


def test_help_tells_what_a_fit_returns():
    told = re.findall(r"^ +(\w+): ", FitResult.__doc__ or "", re.MULTILINE)
    assert told == list(FitResult.__annotations__)


def test_digits_end_each_epoch(one_thread: None):
    criterion = made_up.hard()
    DIGITS(criterion, 0)
    assert criterion.epochs == DIGITS.epochs


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_progress_is_a_line_for_each_run_on_a_pipe_and_nothing_when_hidden(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    study({"[b]name": bare}, tmp_path / "shown", progress=True)
    printed = capfd.readouterr()
    *lines, end = [line.split(", ") for line in printed.err.splitlines()]
    assert end == ["all 4 runs are done: comparing them", "writing the report"]
    assert printed.out == ""
    assert [line[:2] for line in lines] == [
        [f"{i} of 4 runs done", f"[b]name {arm} seed {seed}"]
        for i, (seed, arm) in enumerate([(0, "hard"), (0, "ls:eps=0.1"), (1, "hard"), (1, "ls:eps=0.1")], 1)
    ]
    assert [len(line) for line in lines] == [2, 2, 3, 2]
    assert re.fullmatch(r"about \d+ s left", lines[2][2])
    study({"[b]name": bare}, tmp_path / "hidden")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_results_are_read_back_as_they_were(tmp_path: Path):
    before = made_up.results(
        made_up.setting("a", hard={"memorised": 1.0}, flipped=0.2), made_up.setting("b"), folder=tmp_path
    )
    before.save()
    assert Results.load(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("content", ["", "{}", "[]", '{"digest": 1, "settings": [{}]}'])
def test_damaged_results_are_made_again_from_the_runs(content: str, tmp_path: Path):
    fit, calls = counted()
    first = study(fit, tmp_path)
    (tmp_path / "results.json").write_text(content)
    calls.clear()
    assert study(fit, tmp_path) == first
    assert calls == []


@pytest.mark.usefixtures("no_report")
def test_a_path_may_hold_what_means_something_in_a_url(tmp_path: Path):
    folder = tmp_path / "o ut?#%20 é"
    study(bare, folder)
    assert (folder / "trials.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
