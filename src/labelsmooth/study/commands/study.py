"""``labelsmooth study``: train in pairs, and one answer."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, get_args

import joblib
import tyro

from labelsmooth.study.commands.output import show_results
from labelsmooth.study.fits.digits import DigitsFit
from labelsmooth.study.planning import plan
from labelsmooth.study.running import run

SettingName = Literal["clean", "noisy", "scarce"]
SETTINGS: dict[SettingName, tuple[str, DigitsFit]] = {
    "clean": ("plenty, clean", DigitsFit(rows=800)),
    "noisy": ("plenty, noisy", DigitsFit(rows=800, flipped=0.2)),
    "scarce": ("scarce, noisy", DigitsFit(rows=100, flipped=0.2, epochs=150)),
}


def _many(metavar: str, default: str) -> object:
    """An option that is None where it is not given, with a help that says what that means."""
    return tyro.conf.arg(metavar=f"[{metavar} ...]", help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Train a model on scikit-learn's digits with hard and with smoothed targets, in pairs that differ in
    nothing else, and say whether smoothing helps: by how much, how surely, and what a temperature does.

    Nothing is downloaded. What is done is kept: the same command goes on where it stopped, and when
    all is done it prints the answer again. For your own data and model, see labelsmooth.study.run.
    """

    eps: Annotated[tuple[float, ...] | None, _many("FLOAT", "0.05 0.1 0.2")] = None
    """Smoothings to compare with hard targets, each in (0, 1]; with --arms, none unless given."""
    arms: Annotated[tuple[str, ...] | None, _many("NAME", "smoothing alone")] = None
    """Methods to compare with hard targets, as name or name:option=value,option=value; "all" is every one.
    The command "labelsmooth arms" lists them."""
    care: str = "overall"
    """What the verdict is about: overall (accuracy and NLL), accuracy, calibration, ranking, selective,
    ordinal or ood."""
    seeds: int = 5
    """Number of pairs, at least 2."""
    settings: tuple[SettingName, ...] = get_args(SettingName)
    """clean: 800 training rows. noisy: 800, some labels flipped. scarce: 100, some labels flipped, trained
    until they are memorised."""
    flipped: float = 0.2
    """Share of the training labels that is flipped in noisy and scarce, in [0, 1]."""
    # A Path of "" would be the current folder.
    output: Annotated[str, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = "labelsmooth-study"
    """Folder for the report, the numbers, the runs and the recommended models."""
    workers: int = joblib.cpu_count()
    """Processes that train side by side, each on one thread."""
    storage: str | None = None
    """Database URL (as Optuna takes it) instead of a file in the output folder. Machines that give the same
    one share the work, if the output folder is on a file system that they share."""

    extend: bool | None = None
    """Whether to go on with the next tenth of eps, 0.9 at most, while validation chooses the largest tried;
    None does so where no --eps, --arms or --search are given."""
    search: int = 0
    """Number of values that Optuna tries for the options of each of --arms (of ls without any) by validation
    NLL; the best one joins the comparison."""

    check_deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train hard targets with seed 0 once more at the start, and warn unless the logits are the same."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the runs, which of them are done, and the time for the others, by a few epochs where no run is."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the results, or the plan, as one JSON document; what else there is to say goes to stderr."""

    def __call__(self) -> None:
        if not self.settings:
            raise ValueError(f"--settings must name at least one of {', '.join(SETTINGS)}")
        fits = {}
        for key in dict.fromkeys(self.settings):
            name, fit = SETTINGS[key]
            fits[name] = replace(fit, flipped=self.flipped) if fit.flipped else fit
        asked: dict[str, Any] = {
            "eps": self.eps,
            "arms": self.arms,
            "seeds": self.seeds,
            "output": self.output,
            "workers": self.workers,
            "storage": self.storage,
            "extend": self.extend,
            "search": self.search,
        }
        if self.dry_run:
            planned = plan(fits, **asked)
            print(json.dumps(asdict(planned), indent=1) if self.json else planned)
            return
        results = run(fits, **asked, care=self.care, check_deterministic=self.check_deterministic)
        show_results(results, json=self.json)
