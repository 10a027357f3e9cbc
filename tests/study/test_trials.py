"""What is kept of a study: each run once, whole, and never in the place of another."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.exceptions import StorageInternalError
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from labelsmooth.study.arms.specs import parse
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import Fit, FitResult
from labelsmooth.study.trials.files import Job, load, save, save_model
from labelsmooth.study.trials.ledger import Ledger

from . import made_up
from .made_up import LinearFit, bare, ledger

JOB = Job("ls:eps=0.1", 3)


def finish(ledger: Ledger, job: Job = JOB, write: bool = True) -> None:
    assert ledger.claim(job)
    if write:
        save(ledger.path(job), bare(made_up.hard(), job.seed))
    ledger.finish(job, 0.5)


def is_done(ledger: Ledger, job: Job = JOB) -> bool:
    return ledger.read(job) is not None


def test_a_finished_run_is_done_here_and_in_the_next_process(tmp_path: Path):
    first = ledger(tmp_path)
    assert not is_done(first)
    finish(first)
    assert is_done(first)
    assert is_done(ledger(tmp_path))


@pytest.mark.slow
def test_a_run_without_its_file_is_not_done(tmp_path: Path):
    first = ledger(tmp_path)
    finish(first, write=False)
    assert not is_done(first)
    finish(first)
    first.path(JOB).unlink()
    assert not is_done(first)
    assert ledger(tmp_path).claim(JOB)


def test_a_whole_file_is_done_whatever_became_of_its_process(tmp_path: Path):
    first = ledger(tmp_path)
    assert first.claim(JOB)
    assert not is_done(first)
    save(first.path(JOB), bare(made_up.hard(), 3))
    first.give_up()
    assert is_done(ledger(tmp_path))


def test_a_run_that_cannot_be_given_up_is_not_done_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise StorageInternalError("database is locked")  # by a write that Ctrl-C has cut off

    first = ledger(tmp_path)
    assert first.claim(JOB)
    monkeypatch.setattr("optuna.storages.RDBStorage.set_trial_state_values", fail)
    first.give_up()
    assert not is_done(first)


def test_runs_are_told_apart_by_every_digit_of_an_option(tmp_path: Path):
    arms = ["hard", "kl:eps=0.1", *(f"ls:eps={eps}" for eps in (0.1, 0.1 + 1e-9, 1 / 3, 1e-5, 1))]
    jobs = {Job(arm, seed) for arm in map(str, map(parse, arms)) for seed in (1, 3, 10)}
    assert len(jobs) == len(arms) * 3
    first = ledger(tmp_path)
    assert len({first.path(job) for job in jobs}) == len(jobs)
    for job in (JOB, Job("kl:eps=0.1", 1)):
        finish(first, job)
    assert {job for job in jobs if is_done(ledger(tmp_path), job)} == {JOB, Job("kl:eps=0.1", 1)}


def test_files_are_named_as_a_person_would():
    path = ledger(Path("folder"), name="Scarce,  noisy!").path
    assert path(Job("hard", 2)).name == "hard-seed2.safetensors"
    assert path(Job("ls:eps=0.05", 0)).name == "ls-eps=0.05-seed0.safetensors"
    assert path(JOB).parent.name.startswith("scarce-noisy-")


def test_files_have_names_that_every_system_allows():
    for arm in ARMS:
        assert not set(ledger(Path("folder")).path(Job(str(parse(arm)), 0)).name) & set('<>:"/\\|?* ')


@pytest.mark.parametrize("name", ["../../up", "/etc/x", "a\0b", "x" * 500, "日本語", ".."])
def test_any_name_stays_within_the_folder(name: str, tmp_path: Path):
    first = ledger(tmp_path, name=name)
    finish(first)
    assert first.path(JOB).parent.parent == tmp_path / "trials"
    assert is_done(ledger(tmp_path, name=name))


# What a run depends on: its fit's name, source and fields, and what the caller says it depends on.


def other(criterion: Criterion, seed: int) -> FitResult:
    return bare(criterion, seed + 1)


def counting(start: int) -> Callable[[Criterion, int], FitResult]:
    def fit(criterion: Criterion, seed: int) -> FitResult:
        return bare(criterion, seed + start)

    return fit


@dataclass(frozen=True)
class Scaled:
    factor: float

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        return bare(criterion, seed)


def with_factor(criterion: Criterion, seed: int, *, factor: float) -> FitResult:
    return bare(criterion, seed)


def digest(fit: Fit = bare, name: str = "a name", settings: Mapping[str, object] | None = None) -> str:
    return ledger(Path("nowhere"), fit, name, settings).digest


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ({"fit": bare}, {"fit": bare}),
        ({"fit": LinearFit(steps=4)}, {"fit": LinearFit(steps=4)}),
        (
            {"fit": functools.partial(with_factor, factor=2.0)},
            {"fit": functools.partial(with_factor, factor=2.0)},
        ),
        ({"fit": counting(1)}, {"fit": counting(1)}),
        ({"settings": {"a": 1, "b": Path("x")}}, {"settings": {"b": Path("x"), "a": 1}}),
        ({"settings": None}, {"settings": {}}),
    ],
)
def test_the_same_study_has_the_same_digest(one: dict, another: dict):
    assert digest(**one) == digest(**another)


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ({"fit": bare}, {"fit": other}),
        ({"fit": LinearFit(steps=4)}, {"fit": LinearFit(steps=5)}),
        ({"fit": Scaled(1.0)}, {"fit": Scaled(2.0)}),
        ({"fit": Scaled(3.0)}, {"fit": LinearFit(steps=3)}),
        (
            {"fit": functools.partial(with_factor, factor=2.0)},
            {"fit": functools.partial(with_factor, factor=3.0)},
        ),
        ({"fit": functools.partial(with_factor, factor=2.0)}, {"fit": functools.partial(bare)}),
        ({"name": "a"}, {"name": "b"}),
        ({"settings": {"data": 1}}, {"settings": {"data": 2}}),
        ({"settings": {"data": 1}}, {"settings": {}}),
        # Names that the digest has for its own parts.
        ({"settings": {"fit": 1}, "fit": bare}, {"settings": {"fit": 1}, "fit": other}),
        ({"settings": {"name": 1}, "name": "a"}, {"settings": {"name": 1}, "name": "b"}),
    ],
)
def test_another_study_has_another_digest(one: dict, another: dict):
    assert digest(**one) != digest(**another)


def test_a_fit_typed_at_a_prompt_is_told_by_its_code():
    def typed(text: str) -> Fit:
        names: dict[str, Fit] = {}
        exec(text, names)
        return names["fit"]

    def instance(number: int) -> Fit:
        return typed(f"class F:\n def __call__(self, criterion, seed): return {number}\nfit = F()")

    one = "def fit(criterion, seed): return 1"
    assert digest(typed(one)) == digest(typed(one)) != digest(typed(one.replace("1", "2")))
    assert digest(instance(1)) == digest(instance(1)) != digest(instance(2))


@pytest.mark.parametrize("changed", ["fit", "name", "settings"])
def test_what_changed_starts_anew_and_what_returns_goes_on(changed: str, tmp_path: Path):
    others = {"fit": {"fit": other}, "name": {"name": "another"}, "settings": {"settings": {"data": 2}}}
    finish(ledger(tmp_path))
    assert not is_done(ledger(tmp_path, **others[changed]))
    assert is_done(ledger(tmp_path))


@pytest.mark.slow
def test_a_database_elsewhere_keeps_no_file_here(tmp_path: Path):
    storage = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    folder = tmp_path / "study"
    finish(ledger(folder, storage=storage))
    assert is_done(ledger(folder, storage=storage))
    assert not (folder / "trials.db").exists()
    # One database may serve several folders: the tensors are those of the folder.
    other = ledger(tmp_path / "other", storage=storage)
    assert not is_done(other)
    assert other.claim(JOB)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["nothing", "nosuch://host/name", "sqlite:////no/such/folder/x.db"])
def test_a_database_that_does_not_open_is_named(storage: str, tmp_path: Path):
    with pytest.raises(ValueError, match=f"storage must be a database URL .*{storage}"):
        ledger(tmp_path, storage=storage).open()


# The tensors.


def whole() -> FitResult:
    weight = torch.arange(12.0).reshape(3, 4)
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    return {
        "val": (logits.t().contiguous().t(), labels),  # not contiguous
        "test": (logits.clone().requires_grad_(), labels.to(torch.int32)),
        "train": (logits.bfloat16(), labels.to(torch.uint8)),
        "clean": labels,
        "history": {"loss": [1.5, 0.25, math.inf], "none yet": []},
        "features": logits.double()[:, ::2],  # not contiguous
        "head": torch.nn.Parameter(weight),
        # Two names of one tensor, a view, a short type, a number, a flag; names like the study's own.
        "state": {
            "a.weight": weight,
            "b.weight": weight,
            "view": weight[:, 1],
            "short": weight.bfloat16(),
            "steps": torch.tensor(7),
            "flag": torch.tensor([True, False]),
            "val.logits": weight,
            "state.x": weight,
        },
    }


def test_a_run_is_read_back_as_it_was(tmp_path: Path):
    given: dict[str, Any] = {**whole()}
    save(tmp_path / "deep" / "run.safetensors", whole())
    run = load(tmp_path / "deep" / "run.safetensors")
    for split in ("val", "test", "train"):
        logits, labels = getattr(run, split)
        assert torch.equal(logits, given[split][0].detach().float())
        assert torch.equal(labels, given[split][1].long())
        # So that neither a temperature rounds logits again, nor torch refuses the labels.
        assert (logits.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert not logits.requires_grad
    for name in ("clean", "features", "head"):
        assert_same(getattr(run, name), given[name].detach())
    assert run.history == given["history"]
    assert run.state.keys() == given["state"].keys()
    for name, tensor in given["state"].items():
        assert_same(run.state[name], tensor)


def assert_same(tensor: Tensor, expected: Tensor) -> None:
    assert tensor.dtype == expected.dtype
    assert torch.equal(tensor, expected)


def test_double_logits_stay_double(tmp_path: Path):
    result = bare(made_up.hard(), 0)
    logits, labels = result["val"]
    save(tmp_path / "run.safetensors", {**result, "val": (logits.double() / 3, labels)})
    assert torch.equal(load(tmp_path / "run.safetensors").validation[0], logits.double() / 3)


def test_what_a_fit_did_not_return_is_none_or_empty(tmp_path: Path):
    save(tmp_path / "run.safetensors", bare(made_up.hard(), 0))
    run = dataclasses.asdict(load(tmp_path / "run.safetensors"))
    assert [name for name, value in run.items() if value is None] == [
        "train",
        "clean",
        "features",
        "head",
        "ood",
        "transfer",
    ]
    assert run["state"] == run["history"] == {}


def test_a_write_that_fails_leaves_no_file_that_is_taken_for_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail_half_way(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")

    path = tmp_path / "run.safetensors"
    monkeypatch.setattr("labelsmooth.study.trials.files.save_file", fail_half_way)
    with pytest.raises(OSError, match="no space"):
        save(path, bare(made_up.hard(), 0))
    assert not path.exists()


def test_nothing_that_is_kept_can_run_code(tmp_path: Path):
    fit = LinearFit()
    first = ledger(tmp_path, fit)
    assert first.claim(JOB)
    save(first.path(JOB), fit(made_up.hard(), JOB.seed))
    first.finish(JOB, 0.5)
    save_model(tmp_path, "a name", JOB, load(first.path(JOB)), fit)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} == {".safetensors", ".json", ".db"}
    for path in kept:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                assert list(file.keys())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert path.read_bytes().startswith(b"SQLite format 3\0")


def test_a_model_is_kept_with_what_it_needs(tmp_path: Path):
    fit = LinearFit(steps=2)
    save(tmp_path / "run.safetensors", fit(made_up.hard(), 3))
    outcome = load(tmp_path / "run.safetensors")
    save_model(tmp_path, "Scarce, noisy", JOB, outcome, fit)
    content = json.loads((tmp_path / "models" / "scarce-noisy.json").read_text())
    assert content == {
        "setting": "Scarce, noisy",
        "arm": "ls:eps=0.1",
        "seed": 3,
        "temperature": outcome.temperature,
        "fit": {"steps": 2, "description": "made-up rows"},
    }
    state = load_file(tmp_path / "models" / "scarce-noisy.safetensors")
    assert state.keys() == {"weight"}
    assert torch.equal(state["weight"], outcome.state["weight"])


def test_without_a_state_there_is_no_model(tmp_path: Path):
    outcome = made_up.outcomes([0.0], [0])[Job("hard", 0)]
    save_model(tmp_path, "a", JOB, outcome, bare)
    assert not (tmp_path / "models").exists()
