"""Metrics of the training rows and of the penultimate layer."""

import torch
from torch import Tensor

from labelsmooth.calibration._metrics import correct
from labelsmooth.study.analysis.evidence import Evidence
from labelsmooth.study.analysis.measures.influence import by_groups

FOLDS = 5


def generalisation_gap(run: Evidence) -> Tensor | None:
    if run.outcome.train is None:
        return None
    return correct(*run.outcome.train).mean() - run.right


def memorised(run: Evidence) -> Tensor | None:
    """The share of wrong training labels that the model predicts."""
    wrong = wrong_labels(run)
    if wrong is None or run.outcome.train is None or not bool(wrong.any()):
        return None
    return correct(*run.outcome.train)[wrong].mean().expand_as(run.right)


def wrong_labels(run: Evidence) -> Tensor | None:
    """A mask of the training labels that are known to be wrong."""
    if run.outcome.train is None or run.outcome.clean is None:
        return None
    return run.outcome.train[1] != run.outcome.clean


def class_separation(run: Evidence) -> Tensor | None:
    r"""Class separation in the penultimate layer; a larger value transfers less well to other tasks.

    .. math::
        R^2 = 1 - \bar d_\text{within} / \bar d_\text{total} \quad \text{of cosine distances}

    Reference:
        Kornblith et al., *Why Do Better Loss Functions Lead to Less Transferable Features?*, NeurIPS 2021.
    """
    if run.outcome.features is None:
        return None
    x = torch.nn.functional.normalize(run.outcome.features.double(), dim=-1)

    def separation(rows: Tensor) -> float:
        y = run.labels[rows]
        count = torch.bincount(y, minlength=run.num_classes).unsqueeze(1)
        means = x.new_zeros(run.num_classes, x.size(1)).index_add_(0, y, x[rows]) / count
        means = means[count.squeeze(1) > 0]
        within, total = 1 - means.square().sum(-1).mean(), 1 - means.mean(0).square().sum()
        return float(1 - within / total)

    return by_groups(separation, run.groups)


def linear_probe(run: Evidence) -> Tensor | None:
    """Whether a linear probe of another task's features, fitted on the other folds, is correct, by row."""
    if run.outcome.transfer is None:
        return None
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = (x.cpu().numpy() for x in run.outcome.transfer)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return torch.from_numpy(cross_val_predict(probe, features, labels, cv=folds) == labels).double()
