"""``labelsmooth study``: train with hard and smoothed targets in pairs, and judge the difference."""

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


NEEDS: dict[str, tuple[str, ...]] = {
    "label": ("data", "command"),
    "ordinal": ("data",),
    "group": ("data",),
    "model": ("data",),
    "classes": ("command",),
    "epochs": ("data", "command"),
}


def _many(metavar: str, default: str) -> object:
    """An option with the default None, and a help text that explains it."""
    return tyro.conf.arg(metavar=f"[{metavar} ...]", help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Train a model with hard and with smoothed targets, in pairs that differ in nothing else, and judge
    whether smoothing helps and by how much, and what a temperature does.

    The data are scikit-learn's digits, your own table, texts or images (--data), or those of your own fit
    (--fit) or training program (--command). Nothing is downloaded. Finished runs are saved: the same command
    continues an interrupted study, and prints the answer of a finished one again.
    """

    data: Annotated[str | None, tyro.conf.arg(metavar="FILE|FOLDER")] = None
    """A table (CSV with any separator, TSV, Parquet, JSON Lines) of numbers, categories or texts; a folder of
    images with a subfolder for each class; a .npz with x and y; or a folder with train and test of any of
    these. The study trains a small suitable model."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """With --data: the column of the labels, if it has no usual name; with --command: the same for a table of
    predictions."""
    ordinal: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --data: whether the labels are ordered numbers."""
    group: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """With --data: a column whose rows with the same value stay in one split, such as a patient's."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --data: mlp, cnn or linear, or module:factory of your own."""
    fit: Annotated[str | None, tyro.conf.arg(metavar="MODULE:FUNCTION")] = None
    """A fit of your own, module:function, as labelsmooth.study.run takes it; or file.py:function."""
    command: Annotated[str | None, tyro.conf.arg(metavar="COMMAND")] = None
    """Any training program, such as 'python train.py --loss {criterion} --seed {seed} --out {out}': it loads
    its loss with labelsmooth.load_criterion, and saves predictions for "labelsmooth evaluate"."""
    classes: int | None = None
    """With --command: the number of classes, for arms that need it."""
    epochs: int | None = None
    """With --data: the number of epochs to train; with --command: the number that the program trains."""
    eps: Annotated[tuple[float, ...] | None, _many("FLOAT", "0.05 0.1 0.2")] = None
    """Smoothings to compare with hard targets, each in (0, 1]; with --arms, none unless given."""
    arms: Annotated[tuple[str, ...] | None, _many("NAME", "plain smoothing")] = None
    """Methods to compare with hard targets, as name or name:option=value,option=value; "all" is every method.
    The command "labelsmooth arms" lists them."""
    care: str = "overall"
    """Metrics of the verdict: overall (accuracy and NLL), accuracy, calibration, ranking, selective,
    ordinal or ood."""
    seeds: int = 5
    """Number of pairs, at least 2."""
    settings: tuple[SettingName, ...] = get_args(SettingName)
    """Settings of the digits. clean: 800 training rows. noisy: 800, some labels flipped. scarce: 100, some
    labels flipped, trained until they are memorised."""
    flipped: float = 0.2
    """Share of training labels that are flipped in noisy and scarce, in [0, 1]."""
    # A Path of "" would be the current folder.
    output: Annotated[str, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = "labelsmooth-study"
    """Folder for the report, the numbers, the runs and the recommended models."""
    workers: int = joblib.cpu_count()
    """Number of single-threaded processes that train in parallel."""
    storage: str | None = None
    """Database URL, as in Optuna, instead of a file in the output folder. Machines with the same database and
    a shared output folder share the work."""

    extend: bool | None = None
    """Whether to add the next tenth to eps, up to 0.9, while validation chooses the largest; None does so
    without --eps, --arms and --search."""
    search: int = 0
    """Number of option values that Optuna tries for each of --arms (for ls without any) by validation NLL;
    the best one joins the comparison."""

    check_deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train hard targets with seed 0 twice at the start, and warn unless the logits are bitwise equal."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the runs, which of them are done, and the estimated time of the others."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the results, or the plan, as one JSON document; other messages go to stderr."""

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
        """The fits by name."""
        given = [name for name in ("data", "fit", "command") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"a study must have one of --data, --fit and --command, got --{' and --'.join(given)}"
            )
        (source,) = given or ["settings"]
        for name in ("settings", "flipped"):
            if given and getattr(self, name) != getattr(Study, name):
                raise ValueError(f"--{name} is only for the digits: leave it out with --{source}")
        for name, sources in NEEDS.items():
            if getattr(self, name) and source not in sources:
                needed = " or ".join(f"--{each}" for each in sources)
                raise ValueError(f"--{name} requires {needed}, got --{name} {getattr(self, name)}")
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
    """The name of the setting for a file or folder."""
    place = Path(path).resolve()
    return place.stem if place.is_file() else place.name
