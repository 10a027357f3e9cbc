"""Smoothing toward the model's own mean prediction for each class."""

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from labelsmooth._core.checks import check_integer
from labelsmooth._core.keywords import takes
from labelsmooth._core.modes import trains
from labelsmooth._core.overrides import as_node
from labelsmooth._core.precision import accurate
from labelsmooth._engines.operator import LIBRARY
from labelsmooth._modules.losses import CrossEntropyLoss
from labelsmooth._targets.criterion import DEFAULTS
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import BatchOptions, ModuleOptions
from labelsmooth._targets.rows import CLASSES_LAST, as_rows, as_targets
from labelsmooth.priors import PerSample, Prior

if TYPE_CHECKING:
    import torch.distributed as dist


def _first_time(like: Tensor) -> Tensor:
    """1, but 0 where a backward pass is under way."""
    return like.new_full((), 1.0 if torch._C._current_graph_task_id() == -1 else 0.0)


LIBRARY.define("first_time(Tensor like) -> Tensor")
LIBRARY.impl("first_time", _first_time, "CompositeExplicitAutograd")


@torch.library.register_fake("labelsmooth::first_time", lib=LIBRARY)
def _(like: Tensor) -> Tensor:
    return like.new_empty(())


class OnlineLabelSmoothing(CrossEntropyLoss):
    r"""Online label smoothing: each class is smoothed toward its mean prediction in the epoch before.

    .. math::
        \ell = -(1 - \epsilon) \log q_y - \epsilon \sum_k S_{yk} \log q_k, \qquad
        S_y = \frac{1}{|C_y|} \sum_{i \in C_y} q_i

    C_y are the training samples of class y that the model classified correctly, including ties. S is uniform
    in the first epoch, and for classes without a correct prediction. In training mode, every call takes class
    indices and adds to the means; with ``train_only``, only calls with gradients do. **Call**
    :meth:`end_epoch` **after each epoch**: it makes the means the prior of the next epoch. Predictions that
    ``torch.utils.checkpoint`` recomputes in a backward pass are added once.

    The prior and the sums are in the ``state_dict``, so training resumes within an epoch. In distributed
    training :meth:`end_epoch` sums over the processes of the group, and every process has to call it.

    Args:
        num_classes: K.
        dim: The class dimension of the logits, as of :class:`CrossEntropyLoss`.
        process_group: The processes that train together. None is the default group, if torch.distributed is
            initialised.
        **options: The options of :class:`CrossEntropyLoss`, except ``prior``. The default of
            ``label_smoothing`` is 0.5, as in the paper.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> import torch
        >>> criterion = OnlineLabelSmoothing(num_classes=3)
        >>> logits, target = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]]), torch.tensor([0, 2])
        >>> criterion(logits, target)
        tensor(1.7991)
        >>> criterion.end_epoch()
        >>> criterion.prior.probabilities
        tensor([[0.8438, 0.1142, 0.0420],
                [0.3333, 0.3333, 0.3333],
                [0.3333, 0.3333, 0.3333]])

    Reference:
        Zhang et al., *Delving Deep into Label Smoothing*, IEEE Transactions on Image Processing 2021.
    """

    sums: Tensor  # (K, K), of the predictions for each class in this epoch
    counts: Tensor  # (K,), of them

    @takes(ModuleOptions, DEFAULTS)
    def __init__(
        self,
        num_classes: int,
        *,
        dim: int | None = None,
        process_group: "dist.ProcessGroup | None" = None,
        **options: Unpack[ModuleOptions],
    ) -> None:
        check_integer("num_classes", num_classes, 1)
        if "prior" in options:
            raise ValueError("prior cannot be given: OnlineLabelSmoothing estimates it")
        # Not short, here or later: in bfloat16 sums stop growing at 256.
        dtype = accurate(torch.get_default_dtype())
        uniform = torch.full((num_classes, num_classes), 1 / num_classes, dtype=dtype)
        options["prior"] = Prior(uniform, "of the epoch before")
        options.setdefault("label_smoothing", 0.5)
        super().__init__(dim=dim, **options)
        self._check_classes(num_classes)
        self.register_buffer("sums", torch.zeros_like(uniform))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=dtype))
        self.process_group = process_group

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        target: Tensor | Mixed,
        *,
        return_nll: bool = False,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        prior: PerSample | None = None,
    ) -> Any:
        batch: BatchOptions = {"sample_weight": sample_weight, "denominator": denominator, "prior": prior}
        if (node := as_node(self, input, target, return_nll=return_nll, **batch)) is not None:
            return node
        if prior is not None:
            raise ValueError("prior cannot be given: OnlineLabelSmoothing estimates it")
        observed = trains(self) if self.train_only else self.training
        if (classes := as_rows(input, self.dim).size(-1)) != len(self.counts):
            hint = CLASSES_LAST if input.size(-1) == len(self.counts) else ""
            raise ValueError(f"input must have num_classes={len(self.counts)} classes, got {classes}{hint}")
        several = isinstance(target, Mixed) or (isinstance(target, Tensor) and target.is_floating_point())
        if observed and several:
            raise ValueError(
                "target must hold class indices in training, as each mean is over the samples of one class"
            )
        found: Any = super().forward(input, target, return_nll=return_nll, **batch)
        if observed and isinstance(target, Tensor):
            self._observe(input.detach(), target, sample_weight)
        return found

    @torch.no_grad()
    def _observe(self, input: Tensor, target: Tensor, sample_weight: Tensor | None) -> None:
        # A checkpoint repeats a forward pass within the backward pass, and needs the same operators in it.
        if not torch.compiler.is_compiling():
            once = _first_time(self.counts)
        elif torch.compiler.is_exporting():
            once = 1
        else:  # to be asked when the graph runs
            once = torch.ops.labelsmooth.first_time(self.counts)
        z = as_rows(input, self.dim)
        target, counted = as_targets(
            target, input.shape, self.dim, ignore_index=self.ignore_index, sample_weight=sample_weight
        )
        # Logits that overflowed are no prediction: a loss scaler skips their step, and so do the means.
        largest = z.amax(-1)
        right = counted & (z.gather(-1, target.unsqueeze(-1)).squeeze(-1) == largest) & largest.isfinite()
        q = z.reshape(-1, z.size(-1)).softmax(-1, dtype=self.sums.dtype)
        # The others, which may hold anything, are added to a class of their own.
        label = target.masked_fill(~right, len(self.counts)).flatten()
        # Of this call first: a sum of very many stops growing where single numbers are added to it.
        added = q.new_zeros(len(self.counts) + 1, q.size(-1)).index_add_(0, label, q)
        self.sums.add_(added[:-1] * once)
        added = q.new_zeros(len(self.counts) + 1).index_add_(0, label, q.new_ones(len(label)))
        self.counts.add_(added[:-1] * once)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Forget all epochs. Call this after ``to_empty()`` of a module that was made on the meta device."""
        assert self.prior is not None
        self.prior.probabilities.fill_(1 / len(self.counts))
        self.sums.zero_()
        self.counts.zero_()

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Make the means of this epoch the prior of the next one, and reset the sums."""
        super().end_epoch()
        sums, counts = self._of_all_processes()
        known = counts > 0
        if self.off_target == "others":  # of which a class that is always certain says nothing
            known &= sums.diagonal() < sums.sum(-1)
        # By their own total, which is the count but for rounding: a prior has to sum to 1.
        means = sums / sums.sum(-1).masked_fill(~known, 1.0).unsqueeze(-1)
        assert self.prior is not None
        self.prior.probabilities.copy_(torch.where(known.unsqueeze(-1), means, 1 / len(counts)))
        self.sums.zero_()
        self.counts.zero_()

    def _of_all_processes(self) -> tuple[Tensor, Tensor]:
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            return self.sums, self.counts
        both = torch.cat([self.sums, self.counts.unsqueeze(-1)], -1)
        distributed.all_reduce(both, group=self.process_group)
        return both[:, :-1], both[:, -1]
