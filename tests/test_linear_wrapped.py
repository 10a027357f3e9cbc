"""A head whose ``linear`` is more than its weight: the loss is that of the logits that it returns."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.testing import assert_close

from labelsmooth import LinearCrossEntropyLoss

N, D, K = 6, 4, 5

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


class Adapter(nn.Module):
    """LoRA: a weight and bias that are the base's, and a forward that adds to them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(D, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Called(nn.Linear):
    def __call__(self, input: Tensor) -> Tensor:
        return 2 * super().__call__(input)


class Scaled(Tensor):
    """A weight that torch's own operators multiply otherwise, as those of quantised weights do."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found: Any = super().__torch_function__(func, types, args, kwargs or {})
        if func is F.linear:
            return 3 * found.as_subclass(Tensor)
        return found


def subclass(kind: type[nn.Linear]) -> Callable[[nn.Linear], nn.Module]:
    def make(linear: nn.Linear) -> nn.Module:
        it = kind(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
        it.load_state_dict(linear.state_dict())
        return it

    return make


def lora(linear: nn.Linear) -> nn.Module:
    return Adapter(linear).to(linear.weight.dtype)


def double(module: nn.Module, args: Any, output: Any) -> Any:
    return 2 * output


def hooked(linear: nn.Linear) -> nn.Module:
    linear.register_forward_hook(double)
    return linear


def pre_hooked(linear: nn.Linear) -> nn.Module:
    linear.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return linear


def backward_hooked(linear: nn.Linear) -> nn.Module:
    linear.register_full_backward_hook(lambda module, grad, of_output: (2 * grad[0],))
    return linear


def backward_pre_hooked(linear: nn.Linear) -> nn.Module:
    linear.register_full_backward_pre_hook(lambda module, grad: (2 * grad[0],))
    return linear


def pruned(linear: nn.Linear) -> nn.Module:
    return prune.random_unstructured(linear, "weight", 0.5)


def pruned_for_good(linear: nn.Linear) -> nn.Module:
    return prune.remove(pruned(linear), "weight")


def patched(linear: nn.Linear) -> nn.Module:
    of_class = linear.forward
    linear.forward = lambda input: 2 * of_class(input)  # noqa: A006 - as torch names it
    return linear


def subclass_weight(linear: nn.Linear) -> nn.Module:
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(Scaled))
    return linear


def compiled(linear: nn.Linear) -> nn.Module:
    torch.compiler.reset()
    return torch.compile(pre_hooked(linear), backend="eager")  # pyright: ignore[reportReturnType]


def compiled_in_place(linear: nn.Linear) -> nn.Module:
    torch.compiler.reset()
    linear.compile(backend="eager")
    return linear


def lazy(linear: nn.Linear) -> nn.Module:
    return nn.LazyLinear(linear.out_features, dtype=linear.weight.dtype)


def deep(linear: nn.Linear) -> nn.Module:
    return nn.Sequential(nn.Tanh(), linear)


PLAIN: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "nothing": lambda linear: linear,
    "parametrizations.weight_norm": lambda linear: parametrizations.weight_norm(linear),
    "parametrizations.orthogonal": lambda linear: parametrizations.orthogonal(linear),
    "parametrizations.spectral_norm": lambda linear: parametrizations.spectral_norm(linear).eval(),
    "pruned for good": pruned_for_good,
    "compiled in place": compiled_in_place,
}
OTHERS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "lora": lora,
    "lora in a sequence": lambda linear: nn.Sequential(lora(linear)),
    "a sequence": deep,
    "forward of a subclass": subclass(Doubled),
    "call of a subclass": subclass(Called),
    "forward of the instance": patched,
    "weight of a subclass": subclass_weight,
    "forward hook": hooked,
    "forward pre-hook": pre_hooked,
    "backward hook": backward_hooked,
    "backward pre-hook": backward_pre_hooked,
    "pruned": pruned,
    "weight_norm": weight_norm,
    "spectral_norm": lambda linear: spectral_norm(linear).eval(),
    "compiled": compiled,
    "lazy": lazy,
}


def made(wrap: Callable[[nn.Linear], nn.Module], **options: Any) -> LinearCrossEntropyLoss:
    torch.manual_seed(0)
    head = LinearCrossEntropyLoss(D, K, bias=True, dtype=torch.float64, **options)
    head.linear = wrap(head.linear)  # pyright: ignore[reportAttributeAccessIssue]
    return head


def steps(loss_of: Callable[[Tensor], Tensor], head: nn.Module, rows: tuple[int, ...]) -> list[Any]:
    """Two steps of training: losses, and the gradients by the input and all parameters."""
    generator = torch.Generator().manual_seed(1)
    found: list[Any] = []
    for _ in range(2):
        h = torch.randn(*rows, D, generator=generator, dtype=torch.float64).requires_grad_()
        head.zero_grad()
        loss = loss_of(h)
        loss.sum().backward()
        found += [
            loss.detach(),
            h.grad,
            *(None if x.grad is None else x.grad.clone() for x in head.parameters()),
        ]
        with torch.no_grad():
            for x in head.parameters():
                if x.grad is not None:
                    x -= 0.1 * x.grad
    return found


@pytest.mark.parametrize("rows", [(), (N,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_loss_is_that_of_its_logits(name: str, rows: tuple[int, ...]) -> None:
    wrap = {**PLAIN, **OTHERS}[name]
    target = torch.arange(N).reshape(rows) % K if rows else torch.tensor(2)
    head, twin = made(wrap, label_smoothing=0.1), made(wrap)
    torch.manual_seed(2)  # for what is initialised in the first call
    ours = steps(lambda h: head(h, target), head, rows)
    torch.manual_seed(2)

    def theirs(h: Tensor) -> Tensor:
        z = twin.linear(h)
        return F.cross_entropy(z.reshape(-1, K), target.reshape(-1), label_smoothing=0.1)

    assert_close(ours, steps(theirs, twin, rows))


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_logits_are_made_where_linear_is_more_than_its_weight(name: str) -> None:
    """Which is to call it, as the first call of a lazy one does."""
    head, target = made({**PLAIN, **OTHERS}[name], label_smoothing=0.1), torch.arange(N) % K
    called = []
    for _ in range(2):
        with torch.no_grad(), torch.profiler.profile() as profiled:
            head(torch.ones(N, D, dtype=torch.float64), target)
        called.append(any(event.key == "aten::linear" for event in profiled.key_averages()))
    assert called == [name in OTHERS, name in OTHERS and name != "lazy"]


@pytest.mark.parametrize("options", [
    {"reduction": "none"},
    {"softcap": 2.0, "z_loss": 0.1},
    {"ignore_index": 1, "weight": torch.linspace(0.5, 2, K, dtype=torch.float64), "weighting": "sample"},
    {"prior": torch.linspace(1, 2, K).softmax(0), "off_target": "others"},
], ids=lambda options: "-".join(options))  # fmt: skip
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
def test_options_are_those_of_the_plain_head(
    shape: tuple[int, ...], soft: bool, options: dict[str, Any]
) -> None:
    """A hook that changes nothing changes nothing."""
    options = {"label_smoothing": 0.1, **options}
    if soft and options.pop("ignore_index", None) is not None:
        options.pop("weighting")
    plain = LinearCrossEntropyLoss(D, K, out_features=shape, bias=True, dtype=torch.float64, **options)
    head = copy.deepcopy(plain)
    head.linear.register_forward_hook(lambda module, args, output: None)
    target = torch.arange(N * torch.Size(shape).numel()).reshape(N, *shape) % K
    if soft and options.get("off_target") != "others":
        target = F.one_hot(target, K).movedim(-1, 1).double() * 0.8 + 0.2 / K
    scale = torch.linspace(0, 1, N, dtype=torch.float64).reshape(N, *[1] * len(shape))
    found = [steps(lambda h, m=m: m(h, target, sample_weight=scale), m, (N,)) for m in (head, plain)]
    assert_close(found[0], found[1])


def test_a_global_hook_reaches_the_head() -> None:
    head, target = made(lambda linear: linear), torch.arange(N) % K
    h = torch.randn(N, D, dtype=torch.float64)
    expected = F.cross_entropy(2 * head.linear(h), target)

    def of_the_head(module: nn.Module, args: Any, output: Any) -> Any:
        return double(module, args, output) if module is head.linear else None

    register: Any = nn.modules.module.register_module_forward_hook
    handle = register(of_the_head)
    try:
        assert_close(head(h, target), expected)
    finally:
        handle.remove()
    assert not torch.allclose(head(h, target), expected)


def test_a_quantised_head() -> None:
    torch.manual_seed(0)
    head, target = LinearCrossEntropyLoss(D, K, bias=True), torch.arange(N) % K
    q = torch.ao.quantization.quantize_dynamic(head, {nn.Linear}, torch.qint8)
    assert type(q.linear) is not nn.Linear
    h = torch.randn(N, D)
    assert_close(q(h, target), F.cross_entropy(q.linear(h), target))


def test_autocast_around_the_forward_of_the_head() -> None:
    head, target = LinearCrossEntropyLoss(D, K), torch.arange(N) % K
    head.linear.forward = torch.autocast("cpu", torch.bfloat16)(head.linear.forward)
    h = torch.randn(N, D)
    z = head.linear(h)
    assert z.dtype == torch.bfloat16
    loss = head(h, target)
    assert loss.dtype == torch.float32
    assert_close(loss, F.cross_entropy(z.float(), target))


def test_a_cap_bends_short_logits_in_float32() -> None:
    head = LinearCrossEntropyLoss(D, K, softcap=2.0, dtype=torch.bfloat16)
    hooked(head.linear)
    h, target = torch.randn(N, D, dtype=torch.bfloat16), torch.arange(N) % K
    z = head.linear(h).float()
    assert_close(head(h, target), F.cross_entropy(2 * torch.tanh(z / 2), target))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "forward hook", "parametrizations.weight_norm"])
def test_compiles_as_a_whole(name: str) -> None:
    torch.compiler.reset()
    head, target = made({**PLAIN, **OTHERS}[name], label_smoothing=0.1), torch.arange(N) % K
    h = torch.randn(N, D, dtype=torch.float64)
    whole = torch.compile(head, fullgraph=True, backend="aot_eager")
    assert_close(whole(h, target), head(h, target))


def test_logits_of_another_shape_are_refused() -> None:
    """As of a layer that has some of the classes only: their labels would be taken for others."""
    head = LinearCrossEntropyLoss(D, K)
    head.linear = nn.Linear(D, K - 1)
    head.linear.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(ValueError, match=r"^linear must return logits of shape \(6, 5\) for input of shape"):
        head(torch.zeros(N, D), torch.zeros(N, dtype=torch.long))
    head.linear = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"got \(6, 4\)$"):
        head(torch.zeros(N, D), torch.zeros(N, dtype=torch.long))
