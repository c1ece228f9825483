"""The classifiers that come with Curate: small, whole, as their cards say, and made by the recipe beside them."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from curate import classify
from curate.training import Training, judge, train
from curate.training.classifiers import judgement, prepared, read_recipe
from curate.training.data import TEST, Documents

pytest.importorskip("fasttext", reason="training needs the extra `train`")

FOLDER = Path(__file__).parents[1] / "classifiers"
DATA = {"quality-en": "quality/quality.parquet", "domain-en": "domains/domains.parquet"}
MOST = 5_000_000  # bytes
NEAR = 0.005  # of a figure
names = pytest.mark.parametrize("name", sorted(DATA))


def recipe(name: str) -> Training:
    found = read_recipe(FOLDER / name / "recipe.yaml")
    assert found["kind"] == "fasttext"
    return Training.of({key: value for key, value in found.items() if key != "kind"})


@functools.cache
def held_out(name: str, data: Path) -> Documents:
    """The test part of a recipe."""
    return prepared([str(data / DATA[name])], recipe(name)).part(TEST)


def figures(card: str) -> dict[str, float]:
    """The first table of figures of a card."""
    part = card[card.index("## Figures on the test part") :].split("\n### ")[0]
    return {name: float(value.replace(",", "")) for name, value in re.findall(r"^\| ([^|]+?) \| ([\d.,]+) \|$", part, re.M)}


@names
def test_it_is_small_whole_and_described(name: str) -> None:
    folder = FOLDER / name
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < MOST
    assert classify.resolve(name) == str(folder)
    about = orjson.loads((folder / "classifier.json").read_bytes())
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert about["name"] == name and about["licence"] == "Apache-2.0" and card.startswith(f"# {name}\n")
    for part in ("Good for:", "Not good for:", "| label | source | licence |", "### Confusion", "### Reliability", "strongest"):
        assert part in card, part
    shown = figures(card)
    for said, key in (("AUC", "auc"), ("average precision", "average_precision"), ("accuracy", "accuracy")):
        assert shown[said] == pytest.approx(about["metrics"][key], abs=5.1e-5)
    assert shown["test documents"] == about["metrics"]["documents"]
    assert "begins" not in card  # no texts of others


def test_quality_ranks_prose_above_noise() -> None:
    classifier = classify.load(classify.resolve("quality-en"))
    assert set(classifier.labels) == {"hq", "lq"} and classifier.positive == "hq"
    good = (
        "The bridge was finished in the spring of the third year, after two floods had carried away the scaffolding. Its "
        "builder had measured the river for months, and the arches were drawn so that the water would find its way even when "
        "it rose higher than anyone in the valley could remember."
    )
    bad = (
        "Home\nShop\nSign in\nCart (0)\nFREE SHIPPING on all orders!!!\nClick here\nSubscribe\nTerms\nPrivacy\nFacebook\n",
        "CONGRATULATIONS! You have WON a prize. Call now to claim your cash, reply STOP to end. Offer ends today!!!",
    )
    high, *low = classifier.scores([good, *bad])[:, classifier.labels.index("hq")]
    assert high > 0.5 > max(low)


def test_domain_names_kinds() -> None:
    classifier = classify.load(classify.resolve("domain-en"))
    assert len(classifier.labels) == 13 and classifier.positive is None
    texts = {
        "code": "import os\n\ndef main(path: str) -> None:\n    for name in os.listdir(path):\n        print(name)\n\n"
        "if __name__ == '__main__':\n    main('.')\n",
        "legal_de": "§ 1 Diese Verordnung regelt die Zulassung der Stellen nach Absatz 2 des Gesetzes. (2) Die Behörde kann "
        "Ausnahmen zulassen, soweit der Zweck des Gesetzes nicht beeinträchtigt wird.",
        "science_abstracts": "We propose a method for learning representations of graphs and show that it improves accuracy on "
        "several benchmark data sets. Experiments demonstrate that our approach outperforms existing algorithms.",
    }
    best, _ = classifier.best(list(texts.values()))
    assert [classifier.labels[i] for i in best.tolist()] == list(texts)


@names
def test_the_card_holds_for_what_was_held_out(name: str, shared_data: Path) -> None:
    """The shipped model on its own test part: the figures of the card, to the last digit that it shows."""
    found = judgement(classify.load(FOLDER / name), held_out(name, shared_data), None).figures
    about = orjson.loads((FOLDER / name / "classifier.json").read_bytes())["metrics"]
    for key in ("auc", "average_precision", "accuracy", "macro_f1"):
        assert found[key] == pytest.approx(about[key], abs=5e-5), key
    assert {label: row["documents"] for label, row in found["per_class"].items()} == {
        label: row["documents"] for label, row in about["per_class"].items()
    }


@pytest.mark.parametrize("name", [pytest.param("domain-en", marks=pytest.mark.slow), "quality-en"])
def test_the_recipe_makes_it_again(name: str, shared_data: Path, tmp_path: Path) -> None:
    """A fresh training: the figures of the card within a tolerance, since another machine rounds otherwise."""
    params = dataclasses.replace(recipe(name), across=False)  # which trains once more for each source, for the card alone
    said = train("fasttext", [str(shared_data / DATA[name])], tmp_path / name, params)
    shown: dict[str, Any] = figures((FOLDER / name / "card.md").read_text(encoding="utf-8"))
    assert said["documents"] == shown["test documents"]
    for text, key in (("AUC", "auc"), ("average precision", "average_precision"), ("accuracy", "accuracy")):
        assert said[key] == pytest.approx(shown[text], abs=NEAR), key
    old, new = (classify.load(folder) for folder in (FOLDER / name, tmp_path / name))
    assert new.labels == old.labels
    sample = held_out(name, shared_data).text.slice(0, 200)
    assert np.nanmean(np.abs(new.scores(sample) - old.scores(sample))) < 0.01


def test_eval_knows_them_by_name(shared_data: Path) -> None:
    found = judge("domain-en", [str(shared_data / DATA["domain-en"])], label="domain")
    assert found["documents"] == 17_130 and found["accuracy"] > 0.97 and len(found["per_class"]) == 13
