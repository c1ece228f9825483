"""language: labels, scores that mean what they say, and what is dropped."""

import ctypes
import gzip
import json
from pathlib import Path

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
        ({"below": 0.0}, "below is 0.0"),
        ({"then": "resiliparse"}, "two different detectors"),
        ({"model": ""}, "two different detectors"),
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


@pytest.mark.parametrize(
    "label, scripts",
    [
        ("en", ("Latn",)),
        ("__label__sr", ("Latn", "Cyrl")),
        ("srp_Cyrl", ("Cyrl",)),
        ("zho_Hant", ("Hani", "Bopo")),
        ("jpn_Jpan", ("Kana", "Hani")),
        ("zho", ("Hani", "Bopo")),
        ("chr_Cher", ("Cher",)),
        ("xxx", ()),
        ("xx_strange", ()),
    ],
)
def test_scripts_of_languages(label, scripts):
    assert scripts_of(label) == scripts


LONG_ENGLISH = (
    "Every morning the old woman who lives by the river walks to the market with two baskets. She sells apples in autumn and "
    "flowers in spring, and nobody in the town can remember a day on which she did not come. When somebody asks about her "
    "age she laughs, and tells them that she has forgotten it somewhere on the road between the mountains and the sea. "
)
LONG_GERMAN = (
    "Jeden Morgen geht die alte Frau, die am Fluss wohnt, mit zwei Körben zum Markt. Im Herbst verkauft sie Äpfel und im "
    "Frühling Blumen, und niemand in der Stadt kann sich an einen Tag erinnern, an dem sie nicht gekommen wäre. Wenn jemand "
    "nach ihrem Alter fragt, lacht sie und sagt, sie habe es irgendwo auf dem Weg zwischen den Bergen und dem Meer vergessen. "
)
CHEROKEE = "ᏂᎦᏓ ᎠᏂᏴᏫ ᏂᎨᎫᏓᎸᎾ ᎠᎴ ᎤᏂᏠᏱ ᎤᎾᏕᎿ ᏚᏳᎧᏛ ᎨᏒᎢ. "
AMHARIC = "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው። "
LAO = "ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ ສິດທິ ເສລີພາບ "
BURMESE = "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း "
KHMER = "មនុស្សទាំងអស់កើតមកមានសេរីភាពនិងសមភាពក្នុងសេចក្ដីថ្លៃថ្នូរ "


def test_a_script_without_a_known_language_is_undetermined():
    for text in (CHEROKEE, AMHARIC, LAO, "ⵎⴷⴰⵏⵏ ⴰⴽⴽⵯ ⵜⵜⵍⴰⵍⵏ ", "ꊿꂷꃅꄿꐨꐥ ", "ᐃᓅᔪᓕᒫᑦ ᐊᓂᖅᑎᕆᔪᓕᒫᑦ "):
        assert found([text, text * 10, text * 200]) == [("und", 0.0)] * 3, text
        assert found([text * 10 + ENGLISH[:40]]) == [("und", 0.0)]
    assert found([ENGLISH * 5 + CHEROKEE])[0][0] == "en"


def test_a_script_with_one_known_language_is_that():
    for text, code in ((BURMESE, "my"), (KHMER, "km"), ("ყველა ადამიანი იბადება თავისუფალი ", "ka")):
        said = found([text[:4], text, text * 20, text * 10 + ENGLISH])
        assert [language for language, _ in said] == [code] * 4, said
        assert said[0][1] > 0.3 and min(said[1][1], said[2][1]) > 0.8


def test_names_and_code_in_latin_letters_do_not_change_the_language():
    japanese = "四月の晴れた寒い日だった。時計が十三回鳴った。"
    assert found([japanese * 3 + "import numpy as np; from pathlib import Path " * 2])[0][0] == "ja"


def test_the_function_gives_what_the_stage_writes():
    texts = [ENGLISH, None, GERMAN, "", CHEROKEE, "42", BURMESE]
    language, score = detect(pa.array(texts))
    assert (language.type, score.type) == (pa.string(), pa.float32())
    assert list(zip(language.to_pylist(), score.to_pylist(), strict=True)) == found(texts)
    assert detect(pa.array(texts, pa.large_string())[2:])[0].to_pylist() == language.to_pylist()[2:]
    assert [len(x) for x in detect(pa.array([], pa.string()))] == [0, 0]


def by_line(text, **parameters):
    row = Language(per_paragraph=True, **parameters)([text]).kept.to_pylist()[0]
    shares = {share["language"]: share["share"] for share in row["language_shares"]}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    return shares, row["paragraph_languages"]


def test_languages_of_lines_and_their_shares():
    shares, labels = by_line("\n".join([LONG_ENGLISH, "", LONG_GERMAN, "12 34", CHEROKEE, LONG_ENGLISH]))
    assert labels == ["en", "und", "de", "und", "und", "en"]
    letters = [sum(map(str.isalpha, part)) for part in (LONG_ENGLISH * 2, LONG_GERMAN, CHEROKEE)]
    assert [shares[k] for k in ("en", "de", "und")] == pytest.approx([n / sum(letters) for n in letters])


def test_lines_of_a_paragraph_are_judged_together():
    wrapped = LONG_ENGLISH.replace(" ", "\n")
    shares, labels = by_line(wrapped)
    assert shares == {"en": 1.0} and len(labels) == wrapped.count("\n") + 1
    assert set(labels[:-1]) == {"en"} and labels[-1] == "und"  # nothing stands after the last newline


def test_a_line_too_short_to_tell_has_the_language_of_the_document():
    shares, labels = by_line("\n\n".join([LONG_GERMAN, "Ohm", LONG_GERMAN, "Impressum"]))
    assert labels == ["de", "und", "de", "und", "de", "und", "de"] and shares == {"de": 1.0}
    assert by_line("\n\n".join([LONG_GERMAN, "ᎣᏏᏲ"]))[1] == ["de", "und", "und"]


def test_lines_of_nothing():
    for text, n in (("", 1), (None, 1), ("\n\n", 3), ("12\n34", 2)):
        assert by_line(text) == ({}, ["und"] * n)


def test_lines_pass_the_suite():
    from curate.testing import check_stage

    check_stage(Language(per_paragraph=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("model"), {"eng_Latn": ENGLISH.split(), "deu_Latn": GERMAN.split()})


def trained(folder, words):
    fasttext = pytest.importorskip("fasttext")
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


@pytest.fixture(scope="module")
def swiss(tmp_path_factory):
    """A model that knows languages which resiliparse does not: Cherokee, and English by another name."""
    return trained(tmp_path_factory.mktemp("swiss"), {"chr_Cher": CHEROKEE.split(), "sco_Latn": ENGLISH.split()})


def test_a_second_detector_for_what_the_first_is_not_sure_of(swiss):
    texts = [LONG_ENGLISH, ENGLISH[:20], CHEROKEE, "42", None]
    first, both = found(texts), found(texts, then=swiss)
    assert [code for code, _ in first][2:] == ["und"] * 3
    assert both[0] == first[0] and both[0][1] > 0.9
    assert both[1][0] == "sco" and both[2][0] == "chr" and both[2][1] > 0.5
    assert both[3:] == [("und", 0.0)] * 2
    assert found(texts, then=swiss, below=0.0001)[:3] == [*first[:2], both[2]]
    assert Language(then=swiss).files() == (swiss,)


def test_the_second_answer_counts_only_where_there_is_one(model):
    """This model knows English and German, of which a text in Greek letters is neither."""
    greek = "Όλοι οι άνθρωποι"
    assert found([greek], then=model, below=1.0) == found([greek]) and found([greek])[0][0] == "el"


def test_a_cascade_passes_the_suite(swiss):
    from curate.testing import check_stage

    check_stage(Language(then=swiss, per_paragraph=True))


def test_fasttext_agrees_with_its_library(model):
    """The same label, and the probability without the 1e-5 that the library adds, of texts that are judged whole."""
    fasttext = pytest.importorskip("fasttext")
    texts = [ENGLISH, GERMAN, ENGLISH + GERMAN, "wo thirteen", "Tür\nhome", "x"]
    theirs = [fasttext.load_model(model).predict(text.replace("\n", " ")) for text in texts]
    for (code, score), (labels, scores) in zip(found(texts, model=model), theirs, strict=True):
        assert code == iso_code(labels[0]) and score == pytest.approx(scores[0] - 1e-5, abs=1e-6)


def test_a_named_model(model, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path))
    with pytest.raises(RecipeError, match=r"run `curate models get lid176-ftz`"):
        Language(model="lid176-ftz")(["a"])
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "lid.176.ftz").write_bytes(Path(model).read_bytes())
    assert found([GERMAN], model="lid176-ftz") == found([GERMAN], model=model)
    with pytest.raises(RecipeError, match="no such file: lid17; did you mean 'lid176'"):
        Language(model="lid17")(["a"])
