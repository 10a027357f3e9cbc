"""Every error names the argument, what was given and the rule, in exactly these words."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.errors import binary, head, logits, modules, rows


def rule(value: object) -> str | None:
    return re.sub(r"\W+", "_", value)[:50] if isinstance(value, str) else ""


@pytest.mark.parametrize(
    ("call", "message"), [*logits.CASES, *head.CASES, *rows.CASES, *modules.CASES, *binary.CASES], ids=rule
)
def test_values(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "call", "keyword", "hint"), modules.KEYWORDS, ids=rule)
def test_keywords(name: str, call: Callable[..., Any], keyword: str, hint: str) -> None:
    hint = hint if hint.startswith(";") or not hint else f"; did you mean '{hint}'?"
    message = rf"^{name}\(\) got an unexpected keyword argument '{keyword}'{re.escape(hint)}"
    with pytest.raises(TypeError, match=message):
        call(**{keyword: 0.1})
