"""Methods by name: those of this package, those of others, and how their settings are written."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from holitom.methods.base import STAGES, Method
from holitom.methods.baselines import AveragePool, RandomDrop, RandomInner, RepeatFrames, Uncompressed, UniformFrames
from holitom.methods.cdpruner import CDPruner
from holitom.methods.cells import CellMean, CellSample
from holitom.methods.chain import Chain
from holitom.methods.divprune import DivPrune
from holitom.methods.dycoke import DyCoke
from holitom.methods.earlytom import EarlyTom
from holitom.methods.echoprune import EchoPrune
from holitom.methods.evs import EVS
from holitom.methods.fastv import FastV
from holitom.methods.fastvid import FastVID
from holitom.methods.flashvid import FlashVID
from holitom.methods.forestprune import ForestPrune
from holitom.methods.framefusion import FrameFusion
from holitom.methods.holitom import HoliTom
from holitom.methods.prunevid import PruneVid
from holitom.methods.pyramiddrop import PyramidDrop
from holitom.methods.renewal import Renewal
from holitom.methods.settings import kinds_of
from holitom.methods.spread import Spread
from holitom.methods.sttm import STTM
from holitom.methods.tome import ToMe
from holitom.methods.unifiedst import UnifiedST
from holitom.methods.vcast import VCast
from holitom.methods.vidcom2 import VidCom2
from holitom.methods.visionzip import VisionZip

GROUP = "holitom.methods"
_CLASSES: tuple[type[Method], ...] = (
    HoliTom, Spread, FastV, PyramidDrop, VisionZip, DyCoke, PruneVid, FastVID, EVS, VidCom2, DivPrune, CDPruner,
    EchoPrune, FlashVID, UnifiedST, VCast, FrameFusion, ForestPrune, STTM, UniformFrames, RandomDrop, RandomInner,
    AveragePool, CellSample, CellMean, Renewal, EarlyTom, ToMe, RepeatFrames,
)  # fmt: skip
BUILTIN = {cls.name: cls for cls in _CLASSES}


def third_party() -> dict[str, EntryPoint]:
    """The entry points of other installed packages in the group ``holitom.methods``, by name.

    Raises:
        ValueError: when a name is taken twice, or by a method of this package.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        rival = found.get(point.name)
        if point.name in BUILTIN or (rival is not None and rival.value != point.value):
            raise ValueError(
                f"the entry point {point.name} = {point.value} {_origin(point)} takes the name of "
                f"{rival.value if rival else 'a method of holitom'}: one of the two packages has to rename or go"
            )
        found[point.name] = point
    return found


def names() -> list[str]:
    """All names that :func:`method_class` knows: this package's methods in the order of the catalogue, then others."""
    return [*BUILTIN, *sorted(third_party())]


def method_class(name: str) -> type[Method]:
    """The class of a method; also of ``uncompressed``, which no table lists as one.

    Raises:
        ValueError: when there is none, with the nearest names.
        TypeError: when another package's entry point is no method.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    if name == Uncompressed.name:
        return Uncompressed
    points = third_party()
    if name in points:
        return _load(points[name])
    known = names()
    raise ValueError(f"there is no method {name!r}{_nearest(name.lower(), known)}; there are {', '.join(known)}")


def parse(setting: str | Mapping[str, Any]) -> Method:
    """A method from text or from a mapping, as a file would hold it.

    Text is ``name``, ``name:key=value,key=value``, or several of these with ``|`` between them for a chain:
    ``"visionzip:retention=0.15|fastv:layer=2,inner_retention=0.5"``. Values are numbers, fractions as 18/28, true,
    false, none, words, and tuples as (8, 16, 24). A mapping has the name under ``method`` and the parameters beside
    it, as :meth:`Method.settings` writes it; a chain has one for each part under ``tower``, ``before`` or ``inside``.

    Raises:
        ValueError: naming the unknown method or parameter and the nearest valid ones, or the value.
        TypeError: naming the parameter of a wrong type.
    """
    if isinstance(setting, Mapping):
        return _from_mapping(setting)
    methods = [build(*split_text(part.strip())) for part in setting.split("|")]
    return methods[0] if len(methods) == 1 else Chain.of(*methods)


def spell(method: Method) -> str:
    """The shortest text that :func:`parse` turns into the same method.

    Raises:
        ValueError: when the method is not in the registry.
    """
    if isinstance(method, Chain):
        return "|".join(map(spell, method.parts))
    if method_class(method.name) is not type(method):
        raise ValueError(f"{type(method).__name__} is not the method that {method.name!r} names")
    changed = [
        f"{field.name}={str(value).lower() if value is None or isinstance(value, bool) else value}"
        for field in dataclasses.fields(method)
        if (value := getattr(method, field.name)) != field.default
    ]
    return method.name + (":" + ",".join(changed) if changed else "")


def build(name: str, settings: Mapping[str, Any]) -> Method:
    """A method from its name and parameters, checked against its fields and their types.

    Raises:
        ValueError: naming the method or parameter that is unknown, or the value.
        TypeError: naming the parameter of a wrong type.
    """
    cls: Any = method_class(name)
    known = list(kinds_of(cls))
    for key in settings:
        if key not in known:
            raise ValueError(
                f"{name} has no parameter {key!r}{_nearest(key, known)}; it has {', '.join(known) or 'none'}"
            )
    method: Method = cls(**settings)
    return method


def split_text(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the settings in ``name:key=value,key=value``, values as in :func:`parse`, not checked any further.

    Raises:
        ValueError: when something is no key=value, or set twice.
    """
    name, colon, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for item in _items(rest) if colon else []:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: after the colon come settings as key=value, separated by commas; got {item!r}")
        if key.strip() in settings:
            raise ValueError(f"{text!r} sets {key.strip()} twice")
        settings[key.strip()] = _value(value.strip())
    return name.strip(), settings


def _from_mapping(setting: Mapping[str, Any]) -> Method:
    if setting and set(setting) <= set(STAGES):
        return Chain(**{stage: parse(part) for stage, part in setting.items()})
    if not isinstance(setting.get("method"), str):
        raise ValueError(f"a method's settings need its name under 'method', got the keys {sorted(map(str, setting))}")
    settings = {key: value for key, value in setting.items() if key != "method"}
    if "|" in setting["method"]:
        if settings:
            raise ValueError(
                "settings of a chain belong to its parts: give each under its stage ('before', 'inside', ...)"
            )
        return parse(setting["method"])
    return build(setting["method"], settings)


def _items(text: str) -> list[str]:
    """What stands between the commas of a text, but for those in brackets."""
    items: list[list[str]] = [[]]
    depth = 0
    for piece in re.split(r"([,()\[\]])", text):
        depth += (piece in ("(", "[")) - (piece in (")", "]"))
        if piece == "," and depth <= 0:
            items.append([])
        else:
            items[-1].append(piece)
    return ["".join(item) for item in items]


def _value(text: str) -> Any:
    if text.lower() in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(text.lower())
    fraction = re.fullmatch(r"(\d{1,15})\s*/\s*([1-9]\d{0,14})", text)
    if fraction:
        return int(fraction[1]) / int(fraction[2])
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return text
    return value


def _origin(point: EntryPoint) -> str:
    return f"of the package {point.dist.name!r}" if point.dist is not None else "of an installed package"


def _load(point: EntryPoint) -> type[Method]:
    try:
        cls = point.load()
    except Exception as error:
        raise TypeError(
            f"the method {point.name!r} {_origin(point)} cannot be imported from {point.value}: {error}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Method) and dataclasses.is_dataclass(cls)):
        raise TypeError(
            f"the entry point {point.name} = {point.value} {_origin(point)} must name a dataclass that derives from "
            f"holitom.Method, got {cls!r}"
        )
    if cls.name != point.name:
        raise TypeError(
            f"the entry point {point.name!r} {_origin(point)} and the class attribute name = {cls.name!r} of "
            f"{point.value} must be the same"
        )
    return cls


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    return f": did you mean {' or '.join(close)}?" if close else ""


def tower_names() -> list[str]:
    """The names of the built-in methods that work inside the vision tower alone."""
    return [name for name, cls in BUILTIN.items() if cls.stages == ("tower",)]


def with_tower(method: Method, tower: Method | str | None) -> Method:
    """``tower | method``: a method behind another one inside the vision tower; behind ``Uncompressed``, that one alone.

    Args:
        method: the method.
        tower: a method with a stage inside the vision tower, or its text; None: the method as it is.

    Raises:
        ValueError: when ``tower`` works elsewhere, or cannot stand in front of ``method``.
    """
    if tower is None:
        return method
    first = parse(tower) if isinstance(tower, str) else tower
    if first.stages != ("tower",):
        able = ", ".join(tower_names())
        raise ValueError(f"{spell(first)} is no method for the vision tower alone: give one of {able}")
    if "tower" in method.stages:
        raise ValueError(f"{spell(method)} has a stage inside the vision tower already: leave {spell(first)} out")
    return first if isinstance(method, Uncompressed) else Chain.of(first, method)
