"""Each check of the conformance suite fails on a stage that breaks just that promise, and says which and what to do."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.stage import Annotator, Expand, Filter, GlobalStage
from curate.testing import check_elsewhere, check_stage


@dataclass(frozen=True, kw_only=True)
class Good(Annotator):
    """Counts bytes.

    unit: of what is counted.

    Source: own

    >>> 1 + 1
    2
    """

    unit: str = "byte"

    def writes(self):
        return pa.schema([("n", pa.uint32())])

    def annotate(self, batch):
        return {"n": pa.array([len((t or "").encode()) for t in batch["text"].to_pylist()], pa.uint32())}


def docs_of(**changes):
    doc = {"summary": "Does.", "params": "unit: of what is counted.", "source": "Source: own", "example": ">>> 1 + 1\n    2"}
    return "\n\n    ".join({**doc, **changes}.values())


class NoSummary(Good):
    __doc__ = docs_of(summary="does")


class NoSource(Good):
    __doc__ = docs_of(source="")


class NoExample(Good):
    __doc__ = docs_of(example="")


class WrongExample(Good):
    __doc__ = docs_of(example=">>> 1 + 1\n    3")


class NoParameter(Good):
    __doc__ = docs_of(params="")


class Inherited(Good):
    pass


def broken(doc=None, base=Good, **members):
    """A stage class in this module that differs from Good in some members."""

    def make(name):
        body = {"__doc__": doc or docs_of(), "__module__": __name__, **members}
        cls = dataclass(frozen=True, kw_only=True)(type(name, (base,), body))
        globals()[name] = cls
        return cls

    return make


def reading_a_file(self):
    Path(__file__).read_bytes()


def importing(self):
    import sklearn  # noqa: F401


def without_reduce(self):
    raise TypeError("not me")


def two_rows_less(self, batch):
    return Annotator.process(self, batch.slice(2))


def extra_column(self, batch):
    return {**Good.annotate(self, batch), "m": pa.nulls(batch.num_rows, pa.int8())}


def other_type(self, batch):
    return {"n": pa.nulls(batch.num_rows, pa.int64())}


def no_column(self, batch):
    return {}


def undeclared_read(self, batch):
    return {"n": pa.array([len(u or "") for u in batch["url"].to_pylist()], pa.uint32())}


def changes_text(self, batch):
    return {**Good.annotate(self, batch), "text": pa.array(["x"] * batch.num_rows)}


def fails_on_null(self, batch):
    return {"n": pa.array([len(t) for t in batch["text"].to_pylist()], pa.uint32())}


def fails_on_empty_batch(self, batch):
    if not batch.num_rows:
        raise ValueError("nothing")
    return Good.annotate(self, batch)


def rank_in_batch(self, batch):
    return {"n": pa.array(range(batch.num_rows), pa.uint32())}


def row_number(self, batch):
    return {"n": batch["_row"]}


def endless_reasons(self, batch):
    return pa.array([f"by.{len(t or '')}" for t in batch["text"].to_pylist()])


def keeps_all(self, batch):
    return pa.nulls(batch.num_rows, pa.string())


def bad_code(self):
    return ("Too Long",)


def fit_by_shard(self, batches, task):
    n = sum(b.num_rows for b in batches)
    yield 0, pa.table({"n": pa.array([n if task.shard == 0 else 0], pa.uint32())})


def from_state(self, task):
    n = int(np.sum(task.state(self)["n"].to_numpy()))
    return lambda batch: batch.append_column("n", pa.array([n] * batch.num_rows, pa.uint32()))


def backwards(self, batch):
    return pa.RecordBatch.from_pydict({"_parent": batch["_row"].take(pa.array(range(batch.num_rows)[::-1], pa.int32()))})


def no_doc_params(**more):
    return docs_of(params="", **more)


CASES = [
    ("has no summary", NoSummary),
    ("has no summary", Inherited),
    ("add a line `Source:", NoSource),
    ("has no example", NoExample),
    ("an example that does not hold", WrongExample),
    ("does not explain the parameter 'unit'", NoParameter),
    ("is not frozen", type("Plain", (Good,), {"__doc__": docs_of()})),
    ("use scalars, strings, tuples", broken(unit=frozenset({1, 2}), __annotations__={"unit": Any})("HasSet")),
    ("does work when it is made (open", broken(__post_init__=reading_a_file)("Opens")),
    ("does work when it is made (import 'sklearn'", broken(__post_init__=importing)("Imports")),
    ("cannot be pickled", broken(__reduce__=without_reduce)("Unpicklable")),
    ("reads back from a recipe", broken(unit=("a", "b"), __annotations__={"unit": list})("ListForTuple")),
    ("cannot be read back from a recipe", broken(unit="a", __annotations__={"unit": int})("StringForInt")),
    ("same rows in order", broken(process=two_rows_less)("Shorter")),
    ("'m' for a batch, which writes() does not declare", broken(annotate=extra_column)("Extra")),
    ("writes 'n' as int64", broken(annotate=other_type)("OtherType")),
    ("but does not write it", broken(annotate=no_column)("Missing")),
    ("reads 'url', which reads() does not declare", broken(annotate=undeclared_read)("Undeclared")),
    ("changes 'text'", broken(annotate=changes_text)("Changes")),
    ("raises TypeError on a batch", broken(annotate=fails_on_null)("OnNull")),
    ("raises ValueError on an empty batch", broken(annotate=fails_on_empty_batch)("OnEmpty")),
    ("a row must not depend on its batch", broken(annotate=rank_in_batch)("ByBatch")),
    ("shards (see 'n')", broken(annotate=row_number)("ByRow")),
    ("reasons() does not list", broken(base=Filter, doc=no_doc_params(), reject=endless_reasons)("Endless")),
    ("has the reason 'Too Long'", broken(base=Filter, doc=no_doc_params(), reject=keeps_all, reasons=bad_code)("Reason")),
    ("reasons() must return", broken(reasons=lambda self: ["a"])("ReasonList")),
    (
        "a fit must see the corpus as a whole",
        broken(
            base=GlobalStage, doc=no_doc_params(), writes=Good.writes, summarize=fit_by_shard, open=from_state
        )("ByShard"),
    ),
    ("in the order of their parents", broken(base=Expand, doc=no_doc_params(), expand=backwards)("Backwards")),
]  # fmt: skip


SHIFTY = broken(__getattribute__=lambda s, n: os.getpid() if n == "unit" else object.__getattribute__(s, n))("Shifty")


def test_a_good_stage_passes():
    check_stage(Good())


@pytest.mark.parametrize("message, cls", CASES, ids=[cls.__name__ for _, cls in CASES])
def test_a_bad_stage_fails(message, cls):
    with pytest.raises(AssertionError) as caught:
        check_stage(cls())
    text = str(caught.value)
    assert message in text and text.startswith(f"{__name__}.{cls.__qualname__}: "), text
    assert "\n" not in text or "example" in message


def test_a_fingerprint_that_depends_on_the_process():
    with pytest.raises(AssertionError, match="another fingerprint in another process"):
        check_elsewhere([Good(), SHIFTY()])


def test_a_module_with_a_heavy_import(tmp_path, monkeypatch):
    (tmp_path / "heavy_stage.py").write_text(f"import sklearn\nfrom {__name__} import Good\nclass Heavy(Good): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import heavy_stage

    with pytest.raises(AssertionError, match="imports 'sklearn' when its module is imported"):
        check_elsewhere([heavy_stage.Heavy()])
