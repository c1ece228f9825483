"""The domain of a document: law, medicine, code, books, ..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from curate.errors import RecipeError
from curate.stage import Annotator, BatchFn, Task
from curate.stages.fasttext import Fasttext


@dataclass(frozen=True, kw_only=True)
class Domain(Annotator):
    """Names the domain of a text, by a fastText classifier.

    model: `domain-en`, which comes with Curate, or any fastText classifier without a positive label: name, folder, file or URL
    as for the stage `fasttext`. into: the column to write. all_labels: write the probability of each domain too. k: write the k
    best domains too, 0 for none.

    Columns written: `into` (string) and `into_score` (float32 in [0, 1]), by default `domain` and `domain_score`; with
    `all_labels` also `into_LABEL` (float32) for each domain, with k `into_top` (list of struct of `label` and `score`, best
    first). All are null, and the document is counted, where the model knows no word of the text. Reasons: none.

    There is no domain "other": a text of a kind that the model has not learnt gets the nearest one, and a sentence or two is
    too little to go by; both often with a high score. What `domain-en` was trained on, and how often it is right, stands in
    classifiers/domain-en/card.md.

    Source: own; classifier as in Joulin et al. 2016 (https://arxiv.org/abs/1607.01759).

    >>> docs = ["import os\\nimport sys\\n\\nclass Reader:\\n    def __init__(self, path):\\n        self.path = path\\n",
    ...         "What are the symptoms of asthma? Patients may have wheezing, coughing and shortness of breath."]
    >>> Domain()(docs).kept["domain"].to_pylist()
    ['code', 'medical']
    """

    example: ClassVar[dict[str, Any]] = {"k": 3}

    model: str = "domain-en"
    into: str = "domain"
    all_labels: bool = False
    k: int = 0

    def __post_init__(self) -> None:
        self._stage()

    def writes(self) -> pa.Schema:
        columns = self._stage().writes()
        if columns.field(self.into).type != pa.string():
            raise RecipeError(f"domain: {self.model} has a positive label, so it tells no domains: use the stage `fasttext`")
        return columns

    def files(self) -> tuple[str, ...]:
        return self._stage().files()

    def open(self, task: Task) -> BatchFn:
        return self._stage().open(task)

    def _stage(self) -> Fasttext:
        return Fasttext(model=self.model, into=self.into, all_labels=self.all_labels, k=self.k)
