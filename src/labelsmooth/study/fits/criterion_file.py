"""A criterion as a file: how its arm is spelled, and what that knows of the fit. It holds no code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from labelsmooth.study.arms.specs import FACTS, parse, select
from labelsmooth.study.fits.criterion import Criterion

LISTED = ("counts", "embeddings")  # facts that are tensors


def write_criterion(
    path: str | Path, arm: str, facts: Mapping[str, object] | None = None, *, receipt: bool = False
) -> None:
    """Write what :func:`load_criterion` reads.

    Args:
        path: The file.
        arm: As it is spelled.
        facts: What it knows of the fit, by name.
        receipt: Whether whoever loads it is to write down, beside it, that it was called.
    """
    plain = {
        name: fact.tolist() if isinstance(fact, Tensor) else fact for name, fact in (facts or {}).items()
    }
    content = {"arm": arm, "facts": plain, "receipt": receipt}
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_criterion(path: str | Path) -> Criterion:
    """Load the criterion that a study wrote for a trainer of its own process.

    Args:
        path: Of a file such as ``{"arm": "ls:eps=0.1", "facts": {"num_classes": 10}}``: an arm as
            ``labelsmooth arms`` lists them, and, where it needs to know more, ``num_classes``, ``epochs``,
            ``counts`` or ``embeddings``.

    Returns:
        What is called on a batch's logits and labels, and told by ``end_epoch()`` when an epoch is over.

    Raises:
        ValueError: naming the file, and what is wrong in it.
        OSError: if it cannot be read.

    Example:
        >>> _ = (folder / "loss.json").write_text('{"arm": "ls:eps=0.1"}')
        >>> criterion = load_criterion(folder / "loss.json")
        >>> criterion(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]))
        tensor(0.3365)
    """
    arm, facts, receipt = _read(Path(path))
    try:
        spec = parse(arm)
        if missing := sorted(spec.loss.facts - facts.keys()):
            raise ValueError(
                f"arm {arm} needs to know {FACTS[missing[0]]}: give {missing[0]!r} among 'facts'"
            )
        select([arm], {"facts": SimpleNamespace(**facts)})  # whether they are what they should be
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    loss = spec.loss(facts)
    return (
        _Signing(loss, str(spec), facts, receipt_of(path)) if receipt else Criterion(loss, str(spec), facts)
    )


def receipt_of(path: str | Path) -> Path:
    """Where whoever loads a criterion writes down that it was called."""
    return Path(f"{path}.receipt")


def read_receipt(path: str | Path) -> tuple[bool, int]:
    """Whether the criterion of this file was called, and how many epochs it was told of."""
    try:
        content = json.loads(receipt_of(path).read_text(encoding="utf-8"))
        return bool(content["called"]), int(content["epochs"])
    except (OSError, ValueError, LookupError, TypeError):
        return False, 0


class _Signing(Criterion):
    """One that writes down what is made of it, whenever that is news: a trainer may end in any way."""

    def __init__(self, loss: torch.nn.Module, arm: str, facts: Mapping[str, object], receipt: Path) -> None:
        super().__init__(loss, arm, facts)
        self._receipt = receipt.absolute()  # a trainer may change its folder

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        news = not self.called
        loss = super().forward(input, target)
        if news:
            self._sign()
        return loss

    def end_epoch(self) -> None:
        super().end_epoch()
        self._sign()

    def _sign(self) -> None:
        # In one step: another process of the trainer may write it, too.
        partial = self._receipt.with_name(f"{self._receipt.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"called": self.called, "epochs": self.epochs}), encoding="utf-8")
        partial.replace(self._receipt)


def _read(path: Path) -> tuple[str, dict[str, Any], bool]:
    if not path.exists():
        raise FileNotFoundError(f"there is no criterion file {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or no criterion file ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("arm"), str):
        raise ValueError(f'{path} must be as {{"arm": "ls:eps=0.1", "facts": {{}}}}, got no arm')
    facts = content.get("facts", {})
    if not isinstance(facts, dict) or not facts.keys() <= FACTS.keys():
        got = sorted(set(facts) - FACTS.keys()) if isinstance(facts, dict) else facts
        raise ValueError(f"{path}: facts must be among {', '.join(FACTS)}, got {got!r}")
    return (
        content["arm"],
        {name: _fact(path, name, value) for name, value in facts.items()},
        content.get("receipt", False) is True,
    )


def _fact(path: Path, name: str, value: Any) -> Any:
    if name not in LISTED:
        return value
    try:
        return torch.tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {name} must be a list of numbers ({error})") from None
