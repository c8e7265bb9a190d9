"""Command-line options made from a dataclass of options: names, defaults and help are written once, there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

__all__ = ["LazyOptions", "options_of"]


class LazyOptions(click.Command):
    """A command that builds more options when it is run or asked for help, so that other commands need not."""

    def __init__(self, *args: Any, more: Callable[[], list[click.Option]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._more = more

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The declared options and those built now."""
        declared = super().get_params(ctx)
        names = {parameter.name for parameter in declared}
        return [*(o for o in self._more() if o.name not in names), *declared]


class _Words(click.ParamType[tuple[str, ...]]):
    """``a,b,c`` as a tuple of words; a default that is a tuple already stays as it is."""

    name = "a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return (
            tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value
        )


class _Shares(click.ParamType[tuple[tuple[str, float], ...]]):
    """``phone=0.6,iot=0.4`` as pairs of a name and a number."""

    name = "name=share,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        pairs = []
        for part in value.split(","):
            name, _, share = part.partition("=")
            try:
                pairs.append((name.strip(), float(share)))
            except ValueError:
                self.fail(f"{part!r} is not of the form name=number", param, ctx)
        return tuple(pairs)


def options_of(spec: type) -> list[click.Option]:
    """One option per field of a dataclass whose metadata carries ``help``.

    Understands int, float, str, Literal, ``X | None``, tuples of two numbers, of words and of (word, number).
    """
    hints = get_type_hints(spec)
    return [_option(f, hints[f.name]) for f in fields(spec)]


def _option(f: Field[Any], hint: Any) -> click.Option:
    inner = [t for t in get_args(hint) if t is not NoneType]
    if isinstance(hint, UnionType) and len(inner) == 1:
        hint = inner[0]
    settings: dict[str, Any] = {"type": hint}
    if get_origin(hint) is Literal:
        settings = {"type": click.Choice(list(get_args(hint)))}
    elif get_origin(hint) is tuple:
        parts = get_args(hint)
        if parts == (str, ...):
            settings = {"type": _Words()}
        elif parts[-1] is ...:
            settings = {"type": _Shares()}
        else:
            settings = {"type": parts}
    default = f.default if f.default is not MISSING else None
    shown: bool | str = default is not None and default != ()
    if isinstance(settings["type"], _Shares) and default:
        shown = ",".join(f"{name}={share:g}" for name, share in default)
    elif isinstance(default, float):
        shown = f"{default:g}"
    flag = "--" + f.name.replace("_", "-")
    return click.Option([flag, f.name], default=default, show_default=shown, help=f.metadata["help"], **settings)
