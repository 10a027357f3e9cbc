"""The results of a study, and their file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelsmooth.study.analysis.figures import Arm, Difference, Estimate, Setting
from labelsmooth.study.analysis.verdict import answer
from labelsmooth.study.trials.files import replacing


@dataclass(frozen=True)
class Results:
    """The results of a study; ``print(results)`` shows the answer."""

    settings: list[Setting]
    digest: str  # of everything that the results depend on
    output: Path | None  # None if nothing was written

    def __str__(self) -> str:
        return "\n".join(f"{s.name}: {answer(s)}" for s in self.settings)

    @property
    def folder(self) -> Path:
        """The path of the report.

        Raises:
            ValueError: if nothing was written.
        """
        if self.output is None:
            raise ValueError("results have no folder: output must be given, got None")
        return self.output

    def save(self) -> None:
        content = {"digest": self.digest, "settings": [asdict(s) for s in self.settings]}
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
