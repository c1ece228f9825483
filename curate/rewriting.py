"""Texts made anew by a model or by a function: what the stages that rewrite share.

A stage that rewrites asks first and decides later. Asking is dear, so it is a stage of its own (`Stage.needs`) that writes
down what was answered; deciding is pure: `chunks` cuts a text, `cleaned` takes one answer apart, `stitch` joins the parts,
and `rejected` and `Judge` say whether the result may stand for its source. Another threshold asks for nothing again.

    for answer in ask(stage, task, "my_stage", requests):      # requests: `curate.llm.Request`, with tags of your own
        ...                                                    # answer: `curate.llm.Answer`, in any order

`ask` is the client of `curate.llm` with the limits, cache and budget of a stage; `call` does the same for a user's function.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import inspect
import itertools
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import orjson
import pyarrow as pa

from curate.errors import CurateError, RecipeError, StageError
from curate.stage import ROW, Task

if TYPE_CHECKING:
    from curate.classify import Classifier
    from curate.embeddings import Embedder
    from curate.llm import Answer, Cache, Progress, Request

log = logging.getLogger(__name__)

EVERY = 20.0  # seconds between two lines of progress
NO_CACHE = "none"
FAILED = "function_error"
LEFT_OUT = "left_out"  # a chunk that was not asked about: it is too short, or too long to be cut
NOT_ASKED = ("no_text", "too_short", "too_long")
REWRITTEN, NOT_SELECTED, SOURCE = "rewritten", "not_selected", "source"
CLEANING = ("truncated", "no_marker", "nothing", "refused", "no_prefix", "empty", "above_max")  # kinds of `cleaned`, in order
CHECKING = ("no_pairs", "below_min", "length", "unfaithful", "copied", "language", "unlike", "no_better")  # of the rest
HOPELESS = 10  # failures of a function, not one of which was a success


# --------------------------------------------------------------------------------------------- chunks

UNITS = ("sentence", "line", "paragraph")
_FINER = {"document": "paragraph", "paragraph": "line", "line": "sentence", "sentence": "word"}
_GAPS = {
    "paragraph": re.compile(r"\n[^\S\n]*\n\s*"),
    "line": re.compile(r"\n\s*"),
    # after a full stop, with what closes a quotation; scripts without spaces need none; never before a small letter
    "sentence": re.compile(
        r"\n\s*"
        r"|(?:(?<=[.!?…؟۔।॥])|(?<=[.!?…؟۔।॥][\"'”’»)\]]))\s+(?![a-z])"
        r"|(?<=[。！？])(?![」』”’）。！？])\s*"
        r"|(?<=[。！？][」』”’）])(?![。！？])\s*"
    ),
    "word": re.compile(r"\s+"),
}


def pieces(text: str, unit: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """(start, end) of the units of a text, in characters, white space around them left out; none for a blank text.

    unit: `document`, `paragraph` (set apart by blank lines), `line`, `sentence` or `word`. start, end: the part to look at.
    """
    end = len(text) if end is None else end
    bounds, at = [], start
    if unit != "document":
        for match in _GAPS[unit].finditer(text, start, end):
            bounds.append((at, match.start()))
            at = match.end()
    bounds.append((at, end))
    found = []
    for a, b in bounds:
        part = text[a:b]
        if bare := part.strip():
            a += len(part) - len(part.lstrip())
            found.append((a, a + len(bare)))
    return found


def estimated(text: str) -> float:
    """Tokens of a text by the estimate bytes/4."""
    return len(text.encode("utf-8", "surrogatepass")) / 4


def counted(tokenizer: str) -> Callable[[str], float]:
    """A function from one text to its tokens: `bytes/4`, or by the file of a tokenizer. Raises RecipeError."""
    from curate import tokens

    if tokenizer == tokens.ESTIMATE:
        return estimated
    count = tokens.counter(tokenizer)
    return lambda text: count(pa.array([text], pa.string()))[0].as_py()


def chunks(
    text: str, most: int, unit: str = "sentence", tokens: Callable[[str], float] = estimated, *, cut: bool = True
) -> list[tuple[int, int]]:
    """(start, end) of chunks of at most `most` tokens, in characters: neighbouring units are joined as long as they fit.

    Between chunks, before the first and after the last stands white space alone, so that chunks and gaps are the whole text.
    most: 0 for the whole text as one chunk. unit: where a chunk may end: `sentence`, `line` or `paragraph`. A unit that is too
    long is cut where the next finer one ends, a word at last anywhere; no part of a sentence is joined with another sentence.
    Without `cut` it is a chunk by itself, and longer than `most`. tokens: of a text; of a chunk they are the sum over its units
    and the gaps between them.
    """
    if most <= 0:
        return pieces(text, "document")
    atoms: list[tuple[int, int, float, int]] = []  # the last: where the sentence begins that is cut here, -1 for whole units

    def add(a: int, b: int, kind: str, sentence: int) -> None:
        size = tokens(text[a:b])
        if size <= most or not cut or b - a == 1:
            atoms.append((a, b, size, sentence))
        elif kind == "word":
            step = min(most, (b - a + 1) // 2)  # a character has four bytes at most
            for at in range(a, b, step):
                add(at, min(at + step, b), kind, sentence)
        else:
            for piece in pieces(text, _FINER[kind], a, b):
                add(*piece, _FINER[kind], a if kind == "sentence" else -1)

    for piece in pieces(text, unit):
        add(*piece, unit, -1)
    found: list[tuple[int, int]] = []
    held, before = 0.0, -1
    for a, b, size, sentence in atoms:
        more = size + (tokens(text[found[-1][1] : a]) if found and a > found[-1][1] else 0)
        if found and sentence == before and held + more <= most:
            found[-1], held = (found[-1][0], b), held + more
        else:
            found.append((a, b))
            held = size
        before = sentence
    return found


def stitch(text: str, spans: Sequence[tuple[int, int]], outputs: Sequence[str | None], separator: str | None = None) -> str:
    """One text out of what was made of the chunks of another; with the chunks themselves it is that text, byte for byte.

    outputs: one for each span; a None is left out, with the gap before it. separator: what stands between them; None for what
    stands between the chunks in the source.
    """
    if separator is not None:
        return separator.join(part for part in outputs if part is not None)
    made: list[str] = []
    last, kept = 0, False
    for (a, b), part in zip(spans, outputs, strict=True):
        if part is not None:
            made += [text[last:a] if kept or last == 0 else text[: spans[0][0]], part]
            kept = True
        last = b
    return "".join([*made, text[last:]]) if kept else ""


# --------------------------------------------------------------------------------------------- what a model says around a text

# For each language: courtesies, words that open an announcement, and words of which one is in it. The words are the usual ones.
_ANNOUNCING = {
    "en": (
        r"sure(?: thing)?|certainly|of course|absolutely|okay|ok|great",
        r"here(?:['’]s| is| are)|below (?:is|are)|the following is|this is|i(?:['’]ve| have)",
        r"version|rewrit\w*|rewrot\w*|rephras\w*|paraphras\w*|revis\w*|summar\w*|translat\w*|simplif\w*|improved|cleaned"
        r"|reword\w*|condensed|question[- ]?(?:and|&|–|-)[- ]?answers?|the (?:\w+ )?(?:text|passage|paragraph)",
    ),
    "de": (
        r"gerne?|natürlich|selbstverständlich|klar|okay",
        r"hier (?:ist|sind|kommt)|nachfolgend|im folgenden|dies ist",
        r"fassung|version|umformulier\w*|überarbeit\w*|umgeschrieb\w*|paraphras\w*|zusammenfassung|übersetzung|vereinfach\w*"
        r"|(?:der|des|ihr|ihres) (?:\w+ )?text\w*",
    ),
    "fr": (
        r"bien sûr|certainement|volontiers|d['’]accord",
        r"voici|voilà|ci-dessous",
        r"version|reformul\w*|réécri\w*|paraphras\w*|résumé|traduction|(?:le|du|ce|votre) (?:\w+ )?texte",
    ),
    "es": (
        r"claro(?: que sí)?|por supuesto|desde luego",
        r"aquí (?:está|están|tienes?|va)|a continuación",
        r"versión|reescrit\w*|reformul\w*|par[aá]fras\w*|resumen|traducción|(?:el|del|este|su) (?:\w+ )?texto",
    ),
    "it": (
        r"certo|certamente|volentieri",
        r"ecco|di seguito",
        r"versione|riscritt\w*|riformul\w*|parafras\w*|riassunto|traduzione|(?:il|del|questo) (?:\w+ )?testo",
    ),
    "pt": (
        r"claro|com certeza|certamente",
        r"aqui (?:está|estão|vai)|segue(?: abaixo)?|abaixo está",
        r"versão|reescrit\w*|reformul\w*|par[aá]fras\w*|resumo|tradução|(?:o|do|este|seu) (?:\w+ )?texto",
    ),
    "nl": (
        r"natuurlijk|zeker|uiteraard|graag gedaan",
        r"hier (?:is|zijn|volgt)|hieronder",
        r"versie|herschr\w*|herformul\w*|parafras\w*|samenvatting|vertaling|(?:de|uw|je) (?:\w+ )?tekst",
    ),
    "pl": (
        r"oczywiście|jasne|pewnie",
        r"oto|poniżej",
        r"wersj\w*|przeredagowan\w*|przepisan\w*|parafraz\w*|streszczeni\w*|tłumaczeni\w*|tekst\w*",
    ),
    "ru": (
        r"конечно|разумеется|хорошо",
        r"вот|ниже|далее",
        r"верси\w*|переписан\w*|перефразир\w*|переформулир\w*|пересказ\w*|перевод\w*|текст\w*",
    ),
    "zh": (r"当然(?:可以)?|好的|當然", r"以下(?:是|为)|下面是|这是|這是", r"版本|改写|改寫|重写|重寫|释义|摘要|翻译|翻譯|文本"),
    "ja": (
        r"もちろん(?:です)?|はい|承知しました",
        r"以下(?:は|に|が)|こちらは?",
        r"書き換え|言い換え|要約|翻訳|バージョン|文章|テキスト",
    ),
}
LANGUAGES = tuple(_ANNOUNCING)
_END = r"[ \t]*[*_]*[:：][ \t]*[*_]*\s*"
_PREAMBLE = re.compile(
    r"\s*(?:"
    + "|".join(
        rf"(?:(?:{courtesy})[,.!，。！、]*\s*)?(?:{opening})[^\n:：]{{0,120}}?(?:{about})[^\n:：]{{0,100}}{_END}"
        rf"|(?:{courtesy})[.!。！:：][ \t]*\n\s*"
        for courtesy, opening, about in _ANNOUNCING.values()
    )
    + r"|[*_#\s]*(?:the )?(?:paraphrased|rephrased|rewritten|reworded|revised|simplified|improved|cleaned)(?:[- ]up)? "
    rf"(?:text|version|passage|paragraph|document|article){_END})",
    re.I,
)
# How refusals begin, in the first person alone: a text may well be about what cannot be done.
_REFUSING = {
    "en": (
        r"(?:(?:i(?:['’]m| am))?(?: so| very| really)? ?sorry|i apologi[sz]e|(?:my )?apologies|unfortunately)\b"
        r"[^\n]{0,60}?\bi(?:['’]m| am| do)? ?(?:can ?not|can['’]t|unable|won['’]t|not able|not comfortable|could ?n[o'’]t)\b",
        r"i(?:['’]m| am)? ?(?:can ?not|can['’]t|won['’]t|unable to|not able to|must decline|will not)\b[^\n]{0,40}?"
        r"\b(?:help(?! but)|assist|fulfil|comply|rewrit|rephras|paraphras|provid|do that|complet|process|generat|creat)\w*"
        r"(?:[^\n]{0,30}?\b(?:this|that|these|those|you|your|such|content|request|text|passage)\b|[.,!]|\s*$)",
        r"as an? (?:ai|artificial intelligence|(?:large )?language model)(?: language)?(?: model| assistant| system)?\s*[,.]",
    ),
    "de": (
        r"(?:(?:es )?tut mir leid|entschuldigung|leider)\b[^\n]{0,60}?\b(?:kann ich|ich kann|darf ich|ich darf)\b"
        r"[^\n]{0,80}?\b(?:nicht|kein)",
        r"ich kann (?:dabei|das|dies\w*|ihnen|dir|ihre|deine)\b[^\n]{0,60}?\bnicht (?:helfen|um\w+|erfüllen|beantworten)",
        r"als (?:ki|künstliche intelligenz|(?:ki-)?sprachmodell)\b[^\n]{0,20}?(?:,|kann ich|bin ich)",
    ),
    "fr": (
        r"(?:je suis |toutes mes )?(?:désolée?|excuses)\b[^\n]{0,60}?\bje (?:ne )?(?:peux|puis|suis)\b"
        r"[^\n]{0,20}?\b(?:pas|mesure)",
        r"je ne (?:peux|suis) pas\b[^\n]{0,40}?\b(?:aider|mesure|répondre|réécrire|reformuler)",
        r"en tant qu['’](?:ia|intelligence artificielle|assistant|modèle)\b",
    ),
    "es": (
        r"(?:lo siento|disculpa)\b[^\n]{0,60}?\bno puedo",
        r"no puedo (?:ayudar|cumplir|reescribir|reformular|responder|continuar)",
        r"como (?:una? )?(?:ia|inteligencia artificial|modelo de lenguaje)\b",
    ),
    "it": (
        r"(?:mi dispiace|spiacente)\b[^\n]{0,60}?\bnon (?:posso|sono in grado)",
        r"non posso (?:aiutar|soddisfare|riscrivere|rispondere)",
        r"(?:in quanto|come) (?:ia|intelligenza artificiale|modello linguistico)\b",
    ),
    "pt": (
        r"(?:desculpe|sinto muito|lamento)\b[^\n]{0,60}?\bnão (?:posso|consigo)",
        r"não posso (?:ajudar|reescrever|responder|continuar)",
        r"como (?:uma? )?(?:inteligência artificial|modelo de linguagem)\b",
    ),
    "nl": (
        r"(?:het spijt me|sorry|helaas)\b[^\n]{0,60}?\b(?:kan ik|ik kan)\b[^\n]{0,60}?\b(?:niet|geen)",
        r"als (?:ai|taalmodel)\b",
    ),
    "pl": (
        r"(?:przepraszam|przykro mi|niestety)\b[^\n]{0,60}?\bnie (?:mogę|jestem w stanie)",
        r"jako (?:ai|sztuczna inteligencja|model językowy)\b",
    ),
    "ru": (
        r"(?:извините|простите|мне жаль|к сожалению)\b[^\n]{0,60}?\bя[^\n]{0,20}? не (?:могу|в состоянии)",
        r"как (?:ии|искусственный интеллект|языковая модель)\b",
    ),
    "zh": (
        r"(?:抱歉|对不起|對不起|很遗憾|很遺憾)[^\n]{0,20}?(?:不能|无法|無法)",
        r"作为(?:一个|一名)?(?:ai|人工智能|语言模型)",
    ),
    "ja": (
        r"(?:申し訳|すみません|ごめんなさい)[^\n]{0,60}?(?:できません|いたしかねます)",
        r"(?:aiとして|私は(?:ai|人工知能))",
    ),
}
_REFUSAL = re.compile(r"[\s\"'“*]*(?:" + "|".join(itertools.chain(*_REFUSING.values())) + ")", re.I)
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.S)


def without_preamble(output: str, source: str = "") -> str:
    """The text without words that announce it, such as "Sure! Here is the rewritten text:", in one of `LANGUAGES`.

    They stay where nothing follows, and where the source begins so itself.
    """
    match = _PREAMBLE.match(output)
    if not match or not output[match.end() :].strip() or _PREAMBLE.match(source):
        return output
    return output[match.end() :]


def refused(source: str, output: str) -> str | None:
    """`refused` where an answer begins as a refusal does, in the first person, and its source does not."""
    return "refused" if _REFUSAL.match(output) and not _REFUSAL.match(source) else None


def without_prefix(output: str, prefix: str) -> str | None:
    """What follows an agreed beginning, however that is set (bold, quoted, in capitals); None where it is missing."""
    bare = output.lstrip(" \t\r\n*_#\"'“>")
    if bare[: len(prefix)].casefold() != prefix.casefold():
        return None
    return re.sub(r"^[*_\"”']*\s+|^[*_]+", "", bare[len(prefix) :], count=1)


def between(output: str, markers: Sequence[str]) -> str | None:
    """What stands after the last first marker, and before the second if there is one; None where one is missing."""
    _, found, rest = output.rpartition(markers[0])
    if not found:
        return None
    if len(markers) == 1:
        return rest
    inside, end, _ = rest.partition(markers[1])
    return inside if end else None


_MARKDOWN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^[ \t]*(?:```|~~~)[^\n]*\n?", re.M), ""),
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+([^\n]*?)(?:[ \t]+#{1,9})?[ \t]*$", re.M), r"\1"),
    (re.compile(r"^[ \t]{0,3}(?:[-*_][ \t]{0,3}){3,99}$\n?", re.M), ""),
    (re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]{0,2000}(?:[ \t]{1,9}\"[^\"\n]{0,500}\")?\)"), r"\1"),
    (re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*\n]{0,999}[^\s*])\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<![\w_])(_{1,3})(?=[^\s_])([^_\n]{0,999}[^\s_])\1(?![\w_])"), r"\2"),
    (re.compile(r"~~(?=\S)([^~\n]{0,999}[^\s~])~~"), r"\1"),
    (re.compile(r"(?<!`)`([^`\n]{1,999})`(?!`)"), r"\1"),
    (re.compile(r"^[ \t]{0,3}>[ \t]?", re.M), ""),
)


def without_markdown(text: str) -> str:
    """The text without marks of Markdown: headings, emphasis, links, code, quotations and rules; lists stay lists."""
    for pattern, instead in _MARKDOWN:
        text = pattern.sub(instead, text)
    return text


_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "‘": "’", "「": "」", "`": "`"}


def without_quotes(text: str) -> str:
    """The text without quotation marks around all of it."""
    bare = text.strip()
    if len(bare) > 1 and _QUOTES.get(bare[0]) == bare[-1] and not {bare[0], bare[-1]} & set(bare[1:-1]):
        return bare[1:-1]
    return text


# --------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What is done to answers, and what may stand for its source. None, 0 and "" switch a check off.

    To each answer, in this order: `keep_truncated` lets answers through that were cut off; `markers`: only what stands after
    the first (and before the second) counts, `no_marker` without; `nothing`: an agreed answer for "there is nothing here";
    `refusals`: `refused`; `prefix`: an agreed beginning, stripped, `no_prefix` without; `preamble`: announcements are stripped;
    `strip_markdown`; `strip_quotes`; then `empty`, and `above_max` with more than `max_output_tokens`.
    partial: what becomes of a document of which only some chunks could be used: `reject` it, or the rest of its chunks are the
    `original`, or `drop` them. separator: between chunks; None for what stands there in the source.
    To the whole: qa: its pairs of question and answer, `alone` or, after the checks, to `append` to the source; `no_pairs`.
    min_output_tokens: `below_min`. length: least and largest ratio of tokens, output to source. unfaithful: most of the share
    of numbers and LaTeX commands that the source does not have. copied: most of the share of runs of `ngram` words that the
    source has. same_language: `language` where source and output are in different languages, both told with this score or more.
    similarity: least cosine of the embeddings by `similarity_model`, else `unlike`. quality_gain: by how much the score by
    `quality_model` must rise, else `no_better`.
    """

    keep_truncated: bool = False
    markers: tuple[str, ...] = ()
    nothing: str = ""
    refusals: bool = True
    prefix: str = ""
    preamble: bool = True
    strip_markdown: bool = False
    strip_quotes: bool = False
    max_output_tokens: int = 0
    partial: Literal["reject", "original", "drop"] = "reject"
    separator: str | None = None
    qa: Literal["", "alone", "append"] = ""
    min_output_tokens: int = 0
    length: tuple[float, ...] = (0.3, 3.0)
    unfaithful: float | None = None
    copied: float | None = None
    ngram: int = 8
    same_language: float = 0.5
    similarity: float | None = None
    similarity_model: str = "minilm"
    quality_gain: float | None = None
    quality_model: str = "quality-en"

    def check(self, where: str) -> None:
        """Raise RecipeError, which begins with `where`, for values that cannot be."""
        if len(self.markers) > 2 or not all(self.markers):
            raise RecipeError(f"{where}: markers is {list(self.markers)}; give one marker, or the one before and the one after")
        if self.partial not in ("reject", "original", "drop"):
            raise RecipeError(f"{where}: partial is {self.partial!r}; it is 'reject', 'original' or 'drop'")
        if self.qa not in ("", "alone", "append"):
            raise RecipeError(f"{where}: qa is {self.qa!r}; it is '', 'alone' or 'append'")
        if len(self.length) != 2 or min(self.length) < 0 or (self.length[1] and self.length[1] <= self.length[0]):
            raise RecipeError(f"{where}: length is {list(self.length)}; give two ratios, such as [0.3, 3.0]; 0 for no limit")
        if min(self.max_output_tokens, self.min_output_tokens) < 0 or self.ngram < 1:
            raise RecipeError(f"{where}: max_output_tokens and min_output_tokens are not negative, and ngram is 1 or more")
        for name in ("unfaithful", "copied", "same_language"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RecipeError(f"{where}: {name} is {value}; it is between 0 and 1")
        if self.similarity is not None and not -1 <= self.similarity <= 1:
            raise RecipeError(f"{where}: similarity is {self.similarity}; a cosine is between -1 and 1")


CHECKS = tuple(f.name for f in dataclasses.fields(Checks))


def cleaned(answer: str, source: str, checks: Checks) -> tuple[str, str | None]:
    """(text, None) of one answer to one chunk, or ("", why it cannot be used)."""
    text = _THOUGHT.sub("", answer)
    if checks.markers:
        inside = between(text, checks.markers)
        if inside is None:
            return "", "no_marker"
        text = inside
    if checks.nothing and text.strip(" \t\r\n.*_\"'“”").casefold() == checks.nothing.strip(" .").casefold():
        return "", "nothing"
    if checks.refusals and refused(source, text):
        return "", "refused"
    if checks.prefix:
        rest = without_prefix(text, checks.prefix)
        if rest is None:
            return "", "no_prefix"
        text = rest
    text = text.strip()
    if checks.preamble:
        text = without_preamble(text, source)
    if checks.strip_markdown:
        text = without_markdown(text)
    if checks.strip_quotes:
        text = without_quotes(text)
    text = text.strip()
    if not text:
        return "", "empty"
    if checks.max_output_tokens and estimated(text) > checks.max_output_tokens:
        return "", "above_max"
    return text, None


_PAIR = re.compile(
    r"^[ \t]{0,9}(?:[-*#>_][ \t]{0,3}|\d{1,3}[.)][ \t]{0,3}){0,9}question(?:[ \t]*\d+)?[ \t]*[*_]*[:.][*_]*[ \t]*", re.I | re.M
)
_REPLY = re.compile(r"^[ \t]{0,9}(?:[-*#>_][ \t]{0,3}){0,9}answer(?:[ \t]*\d+)?[ \t]*[*_]*[:.][*_]*[ \t]*", re.I | re.M)


def qa_pairs(text: str) -> list[str]:
    """Pairs `Question: …` and `Answer: …` of an answer, each as two blocks of lines; what has no answer is left out."""
    found = []
    starts = [*_PAIR.finditer(text)]
    for match, after in itertools.zip_longest(starts, starts[1:]):
        body = text[match.end() : after.start() if after else len(text)]
        reply = _REPLY.search(body)
        if reply and (question := body[: reply.start()].strip()) and (answer := body[reply.end() :].strip()):
            found.append(f"Question: {question}\nAnswer: {answer}")
    return found


def chosen_pairs(pairs: Sequence[str], source: str, seed: int, name: str) -> list[str]:
    """Some of the pairs, in another order: how many and which follow from (seed, name), `name` being that of the document.

    Between 1 and a fifteenth of the tokens of the source (bytes/4), after Nemotron-CC.
    """
    import xxhash

    def drawn(what: str) -> int:
        return xxhash.xxh3_64_intdigest(f"{name}\0{what}".encode(), seed)

    order = sorted(range(len(pairs)), key=lambda i: (drawn(f"{i}"), i))
    most = max(1, int(10 * -(-estimated(source) // 1) / 150))
    return [pairs[i] for i in order[: 1 + drawn("count") % most]]


_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+")


def copied_share(source: str, output: str, n: int) -> float:
    """Share of the runs of n words of the output that stand in the source; 0 where it has none.

    Words are runs of letters and digits, in lower case; in scripts without spaces a letter is a word.
    """
    ours, theirs = ([m[0] for m in _WORD.finditer(text.lower())] for text in (output, source))
    known = {tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1)}
    runs = len(ours) - n + 1
    return sum(tuple(ours[i : i + n]) in known for i in range(runs)) / runs if runs > 0 else 0.0


_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_ITEM = re.compile(r"^[ \t]*\d{1,3}[.)](?=[ \t])", re.M)


def unfaithful_share(source: str, output: str) -> float:
    r"""Share of the numbers and LaTeX commands (`\frac`) of the output that do not stand in the source; 0 where it has none.

    1,000 is 1000; numbers of items of a list do not count.
    """

    def facts(text: str) -> list[str]:
        return [*(_THOUSANDS.sub("", m[0]) for m in _NUMBER.finditer(text)), *_COMMAND.findall(text)]

    known = set(facts(source))
    found = facts(_ITEM.sub("", output))
    return sum(fact not in known for fact in found) / len(found) if found else 0.0


def rejected(source: str, output: str, checks: Checks) -> tuple[str | None, float | None]:
    """(kind, measured value) of the first check without a model that an output does not pass; (None, None) if it passes all."""
    low, high = checks.length
    ratio = estimated(output) / max(estimated(source), 0.25)
    if (low and ratio < low) or (high and ratio > high):
        return "length", ratio
    if checks.unfaithful is not None and (share := unfaithful_share(source, output)) > checks.unfaithful:
        return "unfaithful", share
    if checks.copied is not None and (share := copied_share(source, output, checks.ngram)) > checks.copied:
        return "copied", share
    return None, None


def composed(source: str, units: Sequence[Mapping[str, Any]], checks: Checks) -> tuple[str, str | None, list[str]]:
    """(text, None) of the answers to the chunks of a document, or ("", why there is none); and why chunks of it were not used.

    units: one for each chunk, in order: `start` and `end` in characters, `answer` or None, and `error`: of the client or of
    `call`, `LEFT_OUT` for a chunk that nobody asked about, or one of `NOT_ASKED` for the whole document.
    """
    parts: list[str | None] = []
    kinds: list[str] = []
    made = False
    for unit in units:
        kind, part = unit["error"], source[unit["start"] : unit["end"]]
        if kind in NOT_ASKED:
            return "", kind, []
        if kind == LEFT_OUT:
            parts.append(None)
            continue
        text = ""
        if kind == "truncated" and checks.keep_truncated and unit["answer"]:
            kind = None
        if kind is None:
            text, kind = cleaned(unit["answer"], part, checks)
        if kind is None:
            made = True
            parts.append(text)
            continue
        kinds.append(kind)
        if kind != "nothing" and checks.partial == "reject":
            return "", kind, kinds
        parts.append(part if kind != "nothing" and checks.partial == "original" else None)
    if not made:
        return "", next((kind for kind in kinds if kind != "nothing"), kinds[0] if kinds else "too_short"), kinds
    spans = [(unit["start"], unit["end"]) for unit in units]
    return stitch(source, spans, parts, checks.separator), None, kinds


class Judge:
    """The checks that need a model, for many pairs of source and output at a time. A pair's verdict depends on no other."""

    def __init__(self, checks: Checks, task: Task, where: str):
        self.checks, self._where = checks, where
        self._embedder: Embedder | None = None
        self._classifier: Classifier | None = None
        if checks.similarity is not None:
            from curate import embeddings

            name = checks.similarity_model
            self._embedder = task.cached(("embedder", name), functools.partial(embeddings.load, name))
        if checks.quality_gain is not None:
            from curate import classify

            path = classify.resolve(checks.quality_model)
            self._classifier = task.cached(("classifier", path), functools.partial(classify.load, path))
            if self._classifier.positive is None:
                raise RecipeError(f"{where}: quality_model {checks.quality_model} has no positive label to score by")

    @staticmethod
    def files(checks: Checks) -> tuple[str, ...]:
        """The files of the models, for `Stage.files()`."""
        from curate import classify, embeddings

        found: tuple[str, ...] = ()
        if checks.similarity is not None:
            if embeddings.kind(checks.similarity_model) == embeddings.LSA:
                raise RecipeError("similarity_model: 'lsa' has to be fitted: name the file of a fitted one, or 'minilm'")
            found += embeddings.files(checks.similarity_model)
        if checks.quality_gain is not None:
            found += classify.files(classify.resolve(checks.quality_model))
        return found

    def __call__(self, sources: Sequence[str], outputs: Sequence[str]) -> list[tuple[str | None, float | None]]:
        """`rejected`, and then the checks with a model, for each pair."""
        found = [rejected(a, b, self.checks) for a, b in zip(sources, outputs, strict=True)]
        for kind, check in (("language", self._language), ("unlike", self._unlike), ("no_better", self._no_better)):
            left = [i for i, (kind_, _) in enumerate(found) if kind_ is None]
            if left:
                bad, value = check([sources[i] for i in left], [outputs[i] for i in left])
                for i, wrong, number in zip(left, bad.tolist(), value.tolist(), strict=True):
                    if wrong:
                        found[i] = kind, None if number != number else number
        return found

    def _language(self, sources: list[str], outputs: list[str]) -> tuple[np.ndarray, np.ndarray]:
        nothing = np.zeros(len(sources), bool), np.full(len(sources), np.nan)
        if not self.checks.same_language:
            return nothing
        from curate.stages.language import detect

        (a, sure), (b, sure_too) = (detect(pa.array(texts, pa.string())) for texts in (sources, outputs))
        least = np.minimum(np.asarray(sure), np.asarray(sure_too)).astype(np.float64)
        known = [x != "und" and y != "und" and x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)]
        return np.array(known, bool) & (least >= self.checks.same_language), least

    def _unlike(self, sources: list[str], outputs: list[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._embedder is None or self.checks.similarity is None:
            return np.zeros(len(sources), bool), np.full(len(sources), np.nan)
        a, b = (self._embedder.encode(pa.array(texts, pa.string())) for texts in (sources, outputs))
        cosine = np.einsum("ij,ij->i", a, b, dtype=np.float64)
        return ~(cosine >= self.checks.similarity), cosine  # what has no vector is like nothing

    def _no_better(self, sources: list[str], outputs: list[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._classifier is None or self.checks.quality_gain is None:
            return np.zeros(len(sources), bool), np.full(len(sources), np.nan)
        at = self._classifier.labels.index(self._classifier.positive or "")
        before, after = (self._classifier.scores(pa.array(texts, pa.string()))[:, at] for texts in (sources, outputs))
        gain = after.astype(np.float64) - np.nan_to_num(before, nan=0.0)
        return ~(gain >= self.checks.quality_gain), gain


# --------------------------------------------------------------------------------------------- provenance

ANSWERS = pa.list_(
    pa.struct(
        [
            ("prompt", pa.string()),
            ("sample", pa.int32()),
            ("start", pa.uint32()),
            ("end", pa.uint32()),
            ("answer", pa.string()),
            ("error", pa.string()),
        ]
    )
)
PROVENANCE = pa.schema(
    [
        ("synthetic", pa.bool_()),
        ("source_id", pa.string()),
        ("prompt", pa.string()),
        ("prompt_sha256", pa.string()),
        ("generator", pa.string()),
        ("generation", pa.string()),
        ("rewrite_status", pa.string()),
    ]
)


def kinds() -> tuple[str, ...]:
    """Why a document may be left as it was, in the order in which that is told."""
    from curate.llm import ENDPOINT_ERRORS, MODEL_ERRORS

    return tuple(dict.fromkeys((*NOT_ASKED, *ENDPOINT_ERRORS, "rejected", *MODEL_ERRORS, FAILED, *CLEANING, *CHECKING)))


def origin(
    source_id: str, prompt: str | None, prompt_sha256: str | None, generator: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """The columns of `PROVENANCE` for a document that was made out of another."""
    from curate.storage import canonical

    made = (True, source_id, prompt, prompt_sha256, generator, canonical(dict(parameters)).decode().strip(), REWRITTEN)
    return dict(zip(PROVENANCE.names, made, strict=True))


def original(status: str, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The columns of `PROVENANCE` for a document that stays as it was; earlier: what they held, where they were there."""
    if earlier is None or earlier.get("synthetic") is None:
        return {**dict.fromkeys(PROVENANCE.names), "synthetic": False, "rewrite_status": status}
    told = earlier["rewrite_status"] if status in (NOT_SELECTED, SOURCE) else status
    return {**{name: earlier[name] for name in PROVENANCE.names}, "rewrite_status": told}


# --------------------------------------------------------------------------------------------- what was answered, by row


@dataclass
class Waiting:
    """A document of which `left` answers are to come, and its answers, or None."""

    row: int
    answers: list[dict[str, Any]] | None
    left: int


def complete(waiting: deque[Waiting]) -> Iterator[Waiting]:
    """The documents at the head of a queue of which no answer is to come any more, taken off it."""
    while waiting and not waiting[0].left:
        yield waiting.popleft()


@contextlib.contextmanager
def storing(columns: pa.Schema, path: Path, at_once: int) -> Iterator[Callable[..., None]]:
    """A function of (row, its columns…), to be called in the order of rows, that writes them `at_once` rows at a time.

    So the answers of a shard, which may be many times as large as it, are not in memory together.
    """
    from curate.storage import TableWriter

    schema = pa.schema([(ROW, pa.uint32()), *columns])
    held: list[dict[str, Any]] = []
    with TableWriter(path, schema, codec="lz4") as writer:

        def write() -> None:
            writer.write(pa.RecordBatch.from_pylist(held, schema))
            held.clear()

        def add(row: int, *values: Any) -> None:
            held.append(dict(zip(schema.names, (row, *values), strict=True)))
            if len(held) == at_once:
                write()

        yield add
        write()


class Stored:
    """What `storing` has written: of it, what is asked for is read."""

    def __init__(self, path: Path):
        from curate.storage import open_table

        self._file = open_table(path)
        groups = self._file.metadata
        self._ends = np.cumsum([groups.row_group(g).num_rows for g in range(groups.num_row_groups)], dtype=np.int64)
        self._rows = self._file.read([ROW], use_threads=False)[ROW].to_numpy()

    def take(self, rows: np.ndarray, names: Sequence[str]) -> dict[str, pa.Array]:
        """These columns of these rows (uint32, ascending); null for rows that were not written."""
        at = np.searchsorted(self._rows, rows)
        there = at < len(self._rows)
        there[there] = self._rows[at[there]] == rows[there]
        groups = np.unique(np.searchsorted(self._ends, at[there], side="right")).tolist()
        table = self._file.read_row_groups(groups, columns=[ROW, *names], use_threads=False).combine_chunks()
        at = np.searchsorted(table[ROW].to_numpy(), rows)
        return {name: table[name].combine_chunks().take(pa.array(at, pa.int64(), mask=~there)) for name in names}

    def groups(self) -> Iterator[list[dict[str, Any]]]:
        """All rows, some at a time, in order."""
        for group in range(self._file.metadata.num_row_groups):
            yield self._file.read_row_group(group, use_threads=False).to_pylist()


# --------------------------------------------------------------------------------------------- asking a model


class Asks(Protocol):
    """The parameters of a stage that asks a model: see `curate.llm.Client`. server: "" for `$CURATE_LLM_SERVER`; serve: command
    that starts one instead, see `curate.serving`; cache: folder of answers, "" for the user's."""

    @property
    def server(self) -> str: ...
    @property
    def serve(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def api_key_env(self) -> str: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def requests_per_minute(self) -> float: ...
    @property
    def tokens_per_minute(self) -> float: ...
    @property
    def budget_usd(self) -> float: ...
    @property
    def budget_tokens(self) -> int: ...
    @property
    def usd_per_million_input(self) -> float: ...
    @property
    def usd_per_million_output(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def repairs(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def cache(self) -> str: ...


def check_asking(stage: Asks, name: str, *, function: bool = False) -> None:
    """Raise RecipeError for parameters of the client that cannot be; touches neither files nor the network.

    function: a function is called instead, and `parameters` are its own.
    """
    from curate.llm import LIMITS, check_key_variable, check_limits, check_parameters, check_server
    from curate.serving import check_command

    if stage.server:
        check_server(stage.server)
    check_key_variable(stage.api_key_env)
    if stage.serve:
        check_command(stage.serve, stage.server, name, _secret(stage))
    if not function:
        check_parameters(stage.parameters)
    check_limits({limit: getattr(stage, limit) for limit in LIMITS}, name)


def ask(
    stage: Any,
    task: Task,
    name: str,
    requests: Iterable[Request],
    *,
    total: int | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[Answer]:
    """One answer for each request of a task, as they come: match them by `tag`.

    stage: with the parameters of `Asks`, and with a fit (a `GlobalStage`), whose folder keeps account of a budget. name: of the
    stage, for lines of progress and warnings. requests: taken as they are needed; without any, no server is looked for. total:
    how many there will be, where that is known; else it is estimated by how far the shard is read. parameters: in place of the
    stage's. Counts answers from the cache and tokens as notes of the task. Raises what `curate.llm.Client` raises; all that was
    answered before is in the cache.
    """
    from curate.llm import Client
    from curate.serving import Serving

    source = iter(requests)
    first = next(source, None)
    if first is None:
        return
    own = Serving(stage.serve, stage.model, name, _secret(stage)) if stage.serve else None
    client = Client(
        stage.server,
        stage.model,
        api_key_env=stage.api_key_env,
        concurrency=stage.concurrency,
        requests_per_minute=stage.requests_per_minute,
        tokens_per_minute=stage.tokens_per_minute,
        budget_usd=stage.budget_usd,
        budget_tokens=stage.budget_tokens,
        usd_per_million_input=stage.usd_per_million_input,
        usd_per_million_output=stage.usd_per_million_output,
        retries=stage.retries,
        repairs=stage.repairs,
        timeout=stage.timeout,
        parameters=stage.parameters if parameters is None else parameters,
        cache=_cache(stage, task, stage.model),
        ledger=_account(stage, task),
        serving=own,
        progress=_teller(f"{name}, {task.shards[task.shard or 0]}"),
        every=EVERY,
    )
    seen = set[str]()
    taken = 0

    def counting() -> Iterator[Request]:
        nonlocal taken
        for request in itertools.chain([first], source):
            taken += 1
            yield request

    def expected() -> float | None:
        return taken / task.share if task.share else None

    with own or contextlib.nullcontext(), client:
        for answer in client.ask(counting(), ordered=False, total=expected if total is None else total):
            if answer.error and answer.error not in seen:  # one of each kind, with what a column has no room for
                seen.add(answer.error)
                log.warning("%s: %s, such as: %s", name, answer.error, answer.detail)
            if answer.cached:
                task.count("answers from the cache")
            else:
                task.count("input tokens", answer.input_tokens)
                task.count("output tokens", answer.output_tokens)
            yield answer


def look(stage: Asks) -> None:
    """See whether the endpoint is there that a stage will ask (see `Stage.ready`). Raises StageError.

    Not where a run starts its own, and not where the cache has answers of this model, which may be all that is needed.
    """
    from curate.llm import Client, cache_of, default_cache

    known = None if stage.cache == NO_CACHE else cache_of(Path(stage.cache) if stage.cache else default_cache(), stage.model)
    if stage.serve or (known and known.exists() and known.stat().st_size):
        return
    with Client(stage.server, stage.model, api_key_env=stage.api_key_env) as client:
        client.look()


def _secret(stage: Asks) -> str:
    """The key, where it is long enough not to be found in everything."""
    key = os.environ.get(stage.api_key_env, "").strip() if stage.api_key_env else ""
    return key if len(key) >= 8 else ""


def _cache(stage: Any, task: Task, model: str) -> Cache | None:
    """The answers of a model, opened once for each process."""
    from curate.llm import Cache, cache_of, default_cache

    if stage.cache == NO_CACHE:
        return None
    path = cache_of(Path(stage.cache) if stage.cache else default_cache(), model)
    return task.cached(("llm", path, path.exists() and path.stat().st_ino), functools.partial(Cache, path))


def _account(stage: Any, task: Task) -> Path:
    """Where it stands what was spent: by run and id of the stage, so that a budget that is raised goes on counting."""
    folder = task.folder(stage)
    return folder / "spent" if task.root is None else task.root / "spent" / folder.name.rpartition("-")[0]


def _teller(what: str) -> Callable[[Progress], None]:
    """Shows how far a shard is, once that takes long enough for somebody to wonder."""
    started = time.monotonic()

    def tell(progress: Progress) -> None:
        if time.monotonic() - started > EVERY * 0.9:
            print(f"{what}: {progress}", file=sys.stderr, flush=True)

    return tell


# --------------------------------------------------------------------------------------------- calling a function


@dataclass(frozen=True)
class Function:
    """A user's function: `module:name` of a callable that takes a list of texts and gives back as many.

    version: its attribute `version` if it has one, else the digest of the file of its module, so that a changed function is
    another one. told: that attribute as text, or "".
    """

    name: str
    version: str
    told: str
    target: Any

    @staticmethod
    def find(name: str, where: str) -> Function:
        """Import it. Raises RecipeError, which begins with `where`."""
        from curate.storage import sha256_file

        module_name, colon, attribute = name.partition(":")
        if not colon or not module_name or not attribute:
            raise RecipeError(f"{where}: function is {name!r}; write module:name")
        try:
            module = importlib.import_module(module_name)
            target = functools.reduce(getattr, attribute.split("."), module)
        except (ImportError, AttributeError) as error:
            raise RecipeError(f"{where}: function {name!r} cannot be loaded: {error}") from error
        takes = callable(target)
        if inspect.isclass(target):
            takes = callable(getattr(target, "rewrite", None)) or any("__call__" in vars(cls) for cls in target.__mro__)
        if not takes:
            raise RecipeError(f"{where}: {name} is neither a function of a list of texts nor a class with rewrite(texts)")
        version = getattr(target, "version", None)
        if version is not None:
            return Function(name, f"version {version}", str(version), target)
        file = getattr(module, "__file__", None)
        return Function(name, sha256_file(file) if file else "", "", target)

    def check(self, parameters: Mapping[str, Any], where: str) -> None:
        """Raise RecipeError, which begins with `where`, for parameters that it does not take, or wants and is not given."""
        try:
            signature = inspect.signature(self.target)
        except (ValueError, TypeError):
            return  # some that are built in do not tell
        try:
            signature.bind(*(() if inspect.isclass(self.target) else ([],)), **parameters)
        except TypeError as error:
            raise RecipeError(f"{where}: `parameters` do not fit {self.name}{signature}: {error}") from None

    def open(self, parameters: Mapping[str, Any]) -> Callable[[list[str]], Any]:
        """The function itself, or the `rewrite` of a new object of the class; parameters: keyword arguments of one or other."""
        if inspect.isclass(self.target):
            made: Any = self.target(**parameters)
            return getattr(made, "rewrite", made)
        return functools.partial(self.target, **parameters) if parameters else self.target


def call(
    stage: Any, task: Task, name: str, function: Function, texts: Iterable[tuple[Any, str]], parameters: Mapping[str, Any]
) -> Iterator[tuple[Any, str | None, str | None]]:
    """(tag, text, None) or (tag, None, kind of error) for each (tag, text), in order: a user's function in place of a model.

    It gets lists of at most `stage.batch_size` texts, none of them twice, and what it gave is kept in the cache by its name,
    version, parameters and the text. Where it raises, halves of the list are tried, down to the texts at fault. Raises
    StageError where it breaks its contract, or fails on each of the first 10 texts; a CurateError of its own is passed on.
    """
    from curate.llm import Completion

    opened = function.open(parameters)
    cache = _cache(stage, task, function.name)
    if cache is not None:
        cache.refresh()
    outcome = _Outcome(name, function.name, opened)
    for group in _batches(iter(texts), stage.batch_size):
        known: dict[str, tuple[str | None, str | None]] = {}
        keys = {}
        for _, text in group:
            if text not in keys:
                asked = [function.name, function.version, parameters, text]
                keys[text] = hashlib.blake2b(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
                found = None if cache is None else cache.get(keys[text])
                if found is not None:
                    known[text] = found.text, None
                    task.count("answers from the cache")
        for text, answer in outcome.of([text for text in keys if text not in known]):
            known[text] = answer
            if cache is not None and answer[0] is not None:
                known[text] = cache.put(keys[text], Completion(answer[0], "stop", 0, 0, 0.0)).text, None
        yield from ((tag, *known[text]) for tag, text in group)
    close = getattr(getattr(opened, "__self__", None), "close", None)
    if callable(close) and inspect.isclass(function.target):
        close()


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while group := list(itertools.islice(items, size)):
        yield group


class _Outcome:
    """Calls a function on lists of texts, and on parts of them where it fails."""

    def __init__(self, where: str, name: str, function: Callable[[list[str]], Any]):
        self._where, self._name, self._function = where, name, function
        self._successes = self._failures = 0
        self._seen = set[str]()

    def of(self, texts: list[str]) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
        """(text, (answer, None)) or (text, (None, kind of error)), in order."""
        if not texts:
            return
        try:
            made = self._checked(texts)
        except (CurateError, MemoryError):
            raise
        except Exception as error:
            if len(texts) > 1:
                half = len(texts) // 2
                yield from self.of(texts[:half])
                yield from self.of(texts[half:])
                return
            self._failures += 1
            said = f"{type(error).__name__}: {error}"
            if not self._successes and self._failures >= HOPELESS:
                raise StageError(
                    f"{self._where}: {self._name} has failed on each of the first {self._failures} texts, the last with {said}"
                ) from error
            if type(error).__name__ not in self._seen:
                self._seen.add(type(error).__name__)
                log.warning("%s: %s fails on a text of %d characters: %s", self._where, self._name, len(texts[0]), said)
            yield texts[0], (None, FAILED)
            return
        self._successes += len(texts)
        for text, answer in zip(texts, made, strict=True):
            yield text, (answer, None) if answer is not None else (None, "empty")

    def _checked(self, texts: list[str]) -> list[str | None]:
        made = self._function(list(texts))
        if isinstance(made, Awaitable):
            made = _awaited(made)
        if isinstance(made, str | bytes | Mapping) or not isinstance(made, Iterable):
            raise StageError(f"{self._where}: {self._name} gave a {type(made).__name__}; it has to give a list of texts")
        made = list(made)
        if len(made) != len(texts):
            raise StageError(f"{self._where}: {self._name} gave {len(made)} texts for {len(texts)}; it has to give as many")
        for text in made:
            if text is not None and not isinstance(text, str):
                raise StageError(f"{self._where}: {self._name} gave a {type(text).__name__} where a text has to stand")
            if text is not None:
                text.encode()  # raises for half a character, which cannot be written down
        return made


def _awaited(made: Awaitable[Any]) -> Any:
    import asyncio

    async def wait() -> Any:
        return await made

    return asyncio.run(wait())


def squeezed(texts: list[str]) -> list[str]:
    """Runs of blanks as one blank, runs of blank lines as one: the smallest function for `rewrite`, to try a pipeline with."""
    return [re.sub(r"\n{3,}", "\n\n", re.sub(r"[^\S\n]+", " ", text)).strip() for text in texts]
