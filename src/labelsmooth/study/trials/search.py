"""Hyperparameter search: Optuna chooses the options of an arm."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import Trial, TrialState

from labelsmooth.study.arms.options import Choice, Option
from labelsmooth.study.arms.specs import facts_of, parse
from labelsmooth.study.arms.table import ARMS

TOGETHER = 4  # suggestions that are trained in parallel, before their scores are known
DECADE = 10.0


@dataclass(frozen=True)
class Family:
    """A method and its given options; a search chooses the others. ``str`` is the original text."""

    method: str
    given: str = ""

    def __str__(self) -> str:
        return f"{self.method}:{self.given}" if self.given else self.method

    @cached_property
    def scales(self) -> Mapping[str, BaseDistribution]:
        """The distribution of each option that the search chooses."""
        held = {said.partition("=")[0] for said in self.given.split(",")}
        options = ARMS[self.method].options
        return {
            name: found
            for name, option in options.items()
            if name not in held and (found := scale(option)) is not None
        }

    @property
    def defaults(self) -> dict[str, float | str]:
        return {
            name: default
            for name in self.scales
            if (default := ARMS[self.method].options[name].default) is not None
        }

    def arm(self, values: Mapping[str, float | str]) -> str:
        """The full name of an arm, with numbers of two digits, which are precise enough."""
        said = [f"{name}={v if isinstance(v, str) else f'{v:.2g}'}" for name, v in values.items()]
        text = f"{self.method}:{','.join([*filter(None, [self.given]), *said])}"
        try:
            return str(parse(text))
        except ValueError:  # rounded to an excluded end of the range
            return text


def scale(option: Option) -> BaseDistribution | None:
    """The distribution of an option: all words; or numbers from a tenth to ten times the default on a log
    scale, or the whole range if the default is 0; None for a number without a default.

    Example:
        >>> from labelsmooth.study.arms.options import Number
        >>> scale(Number(0.1)), scale(Number(None))
        (FloatDistribution(high=1.0, log=True, low=0.01, step=None), None)
    """
    if isinstance(option, Choice):
        return CategoricalDistribution(option.among)
    if option.default is None:
        return None
    default, within = option.default, option.within
    ends = (default / DECADE, default * DECADE) if default else (within.low, within.high)
    low, high = max(min(ends), within.low), min(max(ends), within.high)
    return FloatDistribution(low, high, log=low > 0)


def can_be(arm: str, fit: object) -> bool:
    """Whether the options are valid, individually and together."""
    try:
        parse(arm).loss(facts_of(fit))
    except ValueError:
        return False
    return True


class Search:
    """Suggestions for a family in one setting, deterministic given the scores."""

    def __init__(self, family: Family, suggestions: int) -> None:
        self._family = family
        self._left = suggestions
        sampler = TPESampler(seed=0, n_startup_trials=max(TOGETHER, suggestions // 4))
        self._study = optuna.create_study(sampler=sampler)
        self._study.enqueue_trial(family.defaults)
        self._asked: list[tuple[Trial, str]] = []

    def ask(self) -> list[str]:
        """The next arms, empty after the last suggestion; :meth:`tell` must follow."""
        number = min(TOGETHER, self._left)
        self._left -= number
        trials = [self._study.ask(dict(self._family.scales)) for _ in range(number)]
        self._asked = [(trial, self._family.arm(trial.params)) for trial in trials]
        return [*dict.fromkeys(arm for _, arm in self._asked)]

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Report the score of each suggested arm, lower is better; None for a failure."""
        for trial, arm in self._asked:
            trial.set_user_attr("arm", arm)
            score = scores[arm]
            if score is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, score)

    @property
    def best(self) -> str | None:
        """The full name of the arm with the best score."""
        done = self._study.get_trials(states=(TrialState.COMPLETE,))
        return self._study.best_trial.user_attrs["arm"] if done else None
