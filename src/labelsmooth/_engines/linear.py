"""The linear head in chunks of rows: the logits z = input W^T + b are never stored all at once.

A chunk's logits are overwritten by their gradient, so besides the gradients that are required a call needs
the memory of one chunk.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from labelsmooth._core.checks import check_choice, check_number
from labelsmooth._core.modes import captured, transformed
from labelsmooth._core.precision import accurate, as_given
from labelsmooth._core.statistics import DIFFERENTIABLE, STATISTICS, Measures, RowStatistics, blanked
from labelsmooth._engines import kept, reference, route
from labelsmooth._engines.operator import LIBRARY, MEASURES, Kernels

BUDGET = 64 * 2**20
"""The size of a chunk of logits in bytes; a chunk has at least ``LEAST`` rows."""

LEAST = 128
"""The least number of rows in a chunk: with fewer, reading the weight would dominate the time."""


HeadEngine = Literal["reference", "linear", "dense", "triton"]


class Head(NamedTuple):
    """z = scale * (input W^T + b), which a softcap bends to softcap * tanh(z / softcap)."""

    input: Tensor  # (N, D)
    weight: Tensor  # (K, D)
    bias: Tensor | None  # (K,)
    scale: float | None
    softcap: float | None
    dtype: torch.dtype  # of the matrix products
    chunk: int | None = None  # rows of a chunk; None: as many as the budget allows
    engine: HeadEngine | None = None  # "dense" and "triton" are linear, and compute the chunks

    def logits(self) -> Tensor:
        """All logits at once, one row per sample; a weight (K, d1, ..., D) gives N * d1 * ... rows."""
        bias = None if self.bias is None else self.bias.to(self.dtype).flatten()
        z = linear(self.input.to(self.dtype), self.weight.to(self.dtype).flatten(0, -2), bias)
        z = z.unflatten(-1, self.weight.shape[:-1]).movedim(1, -1).flatten(0, -2)
        return bent(z, self.scale, self.softcap)

    def blanked(self, counted: Tensor) -> Self:
        """The head with zeros in ignored rows of the input, which the weight's gradient multiplies by 0."""
        some = counted.reshape(len(self.input), self.weight.shape[1:-1].numel()).any(1)
        return self._replace(input=blanked(self.input, some))


class Predictions(NamedTuple):
    """What a linear head predicts for each row, without a gradient.

    In ignored rows ``log_prob`` and ``entropy`` are 0 and ``argmax`` is -1.
    """

    log_prob: Tensor
    """The log-probability of the label, in nats."""
    entropy: Tensor
    """The entropy of the predicted distribution, in nats."""
    argmax: Tensor
    """The most probable class."""


def bent(z: Tensor, scale: float | None, softcap: float | None) -> Tensor:
    """softcap * tanh(scale * z / softcap); with a softcap in at least float32."""
    z = z if softcap is None else z.to(accurate(z.dtype))
    z = z if scale is None else scale * z
    return z if softcap is None else softcap * (z / softcap).tanh()


def check_bend(scale: float | None, softcap: float | None) -> None:
    for name, value in {"scale": scale, "softcap": softcap}.items():
        if value is not None:
            check_number(name, value, above_zero=True)


def makes_logits(head: Head, measures: Measures) -> bool:
    """Whether to compute all logits at once, as requested or because chunks cannot serve the call."""
    engine = head.engine
    if engine is None and torch.compiler.is_exporting():
        return True
    if engine is not None:
        check_choice("engine", engine, HeadEngine)
    obstacle = None if engine == "reference" else obstacle_to_chunks(head, measures)
    if engine is not None and obstacle is not None:
        raise route.refusal(engine, obstacle, "reference")
    return engine == "reference" or obstacle is not None


def obstacle_to_chunks(head: Head, measures: Measures) -> str | None:
    """Why all logits have to be computed at once, or None."""
    many = head.weight.dim() > 2
    return "linear_weight has more than 2 dimensions" if many else route.opaque(head[:3], measures)


def needs_gradient(head: Head) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in head[:3])


def row_statistics(head: Head, measures: Measures, predictions: Predictions | None = None) -> RowStatistics:
    """The statistics of each row. Their gradient recomputes the logits: four matrix products in all.

    ``predictions``, if given, are written; beside a gradient or in a captured graph, this takes a fifth.
    """
    if predictions is not None:
        if captured():
            parts = (None if x is None else x.detach() for x in head[:3])
            found = torch.ops.labelsmooth.predictions(*parts, *head[3:], *measures)
            for whole, of_call in zip(predictions, found, strict=True):
                whole.copy_(of_call)
        else:
            found = _one_product(head, measures, predictions)
            if not needs_gradient(head):
                return RowStatistics(*found.unbind())
    found = torch.ops.labelsmooth.linear if captured() else _Statistics.apply
    return RowStatistics(*found(*head, *measures).unbind())


def unwritten_predictions(head: Head) -> Predictions:
    rows = len(head.input)
    log_prob, entropy = (head.input.new_empty(rows, dtype=accurate(head.dtype)) for _ in range(2))
    return Predictions(log_prob, entropy, head.input.new_empty(rows, dtype=torch.int64))


@torch.no_grad()
def predicted(z: Tensor, s: RowStatistics, measures: Measures) -> Predictions:
    """The predictions of these logits, whose statistics include the spread."""
    ignored = ~measures.counted
    label_z = z.gather(-1, measures.target.unsqueeze(-1)).squeeze(-1).to(s.lse.dtype)
    return Predictions(
        (label_z - s.z_max - s.lse).masked_fill(ignored, 0.0),
        (s.lse - s.model_z).masked_fill(ignored, 0.0),
        z.argmax(-1).masked_fill(ignored, -1),
    )


def unheld(head: Head) -> list[Tensor | None]:
    """The head's tensors, for an autograd context to save.

    Leaves are detached, as module.to() can only swap parameters that nothing else holds.
    """
    return [x.detach() if x is not None and x.is_leaf else x for x in head[:3]]


def leaves(ctx: Any, head: Head) -> dict[str, Tensor]:
    """The head's tensors that are leaves of the autograd graph and require a gradient."""
    parts = [name for name in head._fields[:3] if getattr(head, name) is not None]
    nodes = [node for node, _ in ctx.next_functions]
    return {
        name: node.variable
        for name, node in zip(parts, nodes, strict=False)
        if node is not None and hasattr(node, "variable")
    }


def passes(
    head: Head,
    measures: Measures,
    needs: Sequence[bool],
    derivative: Callable[[Kernels, slice, Tensor], Tensor],
    predictions: Predictions | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """The statistics of all rows, (10, N), and the gradients of input, weight and bias that are needed.

    ``derivative`` gives the loss's gradient with respect to the statistics of a chunk of rows, (5, n).
    ``predictions``, if given, are written.
    """
    hidden, weight, bias, scale, softcap, dtype, chunk, _ = head
    # The products apply the scale, before they are rounded.
    scale = 1.0 if scale is None else scale
    found = hidden.new_empty((STATISTICS, len(hidden)), dtype=accurate(dtype))
    by_input = kept.empty_like(hidden, dtype) if needs[0] else None
    by_weight = kept.empty_like(weight, accurate(dtype)).zero_() if needs[1] else None
    by_bias = torch.zeros_like(bias, dtype=accurate(dtype)) if bias is not None and needs[2] else None
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    width = (dtype if softcap is None else accurate(dtype)).itemsize
    chunks = list(_chunks(len(hidden), len(weight) * width, chunk))
    buffer = kept.new_empty(hidden, (max((c.stop - c.start for c in chunks), default=0), len(weight)), dtype)
    with torch.no_grad(), as_given(hidden.device):
        for part in chunks:
            rows = measures.rows(part)
            x = blanked(hidden[part], rows.counted).to(dtype)
            z, slope = buffer[: len(x)], None
            if bias is None:
                torch.addmm(z, x, weight.T, beta=0, alpha=scale, out=z)
            else:
                torch.addmm(bias, x, weight.T, beta=scale, alpha=scale, out=z)
            if softcap is not None:
                # In half precision the softcap would lose more digits than the product.
                z = z.to(accurate(dtype)).div_(softcap).tanh_()
                slope = z.square().neg_().add_(1) if any(needs[:3]) else None
                z.mul_(softcap)
            engine = route.kernels(z, rows, None if head.engine == "linear" else head.engine)
            found[:, part] = statistics = engine.forward(z, rows)
            if predictions is not None:
                of_chunk = predicted(z, RowStatistics(*statistics.unbind()), rows)
                for every, some in zip(predictions, of_chunk, strict=True):
                    every[part] = some
            if not any(needs[:3]):
                continue
            by_z = engine.backward(derivative(engine, part, statistics), z, rows, statistics, out=z)
            if slope is not None:
                by_z = by_z.mul_(slope).to(dtype)
            if by_input is not None:
                torch.addmm(by_input[part], by_z, weight, beta=0, alpha=scale, out=by_input[part])
            if by_weight is not None:
                _accumulate(by_weight, by_z, x, scale)
            if by_bias is not None:  # with a dtype, sum would first convert all of by_z on a CPU
                by_bias.add_(by_z.sum(0), alpha=scale)
    return found, [by_input, by_weight, by_bias]


def _accumulate(total: Tensor, by_z: Tensor, input: Tensor, scale: float) -> None:
    """total += scale * by_z^T input. In a wider ``total`` each chunk's product is rounded at most once."""
    if total.dtype == by_z.dtype:
        torch.addmm(total, by_z.T, input, alpha=scale, out=total)  # FlopCounterMode does not count addmm_
        return
    for part in _chunks(len(total), input.size(1) * input.element_size()):
        total[part].add_(by_z[:, part].T @ input, alpha=scale)


def _chunks(rows: int, row_bytes: int, size: int | None = None) -> Iterator[slice]:
    """Chunks of ``size`` rows; by default chunks of equal size within the budget."""
    if size is None:
        number = -(-rows // max(LEAST, BUDGET // max(row_bytes, 1)))
        size = -(-rows // max(number, 1))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, max(size, 1)))


def check_chunking(options: object) -> None:
    kind = getattr(nn, "LinearCrossEntropyOptions", None)
    if options is not None and (kind is None or not isinstance(options, kind)):
        raise ValueError(
            f"options must be a torch.nn.LinearCrossEntropyOptions, got {type(options).__name__}"
        )


def chunk_rows(options: "nn.LinearCrossEntropyOptions", rows: int, features: int, classes: int) -> int | None:
    """The number of rows that torch's options give a chunk; None leaves it to the budget."""
    size, method = options.batch_chunk_size, options.chunking_method
    if method == "auto":
        return size
    if method is None:
        return size or max(rows, 1)
    # A power of 2 rows whose logits take about as much memory as the input, or the fraction that is named.
    factor = int(method.partition(":")[2] or 1)
    whole = -(-rows // max(-(-classes // max(features, 1)), 1))
    found = max(min((1 << int(max(whole - 1, 0)).bit_length()) // factor, rows), 1)
    if size is not None and size != found:
        raise ValueError(
            f"options must have a batch_chunk_size or a chunking_method, got batch_chunk_size={size} and "
            f"chunking_method={method!r}, which makes {found} rows"
        )
    return found


def whole_statistics(head: Head, measures: Measures) -> RowStatistics:
    return reference.row_statistics(head.blanked(measures.counted).logits(), measures)


def differentiable(head: Head, of: Callable[[Head], Tensor], grad: Tensor) -> list[Tensor | None]:
    """The gradients of a function of the head, differentiable and open to torch.func transforms in turn."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [
            # A view, as one tensor may be a function of another: a tied embedding depends on the weight.
            None if x is None else x.view_as(x) if again and x.requires_grad else x.detach().requires_grad_()
            for x in (head.input, head.weight, head.bias)
        ]
        value = of(Head(*leaves, *head[3:]))  # pyright: ignore[reportArgumentType, reportCallIssue]
    asked = [x for x in leaves if x is not None]
    found = iter(torch.autograd.grad(value, asked, grad, create_graph=again))
    return [None if x is None else next(found) for x in leaves]


_arguments = (
    "Tensor input, Tensor linear_weight, Tensor? linear_bias, float? scale, float? softcap, "
    f"ScalarType dtype, SymInt? chunk, str? engine, {MEASURES}"
)
LIBRARY.define(f"linear({_arguments}) -> Tensor")
LIBRARY.define(f"predictions({_arguments}) -> Tensor[]")
LIBRARY.define(f"linear_backward(Tensor grad, bool[] needs, {_arguments}) -> Tensor[]")
_HEAD = len(Head._fields)


def _one_product(head: Head, measures: Measures, predictions: Predictions | None = None) -> Tensor:
    none = [False] * 3
    return passes(head, measures, none, lambda _engine, _part, statistics: statistics, predictions)[0]


def _linear(*arguments: Any) -> Tensor:
    return _one_product(Head(*arguments[:_HEAD]), Measures(*arguments[_HEAD:]))


def _predictions(*arguments: Any) -> list[Tensor]:
    head = Head(*arguments[:_HEAD])
    found = unwritten_predictions(head)
    _one_product(head, Measures(*arguments[_HEAD:]), found)
    return list(found)


def _linear_backward(grad: Tensor, needs: list[bool], *arguments: Any) -> list[Tensor]:
    head, measures = Head(*arguments[:_HEAD]), Measures(*arguments[_HEAD:])
    _, gradients = passes(head, measures, needs, lambda _engine, part, _statistics: grad[:, part])
    of = (head.input, head.weight, head.bias)
    return [x.to(y.dtype) for x, y in zip(gradients, of, strict=True) if x is not None and y is not None]


LIBRARY.impl("linear", _linear, "CompositeExplicitAutograd")
LIBRARY.impl("predictions", _predictions, "CompositeExplicitAutograd")
LIBRARY.impl("linear_backward", _linear_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("labelsmooth::linear", lib=LIBRARY)
def _(*arguments: Any) -> Tensor:
    head = Head(*arguments[:_HEAD])
    return head.input.new_empty((STATISTICS, head.input.size(0)), dtype=accurate(head.dtype))


@torch.library.register_fake("labelsmooth::predictions", lib=LIBRARY)
def _(*arguments: Any) -> list[Tensor]:
    return list(unwritten_predictions(Head(*arguments[:_HEAD])))


@torch.library.register_fake("labelsmooth::linear_backward", lib=LIBRARY)
def _(grad: Tensor, needs: list[bool], *head: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x, need in zip(head, needs, strict=False) if need]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    head, measures = Head(*inputs[:_HEAD]), inputs[_HEAD:]
    held = head[:3] if torch.compiler.is_compiling() else unheld(head)
    ctx.save_for_backward(*held, *Measures(*measures).tensors)
    ctx.options = head[3:], [None if isinstance(x, Tensor) else x for x in measures]


def _differentiate(ctx: Any, grad: Tensor, backward: Any = None) -> tuple[Tensor | None, ...]:
    hidden, weight, bias, *tensors = ctx.saved_tensors
    options, measures = ctx.options
    head = Head(hidden, weight, bias, *options)
    measures = Measures(*measures).with_tensors(*tensors)
    grad = grad[:DIFFERENTIABLE]
    if torch.is_grad_enabled() or transformed(grad):
        head = head if torch.compiler.is_compiling() else head._replace(**leaves(ctx, head))
        gradients = differentiable(
            head, lambda h: torch.stack(whole_statistics(h, measures)[:DIFFERENTIABLE]), grad
        )
    else:
        needs = list(ctx.needs_input_grad[:3])
        backward = backward or torch.ops.labelsmooth.linear_backward
        found = iter(backward(grad, needs, *head, *measures))
        gradients = [next(found) if need else None for need in needs]
    return *gradients, *[None] * (len(head) + len(measures) - len(gradients))


torch.library.register_autograd(
    "labelsmooth::linear", _differentiate, setup_context=_setup_context, lib=LIBRARY
)


class _Statistics(torch.autograd.Function):
    """The operator's counterpart in eager mode, where dispatch modes see the matrix products inside."""

    forward = staticmethod(_linear)
    setup_context = staticmethod(_setup_context)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, *grads, backward=_linear_backward)
