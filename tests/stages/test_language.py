"""language: labels, scores that mean what they say, and what is dropped."""

import ctypes
import gzip
import json

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import RecipeError
from curate.languages import iso_code, scripts_of
from curate.stages.language import Language, detect

ENGLISH = "The clocks were striking thirteen when he came home from work and found the door of the house open. "
GERMAN = "Die Uhren schlugen dreizehn, als er von der Arbeit nach Hause kam und die Tür des Hauses offen fand. "


def found(texts, **parameters):
    kept = Language(**parameters)(texts).kept
    return list(zip(kept["language"].to_pylist(), kept["language_score"].to_pylist(), strict=True))


def rows_of(path):
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]


def test_no_letters_is_undetermined():
    texts = ["", None, "12345 67.8", " \n\t", "!?…—", "👩‍👩‍👧🙂", "\x00\x01"]
    assert found(texts) == [("und", 0.0)] * len(texts)


def test_a_score_rises_with_the_evidence():
    scores = [found([text])[0][1] for text in ("a", ENGLISH[:12], ENGLISH[:60], ENGLISH)]
    assert max(scores[:2]) < 0.5 < scores[2] < 0.95 < scores[3]
    assert all(0 <= s <= 1 for s in scores)


def test_what_is_dropped_and_why():
    docs = [ENGLISH, GERMAN, "short", "42"]
    result = Language(keep=("en",), min_score=0.6)(docs)
    assert result.kept["id"].to_pylist() == ["0"]
    assert result.dropped["_reason"].to_pylist()[0] == "language.not_kept"
    assert result.dropped["_value"].to_pylist() == result.dropped["language_score"].cast(pa.float64()).to_pylist()
    low = Language(min_score=0.6)(docs)
    assert low.kept["language"].to_pylist() == ["en", "de"]
    assert set(low.dropped["_reason"].to_pylist()) == {"language.low_score"}
    assert Language()(docs).dropped.num_rows == 0
    assert Language(keep=("und",))(docs).kept["text"].to_pylist() == ["42"]


def test_a_long_document_is_judged_by_more_than_its_head():
    assert found([ENGLISH * 20 + GERMAN * 2000])[0][0] in ("en", "de")
    boilerplate = "0123456789 " * 100
    assert found([boilerplate + ENGLISH * 100])[0][0] == "en"
    assert found(["中" + ENGLISH * 1000 + "文"])[0][0] == "en"  # pieces are cut at whole characters


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"keep": ("english",)}, "ISO 639-1"),
        ({"keep": ("eng",)}, "'eng' in keep is written 'en'"),
        ({"min_score": 1.5}, "between 0 and 1"),
    ],
)
def test_wrong_parameters(wrong, message):
    with pytest.raises(RecipeError, match=message):
        Language(**wrong)


def test_the_score_is_a_probability(shared_data):
    """Pieces of declarations of human rights in languages that the detector knows: of those with score s, about s are right."""
    known = {"deu": "de", "eng": "en", "fra": "fr", "spa": "es", "ita": "it", "por": "pt", "nld": "nl", "pol": "pl",
             "rus": "ru", "ces": "cs", "fin": "fi", "hun": "hu", "tur": "tr", "vie": "vi", "ell": "el", "kor": "ko",
             "jpn": "ja", "swe": "sv", "ukr": "uk", "bul": "bg", "heb": "he", "tha": "th", "hin": "hi", "cat": "ca",
             "isl": "is", "cym": "cy"}  # fmt: skip
    texts, gold = [], []
    for row in rows_of(shared_data / "misc" / "langid_udhr2.jsonl.gz"):
        if row["iso639_3"] in known:
            for n in (40, 100, 250, 600, 2000):
                for at in range(500, 6500, 2000):
                    texts.append(row["text"][at : at + n])
                    gold.append(known[row["iso639_3"]])
    said = found(texts)
    right = np.array([code == g for (code, _), g in zip(said, gold, strict=True)])
    score = np.array([s for _, s in said])
    assert right[score >= 0.9].mean() > 0.95
    assert right[score < 0.5].mean() < 0.8
    assert abs(right.mean() - score.mean()) < 0.1
    assert right[np.array([len(t) for t in texts]) >= 600].mean() > 0.95


def test_languages_of_web_pages(shared_data):
    texts, gold = [], []
    for page in rows_of(shared_data / "crawl" / "pages.jsonl.gz"):
        code = (page["html_lang"] or "")[:2].lower()
        if page["main_text"] and len(page["main_text"]) > 1000 and code in ("en", "de", "es", "fr"):
            texts.append(page["main_text"])
            gold.append(code)
    said = [code for code, _ in found(texts)]
    assert np.mean([a == b for a, b in zip(said, gold, strict=True)]) > 0.97


@pytest.mark.parametrize(
    "label, code",
    [
        ("__label__en", "en"),
        ("__label__eng_Latn", "en"),
        ("__label__cmn_Hani", "zh"),
        ("__label__arb_Arab", "ar"),
        ("__label__als", "gsw"),  # lid.176 means Alemannic, GlotLID Tosk Albanian
        ("__label__als_Latn", "sq"),
        ("__label__zh", "zh"),
        ("__label__nob_Latn", "nb"),
        ("__label__gsw_Latn", "gsw"),
        ("__label__zh-min-nan", "nan"),
        ("__label__und", "und"),
        ("__label__spam!", "und"),
    ],
)
def test_labels_of_fasttext_models(label, code):
    assert iso_code(label) == code


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    fasttext = pytest.importorskip("fasttext")
    folder = tmp_path_factory.mktemp("model")
    words = {"eng_Latn": ENGLISH.split(), "deu_Latn": GERMAN.split()}
    lines = [f"__label__{k} {' '.join(w[i:] + w[:i])}\n" for k, w in words.items() for i in range(10)] * 20
    (folder / "train.txt").write_text("".join(lines))
    libc = ctypes.CDLL(None)
    libc.mallopt(-6, 255)  # M_PERTURB: new memory is zero, some of which fastText reads before it writes ("Encountered NaN")
    try:
        trained = fasttext.train_supervised(str(folder / "train.txt"), epoch=25, dim=8, bucket=0, thread=1, verbose=0)
    finally:
        libc.mallopt(-6, 0)
    trained.save_model(str(folder / "lid.bin"))
    return str(folder / "lid.bin")


def test_a_fasttext_model_by_path(model):
    stage = Language(model=model, keep=("de",))
    assert stage.files() == (model,)
    result = stage([ENGLISH + "\n" + ENGLISH, GERMAN + "\n" + GERMAN, ""])
    assert result.kept["language"].to_pylist() == ["de"]
    assert result.dropped["language"].to_pylist() == ["en", "und"]
    assert 0.5 < result.kept["language_score"][0].as_py() <= 1


def test_a_fasttext_model_passes_the_suite(model):
    from curate.testing import check_stage

    check_stage(Language(model=model))


def test_a_model_that_is_none(tmp_path):
    with pytest.raises(RecipeError, match="no such file"):
        Language(model="resiliparsee")(["a"])
    (tmp_path / "x.bin").write_bytes(b"not a model")
    with pytest.raises(RecipeError, match="not a fastText model"):
        Language(model=str(tmp_path / "x.bin"))(["a"])
