"""A whole study, and its file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelsmooth.study.analysis.figures import Arm, Difference, Estimate, Setting
from labelsmooth.study.analysis.verdict import answer
from labelsmooth.study.trials.files import replacing


@dataclass(frozen=True)
class Results:
    """A whole study; ``print(results)`` answers whether to smooth."""

    settings: list[Setting]
    digest: str  # of everything the numbers depend on
    folder: Path | None  # None where nothing is written

    def __str__(self) -> str:
        return "\n".join(f"{s.name}: {answer(s)}" for s in self.settings)

    def save(self) -> None:
        content = {"digest": self.digest, "settings": [asdict(s) for s in self.settings]}
        if self.folder is None:
            raise ValueError("results have no folder to be saved in")
        with replacing(self.folder / "results.json") as partial:
            partial.write_text(json.dumps(content, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Results":
        content = json.loads((folder / "results.json").read_text())
        return cls([_setting(s) for s in content["settings"]], content["digest"], folder)


def _setting(content: dict[str, Any]) -> Setting:
    arms = [
        Arm(
            **{
                **arm,
                "values": {m: Estimate(**e) for m, e in arm["values"].items()},
                "differences": {
                    m: Difference(**{**e, "parts": tuple(e["parts"])}) for m, e in arm["differences"].items()
                },
            }
        )
        for arm in content["arms"]
    ]
    return Setting(**{**content, "arms": arms, "judged": tuple(content["judged"])})
