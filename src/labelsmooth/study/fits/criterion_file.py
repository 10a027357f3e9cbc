"""A criterion as a file: the full name of its arm, and facts about the fit. It holds no code."""

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
    """Write the file that :func:`load_criterion` reads.

    Args:
        path: The file.
        arm: The full name of the arm.
        facts: Facts about the fit, by name.
        receipt: Whether the loaded criterion records its calls in a file beside it.
    """
    plain = {
        name: fact.tolist() if isinstance(fact, Tensor) else fact for name, fact in (facts or {}).items()
    }
    content = {"arm": arm, "facts": plain, "receipt": receipt}
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_criterion(path: str | Path) -> Criterion:
    """Load the criterion that a study wrote for a training program.

    Args:
        path: The file, such as ``{"arm": "ls:eps=0.1", "facts": {"num_classes": 10}}``: an arm from
            ``labelsmooth arms``, and the facts that it needs: ``num_classes``, ``epochs``, ``counts`` or
            ``embeddings``.

    Returns:
        The criterion. Call it with a batch's logits and labels, and call ``end_epoch()`` after each epoch.

    Raises:
        ValueError: if the file is invalid; the message names it.
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
            raise ValueError(f"arm {arm} needs {FACTS[missing[0]]}: add {missing[0]!r} to 'facts'")
        select([arm], {"facts": SimpleNamespace(**facts)})  # validates the facts
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    loss = spec.loss(facts)
    return (
        _Signing(loss, str(spec), facts, receipt_of(path)) if receipt else Criterion(loss, str(spec), facts)
    )


def receipt_of(path: str | Path) -> Path:
    """The file in which the loaded criterion records its calls."""
    return Path(f"{path}.receipt")


def read_receipt(path: str | Path) -> tuple[bool, int]:
    """Whether the criterion of this file was called, and its number of epochs."""
    try:
        content = json.loads(receipt_of(path).read_text(encoding="utf-8"))
        return bool(content["called"]), int(content["epochs"])
    except (OSError, ValueError, LookupError, TypeError):
        return False, 0


class _Signing(Criterion):
    """A criterion that records its calls at once, since a program may end at any time."""

    def __init__(self, loss: torch.nn.Module, arm: str, facts: Mapping[str, object], receipt: Path) -> None:
        super().__init__(loss, arm, facts)
        self._receipt = receipt.absolute()  # the program may change its folder

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
        # Atomically, since another process of the program may write it, too.
        partial = self._receipt.with_name(f"{self._receipt.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"called": self.called, "epochs": self.epochs}), encoding="utf-8")
        partial.replace(self._receipt)


def _read(path: Path) -> tuple[str, dict[str, Any], bool]:
    if not path.exists():
        raise FileNotFoundError(f"criterion file {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or not a criterion file ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("arm"), str):
        raise ValueError(f'{path} must be like {{"arm": "ls:eps=0.1", "facts": {{}}}}, got no arm')
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
