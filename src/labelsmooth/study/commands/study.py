"""``labelsmooth study``: train in pairs, and one answer."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import joblib
import tyro

from labelsmooth.study.commands.output import show_results
from labelsmooth.study.fits.command import CommandFit
from labelsmooth.study.fits.digits import DigitsFit
from labelsmooth.study.fits.imported import load_fit
from labelsmooth.study.fits.own import fit_of
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.planning import plan
from labelsmooth.study.report.progress import say
from labelsmooth.study.running import run

SettingName = Literal["clean", "noisy", "scarce"]
SETTINGS: dict[SettingName, tuple[str, DigitsFit]] = {
    "clean": ("plenty, clean", DigitsFit(rows=800)),
    "noisy": ("plenty, noisy", DigitsFit(rows=800, flipped=0.2)),
    "scarce": ("scarce, noisy", DigitsFit(rows=100, flipped=0.2, epochs=150)),
}


NEEDS = {
    "label": ("data", "command"),
    "ordinal": ("data",),
    "group": ("data",),
    "model": ("data",),
    "classes": ("command",),
    "epochs": ("data", "command"),
}


def _many(metavar: str, default: str) -> object:
    """An option that is None where it is not given, with a help that says what that means."""
    return tyro.conf.arg(metavar=f"[{metavar} ...]", help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Train a model with hard and with smoothed targets, in pairs that differ in nothing else, and say
    whether smoothing helps: by how much, how surely, and what a temperature does.

    On scikit-learn's digits, on your own table, texts or images (--data), with your own fit (--fit) or with
    any training program (--command). Nothing is downloaded. What is done is kept: the same command goes on
    where it stopped, and when all is done it prints the answer again.
    """

    data: Annotated[str | None, tyro.conf.arg(metavar="FILE|FOLDER")] = None
    """A table (CSV with any separator, TSV, Parquet, JSON Lines) of numbers, categories or texts; a folder of
    images with a folder for each class; a .npz of x and y; or a folder with train and test of any of these.
    A small model of its kind is trained."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """With --data: the column of the labels, where no well-known name tells; with --command: the same of a
    table of predictions."""
    ordinal: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --data: whether the labels are numbers whose order has a meaning."""
    group: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """With --data: a column whose equal values stay on one side of a split, such as a patient's."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --data: mlp, cnn or linear, or module:factory of your own."""
    fit: Annotated[str | None, tyro.conf.arg(metavar="MODULE:FUNCTION")] = None
    """A fit of your own, function(criterion, seed), as labelsmooth.study.run takes it; or file.py:name."""
    command: Annotated[str | None, tyro.conf.arg(metavar="COMMAND")] = None
    """Any training program, such as 'python train.py --loss {criterion} --seed {seed} --out {out}': it loads
    its loss by labelsmooth.load_criterion, and leaves predictions as "labelsmooth evaluate" reads them."""
    classes: int | None = None
    """With --command: the number of classes, which some arms need to know."""
    epochs: int | None = None
    """With --data: how many epochs to train; with --command: how many the program trains."""
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
    """Of the digits. clean: 800 training rows. noisy: 800, some labels flipped. scarce: 100, some labels
    flipped, trained until they are memorised."""
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
        fits = self._fits()
        asked: dict[str, Any] = {
            "eps": self.eps,
            "arms": self.arms,
            "seeds": self.seeds,
            "output": self.output,
            "workers": self.workers,
            "storage": self.storage,
            "care": self.care,
            "extend": self.extend,
            "search": self.search,
        }
        if self.dry_run:
            planned = plan(fits, **asked)
            print(json.dumps(asdict(planned), indent=1) if self.json else planned)
            return
        results = run(fits, **asked, check_deterministic=self.check_deterministic)
        show_results(results, json=self.json)

    def _fits(self) -> dict[str, Fit]:
        """What is trained, by its name."""
        given = [name for name in ("data", "fit", "command") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"a study must have one of --data, --fit and --command, got --{' and --'.join(given)}"
            )
        (source,) = given or ["settings"]
        for name in ("settings", "flipped"):
            if given and getattr(self, name) != getattr(Study, name):
                raise ValueError(f"--{name} is of the digits, and must be left out with --{source}")
        for name, sources in NEEDS.items():
            if getattr(self, name) and source not in sources:
                needed = " or ".join(f"--{each}" for each in sources)
                raise ValueError(f"--{name} must come with {needed}, got --{name} {getattr(self, name)}")
        match source:
            case "data":
                assert self.data is not None
                return {_name_of(self.data): self._data_fit(self.data)}
            case "fit":
                assert self.fit is not None
                return {self.fit.rpartition(":")[2]: load_fit(self.fit)}
            case "command":
                assert self.command is not None
                return {
                    "your program": CommandFit(
                        command=self.command,
                        num_classes=self.classes,
                        epochs=self.epochs,
                        label=self.label,
                    )
                }
        if not self.settings:
            raise ValueError(f"--settings must name at least one of {', '.join(SETTINGS)}")
        fits: dict[str, Fit] = {}
        for key in dict.fromkeys(self.settings):
            name, fit = SETTINGS[key]
            fits[name] = replace(fit, flipped=self.flipped) if fit.flipped else fit
        return fits

    def _data_fit(self, path: str) -> Fit:
        fit = fit_of(
            path,
            label=self.label,
            ordinal=self.ordinal,
            group=self.group,
            model=self.model,
            epochs=self.epochs,
        )
        for note in fit.notes:
            say(f"{_name_of(path)}: {note}", shown=True)
        return fit


def _name_of(path: str) -> str:
    """What a setting on a file or a folder is called."""
    place = Path(path).resolve()
    return place.stem if place.is_file() else place.name
