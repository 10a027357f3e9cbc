"""Priors with a row for each class, from relations between the classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from labelsmooth._core.checks import check_number, check_values
from labelsmooth.priors._distributions import Prior
from labelsmooth.priors._making import check_real, check_square, exact, first_class, prior

Tree: TypeAlias = str | Sequence["Tree"] | Mapping[str, "Tree"]


def hierarchy(distances: Tensor | Tree, beta: float = 10.0, *, classes: Sequence[str] | None = None) -> Prior:
    r"""A class is more probable the closer it is to the target in a hierarchy.

    .. math:: \pi_y(k) = \mathrm{softmax}_k\left(-\beta\, \frac{d(k, y)}{\max d}\right)

    Args:
        distances: d, ``(K, K)``, in any unit, symmetric, at least 0 and 0 on the diagonal, not all 0. Or a
            tree with the class names as leaves, given as nested sequences or as mappings from group names:
            the distance of two classes is then the height of their lowest common ancestor, which is the
            number of edges to its deepest leaf.
        beta: The decay rate of the probability, at least 0 (uniform).
        classes: The names of the tree's leaves in the order of the class indices. None is the order of the
            leaves in the tree.

    Returns:
        A prior of shape ``(K, K)``, on the device of ``distances``.

    Raises:
        ValueError: if ``distances`` is not such a matrix, or a tree with an empty group or a repeated name;
            if ``classes`` does not name each leaf once; or if ``beta`` is not finite and at least 0.

    Example:
        >>> from labelsmooth import priors
        >>> tree = {"animal": ["cat", "dog"], "vehicle": {"road": ["car", "bus"], "air": ["plane"]}}
        >>> priors.hierarchy(tree, beta=3.0)
        Prior(hierarchy, beta=3, shape (5, 5))
        >>> priors.hierarchy(tree, beta=3.0).probabilities[0]
        tensor([0.6591, 0.2425, 0.0328, 0.0328, 0.0328])

    Reference:
        Bertinetto et al., *Making Better Mistakes: Leveraging Class Hierarchies with Deep Networks*, CVPR
        2020.
    """
    check_number("beta", beta)
    like = distances if isinstance(distances, Tensor) else None
    if not isinstance(distances, Tensor):
        d = _common_heights(distances, classes)
    elif classes is not None:
        raise ValueError("classes requires a tree, got a matrix of distances; leave classes out")
    else:
        check_square("distances", distances)
        d = exact(distances)
        check_values("distances", "be finite and at least 0", d, (d >= 0) & d.isfinite())
        check_values("distances", "be 0 on the diagonal", d.diagonal(), d.diagonal() == 0)
        unlike = ~torch.isclose(d, d.T)
        if first_class(unlike.any(-1)) is not None:
            i, k = unlike.nonzero()[0].tolist()
            raise ValueError(
                f"distances must be symmetric, got {d[i, k].item()} at ({i}, {k}) "
                f"and {d[k, i].item()} at ({k}, {i})"
            )
    if not bool(d.any()):
        raise ValueError(f"distances must not all be 0, got zeros for all {len(d)} classes")
    return prior((-beta * d / d.max()).softmax(-1), f"hierarchy, beta={beta:g}", like)


def similarity(matrix: Tensor, temperature: float = 1.0) -> Prior:
    r"""A class is more probable the more similar it is to the target.

    .. math:: \pi_y(k) = \mathrm{softmax}_k(s_{yk} / T)

    Args:
        matrix: s, the similarity of class k (column) to the target y (row), ``(K, K)``, finite, in any unit.
        temperature: T, above 0, in the unit of ``matrix``. A higher value gives a more uniform prior.

    Returns:
        A prior of shape ``(K, K)``, on the device of ``matrix``.

    Raises:
        ValueError: if ``matrix`` is not square and finite, or ``temperature`` is not finite and above 0.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> priors.similarity(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), temperature=0.5).probabilities
        tensor([[0.8808, 0.1192],
                [0.1192, 0.8808]])

    Reference:
        Liu and JaJa, *Class-Similarity Based Label Smoothing for Confidence Calibration*, ICANN 2021.
    """
    check_square("matrix", matrix)
    check_number("temperature", temperature, above_zero=True)
    s = exact(matrix)
    check_values("matrix", "be finite", s, s.isfinite())
    return prior((s / temperature).softmax(-1), f"similarity, temperature={temperature:g}", matrix)


def embedding(embeddings: Tensor, temperature: float = 0.1) -> Prior:
    r"""A class is more probable the larger its cosine similarity to the target's embedding.

    .. math:: \pi_y(k) = \mathrm{softmax}_k\left(\frac{\langle e_y, e_k \rangle}{T\, |e_y|\, |e_k|}\right)

    Args:
        embeddings: e, a vector for each class, ``(K, D)``, finite and not 0: embeddings of the class names,
            or the rows of a classifier's weight.
        temperature: T, above 0, in the unit of a cosine. A higher value gives a more uniform prior.

    Returns:
        A prior of shape ``(K, K)``, on the device of ``embeddings``.

    Raises:
        ValueError: if ``embeddings`` does not hold such vectors (the message names a class with a zero
            vector), or if ``temperature`` is not finite and above 0.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> priors.embedding(embeddings, temperature=0.5).probabilities
        tensor([[0.4683, 0.4683, 0.0634],
                [0.4683, 0.4683, 0.0634],
                [0.1065, 0.1065, 0.7870]])

    Reference:
        Liu and JaJa, *Class-Similarity Based Label Smoothing for Confidence Calibration*, ICANN 2021.
    """
    check_real("embeddings", embeddings)
    check_number("temperature", temperature, above_zero=True)
    if embeddings.dim() != 2 or not embeddings.numel():
        raise ValueError(f"embeddings must have shape (K, D), got {tuple(embeddings.shape)}")
    e = exact(embeddings)
    check_values("embeddings", "be finite", e, e.isfinite())
    largest = e.abs().amax(-1, keepdim=True)
    if (zero := first_class(largest.squeeze(-1) == 0)) is not None:
        raise ValueError(f"embeddings must not be 0, got zeros for class {zero}")
    e = torch.nn.functional.normalize(e / largest, dim=-1)  # divided, since squares can overflow
    return prior((e @ e.T / temperature).softmax(-1), f"embedding, temperature={temperature:g}", embeddings)


def confusion(counts: Tensor, pseudo_count: float = 0.0) -> Prior:
    r"""The rows of a confusion matrix, normalised.

    .. math:: \pi_y(k) = \frac{n_{yk} + c}{\sum_j (n_{yj} + c)}

    Args:
        counts: n, how often a sample of class y (row) was predicted or labelled as class k (column),
            ``(K, K)``, of any real dtype, at least 0. Sums of predicted probabilities are also possible.
        pseudo_count: c, at least 0, added to each count.

    Returns:
        A prior of shape ``(K, K)``, on the device of ``counts``.

    Raises:
        ValueError: if ``counts`` is not such a matrix, if a row is 0 and there is no pseudo-count (the
            message names the class), or if ``pseudo_count`` is not finite and at least 0.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> priors.confusion(torch.tensor([[7, 1], [2, 6]]), pseudo_count=1.0).probabilities
        tensor([[0.8000, 0.2000],
                [0.3000, 0.7000]])

    Reference:
        Zhang et al., *Delving Deep Into Label Smoothing*, IEEE Transactions on Image Processing 2021.
    """
    check_square("counts", counts)
    check_number("pseudo_count", pseudo_count)
    n = exact(counts)
    check_values("counts", "be finite and at least 0", n, (n >= 0) & n.isfinite())
    n = n + pseudo_count
    total = n.sum(-1, keepdim=True)
    if (zero := first_class(total.squeeze(-1) == 0)) is not None:
        raise ValueError(
            f"counts must not be 0 in a whole row, got class {zero}; pass a pseudo_count above 0"
        )
    return prior(n / total, f"confusion, pseudo_count={pseudo_count:g}", counts)


def _common_heights(tree: Tree, classes: Sequence[str] | None) -> Tensor:
    """The height of the lowest common ancestor of each pair of leaves, in the order of ``classes``."""
    names = _leaves(tree)
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"distances must name each class once, got a tree with {repeated[0]!r} twice")
    order = list(names if classes is None else classes)
    if unknown := [name for name in order if name not in names]:
        raise ValueError(f"classes must name leaves of the tree, got {unknown[0]!r}")
    if Counter(order) != Counter(names):
        odd = next(name for name in names if order.count(name) != 1)
        times = order.count(odd)
        raise ValueError(f"classes must name each leaf of the tree once, got {odd!r} {times} times")
    place = {name: i for i, name in enumerate(order)}
    heights = torch.zeros(len(order), len(order), dtype=torch.float64, device="cpu")

    def fill(node: Tree) -> None:
        below = torch.tensor([place[name] for name in _leaves(node)], device="cpu")
        heights[below.unsqueeze(-1), below] = float(_height(node))
        for child in _children(node):  # overwrites the pairs with a lower common ancestor
            fill(child)

    fill(tree)
    return heights


def _children(node: Tree) -> list[Tree]:
    if isinstance(node, str):
        return []
    if not isinstance(node, Mapping | Sequence):
        raise ValueError(
            "distances must be a tensor, or a tree of mappings, sequences and names, "
            f"got {type(node).__name__}"
        )
    children = list(node.values() if isinstance(node, Mapping) else node)
    if not children:
        raise ValueError(f"distances must be a tree without empty groups, got {node!r}")
    return children


def _leaves(node: Tree) -> list[str]:
    return [node] if isinstance(node, str) else [leaf for child in _children(node) for leaf in _leaves(child)]


def _height(node: Tree) -> int:
    return max((1 + _height(child) for child in _children(node)), default=0)
