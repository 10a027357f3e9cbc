"""The options of an arm, chosen by Optuna."""

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

TOGETHER = 4  # suggestions that are trained side by side, before any of them is known
DECADE = 10.0


@dataclass(frozen=True)
class Family:
    """A method, and its options that are given: a search chooses the others. ``str`` is as it was written."""

    method: str
    given: str = ""

    def __str__(self) -> str:
        return f"{self.method}:{self.given}" if self.given else self.method

    @cached_property
    def scales(self) -> Mapping[str, BaseDistribution]:
        """Of each option that is chosen, what it is chosen from."""
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
        """As it is spelled, with numbers of two digits: more cannot be told apart, and are hard to read."""
        said = [f"{name}={v if isinstance(v, str) else f'{v:.2g}'}" for name, v in values.items()]
        text = f"{self.method}:{','.join([*filter(None, [self.given]), *said])}"
        try:
            return str(parse(text))
        except ValueError:  # rounded to an end that is not allowed
            return text


def scale(option: Option) -> BaseDistribution | None:
    """A choice among all words; a number within a tenth and ten times its default, on a log scale, or from
    all that is allowed where its default is 0. None where there is no default to start from.

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
    """Whether the options are allowed, each and together."""
    try:
        parse(arm).loss(facts_of(fit))
    except ValueError:
        return False
    return True


class Search:
    """Suggestions for a family in one setting: the same ones for the same scores."""

    def __init__(self, family: Family, suggestions: int) -> None:
        self._family = family
        self._left = suggestions
        sampler = TPESampler(seed=0, n_startup_trials=max(TOGETHER, suggestions // 4))
        self._study = optuna.create_study(sampler=sampler)
        self._study.enqueue_trial(family.defaults)
        self._asked: list[tuple[Trial, str]] = []

    def ask(self) -> list[str]:
        """The next few arms, none once all suggestions are made; :meth:`tell` must follow."""
        number = min(TOGETHER, self._left)
        self._left -= number
        trials = [self._study.ask(dict(self._family.scales)) for _ in range(number)]
        self._asked = [(trial, self._family.arm(trial.params)) for trial in trials]
        return [*dict.fromkeys(arm for _, arm in self._asked)]

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """The score of each arm that was asked for, the less the better; None where it failed."""
        for trial, arm in self._asked:
            trial.set_user_attr("arm", arm)
            score = scores[arm]
            if score is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, score)

    @property
    def best(self) -> str | None:
        """The arm of the best score, as it is spelled in a study."""
        done = self._study.get_trials(states=(TrialState.COMPLETE,))
        return self._study.best_trial.user_attrs["arm"] if done else None
