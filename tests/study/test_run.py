"""A study runs to its end, goes on where it stopped, and gives the same numbers each time."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from labelsmooth.calibration import fit_temperature
from labelsmooth.study import DigitsFit, Fit, FitResult, Results, run
from labelsmooth.study.fit import Criterion
from labelsmooth.study.trials import load
from labelsmooth.study.verdict import answer

from . import made_up
from .made_up import LinearFit, bare, counted

DIGITS = DigitsFit(rows=60, epochs=2, hidden=8)


def study(fit: Any, folder: Path, **options: Any) -> Results:
    return run(fit, **{"eps": [0.1], "seeds": 2, "output": folder, "progress": False, **options})


def trial_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("trials/*/*"))


@pytest.mark.usefixtures("no_report")
def test_every_smoothing_is_trained_with_every_seed_once(tmp_path: Path):
    fit, calls = counted()
    results = study(fit, tmp_path, eps=[0.3, 0.1, 0.1, 0], seeds=3)
    (setting,) = results.settings
    assert [arm.eps for arm in setting.arms] == [0, 0.1, 0.3]
    assert sorted(calls) == [(eps, seed) for eps in (0.0, 0.1, 0.3) for seed in range(3)]
    # In the order that completes pairs first: what an interruption leaves can be compared.
    assert [seed for _, seed in calls] == sorted(seed for _, seed in calls)
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


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("lost", ["results.json", "report.html"])
def test_what_was_lost_is_made_again_without_training(lost: str, tmp_path: Path):
    fit, calls = counted()
    first = study(fit, tmp_path)
    (tmp_path / lost).unlink()
    calls.clear()
    assert study(fit, tmp_path) == first
    assert calls == []
    assert (tmp_path / lost).exists()


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("interruption", "n"), [(KeyboardInterrupt, 0), (KeyboardInterrupt, 3), (RuntimeError, 5)]
)
def test_an_interrupted_study_goes_on(interruption: type[BaseException], n: int, tmp_path: Path):
    fit, calls = counted()
    limit = n

    def interrupted(criterion: Criterion, seed: int) -> FitResult:
        if len(calls) == limit:
            raise interruption("stopped here")
        return fit(criterion, seed)

    with pytest.raises(interruption, match="stopped here"):
        study(interrupted, tmp_path, seeds=3)
    assert len(trial_files(tmp_path)) == n
    assert not (tmp_path / "results.json").exists()

    first, limit = calls.copy(), -1
    calls.clear()
    results = study(interrupted, tmp_path, seeds=3)
    assert sorted(first + calls) == [(eps, seed) for eps in (0.0, 0.1) for seed in range(3)]
    assert results.settings == study(counted()[0], tmp_path / "at once", seeds=3).settings


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


@pytest.mark.usefixtures("no_report")
def test_another_fit_is_not_taken_for_the_earlier(tmp_path: Path):
    earlier = study(LinearFit(steps=2), tmp_path)
    later = study(LinearFit(steps=6), tmp_path)
    assert earlier.settings != later.settings
    assert later.settings == study(LinearFit(steps=6), tmp_path / "new").settings


def test_two_fresh_runs_and_two_workers_give_the_same_bytes(tmp_path: Path):
    written = []
    for name, workers in (("first", None), ("second", None), ("side by side", 2)):
        study(DIGITS, tmp_path / name, workers=workers)
        kept = sorted((tmp_path / name).rglob("*"))
        # Optuna's database holds the times of the runs; all else is the same, byte for byte.
        files = [path for path in kept if path.is_file() and path.name != "trials.db"]
        written.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    models = {"models/your-data.safetensors", "models/your-data.json"}
    assert {"results.json", "report.html"} | models < written[0].keys()
    assert len(written[0]) == 4 + 4
    assert written[0] == written[1]
    assert written[0] == written[2]


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

    arm = results.settings[0].hard if content["eps"] == 0 else results.settings[0].chosen
    assert (content["eps"], content["seed"]) == (arm.eps, arm.best_seed)
    (path,) = tmp_path.glob(f"trials/*/eps{arm.eps:g}-seed{arm.best_seed}.safetensors")
    outcome = load(path)
    from labelsmooth.study.data import digits

    x, y = digits().test
    with torch.no_grad():
        assert torch.equal(model(x), outcome.test[0])
    assert torch.equal(y, outcome.test[1])
    assert content["temperature"] == fit_temperature(*outcome.val)


@pytest.mark.usefixtures("no_report")
def test_pairs_start_from_the_same_weights_and_see_the_same_rows(tmp_path: Path):
    seen: list[list[float]] = []

    def fit(criterion: Criterion, seed: int) -> FitResult:
        seen.append([torch.rand(1).item(), float(np.random.rand()), random.random()])  # noqa: NPY002
        return bare(criterion, seed)

    study(fit, tmp_path)
    assert seen[0] == seen[1] != seen[2] == seen[3]


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


def test_what_a_fit_need_not_return_is_missing_from_the_report_alone(tmp_path: Path):
    study({"bare": bare}, tmp_path / "bare")
    page = (tmp_path / "bare" / "report.html").read_text()
    assert "Accuracy against eps" in page
    for absent in ("Training curves", "The penultimate layer", "memorised"):
        assert absent not in page
    assert not (tmp_path / "bare" / "models").exists()
    # One fit that returns more beside it, in either order.
    study({"bare": bare, "more": LinearFit()}, tmp_path / "both")
    page = (tmp_path / "both" / "report.html").read_text()
    for present in ("Training curves", "The penultimate layer", "memorised"):
        assert present in page


def altered(**changes: Any) -> Fit:
    """A whole result, but for this; a function is given the seed and the whole result's entry."""

    def fit(criterion: Criterion, seed: int) -> Any:
        result: dict[str, Any] = {**LinearFit()(criterion, seed)}
        for key, value in changes.items():
            result[key] = value(seed, result[key]) if callable(value) else value
        return result

    return fit


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


# Each with what is named: the fit, the part, the value or shape, and the rule.

FLAT, LABELS = torch.zeros(6, 4), torch.arange(6) % 4
PAIR = (FLAT, LABELS)
FORM = r'fit must return \{"val": \(logits, labels\), "test": \(logits, labels\)\}, got '
BAD_RETURNS: dict[str, tuple[Any, str]] = {
    "nothing": (None, FORM + "NoneType"),
    "a pair": (PAIR, FORM + "tuple"),
    "no test": ({"val": PAIR}, FORM + "no test"),
    "no val": ({"test": PAIR}, FORM + "no val"),
    "neither": ({}, FORM + "no test and no val"),
    "logits alone": ({"val": PAIR, "test": FLAT}, FORM + "Tensor for 'test'"),
    "three of them": ({"val": (FLAT, FLAT, LABELS), "test": PAIR}, FORM + "tuple for 'val'"),
    "lists": ({"val": PAIR, "test": (FLAT.tolist(), LABELS)}, FORM + "tuple for 'test'"),
    "None for labels": ({"val": (FLAT, None), "test": PAIR}, FORM + "tuple for 'val'"),
    "logits of 3 dimensions": (
        {"val": PAIR, "test": (FLAT[None], LABELS)},
        r"fit's 'test': logits must be .* \(N, K\), got torch.float32 \(1, 6, 4\)",
    ),
    "integer logits": (
        {"val": (FLAT.long(), LABELS), "test": PAIR},
        r"fit's 'val': logits .* got torch.int64",
    ),
    "no rows": (
        {"val": (FLAT[:0], LABELS[:0]), "test": PAIR},
        r"fit's 'val': logits must have at least one row",
    ),
    "labels of another length": (
        {"val": PAIR, "test": (FLAT, LABELS[:5])},
        r"fit's 'test': labels must be integers of shape \(6,\), got torch.int64 \(5,\)",
    ),
    "swapped": ({"val": (LABELS, FLAT), "test": PAIR}, r"fit's 'val': logits must be floating point"),
    "labels out of range": (
        {"val": PAIR, "test": (FLAT, LABELS + 1)},
        r"fit's 'test': labels must lie in \[0, 4\), got 1 to 4",
    ),
    "padded labels": (
        {"val": PAIR, "test": (FLAT, LABELS - 100)},
        r"fit's 'test': labels must lie in \[0, 4\), got -100 to -97",
    ),
    "logits that are NaN": (
        {"val": (FLAT + math.nan, LABELS), "test": PAIR},
        r"fit's 'val': logits must be finite, got nan",
    ),
    "logits that are infinite": (
        {"val": PAIR, "test": (FLAT - math.inf, LABELS)},
        r"fit's 'test': logits must be finite, got -inf",
    ),
    "classes that differ": (
        {"val": PAIR, "test": (FLAT[:, :3], LABELS % 3)},
        r"fit must return logits of the same K classes in every call, got \[3, 4\]",
    ),
    "bad training rows": (
        {"val": PAIR, "test": PAIR, "train": (FLAT, LABELS + 1)},
        r"fit's 'train': labels must lie in",
    ),
    "clean labels of other rows": (
        {"val": PAIR, "test": PAIR, "train": PAIR, "clean": LABELS[:3]},
        r"fit's 'clean' must be a tensor of shape \(6,\), got \(3,\)",
    ),
    "features of other rows": (
        {"val": PAIR, "test": PAIR, "features": FLAT[:3]},
        r"fit's 'features' must be a tensor of shape \(6, D\), got \(3, 4\)",
    ),
    "a head of other classes": (
        {"val": PAIR, "test": PAIR, "head": FLAT},
        r"fit's 'head' must be a tensor of shape \(4, D\), got \(6, 4\)",
    ),
    "features in a list": (
        {"val": PAIR, "test": PAIR, "features": FLAT.tolist()},
        r"fit's 'features' must be a tensor of shape \(6, D\), got list",
    ),
    "features and a head that do not fit": (
        {"val": PAIR, "test": PAIR, "features": FLAT[:, :2], "head": FLAT[:4]},
        r"fit's 'features' and 'head' must agree in D, got 2 and 4",
    ),
    "a history of tensors": (
        {"val": PAIR, "test": PAIR, "history": {"loss": [torch.tensor(1.0)]}},
        r"fit's 'history' must hold lists of Python numbers by name",
    ),
    "a history of numbers": (
        {"val": PAIR, "test": PAIR, "history": {"loss": 1.0}},
        r"fit's 'history' must hold lists of Python numbers by name",
    ),
    "a whole model": (
        {"val": PAIR, "test": PAIR, "state": torch.nn.Linear(2, 2)},
        r"fit's 'state' must hold tensors by name",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For studies that never come to results; a database takes longer to make than they take."""
    return tmp_path_factory.mktemp("bad")


@pytest.mark.parametrize("case", BAD_RETURNS)
def test_what_a_fit_returns_instead_is_named(case: str, folder: Path):
    returned, message = BAD_RETURNS[case]
    with pytest.raises(ValueError, match="^my fit: " + message):
        study({"my fit": lambda criterion, seed: returned}, folder, settings={"case": case})
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_rows_that_differ_between_calls_are_named(split: str, folder: Path):
    message = f"^my fit: fit must return the same '{split}' labels in every call"
    moved = altered(**{split: lambda seed, pair: (pair[0].roll(seed, 0), pair[1].roll(seed))})
    fewer = altered(**{split: lambda seed, pair: (pair[0][seed:], pair[1][seed:]), "features": None})
    for name, fit in (("moved", moved), ("fewer", fewer)):
        with pytest.raises(ValueError, match=message):
            study({"my fit": fit}, folder, settings={"case": (name, split)})


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "eps too large": ({"eps": [0.1, 1.5]}, r"eps must lie in \[0, 1\], got 1.5"),
    "eps negative": ({"eps": [-0.1]}, r"eps must lie in \[0, 1\], got -0.1"),
    "eps NaN": ({"eps": [math.nan]}, r"eps must lie in \[0, 1\], got nan"),
    "eps a string": ({"eps": ["0.1"]}, r"eps must be a number or a tensor, got str"),
    "no eps": ({"eps": []}, r"eps must hold at least one smoothing above 0, got \[\]"),
    "no smoothing": ({"eps": [0, 0.0]}, r"eps must hold at least one smoothing above 0, got \[0, 0.0\]"),
    "one seed": ({"seeds": 1}, r"seeds must be at least 2, got 1"),
    "no worker": ({"workers": 0}, r"workers must be at least 1, got 0"),
    "no fit": ({"fit": {}}, r"fit must name at least one fit, got none"),
    "names alike": ({"fit": {"a b": bare, "A-b": bare}}, r"fit must have names that differ .*, got a b, A-b"),
    "names without a letter": ({"fit": {"?!": bare}}, r"fit must have names that differ .*, got \?!"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_named_and_nothing_is_written(case: str, tmp_path: Path):
    options, message = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        study(**{"fit": bare, "folder": tmp_path / "new", **options})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"rows": 0},
        {"rows": 801},
        {"flipped": -0.1},
        {"flipped": 1.1},
        {"epochs": 0},
        {"batch_size": 0},
        {"hidden": 0},
    ],
)
def test_digits_that_cannot_be_are_named(fields: dict[str, Any]):
    (name,) = fields
    with pytest.raises(ValueError, match=rf"{name}.* must .* got .*{fields[name]}"):
        DigitsFit(**fields)


def test_digits_depend_on_the_seed_and_the_criterion_alone(one_thread: None):
    hard: Callable[..., torch.Tensor] = torch.nn.CrossEntropyLoss()
    with torch.random.fork_rng():
        results = []
        for criterion, seed in (
            (hard, 1),
            (hard, 1),
            (hard, 2),
            (torch.nn.CrossEntropyLoss(label_smoothing=0.5), 1),
        ):
            torch.manual_seed(seed)
            results.append(DIGITS(criterion, seed))
    first, same, other_seed, smoothed = results
    assert torch.equal(first["test"][0], same["test"][0])
    assert first["history"] == same["history"]
    assert not torch.equal(first["test"][0], other_seed["test"][0])
    assert not torch.equal(first["test"][0], smoothed["test"][0])
    assert torch.equal(first["clean"], smoothed["clean"])
    assert {len(curve) for curve in first["history"].values()} == {2}


@pytest.mark.usefixtures("no_report")
def test_progress_is_a_line_on_a_pipe_and_nothing_when_hidden(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    study({"[b]name": bare}, tmp_path / "shown", progress=True)
    printed = capfd.readouterr()
    assert (printed.out, printed.err.split()) == ("", ["[b]name:", "4", "runs", "done"])
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
