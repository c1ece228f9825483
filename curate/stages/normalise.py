"""Texts in one form: mojibake repaired, Unicode composed, invisible characters and stray whitespace gone."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import MissingExtra, RecipeError
from curate.stage import Annotator, BatchFn, Task, with_columns

if TYPE_CHECKING:
    from ftfy import TextFixerConfig


@dataclass(frozen=True, kw_only=True)
class Normalise(Annotator):
    """Repairs and normalises texts; a text that is in order stays byte for byte.

    fix: repair mojibake (`schÃ¶n` to `schön`), C1 controls that mean Windows-1252, and colour codes of terminals, by ftfy
    (extra `extract`), line by line. ftfy's other fixes are off: entities, which are text once a page has been extracted;
    curly quotes, ligatures and wide forms, which are good text; and those that have a parameter here.
    form: `NFC`, `NFKC`, or `none`. NFKC also folds what looks alike (`①` to `1`, `ﬁ` to `fi`, `m²` to `m2`).
    control: remove control characters but tab and line breaks, colour codes of terminals, interlinear annotation (U+FFF9 to
    FFFC), U+206A to 206F, and noncharacters.
    zero_width: remove soft hyphens, byte order marks, U+2060, U+180E, and U+200B to 200D, but keep joiners after a character
    beyond ASCII, where scripts and emoji need them, and U+200B after letters of South-East Asian scripts, which part words by
    it.
    line_endings: every line break becomes `\\n`: CRLF, CR, VT, FF, U+0085, U+2028, U+2029.
    spaces: no-break and other wide or narrow spaces become a space; the ideographic space stays.
    runs: several spaces in a line become one; indentation stays, and so do tabs.
    trailing: remove spaces and tabs before line breaks and at the end.
    max_blank_lines: the most that stand together; none stay at the beginning and the end of a text. null: leave them.

    The rules are applied until nothing changes, so that a second run has nothing to do. Only lines in which ftfy's own pattern
    (put to RE2, with the same or more matches) finds something are given to ftfy: the result is that of giving it all.

    Columns written: `text` (string). Reasons: none.

    Source: ftfy (Speer 2019, https://doi.org/10.5281/zenodo.2591652); Unicode Standard Annex 15; the rest is our own. What of
    ftfy is on follows datatrove's FTFYFormatter (https://github.com/huggingface/datatrove), but for entities.

    >>> Normalise()(["The cafe\\u0301 â€œZoÃ«â€\\x9d \\r\\n\\r\\n\\r\\n\\r\\nis  open\\x00."]).kept["text"].to_pylist()
    ['The café “Zoë”\\n\\n\\nis open.']
    """

    fix: bool = True
    form: str = "NFC"
    control: bool = True
    zero_width: bool = True
    line_endings: bool = True
    spaces: bool = True
    runs: bool = True
    trailing: bool = True
    max_blank_lines: int | None = 2

    def __post_init__(self) -> None:
        if self.form not in ("NFC", "NFKC", "none"):
            raise RecipeError(f"normalise: form is {self.form!r}; known: NFC, NFKC, none")
        if self.max_blank_lines is not None and self.max_blank_lines < 0:
            raise RecipeError(f"normalise: max_blank_lines is {self.max_blank_lines}; null leaves blank lines as they are")

    def writes(self) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def open(self, task: Task) -> BatchFn:
        if self.fix:
            task.cached("normalise.ftfy", _ftfy)
        return self.process

    def annotate(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {"text": self._normalise(batch["text"])}

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_columns(batch, self.annotate(batch))

    def _normalise(self, texts: pa.Array) -> pa.Array:
        rows: np.ndarray | None = None  # those that may need another round
        for _ in range(_ROUNDS):
            before = texts if rows is None else texts.take(pa.array(rows))
            after, again = self._once(before)
            if after is before:
                return texts
            if rows is None:
                texts, rows = after, np.flatnonzero(again)
            else:
                texts, rows = _put(texts, rows, after), rows[again]
            if not len(rows):
                return texts
        return texts

    def _once(self, texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """(texts after one round, which of them may change in another). The same array if nothing has changed."""
        from curate.kernels import clean
        from curate.kernels.words import offsets_and_bytes

        table = _table(self.form, self.control, self.zero_width, self.line_endings, self.spaces)
        blank_lines = -1 if self.max_blank_lines is None else self.max_blank_lines
        whitespace: tuple[Any, ...] = (self.runs, self.trailing, blank_lines)
        given = texts
        needs = clean.survey(*offsets_and_bytes(texts), table, *whitespace)
        composes = (needs & clean.NEEDS_FORM) != 0
        repaired = self._repaired(texts, composes, self._broken(texts, needs))
        if len(repaired[0]):
            texts = _put(texts, *repaired)
            needs[repaired[0]] = clean.survey(*offsets_and_bytes(repaired[1]), table, *whitespace)
        if (needs & clean.NEEDS_BYTES).any():
            bounds, data = clean.rewrite(*offsets_and_bytes(texts), needs, table, *whitespace)
            texts = _with_nulls_of(texts, bounds, data)
        if texts is given:
            return given, composes
        changed = np.asarray(pc.fill_null(pc.not_equal(texts, given), False))
        # bytes are in order after one pass; what they hid from repair and composition is not
        again = changed & ((needs & clean.NEEDS_FORM) != 0) | self._broken(texts, np.where(changed, needs, 0))
        again[repaired[0]] = True
        return (texts if changed.any() else given), again

    def _broken(self, texts: pa.Array, needs: np.ndarray) -> np.ndarray:
        """Which texts ftfy has to look at."""
        from curate.kernels import clean

        broken = np.zeros(len(needs), np.bool_)
        rows = np.flatnonzero(needs & (clean.NOT_ASCII | clean.ESCAPES)) if self.fix else ()
        if len(rows):
            broken[rows] = _may_be_bad(texts if len(rows) == len(texts) else texts.take(pa.array(rows)))
        return broken

    def _repaired(self, texts: pa.Array, composes: np.ndarray, broken: np.ndarray) -> tuple[np.ndarray, pa.Array]:
        """(rows, their texts) where repair or composition changes something."""
        import unicodedata

        fixed = dict(zip(np.flatnonzero(broken).tolist(), _fixed(texts.filter(pa.array(broken)).to_pylist()), strict=True))
        changed: list[int] = []
        found: list[str] = []
        for row in np.flatnonzero(composes | broken).tolist():
            old = texts[row].as_py()
            text = fixed.get(row, old)
            if self.form != "none":
                text = unicodedata.normalize(self.form, text)  # type: ignore[arg-type]
            if text != old:
                changed.append(row)
                found.append(text)
        return np.array(changed, np.int64), pa.array(found, pa.string())


_ROUNDS = 8  # a second one is for what became visible, such as a letter and a mark that a control had parted


@functools.lru_cache(maxsize=16)
def _table(form: str, control: bool, zero_width: bool, line_endings: bool, spaces: bool) -> np.ndarray:
    from curate.kernels import clean

    return clean.classes(form, control, zero_width, line_endings, spaces)


def _put(texts: pa.Array, rows: np.ndarray, others: pa.Array) -> pa.Array:
    mask = np.zeros(len(texts), np.bool_)
    mask[rows] = True
    return pc.replace_with_mask(texts, pa.array(mask), others)


def _with_nulls_of(texts: pa.Array, bounds: np.ndarray, data: np.ndarray) -> pa.Array:
    valid = None if not texts.null_count else pc.cast(pc.is_valid(texts), pa.uint8())
    bits = None if valid is None else pa.py_buffer(np.packbits(np.asarray(valid), bitorder="little"))
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(bounds), pa.py_buffer(data), bits)


# --------------------------------------------------------------------------------------------- ftfy


@functools.lru_cache(maxsize=1)
def _ftfy() -> tuple[Any, TextFixerConfig, str]:
    """(ftfy, its configuration, the pattern of what it may repair in the syntax of RE2)."""
    try:
        import ftfy
        from ftfy.badness import BADNESS_RE
    except ImportError as error:
        raise MissingExtra("ftfy", "extract", "stage 'normalise' with fix") from error
    config = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
    return ftfy, config, f"\x1b\\[|[\u0080-\u009f]|{_loose(BADNESS_RE.pattern)}"


def _loose(pattern: str) -> str:
    """A verbose regular expression of Python for RE2, which matches wherever the original does, and in a few more places.

    Anchors go, and the classes `\\s` and `\\w`, which are Unicode's in Python, take in all that is not ASCII.
    """
    found: list[str] = []
    inside = False
    for part in re.findall(r"\\.|#[^\n]*|.", pattern, re.DOTALL):
        if inside:
            inside = part != "]"
        elif part.startswith("#") or part.isspace() or part == "^":
            continue
        elif part in (r"\s", r"\w"):
            part = f"[{part}\u0080-\U0010ffff]"
        else:
            inside = part == "["
        found.append(part)
    return "".join(found)


def _may_be_bad(texts: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.match_substring_regex(texts, pattern=_ftfy()[2]), False))


def _fixed(texts: list[str]) -> list[str]:
    """ftfy over the lines in which it may find something; it takes every line by itself."""
    if not texts:
        return []
    ftfy, config, _ = _ftfy()
    lines: list[str] = []
    ends: list[int] = []
    for text in texts:
        *others, last = text.split("\n")
        lines += [line + "\n" for line in others]
        lines.append(last)
        ends.append(len(lines))
    for i in np.flatnonzero(_may_be_bad(pa.array(lines, pa.large_string()))).tolist():
        lines[i] = ftfy.fix_text(lines[i], config)
    return ["".join(lines[a:b]) for a, b in itertools.pairwise([0, *ends])]
