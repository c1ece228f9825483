"""A stage of your own: score first, drop later, in memory and in a recipe.

    python examples/own_stage.py

In a project of yours the class stands in a module, and a recipe names it as `module:Class`. Its test calls
`curate.testing.check_stage(QuestionShare())`, the suite that every stage of Curate passes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate import Annotator
from curate.recipe import loads


@dataclass(frozen=True, kw_only=True)
class QuestionShare(Annotator):
    """The share of a document's characters that are question marks.

    mark: the character that is counted. Columns written: `question_share` (float32).

    Source: own.

    >>> QuestionShare()(["why? why?", "because"]).kept["question_share"].to_pylist()[1]
    0.0
    """

    mark: str = "?"

    def writes(self) -> pa.Schema:
        return pa.schema([("question_share", pa.float32())])

    def annotate(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        text = pc.fill_null(batch["text"], "")
        share = pc.divide(pc.count_substring(text, self.mark), pc.max_element_wise(pc.utf8_length(text), 1).cast(pa.float64()))
        return {"question_share": share.cast(pa.float32())}


RECIPE = """
name: questions
stages:
  - own_stage:QuestionShare
  - quantile: {column: question_share, keep: 0.5}
"""


def main(folder: Path) -> None:
    print(QuestionShare()(["Is it? Is it?", "It is."]).to_polars().select("text", "question_share"))

    (folder / "in.txt").write_text("Who? What? Where?")
    (folder / "other.txt").write_text("Nobody. Nothing. Nowhere.")
    run = loads(RECIPE).with_inputs([str(folder)]).run(folder / "run", executor="inline")
    print(run.dataset().scan().select("text", "question_share").collect())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
