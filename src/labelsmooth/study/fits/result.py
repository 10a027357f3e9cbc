"""A fit trains one model with the criterion it is given, and returns what the model makes of the data."""

from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from labelsmooth.study.fits.criterion import Criterion

LogitsAndLabels = tuple[Tensor, Tensor]  # (N, K) and (N,)


class FitResult(TypedDict):
    """What a fit returns: ``val`` and ``test``, with the same rows in every call, and what else it has.

    Arrays and lists do as well as tensors, labels may be integers of any type, and classes that are ruled out
    may have logits of -inf. Of two classes one column is enough, ``(N,)`` or ``(N, 1)``: the logit of class 1
    against class 0.

    Attributes:
        val: Logits, ``(N, K)``, before any softmax, and labels, ``(N,)``, of the validation rows. Free of
            wrong labels: they choose the arm and fit the temperature. Needed.
        test: Logits and labels of the test rows, ``(N, K)`` and ``(N,)``. Needed.
        train: Logits and labels of the training rows, ``(M, K)`` and ``(M,)``, labelled as trained on.
        clean: True labels of the training rows, ``(M,)``, where some were flipped.
        history: Curves by name, each a list with one number per epoch.
        features: The penultimate layer on the test rows, ``(N, D)``.
        head: The last layer's weight, ``(K, D)``.
        ood: Logits, ``(M, K)``, of rows of no class, which confidence should tell from the test rows.
        transfer: The penultimate layer on rows of another task, ``(M, D)``, and their labels there, ``(M,)``.
        state: The model's ``state_dict()``, to be saved.
        probabilities: True where probabilities are returned in the place of logits. Their logarithms are
            taken, that of 0 as of about 1e-38.
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


Fit = Callable[[Criterion, int], FitResult | Mapping[str, Any]]  # arrays, say
