"""Mixtures: how much of the tokens of training comes from each group of a corpus, and how good ones are found.

A *group* is a value of a column (a cluster, a domain, a language) as a string; a document without a value belongs to none. A
mixture gives each group its share of tokens, and a search leaves it in `mixture.json` with all that it was found by
(`Mixture`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, StageError, did_you_mean
from curate.storage import write_json

FORMAT = "curate-mixture/1"
FILE = "mixture.json"
OTHERS = "*"  # all groups together that a mapping does not name
UNIT = "tokens"


# --------------------------------------------------------------------------------------------- mixture.json


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Shares of groups, with what they were found by.

    weights: the share of the tokens that comes from each group; they sum to one. by: the column whose values are the groups.
    natural: the shares that the groups have in the corpus. names: of groups, where they have some. rate: a column with how
    many copies of each document are wanted, where groups alone do not decide it. metric: `name` ("loss" or "accuracy"),
    `lower_is_better`, `unit` and `targets`. predicted: the metric as a predictor has it. measured: the same as a proxy has it,
    where one was trained on these weights. uncertainty: of the prediction, in units of the metric. rank_correlation: of
    predictions with measurements that the predictor has not seen: `spearman`, the ends `low` and `high` of its 95% interval,
    and `runs`. evidence: `method`, `proxy`, `proxy_tokens`, and `runs`, of each proxy what it was trained on and what was
    measured. warnings: what people should know before they use it.

    Raises RecipeError for weights that are none; those that do not sum to one are scaled.
    """

    weights: Mapping[str, float]
    by: str = ""
    natural: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    rate: str | None = None
    metric: Mapping[str, Any] = field(default_factory=dict)
    predicted: float | None = None
    measured: Mapping[str, Any] | None = None
    uncertainty: float | None = None
    rank_correlation: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", shares(self.weights, "a mixture"))

    def to_json(self) -> dict[str, Any]:
        """What `mixture.json` holds, in its order."""
        found: dict[str, Any] = {"format": FORMAT, "by": self.by, "unit": UNIT}
        for one in dataclasses.fields(self):
            if one.name != "by":
                value = getattr(self, one.name)
                found[one.name] = dict(value) if isinstance(value, Mapping) else value
        found["warnings"] = list(self.warnings)
        return found

    @staticmethod
    def from_json(value: Any, what: str) -> Mixture:
        """A mixture out of what `to_json` gives, or out of `weights` alone. what: whose it is, for messages.

        Raises RecipeError, in one line, for what is none.
        """
        if not isinstance(value, Mapping) or "weights" not in value:
            raise RecipeError(f"{what} is no mixture: it needs `weights`, an object of groups and their shares of tokens")
        said = value.get("format", FORMAT)
        if said != FORMAT:
            raise RecipeError(f"{what}: its format is {said!r}; this version of Curate reads {FORMAT!r}")
        if value.get("unit", UNIT) != UNIT:
            raise RecipeError(f"{what}: its unit is {value['unit']!r}; shares are of {UNIT}")
        fields = {one.name: one for one in dataclasses.fields(Mixture)}
        for name in value:
            if name not in fields and name not in ("format", "unit"):
                raise RecipeError(f"{what}: a mixture has no {name!r}{did_you_mean(name, fields)}")
        for name, kinds in _KINDS.items():
            if not isinstance(value.get(name), (*kinds, type(None))) or isinstance(value.get(name), bool):
                raise RecipeError(f"{what}: {name} is {type(value[name]).__name__}; it is {_SAID[kinds[0]]}")
        given = {name: found for name, found in value.items() if name in fields and found is not None}
        given["weights"] = shares(value["weights"], what)
        given["warnings"] = tuple(value.get("warnings") or ())
        return Mixture(**given)

    def save(self, path: Path | str) -> None:
        """Write `mixture.json`, or another file, at once."""
        write_json(path, self.to_json())

    @staticmethod
    def load(path: Path | str, what: str) -> Mixture:
        """Read what `save` wrote, or a file by hand that holds `weights`. what: who needs it, for messages.

        Raises RecipeError, in one line, where there is no such file, or what it holds is no mixture.
        """
        path = Path(path)
        try:
            value = orjson.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RecipeError(
                f"{what}: there is no file {path}; name the mixture.json of a search, or one with weights"
            ) from None
        except IsADirectoryError:
            raise RecipeError(f"{what}: {path} is a folder; name the file, {path / FILE} for one") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise RecipeError(f"{what}: {path} cannot be read as JSON: {error}") from None
        return Mixture.from_json(value, f"{what}: {path}")


_KINDS: dict[str, tuple[type, ...]] = {
    "by": (str,),
    "natural": (Mapping,),  # type: ignore[type-abstract]
    "names": (Mapping,),  # type: ignore[type-abstract]
    "rate": (str,),
    "metric": (Mapping,),  # type: ignore[type-abstract]
    "predicted": (int, float),
    "measured": (Mapping,),  # type: ignore[type-abstract]
    "uncertainty": (int, float),
    "rank_correlation": (Mapping,),  # type: ignore[type-abstract]
    "evidence": (Mapping,),  # type: ignore[type-abstract]
    "warnings": (list, tuple),
}
_SAID = {str: "a string", Mapping: "an object", int: "a number", list: "a list of strings"}  # type: ignore[type-abstract]


def shares(weights: Any, what: str) -> dict[str, float]:
    """Weights by the names of their groups, scaled so that they sum to one. what: whose they are, for messages.

    Raises RecipeError for what is no mapping to numbers that are not negative and not all 0.
    """
    if not isinstance(weights, Mapping) or not weights:
        raise RecipeError(f"{what}: weights are groups and their shares, such as {{news: 0.3, books: 0.7}}")
    found = {}
    for name, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise RecipeError(f"{what}: the weight of {name!r} is {weight!r}; give a number that is not negative")
        found[group_name(name)] = float(weight)
    if len(found) != len(weights):
        raise RecipeError(f"{what}: two weights are of one group; give each group once")
    total = math.fsum(found.values())
    if not 0 < total < math.inf:
        raise RecipeError(f"{what}: the weights sum to {total:g}; at least one has to be above 0")
    return found if abs(total - 1) < 1e-12 else {name: weight / total for name, weight in found.items()}


def group_name(value: Any) -> str:
    """A group as a string, as it is called everywhere: `str` of the value."""
    return str(value)


def ordered(groups: Iterable[str]) -> tuple[str, ...]:
    """Groups in their order, each once: integers by number, before all others by their names."""

    def key(name: str) -> tuple[bool, int, str]:
        digits = name.removeprefix("-")
        number = digits.isascii() and digits.isdigit()
        return not number, int(name) if number else 0, name

    return tuple(sorted(set(groups), key=key))


def groups_of(column: pa.Array, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(int32 per row: which of the groups, -1 for null; the groups of these rows, in the order in which they come up).

    column: of strings, integers or booleans, dictionaries of them too. what: "stage: column 'x'", for messages. Raises
    StageError for a column of another type.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    strings = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (strings or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise StageError(f"{what} is {kind}, which makes no groups; give a string, an integer or a boolean")
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column  # which may hold unused values
    coded = values.dictionary_encode()
    number = pc.fill_null(coded.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    return number, tuple(group_name(value) for value in coded.dictionary.to_pylist())


def given_weights(weights: Mapping[str, float], groups: Sequence[str], natural: Iterable[float], what: str) -> list[float]:
    """The shares of all `groups`, in their order, out of some by hand.

    weights: shares of groups; "*" is that of all groups together that are not named, which is divided among them as they have
    it in `natural`. Without it they get nothing. Raises RecipeError for a group that there is not.
    """
    named = shares(weights, what)
    unknown = [name for name in named if name != OTHERS and name not in groups]
    if unknown:
        raise RecipeError(f"{what}: there is no group {unknown[0]!r}{did_you_mean(unknown[0], groups)}")
    others = {name: share for name, share in zip(groups, natural, strict=True) if name not in named}
    total = math.fsum(others.values())
    rest = named.get(OTHERS, 0.0)
    if rest and not total:
        raise RecipeError(f"{what}: '*' has the weight {rest:g}, but there are no other groups; leave it out")
    return [named[name] if name in named else rest * others[name] / total if rest else 0.0 for name in groups]
