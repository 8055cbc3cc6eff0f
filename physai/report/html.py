"""Fill the page's template. Whatever comes from data is escaped there; figures are drawn by us."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

TEMPLATE = "template.html.j2"


class Drawing(NamedTuple):
    """A figure and the numbers behind it: columns by the name of the CSV file they become."""

    name: str
    svg: str
    numbers: Mapping[str, Mapping[str, list[Any]]]


def page(drawings: Mapping[str, Drawing], **context: Any) -> str:
    """Return the page.

    Args:
        drawings: figures by name.
        context: everything else that the template names.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("physai.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    numbers: dict[str, Any] = {}
    for drawing in drawings.values():
        numbers.update(drawing.numbers)
    return environment.from_string(template).render(
        figures={name: Markup(drawing.svg) for name, drawing in drawings.items()},
        csv={name: list(drawing.numbers) for name, drawing in drawings.items()},
        numbers=Markup(script_json(numbers)),
        **context,
    )


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element, which it cannot end."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
