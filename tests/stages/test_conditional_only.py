"""conditional_only: its score, and that the prior is not asked."""

import numpy as np
import pyarrow as pa
from corpus import rows

from curate.lm import pair
from curate.memory import as_table
from curate.stages.conditional_only import ConditionalOnly

TARGET = ("the nucleus of the cell divides", "a gene of the cell", "cells have a nucleus")


def test_it_keeps_what_the_conditional_model_finds_likely(tmp_path):
    texts = [row["text"] for row in rows(60)]
    _, conditional = pair.train_pair("ngram", [pa.array(texts)], [pa.array(TARGET)], tmp_path)
    table = as_table(pa.table({"text": [*texts, *TARGET]}))
    result = ConditionalOnly(conditional=str(conditional), keep=0.2)(table)
    assert "nll_prior" not in result.kept.column_names
    both = pa.concat_tables([result.kept, result.dropped.select(result.kept.column_names)])
    score = -both["nll_conditional"].to_numpy() / both["loss_tokens"].to_numpy()
    kept = len(result.kept)
    assert kept == 12 and score[:kept].min() >= score[kept:].max()
    np.testing.assert_allclose(result.dropped["_value"].to_numpy(), score[kept:])
    assert set(result.dropped["_reason"].to_pylist()) == {"conditional_only.not_chosen"}


def test_windows_and_candidates(tmp_path):
    table = as_table(pa.table({"text": [row["text"] for row in rows(60)]}))
    stage = ConditionalOnly(texts=TARGET, by="window", window=16, tokens=400, tau=4)
    result = stage(table)
    assert 300 < result.kept["tokens"].to_numpy().sum() <= 400 + len(result.kept)  # each rounded up
    assert set(result.dropped["_reason"].to_pylist()) == {"conditional_only.not_chosen", "conditional_only.not_drawn"}
