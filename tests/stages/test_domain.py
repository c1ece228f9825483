"""domain: a `fasttext` that names the best label; what the model that comes with Curate gets right."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import classify
from curate.errors import RecipeError
from curate.stages.domain import Domain
from curate.stages.fasttext import Fasttext
from curate.training.fit import fit_fasttext

pytest.importorskip("fasttext")
WORDS = {
    "law": "court law statute judge section",
    "books": "river stone garden window letter",
    "code": "def return self import",
}
TEXTS = [f"{words} {words.split()[i % 4]}" for i in range(30) for words in WORDS.values()]
NAMES = [*WORDS] * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    fit_fasttext(TEXTS, NAMES, path=folder / "m.bin", dim=8, bucket=1000, lr=0.5)
    about = {"name": "d", "kind": "fasttext", "labels": sorted(WORDS)}
    classify.save(folder / "domains", about, model=folder / "m.bin")
    classify.save(folder / "one", about | {"positive": "law"}, model=folder / "m.bin")
    return folder


def test_it_names_the_domain(folder):
    kept = Domain(model=str(folder / "domains"))([*TEXTS, "", None]).kept
    assert kept["domain"].to_pylist() == [*NAMES, None, None]
    assert kept.schema.field("domain_score").type == pa.float32()
    scores = kept["domain_score"].to_pylist()
    assert all(1 / 3 < score <= 1 for score in scores[:-2]) and scores[-2:] == [None, None]


def test_it_is_fasttext_under_another_name(folder):
    parameters = {"model": str(folder / "domains"), "into": "kind", "all_labels": True, "k": 2}
    assert Domain(**parameters)(TEXTS).kept.equals(Fasttext(**parameters)(TEXTS).kept)
    assert Domain(**parameters).files() == Fasttext(**parameters).files()


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"model": "one"}, "has a positive label, so it tells no domains"),
        ({"model": "none"}, "no such classifier"),
    ],
)
def test_bad_models(folder, parameters, message):
    with pytest.raises(RecipeError, match=message):
        Domain(model=str(folder / parameters["model"]))(TEXTS[:2])


def test_wrong_parameters():
    with pytest.raises(RecipeError, match="into is 'text'"):
        Domain(into="text")


def test_the_shipped_model_knows_the_kinds_of_texts_it_was_made_for(shared_data):
    """Accuracy on held-out texts stands in its card; here only that labels and model belong together."""
    table = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["text", "domain"])
    table = table.take(pa.array(np.random.default_rng(0).permutation(len(table))[:600]))
    kept = Domain()(table["text"].to_pylist()).kept
    gold = table["domain"].to_pylist()
    assert np.mean([a == b for a, b in zip(kept["domain"].to_pylist(), gold, strict=True)]) > 0.85
    assert set(kept["domain"].to_pylist()) <= set(classify.about(classify.resolve("domain-en")).labels)
