"""The runs of a study: the requested ones, and those that extension and search add."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from labelsmooth.study.arms.specs import parse
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.search import Family, Search, can_be

LARGEST = 0.9  # the largest strength that an extension adds
SEARCH_SEEDS = (1000, 1001)  # outside the seeds of a study, so that no judged run was chosen by chance


class Task(NamedTuple):
    """A job in a setting."""

    name: str
    job: Job


class Stage(NamedTuple):
    """Runs to train next, the arms that they add, and a note."""

    tasks: Sequence[Task]
    arms: Sequence[str] = ()
    why: Sequence[str] = ()


@dataclass
class Course:
    """The runs of a study. They depend only on the scores of finished runs, so that a study that is
    interrupted, or shared by many processes, makes the same choices."""

    fits: Mapping[str, Fit]
    arms: list[str]  # the compared arms, hard targets first
    seeds: int
    extend: bool = False
    families: Sequence[Family] = ()
    suggestions: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)  # notes of each setting on added arms

    def further(self, scores: Mapping[Task, float]) -> Iterator[Stage]:
        """The steps after the requested runs, given the validation NLL at T of the finished runs."""
        if self.extend:
            yield from self._stronger(scores)
        if self.suggestions:
            yield from self._searched(scores)

    def _stronger(self, scores: Mapping[Task, float]) -> Iterator[Stage]:
        went_on: dict[str, list[float]] = {}
        while wanting := {
            name: eps
            for name in self.fits
            if (eps := largest_chosen(self._means(scores, name))) and eps < LARGEST
        }:
            eps = stronger(max(wanting.values()))
            last = max(i for i, arm in enumerate(self.arms) if parse(arm).method == "ls")
            self.arms.insert(last + 1, arm := str(parse(str(eps))))
            for name, chosen in wanting.items():
                went_on.setdefault(name, [chosen]).append(eps)
                self.notes[name] = [_went_on(went_on[name])]
            everywhere = " in every setting" if len(self.fits) > 1 else ""
            why = [
                f"{name}: validation chose eps = {chosen:g}, the largest tried, so it goes on with "
                f"{eps:g}{everywhere}"
                for name, chosen in wanting.items()
            ]
            yield Stage(self._tasks([arm]), [arm], why)

    def _searched(self, scores: Mapping[Task, float]) -> Iterator[Stage]:
        searches = {
            (name, family): Search(family, self.suggestions) for name in self.fits for family in self.families
        }
        while asked := {key: arms for key, search in searches.items() if (arms := search.ask())}:
            yield Stage(
                [
                    Task(name, Job(arm, seed))
                    for (name, _), arms in asked.items()
                    for arm in arms
                    if can_be(arm, self.fits[name])
                    for seed in SEARCH_SEEDS
                ]
            )
            for (name, family), arms in asked.items():
                searches[name, family].tell({arm: self._score(scores, name, arm) for arm in arms})
        for (name, family), search in searches.items():
            self.notes.setdefault(name, []).append(_found(family, search, self.suggestions))
        found = dict.fromkeys(search.best for search in searches.values() if search.best)
        joined = [arm for arm in found if arm not in self.arms]
        self.arms += joined
        why = [
            f"{name}: {note}" for name, notes in self.notes.items() for note in notes[-len(self.families) :]
        ]
        yield Stage(self._tasks(joined), joined, why)

    def _tasks(self, arms: Sequence[str]) -> list[Task]:
        return [
            Task(name, Job(arm, seed)) for seed in range(self.seeds) for arm in arms for name in self.fits
        ]

    def _means(self, scores: Mapping[Task, float], name: str) -> dict[str, float]:
        """The mean score of each arm, over the seeds without a failure."""
        seeds = [
            seed
            for seed in range(self.seeds)
            if all(Task(name, Job(arm, seed)) in scores for arm in self.arms)
        ]
        return {arm: fmean(scores[Task(name, Job(arm, seed))] for seed in seeds) for arm in self.arms}

    @staticmethod
    def _score(scores: Mapping[Task, float], name: str, arm: str) -> float | None:
        found = [scores.get(Task(name, Job(arm, seed))) for seed in SEARCH_SEEDS]
        known = [score for score in found if score is not None]
        return fmean(known) if len(known) == len(found) else None


def largest_chosen(means: Mapping[str, float]) -> float | None:
    """The largest plain smoothing if it has the best score among them, else None.

    Example:
        >>> largest_chosen({"hard": 0.5, "ls:eps=0.1": 0.4, "ls:eps=0.2": 0.3, "ols:eps=0.5": 0.2})
        0.2
        >>> largest_chosen({"hard": 0.5, "ls:eps=0.1": 0.3, "ls:eps=0.2": 0.4})
    """
    tried = {eps: mean for arm, mean in means.items() if (eps := parse(arm).eps)}
    if not tried:
        return None
    best = min(tried, key=tried.__getitem__)
    return best if best == max(tried) else None


def stronger(eps: float) -> float:
    """The next larger multiple of a tenth.

    Example:
        >>> stronger(0.2), stronger(0.25), stronger(0.05)
        (0.3, 0.3, 0.1)
    """
    return round(math.floor(eps * 10 + 1e-9) / 10 + 0.1, 1)


def _went_on(strengths: Sequence[float]) -> str:
    first, *others = (f"{eps:g}" for eps in strengths)
    more = " and ".join(filter(None, [", ".join(others[:-1]), others[-1]]))
    last = f" ({LARGEST:g} is the last)" if strengths[-1] >= LARGEST else ""
    return f"validation chose eps = {first}, the largest tried, so the study went on with {more}{last}"


def _found(family: Family, search: Search, suggestions: int) -> str:
    by = f"Optuna's TPE, by validation NLL at T of {len(SEARCH_SEEDS)} runs each, with separate seeds"
    how = f"{suggestions} suggestions for {family} ({by})"
    return f"{how}: the best was {search.best}" if search.best else f"{how}: none could be trained"
