"""Programs that clean a text: a few calls that take lines and strings out of it, and the executor that carries them out.

    programs.execute(text, "keep_doc()", ["remove_lines(line_start=0, line_end=2)"]).text

A small model that answers with a program costs a fraction of one that writes the text anew, and cannot put anything into it
that was not there. Two languages are known, the dialects `prox` and `refinex`, and both have one executor and one record:

    document, both      keep_doc()   drop_doc()
    prox                keep_chunk()   remove_lines(line_start=i, line_end=j)   normalize(source_str="…", target_str="…")
    refinex             keep_all()     remove_lines(start=i, end=j)             remove_str(line=i, del_str="…")

One call stands on a line; arguments go by name or in this order; strings are in single or double quotes, with the escapes of
Python but for octal numbers and names, and without prefixes. Lines are what line feeds separate, nothing else does; they are
counted from 0 through the whole document, whichever chunk a program was written for, and both ends of a range are meant.

Programs are written by models, so that nothing is taken for granted: they are read by regular expressions that need linear
time, never evaluated, and what one may do is bounded (`CHARS`, `CALLS`, `STRING`, `STEPS`, `READINGS`, `Rules.growth`).
Whatever a program says, the executor returns, and what it returns comes from the text.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Dialect = Literal["prox", "refinex"]
DIALECTS = ("prox", "refinex")

CHARS = 1 << 22  # of all programs of a document
CALLS = 100_000  # of all programs of a document
STRING = 10_000  # characters of one argument
STEPS = 1 << 28  # characters that replacements may look at (what is found counts 16 more), besides `READINGS` of the document
READINGS = 256

# what can be wrong with a call
KINDS = ("unparsable", "unknown", "out_of_range", "absent", "ambiguous", "not_allowed", "too_long", "limit")
_SKIPPED = {"prox": frozenset[str](), "refinex": frozenset(("unknown", "absent", "ambiguous"))}

_INT, _STR = int, str
_CALLS: Mapping[str, Mapping[str, tuple[tuple[str, type], ...]]] = {
    "document": {"keep_doc": (), "drop_doc": ()},
    "prox": {
        "keep_chunk": (),
        "remove_lines": (("line_start", _INT), ("line_end", _INT)),
        "normalize": (("source_str", _STR), ("target_str", _STR)),
    },
    "refinex": {
        "keep_all": (),
        "remove_lines": (("start", _INT), ("end", _INT)),
        "remove_str": (("line", _INT), ("del_str", _STR)),
    },
}


class Call(NamedTuple):
    """One call: its name, and its arguments in the order of the table above."""

    name: str
    arguments: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Program:
    """What a program says: its calls in order, and kinds of what could not be read, by how often."""

    calls: tuple[Call, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When the result of programs is not taken.

    errors: with so many the text stays as it was; 0: it never does. share: a document of which at most this share of words is
    left is dropped, unless there are that many errors; words: so is one with at most so many words left; None switches either
    off. deletion_only: `normalize` may only delete. growth: a `normalize` after which the text would be longer than so many
    times the document is an error.
    """

    errors: int = 2
    share: float | None = 0.05
    words: int | None = 10
    deletion_only: bool = False
    growth: float = 1.1


@dataclass(frozen=True)
class Refined:
    """What became of a document.

    status: `kept` (and changed), `unchanged`, `fallback` (to the text as it was), `dropped`. why: of `dropped` either
    `dropped` or `too_little`, of `fallback` the kind of error that comes first in `KINDS`. errors: by kind, and among them
    the calls that are skipped in the dialect refinex; `wrong` is how many count. text: "" where it is dropped. words_after:
    of the result, before a fallback.
    """

    text: str
    status: str
    why: str
    errors: Mapping[str, int]
    wrong: int
    words_before: int
    words_after: int


# --------------------------------------------------------------------------------------------- reading

_OUTER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*\((.*)\)\s*;?", re.S)
_ARGUMENT = re.compile(
    r"""\s*(?:([A-Za-z_][A-Za-z0-9_]*)\s*=\s*)?"""
    r"""(?:([0-9]{1,18})|"([^"\\]*(?:\\.[^"\\]*)*)"|'([^'\\]*(?:\\.[^'\\]*)*)')\s*(,|\Z)""",
    re.S,
)
_ESCAPE = re.compile(r"\\(?:([\\'\"abfnrtv0])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))")
_SIMPLE = dict(zip("\\'\"abfnrtv0", "\\'\"\a\b\f\n\r\t\v\0", strict=True))
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: str | None, dialect: str) -> Program:
    """The calls of a program. dialect: `prox`, `refinex`, or `document` for the two calls about a whole document.

    Blank lines and code fences are passed over. A line that is none of the calls is `unparsable`, or `unknown` where it is a
    call of another name and the dialect ignores these; all beyond `CHARS` and `CALLS` is one `limit`. Raises nothing.
    """
    return _parsed(text or "", dialect, CHARS)


def _parsed(text: str, dialect: str, most: int) -> Program:
    """The calls of the first `most` characters of a program."""
    known, skips = _CALLS[dialect], "unknown" in _SKIPPED.get(dialect, ())
    calls: list[Call] = []
    errors: Counter[str] = Counter()
    if len(text) > most:
        errors["limit"] += 1
        text = text[:most].rpartition("\n")[0]
    for line in text.split("\n"):
        line = line.strip()
        if not line or line.startswith("```"):
            continue
        if len(calls) == CALLS:
            errors["limit"] += 1
            break
        outer = _OUTER.fullmatch(line)
        if outer is not None and outer[1] not in known and skips:
            errors["unknown"] += 1
            continue
        call = None if outer is None or outer[1] not in known else _call(outer[1], outer[2], known[outer[1]])
        if isinstance(call, Call):
            calls.append(call)
        else:
            errors[call or "unparsable"] += 1
    return Program(tuple(calls), dict(errors))


def _call(name: str, inside: str, signature: tuple[tuple[str, type], ...]) -> Call | str | None:
    """The call, or the kind of what is wrong with it; None if it cannot be read."""
    given: dict[str, int | str] = {}
    at, more = 0, bool(inside.strip())
    while more:
        found = _ARGUMENT.match(inside, at)
        if found is None or len(given) == len(signature):
            return None
        key = found[1] or signature[len(given)][0]
        value: int | str | None = int(found[2]) if found[2] else _unescaped(found[3] if found[3] is not None else found[4])
        if value is None or key in given:
            return None
        given[key] = value
        at, more = found.end(), found[5] == ","
    if given.keys() != {key for key, _ in signature} or not all(isinstance(given[key], kind) for key, kind in signature):
        return None
    if any(isinstance(value, str) and len(value) > STRING for value in given.values()):
        return "limit"
    return Call(name, tuple(given[key] for key, _ in signature))


def _unescaped(literal: str) -> str | None:
    """What a literal says; None where that is no text."""
    if "\\" in literal:
        try:
            literal = _ESCAPE.sub(_character, literal)
        except (ValueError, OverflowError):  # beyond the last character
            return None
    if _SURROGATE.search(literal):  # two of them may be one character, as in JSON
        try:
            literal = literal.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            return None
    return literal


def _character(escape: re.Match[str]) -> str:
    return _SIMPLE[escape[1]] if escape[1] else chr(int(escape[2] or escape[3] or escape[4], 16))


def written(call: Call, dialect: str) -> str:
    """A call as a program has it: what `parse` reads as this call."""
    names = [key for key, _ in _CALLS[dialect][call.name]]
    values = [json.dumps(value, ensure_ascii=False) for value in call.arguments]
    return f"{call.name}({', '.join(f'{key}={value}' for key, value in zip(names, values, strict=True))})"


# --------------------------------------------------------------------------------------------- carrying out

# in scripts that are written without spaces (Thai, Lao, Burmese, Khmer, kana, Han) a character is a word
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_ANY_UNSPACED = re.compile(f"[{_UNSPACED}]")


def words(text: str) -> int:
    """Words between white space; in scripts that are written without spaces every character is one."""
    return sum(1 for _ in _WORD.finditer(text)) if _ANY_UNSPACED.search(text) else len(text.split())


def execute(
    text: str | None,
    document: str | None = None,
    programs: Iterable[str | None] = (),
    dialect: str = "prox",
    rules: Rules = Rules(),
) -> Refined:
    """Carry out the programs of a document: that about all of it, and those of its chunks, None where there is none.

    Strings go first, then lines. In the dialect prox a `normalize` replaces all places of its source, which must stand in the
    text (else `absent`), hold at least one character and no line feed, as its target must not (else `not_allowed`, since the
    lines have their numbers from the text as it was), and must not make the text too long (`too_long`); the same call once more
    changes nothing and is no error. In refinex a `remove_str` whose string does not stand exactly once in its line is skipped,
    as is a call of another name. A range of lines that are not all there is `out_of_range`, and none of them goes.
    All that is done beyond `CALLS` and `STEPS` is `limit`.

    Then, in this order: a `drop_doc` empties the document; so do too small a share of words, unless there are as many errors as
    `Rules.errors`, and too few words; with that many errors the text stays as it was. Raises nothing.

    Source: the calls and rules of ProX (Zhou et al. 2024, arXiv:2409.17115) and RefineX (Bi et al. 2025, arXiv:2507.03253).
    """
    text = text or ""
    before = words(text)
    about = parse(document, "document")
    errors = Counter(about.errors)
    if len({call.name for call in about.calls}) == 2:
        errors["unparsable"] += 1
    elif drops(document):
        return Refined("", "dropped", "dropped", dict(errors), sum(errors.values()), before, 0)
    calls: list[Call] = []
    left = CHARS
    for number, part in enumerate(programs):
        if left < 0:
            break
        if number == CALLS:
            errors["limit"] += 1
            break
        program = _parsed(part or "", dialect, left)
        left -= len(part or "")
        errors.update(program.errors)
        calls += program.calls
    if len(calls) > CALLS:
        errors["limit"] += 1
        del calls[CALLS:]
    change = _normalized if dialect == "prox" else _without_strings
    lines = change(text, calls, rules, errors)
    result = "\n".join(_without_lines(lines, calls, errors))
    after = words(result)
    counted = {kind: n for kind, n in errors.items() if kind not in _SKIPPED[dialect]}
    wrong = sum(counted.values())
    faulty = 0 < rules.errors <= wrong
    found = dict(errors)
    if rules.share is not None and after <= rules.share * before and not faulty:
        return Refined("", "dropped", "too_little", found, wrong, before, after)
    if rules.words is not None and after <= rules.words:
        return Refined("", "dropped", "too_little", found, wrong, before, after)
    if faulty:
        return Refined(text, "fallback", next(k for k in KINDS if counted.get(k)), found, wrong, before, after)
    return Refined(result, "unchanged" if result == text else "kept", "", found, wrong, before, after)


def drops(document: str | None) -> bool:
    """Whether the program for a document drops it; one that also keeps it does not."""
    return {call.name for call in parse(document, "document").calls} == {"drop_doc"}


class _Steps:
    """How much may still be done to a document of so many characters."""

    def __init__(self, size: int) -> None:
        self.left = STEPS + READINGS * size

    def take(self, characters: int, found: int = 0) -> bool:
        """Whether that much may be done; it counts as done then."""
        self.left -= characters + 16 * found
        return self.left >= 0


def _normalized(text: str, calls: Sequence[Call], rules: Rules, errors: Counter[str]) -> list[str]:
    """The lines of the text after all calls of `normalize`."""
    steps = _Steps(len(text))
    most = int(len(text) * max(rules.growth, 1.0))
    now, done = text, set[Call]()
    for call in calls:
        if call.name != "normalize" or call in done:
            continue
        done.add(call)
        source, target = str(call.arguments[0]), str(call.arguments[1])
        if not source or "\n" in source or "\n" in target or (rules.deletion_only and target):
            errors["not_allowed"] += 1
            continue
        if not steps.take(len(now)):
            errors["limit"] += 1
            break
        times = now.count(source)
        if not times:  # it is no error that an earlier call has done it already
            if not (steps.take(len(text)) and source in text):
                errors["absent"] += 1
        elif len(now) + times * (len(target) - len(source)) > most:
            errors["too_long"] += 1
        elif not steps.take(0, times):
            errors["limit"] += 1
            break
        else:
            now = now.replace(source, target)
    return now.split("\n")


def _without_strings(text: str, calls: Sequence[Call], rules: Rules, errors: Counter[str]) -> list[str]:
    """The lines of the text after all calls of `remove_str`."""
    lines = text.split("\n")
    steps = _Steps(len(text))
    for call in calls:
        if call.name != "remove_str":
            continue
        number, string = int(call.arguments[0]), str(call.arguments[1])
        if number >= len(lines):
            errors["out_of_range"] += 1
            continue
        line = lines[number]
        if not steps.take(len(line), 1):
            errors["limit"] += 1
            break
        at = line.find(string) if string else -1
        if at < 0:
            errors["absent"] += 1
        elif line.find(string, at + 1) >= 0:
            errors["ambiguous"] += 1
        else:
            lines[number] = line[:at] + line[at + len(string) :]
    return lines


def _without_lines(lines: list[str], calls: Sequence[Call], errors: Counter[str]) -> list[str]:
    """The lines that no call of `remove_lines` takes."""
    edges = Counter[int]()
    for call in calls:
        if call.name == "remove_lines":
            start, end = int(call.arguments[0]), int(call.arguments[1])
            if start <= end < len(lines):
                edges[start] += 1
                edges[end + 1] -= 1
            else:
                errors["out_of_range"] += 1
    if not edges:
        return lines
    depths = itertools.accumulate(edges[i] for i in range(len(lines)))
    return [line for line, depth in zip(lines, depths, strict=True) if not depth]


# --------------------------------------------------------------------------------------------- showing


class Chunk(NamedTuple):
    """Lines of a document: from `first` up to `end`, which is not among them. fits: whether they fit into the window."""

    first: int
    end: int
    fits: bool


def numbered(text: str, first: int = 0) -> str:
    """Lines with their numbers before them, from `first` on: `[000] …`. A carriage return at the end of one is not shown."""
    return "\n".join(f"[{i:03d}] {line.removesuffix(chr(13))}" for i, line in enumerate(text.split("\n"), first))


def tokens(text: str) -> int:
    """An estimate, bytes/4, so that the tokenizer of no model decides where a chunk ends."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def chunks_of_lines(text: str, window: int, count: Callable[[str], int] = tokens) -> list[Chunk]:
    """The lines of a text in chunks of at most `window` tokens, as `numbered` shows them. Every line is in one chunk.

    count: tokens of a line with its number and its line feed. A line that is longer than the window is a chunk by itself, which
    does not fit.
    """
    chunks: list[Chunk] = []
    first = size = 0
    lines = text.split("\n")
    for i, line in enumerate(lines):
        n = count(f"[{i:03d}] {line}\n")
        if i > first and size + n > window:
            chunks.append(Chunk(first, i, size <= window))
            first, size = i, 0
        size += n
    return [*chunks, Chunk(first, len(lines), size <= window)]


# --------------------------------------------------------------------------------------------- programs out of pairs

_TOKEN = re.compile(rf"\s+|[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_BLOCK = 5_000  # tokens of lines that are aligned with others word by word
_CONTEXT = 60  # characters that `normalize` may take along on each side so that its source stands in one place


@dataclass(frozen=True)
class Distilled:
    """A program made out of a text and what somebody has made of it.

    text: what the program makes of the raw text. deleted: characters that it takes out. added: the longest run of characters
    that the refined text has in a place where the raw one has none or others, and that no program can put there. why: what
    speaks against learning from the pair: `additions`, `tiny` (deletions), or "".
    """

    program: str
    text: str
    deleted: int
    added: int
    why: str


def distil(raw: str, refined: str, dialect: str = "refinex", most_added: int = 40, least_deleted: int = 4) -> Distilled:
    r"""The deletions between two texts as a program; insertions and substitutions are left out.

    Texts are aligned line by line, and where lines differ word by word. A run of words that cannot be named, since it stands
    in its line twice (refinex) or in the text twice with all that is near (prox), stays. White space alone is no difference.
    most_added: characters of the longest insertion or substitution with which the pair is still of use; least_deleted:
    characters below which deletions are too small to learn from. Where there are none the program keeps everything, and that
    is of use.

    Source: RefineX (Bi et al. 2025, arXiv:2507.03253), with the alignment of difflib.

    >>> distil("Home | News\nIt rained. Read more", "It rained.").program
    'remove_lines(start=0, end=0)\nremove_str(line=1, del_str=" Read more")'
    """
    before, after = raw.split("\n"), refined.split("\n")
    gone = [False] * len(before)  # whole lines
    cuts: dict[int, list[tuple[int, int]]] = {}  # within lines
    added = 0
    for tag, i, j, k, m in _aligned([line.strip() for line in before], [line.strip() for line in after]):
        if tag == "delete":
            gone[i:j] = [True] * (j - i)
        elif tag == "insert":
            added = max(added, *(len(line.strip()) for line in after[k:m]))
        elif tag == "replace":
            added = max(added, _within(before, i, j, "\n".join(after[k:m]), gone, cuts))
    calls = [Call("remove_lines", (a, b)) for a, b in _runs(gone)]
    edit = _one_normalize if dialect == "prox" else _each_string
    for number in sorted(cuts):
        calls += edit(raw, before[number], number, cuts[number])
    calls.sort(key=lambda call: call.arguments[0] if isinstance(call.arguments[0], int) else -1)
    everything = Rules(errors=0, share=None, words=None)
    text = execute(raw, None, ["\n".join(written(call, dialect) for call in calls)], dialect, everything).text
    deleted = len(raw) - len(text)
    why = "additions" if added > most_added else "tiny" if calls and deleted < least_deleted else ""
    keep = Call("keep_chunk" if dialect == "prox" else "keep_all")
    return Distilled("\n".join(written(call, dialect) for call in calls or [keep]), text, deleted, added, why)


def _aligned(before: list[str], after: list[str]) -> Iterable[tuple[str, int, int, int, int]]:
    """Opcodes as of difflib, exact where lines have only been taken out, which its matching does not promise."""
    at, places = 0, []
    for i, line in enumerate(before):
        if at < len(after) and line == after[at]:
            places.append(i)
            at += 1
    if at == len(after):
        kept = set(places)
        return [("delete", i, i + 1, 0, 0) for i in range(len(before)) if i not in kept]
    return difflib.SequenceMatcher(None, before, after).get_opcodes()


def _within(
    before: list[str], first: int, end: int, after: str, gone: list[bool], cuts: dict[int, list[tuple[int, int]]]
) -> int:
    """Note what of the lines is not in what stands for them; returns the longest addition."""
    raw = "\n".join(before[first:end])
    left = [(m.start(), m.end()) for m in _TOKEN.finditer(raw)]
    ours, theirs = [raw[a:b] for a, b in left], _TOKEN.findall(after)
    if max(len(ours), len(theirs)) > _BLOCK:
        return len(after)
    out = bytearray(len(raw))
    added = 0
    for tag, i, j, k, m in difflib.SequenceMatcher(None, ours, theirs).get_opcodes():
        if tag == "delete":
            a, b = left[i][0], left[j - 1][1]
            out[a:b] = b"\1" * (b - a)
        elif tag != "equal":
            added = max(added, len("".join(theirs[k:m]).strip()))
    at = 0
    for number in range(first, end):
        line = before[number]
        marks = out[at : at + len(line)]
        at += len(line) + 1
        if line.strip() and all(mark or c.isspace() for c, mark in zip(line, marks, strict=True)):
            gone[number] = True
        elif any(marks):
            cuts[number] = _runs(marks, 0)
    for number in range(first + 1, end - 1):  # a blank line between two that went
        gone[number] |= not before[number].strip() and gone[number - 1] and gone[number + 1]
    return added


def _runs(marks: Sequence[int], more: int = 1) -> list[tuple[int, int]]:
    """(first, last) of each run of what is true, or (first, end) with more=0."""
    found, at = [], 0
    for mark, group in itertools.groupby(marks, bool):
        n = sum(1 for _ in group)
        if mark:
            found.append((at, at + n - more))
        at += n
    return found


def _each_string(raw: str, line: str, number: int, cuts: list[tuple[int, int]]) -> list[Call]:
    """A `remove_str` for each string that stands in what is left of its line once."""
    calls, shift = [], 0
    for a, b in cuts:
        string = line[a - shift : b - shift]
        if line.find(string) == a - shift and line.find(string, a - shift + 1) < 0 and len(string) <= STRING:
            calls.append(Call("remove_str", (number, string)))
            line = line[: a - shift] + line[b - shift :]
            shift += b - a
    return calls


def _one_normalize(raw: str, line: str, number: int, cuts: list[tuple[int, int]]) -> list[Call]:
    """A `normalize` whose source stands in the text once, with as little around the strings as that takes."""
    a, b = cuts[0][0], cuts[-1][1]
    for more in range(_CONTEXT + 1):
        start, end = max(a - more, 0), min(b + more, len(line))
        source = line[start:end]
        at = raw.find(source)
        if raw.find(source, at + 1) < 0 and len(source) <= STRING:
            target = "".join(
                line[x:y] for x, y in zip([start, *(y for _, y in cuts)], [*(x for x, _ in cuts), end], strict=True)
            )
            return [Call("normalize", (source, target))]
    return []


# --------------------------------------------------------------------------------------------- programs by rules

_SEPARATORS = re.compile(r"\s+>\s+|\s*[|·•»›]\s*")
_ENDS = (".", "!", "?", "…", "。", "！", "？", ":", ";", ",", "»", "”", '"', "।", "؟")
_LINK = re.compile(r"!?\[[^\]\[\n]{0,200}\]\([^()\s]{0,500}\)")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}", re.A)
_BULLET = re.compile(r"^[-*+•·›»]\s+")
_FENCE = re.compile(r"^\s{0,3}(?:```|~~~)")
# A year beside the mark, near the beginning of the line: what stands further on is a source, or belongs to a caption. A bare
# (c) is an item of a list, and laws on copyright have years, too.
_NOTICE = re.compile(
    r".{0,40}?(?:©.{0,60}?\b(?:19|20)\d\d\b|\b(?:19|20)\d\d\b.{0,20}?©|\bcopyright\b\W{0,9}(?:c\W{1,9})?(?:19|20)\d\d\b)", re.I
)
_RIGHTS = re.compile(
    r"\ball rights reserved\b|\balle rechte vorbehalten\b|\btous droits réservés\b"
    r"|\b(?:todos los derechos reservados|todos os direitos reservados|tutti i diritti riservati)\b"
    r"|\balle rechten voorbehouden\b|\bwszelkie prawa zastrzeżone\b|\bвсе права защищены\b|版权所有|無断転載",
    re.I,
)
# what pages say about themselves, as whole lines, in small letters
_LABELS = frozenset(
    """
    skip to content|skip to main content|skip to navigation|jump to navigation|jump to content|toggle navigation|main menu
    close menu|open menu|search this site|log in|sign in|sign up|log out|log in / register|create account|create an account
    forgot password?|forgot your password?|remember me|my account|subscribe now|subscribe to our newsletter
    newsletter signup|sign up for our newsletter|follow us|follow us on twitter|follow us on facebook|follow us on instagram
    share this|share this:|share this post|share this article|share this page|share on facebook|share on twitter
    share on linkedin|share on pinterest|share via email|pin it|email this|print this page|print this article|like this:
    like loading...|read more|read more »|read more...|continue reading|continue reading →|load more|back to top
    return to top|previous post|next post|previous article|next article|older posts|newer posts|leave a comment
    leave a reply|add a comment|post a comment|cancel reply|write a comment|no comments yet|related posts|related articles
    you may also like|you might also like|more from this author|recommended for you|popular posts|recent posts
    recent comments|trending now|advertisement|advertisements|sponsored content|cookie settings|accept cookies
    accept all cookies|manage cookies|add to cart|add to basket|add to wishlist|quick view|click to enlarge
    javascript is disabled|please enable javascript|powered by wordpress|proudly powered by wordpress|zum inhalt springen
    zur startseite|nach oben|weiterlesen|mehr erfahren|seite drucken|artikel drucken|kommentar schreiben
    kommentar hinterlassen|newsletter abonnieren|folgen sie uns|in den warenkorb|plan du site|lire la suite|en savoir plus
    se connecter|laisser un commentaire|haut de page|ajouter au panier|mapa del sitio|seguir leyendo|iniciar sesión
    deja un comentario|volver arriba|añadir al carrito|leggi tutto|continua a leggere|aggiungi al carrello|leia mais
    continue lendo|deixe um comentário|lees meer|lees verder|deel dit artikel|czytaj więcej|czytaj dalej|zaloguj się
    """.replace("\n", "|")
    .replace("    ", "")
    .strip("|")
    .split("|")
)
# words that may be a heading or an entry of any list, and are labels only beside others
_WEAK = frozenset(
    """
    home|login|menu|search|share|tweet|print|email|facebook|twitter|linkedin|pinterest|instagram|youtube|tiktok|whatsapp
    telegram|reddit|tumblr|rss|rss feed|x|newsletter|subscribe|register|about|about us|contact|contact us|help|faq|faqs|blog
    news|careers|press|privacy|privacy policy|cookie policy|cookies|terms|terms of use|terms of service|terms & conditions
    terms and conditions|sitemap|site map|accessibility|advertise|learn more|show more|view more|see more|view all|see all
    next|previous|comments|reply|like|sponsored|most read|most popular|loading...|sold out|go back|shop|cart|impressum
    datenschutz|datenschutzerklärung|agb|kontakt|über uns|startseite|suche|anmelden|registrieren|teilen|drucken|anzeige
    werbung|mehr lesen|accueil|mentions légales|politique de confidentialité|partager|imprimer|publicité|rechercher|inicio
    contacto|aviso legal|política de privacidad|política de cookies|compartir|imprimir|publicidad|registrarse|buscar
    condividi|stampa|accedi|registrati|contatti|compartilhar|entrar|política de privacidade|delen|inloggen|privacybeleid
    polityka prywatności|udostępnij
    """.replace("\n", "|")
    .replace("    ", "")
    .strip("|")
    .split("|")
)
_CLOSES = (".", "!", "…", "。", "！", "”", '"', "»", "।")  # a sentence that announces nothing
_TELLS = 6  # words of a line that a colon ends and that is a sentence, not a label
_SHORT = 40  # characters of a cell of a table
_NAMES = 3  # words of an entry of a menu
_ENTRIES = 4  # lines that make a menu, or a list of links


def heuristic(text: str, dialect: str = "prox") -> str:
    r"""A program by rules of our own: it takes out lines that navigate, list links, share or repeat, and keeps the rest.

    Whole lines go that are one of a list of labels ("Read more", "Weiterlesen"), a menu (three short entries or more with bars,
    dots or arrows between them, and no row of a table), a notice of rights, or nothing but two Markdown links or more; an
    address that stands alone between blank lines, and before which a sentence has ended, so that nothing announces it; of lines
    that are one Markdown link, or one of the words that menus and footers are made of ("Facebook", "Contact"), such as come
    four or more in a row, unless a sentence and a colon announce them; and the copies of a line that follow it, but not a few
    of a short one with numbers, as cells of tables are. Code, rows of tables, headings and what is indented are never looked
    at. It is meant to be sure rather than thorough, and never drops a document.

    >>> heuristic("Home | News | About\nIt rained all day.\nRead more")
    'remove_lines(line_start=0, line_end=0)\nremove_lines(line_start=2, line_end=2)'
    """
    lines = text.split("\n")
    safe = _sheltered(lines)
    bare = ["" if kept else line.strip() for line, kept in zip(lines, safe, strict=True)]
    gone = [bool(line) and _is_noise(line) and not _goes_on(lines, i) for i, line in enumerate(bare)]
    said = ""  # the last line that is no address
    for i, line in enumerate(bare):
        address = bool(line) and len(line) <= 1000 and _ADDRESS.fullmatch(line.strip("<>()[]")) is not None
        if address:
            announced = bool(said) and not said.endswith(_CLOSES)
            gone[i] |= not announced and not lines[i][0].isspace() and _is_alone(lines, i)  # indented: of an item of a list
        else:
            gone[i] |= bool(line) and _is_menu(line) and not _in_table(lines, i)
            said = lines[i].rstrip() or said
    weak = [bool(line) and (_LINK.fullmatch(line) is not None or line.casefold() in _WEAK) for line in map(_unlisted, bare)]
    _mark_runs(weak, lines, gone)
    _mark_copies(lines, bare, gone)
    calls = [Call("remove_lines", run) for run in _joined(_runs(gone), lines)[:CALLS]]
    keep = Call("keep_chunk" if dialect == "prox" else "keep_all")
    return "\n".join(written(call, dialect) for call in calls or [keep])


def _sheltered(lines: list[str]) -> list[bool]:
    """Lines that no rule looks at: code, rows of tables, headings, what is indented."""
    kept, fenced = [], False
    for line in lines:
        fence = _FENCE.match(line) is not None
        fenced ^= fence
        kept.append(fence or fenced or line.startswith(("   ", "\t")) or line.lstrip().startswith(("|", "#", "<", "$", "\\")))
    return kept


def _unlisted(line: str) -> str:
    return _BULLET.sub("", line)


def _is_noise(line: str) -> bool:
    """Whether a line shows by itself that it is no part of a text."""
    if len(line) > 400:
        return False
    plain = _unlisted(line)
    if plain.casefold() in _LABELS:
        return True
    if len(plain) <= 160 and "=" not in plain and (_NOTICE.match(plain) or _RIGHTS.search(plain)) and words(plain) <= 25:
        return True
    return len(_LINK.findall(plain)) >= 2 and not _LINK.sub("", plain).strip(" \t|,;:-–·•»›/")


def _goes_on(lines: list[str], at: int) -> bool:
    """Whether a sentence that began on the line before goes on here."""
    return at > 0 and lines[at].lstrip()[:1].islower() and bool(before := lines[at - 1].rstrip()) and not before.endswith(_ENDS)


def _is_menu(line: str) -> bool:
    if len(line) > 400 or line.endswith(_ENDS) or line[0].islower():  # "cotton | linen | hemp" is no menu
        return False
    entries = [entry for entry in _SEPARATORS.split(line) if entry]
    if len(entries) < 3 or not all(entry[0].isalpha() and len(entry.split()) <= _NAMES for entry in entries):
        return False
    return not any(len(entry) == 1 or any(c in "=+*\\^_{}()[]:：$/@0123456789" for c in entry) for entry in entries)


def _in_table(lines: list[str], at: int) -> bool:
    """Whether the line before or after this one has bars, too; one blank line may stand between them."""
    return any(lines[i].count("|") >= 2 for i in (at - 2, at - 1, at + 1, at + 2) if 0 <= i < len(lines))


def _is_alone(lines: list[str], at: int) -> bool:
    return not any(lines[i].strip() for i in (at - 1, at + 1) if 0 <= i < len(lines))


def _mark_runs(weak: list[bool], lines: list[str], gone: list[bool]) -> None:
    """Mark runs of weak lines; lines that go already are a part of one, and blank lines do not end it."""
    run: list[int] = []
    before = ""
    for i in range(len(lines) + 1):
        if i < len(lines) and (weak[i] or gone[i]):
            run.append(i)
        elif i == len(lines) or lines[i].strip():
            told = before.endswith((":", "：")) and words(before) >= _TELLS
            if len(run) >= _ENTRIES and not told:
                for at in run:
                    gone[at] = True
            run = []
            before = lines[i].rstrip() if i < len(lines) else ""


def _mark_copies(lines: list[str], bare: list[str], gone: list[bool]) -> None:
    """Mark lines that repeat the one before them, blank lines between or not. Code, cells and single words may well repeat."""
    filled = (i for i, line in enumerate(lines) if line.strip())
    for line, group in itertools.groupby(filled, lambda i: bare[i]):
        copies = list(group)[1:]
        if not copies or line.endswith(_ENDS) or any(c in "{}()[]=;<>*\\" for c in line):
            continue
        cell = len(line) <= _SHORT and any(c.isdecimal() for c in line) and len(copies) < _ENTRIES
        if not cell and words(line) >= 2 and sum(c.isalpha() for c in line) >= 6:
            for i in copies:
                gone[i] = True


def _joined(runs: list[tuple[int, int]], lines: list[str]) -> list[tuple[int, int]]:
    """Runs as one where only blank lines stand between them; those at the ends of the text with the blank lines beside them."""
    found: list[tuple[int, int]] = []
    for start, end in runs:
        if found and not any(line.strip() for line in lines[found[-1][1] + 1 : start]):
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    if not found:
        return found
    if not any(line.strip() for line in lines[: found[0][0]]):
        end = found[0][1]
        while end + 1 < len(lines) and not lines[end + 1].strip():
            end += 1
        found[0] = (0, end)
    if not any(line.strip() for line in lines[found[-1][1] + 1 :]):
        start = found[-1][0]
        while start and not lines[start - 1].strip():
            start -= 1
        found[-1] = (start, len(lines) - 1)
    return found
