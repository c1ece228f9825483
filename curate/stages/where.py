"""Rows chosen by a condition over columns."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, StageError
from curate.stage import Filter

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class Where(Filter):
    """Keeps the rows for which a SQL condition is true.

    sql: an expression in Polars' SQL dialect over the columns of one row, such as `language = 'en' AND quality > 0.3`.
    Aggregates, windows, subqueries and the clock are refused, since a row must not depend on its batch, on files, or on the
    day of the run. A keyword that is meant as a column goes into double quotes.

    Reads the columns that the condition names. Columns written: none.
    Reasons: `where.false`; `where.null` where the condition is null, as any comparison with a missing value is.

    Source: own; SQL's three-valued logic as in a WHERE clause, by Polars (`polars.sql_expr`).

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["a", "b", "c"], "quality": [0.9, 0.1, None]})
    >>> result = Where(sql="quality > 0.3")(docs)
    >>> result.kept["text"].to_pylist(), result.dropped["_reason"].to_pylist()
    (['a'], ['where.false', 'where.null'])
    """

    example: ClassVar[dict[str, Any]] = {"sql": "text LIKE '%a%'"}
    sql: str

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_parse(self.sql).meta.root_names()))

    def reasons(self) -> tuple[str, ...]:
        return "where.false", "where.null"

    def reject(self, batch: pa.RecordBatch) -> pa.Array:
        import polars as pl

        expression = _parse(self.sql)
        frame = pl.DataFrame(pa.Table.from_batches([batch.select(self.reads())]))
        try:  # on no rows only the types can be wrong, and they are wrong for every row
            kind = frame.clear().select(expression.alias("_")).dtypes[0]
        except pl.exceptions.PolarsError as error:
            raise StageError(f"where: {self.sql!r} does not fit its columns: {_first_line(error)}") from error
        if kind not in (pl.Boolean, pl.Null):
            raise StageError(f"where: {self.sql!r} is {kind}, not a condition: compare it with something")
        verdict = pc.cast(frame.select(expression.alias("_"))["_"].to_arrow(), pa.bool_())
        return pc.if_else(pc.fill_null(verdict, False), pa.scalar(None, pa.string()), pc.if_else(pc.is_null(verdict), *_CODES))


_CODES = pa.scalar("where.null"), pa.scalar("where.false")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")
_REFUSED = re.compile(r"\b(select|values|table|with|over|now|current_date|current_time|current_timestamp|localtime\w*)\b", re.I)
_TRICKS = re.compile(r"--|/\*|[;$`\\]|['\"]|[\w&]\0")  # comments, other quotes, prefixed strings: they hide words from us
_CALL = re.compile(r"([\w\0]+)\s*\(")
# what may stand before a parenthesis: functions of one row, and keywords
_ROWWISE = """
    abs ceil ceiling floor round sign sqrt cbrt exp ln log log2 log10 log1p pow power mod div pi degrees radians
    greatest least coalesce nullif if ifnull length char_length character_length octet_length bit_length lower upper initcap
    trim ltrim rtrim btrim left right substr substring replace reverse concat concat_ws starts_with ends_with strpos position
    regexp_like array_contains array_length array_get array_min array_max array_sum array_mean date date_part extract
    strftime cast try_cast decimal numeric varchar char
    in any all and or not when then else case between like ilike is from distinct
"""


@functools.lru_cache(maxsize=64)
def _parse(sql: str) -> pl.Expr:
    """The condition as a Polars expression. Polars opens the files of a subquery as it parses, so these never get there."""
    import polars as pl

    bare = _QUOTED.sub("\0", sql)
    if found := _REFUSED.search(bare):
        raise RecipeError(f"where: {found[0]!r} is not allowed in {sql!r}: write a condition over the columns of one row")
    if found := _TRICKS.search(bare):
        what = found[0].replace("\0", "'")
        raise RecipeError(f"where: {what!r} is not allowed in {sql!r}: no comments, no unclosed or prefixed strings")
    calls = [name for name in _CALL.findall(bare) if name.lower() not in _ROWWISE.split()]
    if calls:
        raise RecipeError(f"where: {calls[0]!r} is not a function of one row in {sql!r}: use `quantile`, or score first")
    try:
        expression = pl.sql_expr(sql)
    except Exception as error:
        raise RecipeError(f"where: {sql!r} is not a SQL condition: {_first_line(error)}") from error
    if not expression.meta.root_names():
        raise RecipeError(f"where: {sql!r} names no column, so it is the same for every row")
    return expression


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
