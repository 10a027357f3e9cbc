"""The Triton engine where it cannot serve, its compiler, and what only a GPU has."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engines.private import ABSENT, DIFFERENTIABLE
from tests.engines.triton_cases import (
    FULL,
    FULL_BENT,
    FULL_FEW,
    FULL_SOFT,
    INTERPRETED,
    PLAIN,
    cotangent,
    logits,
    measures_for,
    named,
    triton,
)  # fmt: skip

compiled = pytest.mark.skipif(
    find_spec("triton") is None or INTERPRETED, reason="triton is not installed, or interprets"
)


def test_block_holds_the_classes_that_there_are() -> None:
    assert [triton._block(K) for K in (1, 2, 3, 1000, 1025)] == [(1, 1), (2, 1), (4, 1), (1024, 4), (2048, 8)]
    assert triton._block(256_000) == triton._block(triton.BLOCK)


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from labelsmooth._engines import triton
from labelsmooth._core.statistics import Measures
assert triton.absence() == "triton is not installed"
z = torch.zeros(2, 5)
measures = Measures(torch.tensor([0, 1]), torch.ones(2, dtype=torch.bool))
for call in (
    lambda: triton.forward(z, measures),
    lambda: triton.backward(torch.zeros(5, 2), z, measures, torch.zeros(10, 2)),
):
    try:
        call()
    except ValueError as error:
        assert str(error) == "the triton engine cannot serve: triton is not installed", error
    else:
        raise AssertionError("it served")
"""


@pytest.mark.slow
def test_import_without_triton() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@compiled
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_absence_says_what_is_missing() -> None:
    z = logits(2, 5)
    with pytest.raises(ValueError, match="no CUDA device, and TRITON_INTERPRET=1 was not set before"):
        triton.forward(z, measures_for(z))


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("kernel", ["forward", "backward"])
@pytest.mark.parametrize("options", [PLAIN, FULL, FULL_SOFT, FULL_BENT], ids=named)
def test_compiles_for_a_gpu(
    kernel: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the interpreter cannot show: Triton's compiler takes it, and loads whole vectors of logits."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as compile_for

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = {"forward": triton._forward_kernel, "backward": triton._backward_kernel}[kernel]
    constants = {"EXCLUDE": options.get("exclude", False), "ALIGN": 8, "BLOCK": 2048, "ABSENT": ABSENT}
    constants |= {"PER_ROW": options.get("prior") == "rows", "HINGED": "margin" in options}
    constants |= {name: options.get(name.lower(), False) for name in ("SQUARED", "SPREAD")}
    pointers = {"z": "*bf16", "counted": "*u8", "statistics": "*fp32", "grad": "*fp32"}
    pointers["soft" if options.get("soft") else "target"] = "*fp32" if options.get("soft") else "*i64"
    pointers |= {name: "*fp32" for name in ("prior", "weight") if options.get(name)}
    if kernel == "backward":
        pointers["out"] = "*bf16"
    tensors = ("out", "target", "soft", "prior", "weight")
    constants |= dict.fromkeys([name for name in tensors if name not in pointers])
    types = {name: pointers.get(name, "i32") for name in function.arg_names} | {"margin": "fp64"}
    types |= {name: "constexpr" for name in types if name in constants}
    places = {name: (i,) for i, name in enumerate(types)}
    source = ASTSource(
        function,
        types,
        {places[name]: value for name, value in constants.items() if name in places},
        {places[name]: [["tt.divisibility", 16]] for name in pointers if name in places},
    )
    found = compile_for(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert "ld.global.v4.b32" in found.asm["ptx"]
    assert ("st.global.v4.b32" in found.asm["ptx"]) == (kernel == "backward")
    # One logit at a time would be 16 bits; the only one is that of the target.
    assert found.asm["ptx"].count("ld.global.b16") == (kernel == "forward" and not options.get("soft"))


@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="there is no CUDA device")
class TestCuda:
    """What only a GPU has."""

    def test_graph(self) -> None:
        z = logits(16, 5003, device="cuda")
        grad = cotangent(z)
        for options in (PLAIN, FULL, FULL_SOFT, FULL_FEW, FULL_BENT):
            measures = measures_for(z, **options)
            out = torch.empty_like(z)
            statistics = triton.forward(z, measures)  # outside the graph: this compiles
            triton.backward(grad, z, measures, statistics, out)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                statistics = triton.forward(z, measures)
                triton.backward(grad, z, measures, statistics, out)
            z.mul_(0.5)
            if not measures.soft:
                measures.target.add_(1).remainder_(z.size(-1))
            graph.replay()
            expected = triton.forward(z, measures)
            assert statistics.equal(expected)
            assert out.equal(triton.backward(grad, z, measures, expected))

    def test_no_synchronisation(self) -> None:
        z = logits(16, 5003, device="cuda")
        measures, grad = measures_for(z), cotangent(z)
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            triton.backward(grad, z, measures, triton.forward(z, measures))
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    def test_more_than_2_to_the_31_elements(self) -> None:
        K = 2**16 + 8
        rows = 2**31 // K + 9
        if torch.cuda.mem_get_info()[0] < 2**33:
            pytest.skip("there are less than 8 GiB of free GPU memory")
        z = torch.zeros(rows, K, dtype=torch.bfloat16, device="cuda")
        last = slice(rows - 8, rows)
        z[last] = logits(8, K, dtype=torch.bfloat16, device="cuda")
        measures = measures_for(z, weight=True)
        grad = torch.zeros(DIFFERENTIABLE, rows, device="cuda")
        grad[:, last] = cotangent(z[last])
        tail = z[last].clone()
        statistics = triton.forward(z, measures)
        gradient = triton.backward(grad, z, measures, statistics, z)
        tail_measures = measures.rows(last)
        expected = triton.forward(tail, tail_measures)
        assert statistics[:, last].equal(expected)
        assert gradient[last].equal(triton.backward(cotangent(tail), tail, tail_measures, expected))
        assert not gradient[: rows - 8].any()
