"""HTML that nothing can break out of: texts are escaped unless they are markup made here."""

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from persona_mcp.server.graph_files import NO_XML, REPLACEMENT

VOID = frozenset({"br", "hr", "input", "meta"})
NOT_IN_SCRIPTS = re.compile("[<>&\u2028\u2029]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def html(text: object) -> Markup:
    """Write a text as HTML; markup stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(escape(NO_XML.sub(REPLACEMENT, str(text)), quote=True))


def el(tag: str, *children: object, **attributes: object) -> Markup:
    """Write an element.

    Args:
        tag: Its name.
        children: Texts and markup; None is left out.
        attributes: By name, `_` for `-` and without one at the end; None is left out, True has no
            value.
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html(value)}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(*children)}</{tag}>")


def joined(*parts: object) -> Markup:
    """Write parts one behind the other; None is left out."""
    return Markup("".join(html(part) for part in parts if part is not None))


def named(text: object, **attributes: object) -> Markup:
    """Write a text from outside so that its direction of writing does not turn what is around."""
    return el("bdi", text, **attributes)


def arrow_name(ends: tuple[str, str], names: Mapping[str, str]) -> Markup:
    """Say who sees whom."""
    of, to = (named(names.get(id, id)) for id in ends)
    return joined(of, " → ", to)


def table(heads: list[object], rows: list[list[object]], **attributes: object) -> Markup:
    """Write a table that scrolls by itself where the page is too narrow for it."""
    head = el("tr", *(el("th", one, scope="col") for one in heads))
    body = (
        el("tr", el("th", row[0], scope="row"), *(el("td", one) for one in row[1:])) for row in rows
    )
    whole = el("table", el("thead", head), el("tbody", *body), **attributes)
    return el("div", whole, class_="wide", tabindex="0")


def data(value: Any) -> Markup:
    """Write a JSON value for the page's script; no text in it ends the element that holds it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = NOT_IN_SCRIPTS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return el("script", Markup(NO_XML.sub(REPLACEMENT, safe)), type="application/json")
