"""The result of a fit, which trains one model with the given criterion and returns its predictions."""

from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from labelsmooth.study.fits.criterion import Criterion

LogitsAndLabels = tuple[Tensor, Tensor]  # (N, K) and (N,)


class FitResult(TypedDict):
    """The result of a fit: ``val`` and ``test``, with the same rows in every call, and optional entries.

    Arrays and lists are accepted like tensors, labels may have any integer dtype, and masked classes may have
    logits of -inf. For two classes one column is enough, ``(N,)`` or ``(N, 1)``: the logit of class 1.

    Attributes:
        val: Logits, ``(N, K)``, and labels, ``(N,)``, of the validation rows. Required. The labels must be
            correct, since they choose the arm and fit the temperature.
        test: Logits, ``(N, K)``, and labels, ``(N,)``, of the test rows. Required.
        train: Logits, ``(M, K)``, and labels, ``(M,)``, of the training rows, with their training labels.
        clean: The true labels of the training rows, ``(M,)``, if some training labels are wrong.
        history: Curves by name, each a list with one number per epoch.
        features: The penultimate layer on the test rows, ``(N, D)``.
        head: The weight of the last layer, ``(K, D)``.
        ood: Logits, ``(M, K)``, of out-of-distribution rows.
        transfer: The penultimate layer on rows of another task, ``(M, D)``, and their labels, ``(M,)``.
        state: The model's ``state_dict()``, which is saved.
        probabilities: True if the fit returns probabilities instead of logits. The study uses their
            logarithms, with 0 replaced by about 1e-38.
    """

    val: LogitsAndLabels
    test: LogitsAndLabels
    train: NotRequired[LogitsAndLabels]
    clean: NotRequired[Tensor]
    history: NotRequired[dict[str, list[float]]]
    features: NotRequired[Tensor]
    head: NotRequired[Tensor]
    ood: NotRequired[Tensor]
    transfer: NotRequired[tuple[Tensor, Tensor]]
    state: NotRequired[dict[str, Tensor]]
    probabilities: NotRequired[bool]


Fit = Callable[[Criterion, int], FitResult | Mapping[str, Any]]  # a mapping may hold arrays
