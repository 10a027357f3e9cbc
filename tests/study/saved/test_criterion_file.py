"""A criterion as a file: the same loss where the core alone is installed, and no code in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import labelsmooth
from labelsmooth import study
from labelsmooth.study import Criterion
from labelsmooth.study.arms.specs import parse
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.fits.criterion_file import load_criterion, read_receipt, receipt_of, write_criterion

FACTS = {
    "num_classes": 4,
    "epochs": 6,
    "counts": torch.tensor([5, 3, 2, 1]),
    "embeddings": torch.arange(12.0).view(4, 3).cos(),
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_the_same_from_its_file(arm: str, tmp_path: Path):
    write_criterion(tmp_path / "loss.json", arm, FACTS)
    here, there = Criterion(parse(arm).loss(FACTS)), load_criterion(tmp_path / "loss.json")
    assert (there.arm, set(there.facts)) == (str(parse(arm)), set(FACTS))
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 4
    for _ in range(6):
        assert torch.equal(here(z, y), there(z, y))
        here.end_epoch()
        there.end_epoch()
    assert not receipt_of(tmp_path / "loss.json").exists()  # nobody asked for one


def test_a_receipt_tells_what_was_made_of_it(tmp_path: Path):
    path = tmp_path / "loss.json"
    write_criterion(path, "ls", receipt=True)
    criterion = load_criterion(path)
    assert read_receipt(path) == (False, 0)
    for epochs in range(3):
        criterion(torch.zeros(2, 3), torch.tensor([0, 1]))
        assert read_receipt(path) == (True, epochs)
        criterion.end_epoch()
    assert read_receipt(path) == (True, 3)
    assert {p.name for p in tmp_path.iterdir()} == {"loss.json", "loss.json.receipt"}


BAD: dict[str, tuple[str, str]] = {
    "damage": ('{"arm": "ls', r"loss\.json is damaged, or not a criterion file"),
    "no arm": ("{}", r'must be like \{"arm": "ls:eps=0\.1", "facts": \{\}\}, got no arm'),
    "a list": ("[1]", "got no arm"),
    "another arm": ('{"arm": "sl"}', r"loss\.json: no arm is named 'sl'"),
    "another option": ('{"arm": "ls:eps=7"}', r"eps must be a number in \[0, 1\], got 7"),
    "no fact": (
        '{"arm": "ols"}',
        "arm ols needs the number of classes, K: add 'num_classes' to 'fac",
    ),
    "another fact": ('{"arm": "ls", "facts": {"K": 3}}', "facts must be among num_classes, .*, got .'K'."),
    "a fact of another type": (
        '{"arm": "ols", "facts": {"num_classes": "3"}}',
        "must be an integer, got '3'",
    ),
    "no numbers": ('{"arm": "unigram", "facts": {"counts": ["a"]}}', "counts must be a list of numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_criterion_file(case: str, tmp_path: Path):
    text, message = BAD[case]
    (tmp_path / "loss.json").write_text(text)
    with pytest.raises(ValueError, match=message) as told:
        load_criterion(tmp_path / "loss.json")
    assert str(tmp_path) in str(told.value)


def test_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"criterion file .*loss\.json"):
        load_criterion(tmp_path / "loss.json")


CORE = """
import sys

EXTRA = {extra!r}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRA:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import torch, labelsmooth
criterion = labelsmooth.load_criterion({path!r})
print(float(criterion(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]))))
"""


@pytest.mark.slow
def test_the_core_alone_is_enough(tmp_path: Path):
    path = tmp_path / "loss.json"
    path.write_text(json.dumps({"arm": "ls:eps=0.1"}))
    extra = {
        "jinja2",
        "joblib",
        "matplotlib",
        "optuna",
        "polars",
        "rich",
        "safetensors",
        "sklearn",
        "scipy",
        "tyro",
    }
    code = CORE.format(extra=extra, path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(0.3365, abs=1e-4)


def test_it_is_found_at_the_top():
    assert labelsmooth.load_criterion is load_criterion
    with pytest.raises(AttributeError, match="module 'labelsmooth' has no attribute 'load_criterions'"):
        labelsmooth.load_criterions  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_names_of_the_study_are_found_when_they_are_asked_for():
    for name in study.__all__:
        assert getattr(study, name) is not None
    assert set(study.__all__) <= set(dir(study))
    modules = {path.stem for path in Path(study.__file__).parent.iterdir()}
    assert not modules & set(study.__all__)  # or an import of the module would take the name's place
    with pytest.raises(AttributeError, match=r"module 'labelsmooth\.study' has no attribute 'runs'"):
        study.runs  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
