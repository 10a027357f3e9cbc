"""The interactive page, in a browser: what it shows is what the library computes."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from labelsmooth.functional import cross_entropy
from tests.browser import browse, needs_browser

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "one_row.html"
pytestmark = needs_browser
LABEL = 1


def shown(state: str, folder: Path, script: str = "") -> tuple[dict[str, float], Tensor]:
    """The named numbers and the table that the page shows in this state."""
    page = folder / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{PAGE.read_text('utf-8')}{script}", "utf-8")
    dom = browse(folder / "profile", "--dump-dom", f"{page.as_uri()}{state}")
    numbers = {name: float(value) for name, value in re.findall(r'data-name="(\w+)">([-\d.]+)</b>', dom)}
    body = re.search(r"<tbody>(.*?)</tbody>", dom, re.DOTALL)
    assert body is not None, dom[:2000]
    rows = [re.findall(r"<td>([^<]*)</td>", row) for row in body[1].split("</tr>") if row.strip()]
    return numbers, torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)


def check(numbers: dict[str, float], table: Tensor, eps: float, K: int, z: float, prior: Tensor) -> None:
    k = torch.arange(K, dtype=torch.float64)
    logits = torch.where(k == LABEL, z, -(k - LABEL).abs() / 2).requires_grad_()
    given = {"label_smoothing": eps, "prior": prior}
    loss, nll = cross_entropy(logits[None], torch.tensor([LABEL]), return_nll=True, **given)  # pyright: ignore[reportArgumentType, reportCallIssue]
    (gradient,) = torch.autograd.grad(loss, logits)
    target = eps * prior + (1 - eps) * (k == LABEL)
    columns = torch.stack([k, logits.detach(), prior, target, logits.detach().softmax(0), gradient], 1)
    torch.testing.assert_close(table, columns, atol=6e-5, rtol=0.0)
    expected = {"loss": loss.item(), "minimum": torch.special.entr(target).sum().item(), "nll": nll.item()}
    assert numbers == {name: pytest.approx(value, abs=6e-5) for name, value in expected.items()}


def test_at_first(tmp_path: Path) -> None:
    check(*shown("", tmp_path), 0.1, 5, 2.0, torch.full((5,), 0.2).double())


@pytest.mark.parametrize("prior", ["uniform", "frequency", "neighbours"])
@pytest.mark.parametrize(("eps", "K", "z"), [(0.0, 2, -1.5), (0.3, 8, 4.0), (1.0, 12, 10.0)])
def test_a_linked_state(eps: float, K: int, z: float, prior: str, tmp_path: Path) -> None:
    k = torch.arange(K, dtype=torch.float64)
    weights = {"uniform": k * 0 + 1, "frequency": 1 / (k + 1), "neighbours": (-(k - LABEL).abs()).exp()}
    found = shown(f"#eps={eps}&K={K}&z={z}&prior={prior}", tmp_path)
    check(*found, eps, K, z, weights[prior] / weights[prior].sum())


def test_the_controls_move_it(tmp_path: Path) -> None:
    hand = """<script>
    const form = document.querySelector(".one-row form");
    for (const [name, value] of [["eps", 0.25], ["K", 3], ["prior", "frequency"]]) {
        form[name].value = value;
        form[name].dispatchEvent(new Event("input", {bubbles: true}));
    }
    </script>"""
    numbers, table = shown("", tmp_path, hand)
    check(numbers, table, 0.25, 3, 2.0, torch.tensor([1, 1 / 2, 1 / 3]).double() * 6 / 11)
    assert math.isfinite(numbers["loss"])


def test_nothing_is_loaded() -> None:
    assert not re.findall(r"https?://|src=|@import", PAGE.read_text("utf-8"))
