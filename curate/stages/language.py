"""The language of a document."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import MissingExtra, RecipeError
from curate.stage import REASON, BatchFn, Stage, Task, with_columns


@dataclass(frozen=True, kw_only=True)
class Language(Stage):
    """Detects the language of a text, and drops languages and scores that are not wanted.

    model: `resiliparse` (101 languages, in the core, no download), or the path of a fastText model (`.bin` or `.ftz`, such as
    lid.176 or GlotLID; needs the extra `train`). keep: languages to keep; empty keeps all. min_score: drop what scores less.
    To only annotate, leave both; to decide by other columns too, use `where` after it.

    Columns written: `language` (string: ISO 639-1, else 639-3; `und` for a text without letters) and `language_score`
    (float32 in [0, 1]). Reasons: `language.not_kept`, `language.low_score`, each with `_value` = the score.

    Documents of more than 4 kB are judged by their first 2 kB and 1 kB from each of two later places, digits and ASCII
    punctuation left out. fastText's score is its own probability. resiliparse gives a distance r, and r + g for the next
    language; with n letters and L = ln n, R = ln r, G = ln(1 + g), the score is
    logistic(3.268 + 6.630 L - 0.3066 L^2 - 0.9225 R - 0.7196 L R + 0.1953 G^2): a logistic regression on pieces of 6 to 4,000
    characters of web pages, other prose, and declarations of human rights in 89 languages that the detector knows and, with
    less weight, 276 translations into others. Share right in the half that was held out, by score: 0.25 at 0.1-0.3, 0.34 at
    0.3-0.5, 0.49 at 0.5-0.65, 0.71 at 0.65-0.8, 0.87 at 0.8-0.9, 0.96 at 0.9-0.95, 0.99 above. Of web pages, 67% of pieces
    of 30 characters are right, 94% of 120, 97% of 1,000, 99% of 4,000. A language that it does not know gets the name of a
    relative, mostly with a score below 0.65; hr/sr, da/no and hi/mr are easily taken for each other.

    Source: resiliparse (Bevendorff et al. 2018, https://resiliparse.chatnoir.eu); fastText (Joulin et al. 2016,
    https://arxiv.org/abs/1607.01759); the calibration is our own.

    >>> docs = ["The cat sat on the mat and looked at the people who were walking by. " * 3,
    ...         "Die Katze saß auf der Matte und sah den Leuten nach, die vorübergingen. " * 3, "12345"]
    >>> result = Language(keep=("en",))(docs)
    >>> result.kept["language"].to_pylist(), result.dropped["language"].to_pylist()
    (['en'], ['de', 'und'])
    """

    example: ClassVar[dict[str, Any]] = {"keep": ("en", "zh"), "min_score": 0.3}

    model: str = "resiliparse"
    keep: tuple[str, ...] = ()
    min_score: float = 0.0

    def __post_init__(self) -> None:
        for code in self.keep:
            if not re.fullmatch("[a-z]{2,3}", code):
                raise RecipeError(f"language: keep holds {code!r}; write ISO 639-1 codes such as 'en', else 639-3")
            if code in _iso1():
                raise RecipeError(f"language: {code!r} in keep is written {_iso1()[code]!r} here")
        if not 0 <= self.min_score <= 1:
            raise RecipeError(f"language: min_score is {self.min_score}; scores lie between 0 and 1")

    def writes(self) -> pa.Schema:
        return pa.schema([("language", pa.string()), ("language_score", pa.float32())])

    def reasons(self) -> tuple[str, ...]:
        return "language.not_kept", "language.low_score"

    def files(self) -> tuple[str, ...]:
        return () if self.model == "resiliparse" else (self.model,)

    def open(self, task: Task) -> BatchFn:
        if self.model == "resiliparse":
            return functools.partial(self._process, _by_resiliparse)
        model = task.cached(("fasttext", self.model), functools.partial(_load_fasttext, self.model))
        return functools.partial(self._process, functools.partial(_by_fasttext, model))

    def _process(self, detect: Callable[[str], tuple[str, float]], batch: pa.RecordBatch) -> pa.RecordBatch:
        found = [detect(text) if text else ("und", 0.0) for text in map(_sample, pc.cast(batch["text"], pa.binary()))]
        language = pa.array([code for code, _ in found], pa.string())
        score = np.array([score for _, score in found], np.float32)
        columns: dict[str, pa.Array] = {"language": language, "language_score": pa.array(score)}
        reason = pa.nulls(len(language), pa.string())
        if self.min_score:
            low = pa.array(score < np.float32(self.min_score))
            reason = pc.if_else(low, "language.low_score", reason)
        if self.keep:
            reason = pc.if_else(pc.is_in(language, value_set=pa.array(self.keep)), reason, "language.not_kept")
        columns[REASON] = reason
        columns["_value"] = pa.array(score.astype(np.float64), mask=np.asarray(pc.is_null(reason)))
        return with_columns(batch, columns)


HEAD, PIECE = 2048, 1024
_NOISE = bytes(c for c in range(128) if not (chr(c).isalpha() or chr(c).isspace()))


def _sample(value: pa.BinaryScalar) -> str:
    """What of a text is looked at: at most 4 kB, cut at whole characters, in Unicode's composed form. No letters: nothing."""
    if not value.is_valid:
        return ""
    data = memoryview(value.as_buffer())
    if len(data) > HEAD + 2 * PIECE:
        rest = len(data) - HEAD
        at = (HEAD + rest // 3, HEAD + 2 * rest // 3)
        text = " ".join(bytes(p).decode("utf-8", "ignore") for p in (data[:HEAD], *(data[a : a + PIECE] for a in at)))
    else:
        text = bytes(data).decode("utf-8", "ignore")
    if text.isascii():
        return text if any(map(str.isalpha, text)) else ""
    return unicodedata.normalize("NFC", text) if any(map(str.isalpha, text)) else ""


def _by_resiliparse(text: str) -> tuple[str, float]:
    from resiliparse.parse.lang import detect_fast

    # it skips what is no letter, but the spaces around that would count
    text = b" ".join(text.encode().translate(None, _NOISE).split()).decode()
    best, other = cast(list[tuple[str, int]], detect_fast(text, cutoff=1 << 30, n_results=2))
    letters, rank, gap = len(text) - text.count(" "), best[1], other[1] - best[1]
    n, r, g = math.log(max(letters, 1)), math.log(max(rank, 1)), math.log1p(gap)
    logit = 3.268 + 6.630 * n - 0.3066 * n * n - 0.9225 * r - 0.7196 * n * r + 0.1953 * g * g
    return best[0], 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def _load_fasttext(path: str) -> Any:
    try:
        import fasttext
    except ImportError as error:
        raise MissingExtra("fasttext", "train", "stage 'language' with a fastText model") from error
    try:
        return fasttext.load_model(path)
    except ValueError as error:
        raise RecipeError(f"language: {path} is not a fastText model: {error}") from error


def _by_fasttext(model: Any, text: str) -> tuple[str, float]:
    labels, scores = model.predict(text.replace("\n", " "))
    return (iso_code(labels[0]), min(max(float(scores[0]), 0.0), 1.0)) if labels else ("und", 0.0)


def iso_code(label: str) -> str:
    """ISO 639-1 (else 639-3) of a fastText label such as `__label__en`, `__label__eng_Latn` or `__label__zh-min-nan`."""
    code, _, script = label.removeprefix("__label__").partition("_")
    if not script and code in _WIKIPEDIA:  # lid.176 names languages as Wikipedia does, where `als` is Alemannic
        return _WIKIPEDIA[code]
    code = re.match("[a-z]*", code.lower())[0]  # type: ignore[index]
    return _iso1().get(code, code) if 2 <= len(code) <= 3 else "und"


_WIKIPEDIA = {"als": "gsw", "bh": "bho", "eml": "egl", "nah": "nci", "sh": "hbs", "bat-smg": "sgs", "fiu-vro": "vro",
              "map-bms": "jv", "roa-rup": "rup", "zh-yue": "yue", "zh-min-nan": "nan", "zh-classical": "lzh"}  # fmt: skip

_ISO1 = """
aar aa abk ab ave ae afr af aka ak amh am arg an ara ar asm as ava av aym ay aze az bak ba bel be bul bg bis bi bam bm ben bn
bod bo bre br bos bs cat ca che ce cha ch cos co cre cr ces cs chu cu chv cv cym cy dan da deu de div dv dzo dz ewe ee ell el
eng en epo eo spa es est et eus eu fas fa ful ff fin fi fij fj fao fo fra fr fry fy gle ga gla gd glg gl grn gn guj gu glv gv
hau ha heb he hin hi hmo ho hrv hr hat ht hun hu hye hy her hz ina ia ind id ile ie ibo ig iii ii ipk ik ido io isl is ita it
iku iu jpn ja jav jv kat ka kon kg kik ki kua kj kaz kk kal kl khm km kan kn kor ko kau kr kas ks kur ku kom kv cor kw kir ky
lat la ltz lb lug lg lim li lin ln lao lo lit lt lub lu lav lv mlg mg mah mh mri mi mkd mk mal ml mon mn mar mr msa ms mlt mt
mya my nau na nob nb nde nd nep ne ndo ng nld nl nno nn nor no nbl nr nav nv nya ny oci oc oji oj orm om ori or oss os pan pa
pli pi pol pl pus ps por pt que qu roh rm run rn ron ro rus ru kin rw san sa srd sc snd sd sme se sag sg sin si slk sk slv sl
smo sm sna sn som so sqi sq srp sr ssw ss sot st sun su swe sv swa sw tam ta tel te tgk tg tha th tir ti tuk tk tgl tl tsn tn
ton to tur tr tso ts tat tt twi tw tah ty uig ug ukr uk urd ur uzb uz ven ve vie vi vol vo wln wa wol wo xho xh yid yi yor yo
zha za zho zh zul zu
arb ar als sq azj az cmn zh ekk et fat ak gug gn khk mn kmr ku lvs lv npi ne ory or pbt ps pes fa plt mg quy qu swh sw uzn uz
ydd yi zsm ms zlm ms fuv ff gaz om
"""  # the last lines: the individual language that usually stands for its macrolanguage


@functools.lru_cache(maxsize=1)
def _iso1() -> dict[str, str]:
    """ISO 639-1 by ISO 639-3."""
    words = _ISO1.split()
    return dict(zip(words[::2], words[1::2], strict=True))
