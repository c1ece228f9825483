"""Which of several duplicates stays: the order of `prefer`, for every stage that has it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import StageError

LAST = np.iinfo(np.uint64).max
_COLUMNS = {"first": (), "longest": ("text_bytes",), "newest": ("date",)}


def columns(prefer: str) -> tuple[str, ...]:
    """The column that decides: none for `first`, else `text_bytes`, `date`, or the one that is named."""
    return _COLUMNS.get(prefer, (prefer,))


def keys(stage: str, prefer: str, batch: pa.RecordBatch) -> np.ndarray:
    """uint64 of each document, the lower the more it is preferred; `LAST` for one without a value (null, NaN).

    A date may be a string in ISO 8601. Raises StageError for a column that has no order.
    """
    from curate.stages.quantile import has_score, ordered_bits

    found = np.full(len(batch), 0 if prefer == "first" else LAST, np.uint64)
    for name in columns(prefer):
        values = _instants(batch[name]) if prefer == "newest" else batch[name]
        try:
            scored = has_score(values)
            found[scored] = ~ordered_bits(values.filter(pa.array(scored)))
        except StageError:
            raise StageError(f"{stage}: prefer: column {name!r} is {values.type}; give one of numbers or dates") from None
    return found


def _instants(dates: pa.Array) -> pa.Array:
    """Dates as numbers in their order: the first 14 digits of an ISO 8601 string; null for anything else."""
    if not pa.types.is_string(dates.type):
        return dates
    digits = pc.utf8_slice_codeunits(pc.replace_substring_regex(dates, "[^0-9]", ""), 0, 14)
    number = pc.cast(pc.utf8_rpad(digits, 14, "0"), pa.int64())
    return pc.if_else(pc.match_substring_regex(dates, "^[0-9]{4}(-|[0-9]|$)"), number, pa.scalar(None, pa.int64()))
