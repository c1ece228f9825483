"""What the signals know of languages: how a text is cut into words, stop words, and the marks that end a line.

The word rules. A language gets one of four (`word_rule`). A word is never empty and never holds white space
(`str.isspace`), at which every rule cuts the text into chunks first; each chunk is then worked on alone.

**English** follows spaCy's English tokenizer, which the published English filters run on.

1.  While there is something left that is no exception (`english_exceptions`), its prefix and, of what lies behind that, the
    suffix are looked up; with neither, the step ends. If what is left without the prefix is an exception, only the prefix
    is taken off, else if what is left without the suffix is one, only that; else both are.
2.  If what is left is an exception, it gives the exception's words; if a URL, one word; else it is cut at its infixes.
3.  The words of a chunk are: prefixes in order, what step 2 gave, suffixes, the last one taken off first.

    letter      `str.isalpha`, or a mark (Unicode category M)
    lower       letter that is not `str.isupper`     (letters without case are both: a sentence may begin and end with them)
    upper       letter that is not `str.islower`
    icon        Unicode category So
    digit       0 to 9
    prefix      the first that fits: § % = — –; + before no digit; one of PUNCT; two or more "."; one of QUOTES; one of
                CURRENCY; icon
    suffix      the longest that fits: one of PUNCT; ……; two or more "."; one of QUOTES; icon; 's 'S ’s ’S — –; + after a
                digit; one of CURRENCY or UNITS after a digit; "." after a lower, a digit, one of % ² - + |, of PUNCT or
                QUOTES, after two upper, or after ° and one of C F K c f k. "After" looks at the chunk without its prefix
    infix       from the left, without overlap: two or more "."; …; icon; one of + - * ^ after a digit and before a digit or
                "-"; "." after lower or QUOTES and before upper or QUOTES; "," between letters; one of HYPHENS after a
                letter or digit and before a letter; one of : < > = / after a letter or digit and before a letter. One at
                the very beginning does not cut
    URL         scheme (two or more of `str.isalnum`, _ + . -) and "://", or nothing; then anything and "@", or nothing; a
                host; ":" and 2 to 5 digits, or nothing; one of / ? # and anything, or nothing. A host is labels joined by
                ".": the last has at least two lower and nothing else, the others A-Z a-z 0-9 and U+00A1 to U+FFFF, inside
                also - and _. Or it is four numbers of one to three digits up to 255, joined by "."

It differs from spaCy in this. A letter is any of Unicode's; there, letters of the commoner scripts and whole blocks of
others. An exception counts only where the loop meets it as a whole; there, a second pass also joins neighbouring words that
make up an exception, such as the emoticon in "ha:)". A URL has no upper bounds of length, and private addresses are
addresses.

**With spaces** (every known language but those of the next rule) and **unknown** (no language, or none that is known) are
cut by the same rule without exceptions; but a chunk with a character of a script without spaces (`UNSPACED_SCRIPTS`) is cut
by the next rule. The two differ in nothing but the number, by which a report can tell what was cut unknown.

**Without spaces** (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and relatives). A chunk is cut into

    ideographs  each a word (HAN)
    kana        runs of HIRAGANA and runs of KATAKANA. KANA_MARKS go on with either, and otherwise begin a run of katakana
    clusters    of Thai, Lao, Khmer and Burmese letters (`str.isalpha` in CLUSTERS). A letter begins one, with four
                exceptions: one of FOLLOWING (vowels written behind their consonant, marks of repetition) goes on with a
                cluster; a letter right behind one of LEADING (vowels written before their consonant) goes on with it; a
                letter right behind U+17D2 or U+1039 (which put it below the last consonant) goes on with the word before,
                which is a cluster then; a Burmese letter with U+103A, or U+1037 and U+103A, right behind it closes a
                syllable and goes on with a cluster
    runs        of all other letters and digits (`str.isalnum`). In Tibetan a tsheg (TSHEG) belongs to the run before it and
                ends it the rest    each character a word, but two or more "." in a row are one

Marks (category M) and format characters (category Cf, such as the zero-width space) belong to the word before them,
whatever it is, and end a row of "."; at the beginning of a chunk they begin a run.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import product

from curate.signals import ENGLISH, SPACED, UNKNOWN, UNSPACED

Spans = tuple[tuple[int, int], ...]


def _spans(ranges: str) -> Spans:
    ends = (part.partition("-") for part in ranges.split())
    return tuple((int(low, 16), int(high or low, 16)) for low, _, high in ends)


def _characters(ranges: str) -> str:
    return "".join(chr(code) for low, high in _spans(ranges) for code in range(low, high + 1))


# Words with spaces and English. HYPHENS and CURRENCY hold strings; of UNITS, those of one letter stand for metre, gram, ton,
# tera, giga, mega and kilo.
PUNCT = _characters(
    "21 23 26 28-2A 2C 3A-3C 3E-3F 5B 5D 5F 7B 7D A1 B7 BF 60C 61B 61F 66A 6D4 964 2026 3001-3002 FF01 FF0C FF1A-FF1B FF1F FF5E"
)
QUOTES = _characters("22 27 2C 60 AB B4 BB 2018-201A 201C-201E 2329-232A 27E6-27E7 3008-3011 3014-3015 FF08-FF09")
CURRENCY = ("US$", "C$", "A$", *_characters("24 A3 A5 E3F 20A0-20BF FDFC"))
HYPHENS = ("---", "--", "——", "-", "–", "—", "~")
UNITS = tuple(
    dict.fromkeys(
        (
            *map(
                "".join,
                product(("km", "m", "dm", "cm", "mm", "км", "м", "дм", "см", "мм", "كم", "م", "سم", "مم"), ("", "²", "³")),
            ),
            *"ha µm nm нм yd in ft m/s km/h kmh mph м/с км/ч".split(),
            *"kg g mg µg t lb oz кг г мг غرام جرام جم كغ ملغ كوب اكواب".split(),
            *"hPa Pa mbar кПа Па мбар % T G M K".split(),
            *"mb MB kb KB gb GB tb TB Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб".split(),
        )
    )
)

# Words without spaces. HAN has the ideographs of today and the two planes that are set aside for more.
HAN = _spans("3005-3007 3021-3029 3038-303B 3400-4DBF 4E00-9FFF F900-FAFF 20000-3FFFD")
HIRAGANA = _spans("3041-3096 309D-309F 1B001-1B11F 1B132 1B150-1B152")
KATAKANA = _spans("30A1-30FA 30FD-30FF 31F0-31FF FF66-FF6F FF71-FF9D 1AFF0-1AFFE 1B000 1B120-1B122 1B155 1B164-1B167")
KANA_MARKS = _characters("309B-309C 30FC FF70 FF9E-FF9F")
BURMESE = _spans("1000-109F A9E0-A9FF AA60-AA7F")
CLUSTERS = (*_spans("E00-E7F E80-EFF 1780-17FF"), *BURMESE)
LEADING = _characters("E40-E44 EC0-EC4")
FOLLOWING = _characters("E2F-E30 E32-E33 E45-E46 EAF-EB0 EB2-EB3 EBD EC6 17D7")
TIBETAN = _spans("F00-FFF")
TSHEG = _characters("F0B-F0C")
UNSPACED_SCRIPTS = (*HAN, *HIRAGANA, *KATAKANA, *_spans("309B-309C 30FC FF70 FF9E-FF9F"), *CLUSTERS, *TIBETAN)
"""A chunk with one of these characters that is a letter (`str.isalpha`), an ideograph or kana is cut without spaces."""

SENTENCE_TERMINALS = _characters("""
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 17D9-17DA
1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E 2E3C 2E53-2E54
3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F
FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239
1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C
11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88
""")
"""Characters with Unicode's property Sentence_Terminal (Unicode 15), which end a line for FineWeb."""

SYMBOLS = "".join(
    dict.fromkeys(
        _characters("0-8 B-1F 7F-9F 21-2F 3A-40 5B-60 7B-7E AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA")
        + _characters("3001-3002 3008-300D 3010-3011 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E")
        + SENTENCE_TERMINALS
    )
)
"""Characters that alone make no word for Gopher's count: punctuation, controls, sentence terminals, as datatrove has them."""

CLOSING_QUOTES = "”’»›“‘«‹」』｣〞〟＂"
"""Quotation marks that close a quotation in some language; several open one in another."""

_END_MARKS = ".?!\"'"

_MARKS = {
    "”’": "nl pt es ca gl ga cy gd eu mt af sw id ms tl vi ko tr az uz kk ky ku sq lb bn hi mr ne pa gu or ta te kn ml si th "
    "lo km my am ti fa ur zh ja",
    "“‘": "de cs sk sl hr bs sr mk bg et lt lv is ka lb hsb dsb sq uk ru be",
    "»›": "fr it es pt ca gl ro ru uk be el no nb nn br oc tr az hy fa ar sq pl hu sl sr hr bs mk bg et lv lt cs sk "
    "eo ur ps am",
    "«‹": "de da sl hr cs sk hu pl sr bs",
    "”’»": "sv fi pl hu ro it eo la hr sr bs da no nb nn he yi",
    "。．！？｡」』｣": "zh yue wuu nan lzh gan hak ja",
    "؟۔": "ar fa ur ps sd ug ckb arz ks pnb",
    "।॥": "hi mr ne sa bn as or pa gu mai bho new gom",
    "։՞՜": "hy hyw",
    ";·": "el",
    "።፧፨": "am ti",
    "។៕៖៚": "km",
    "။၊": "my shn mnw",
    "།༎༏༐༑༔": "bo dz",
    "ฯ๏๚๛": "th",
    "ຯ": "lo",
    "׃״׳": "he yi",
    "᠃᠉": "mn",
    "꯫": "mni",
    "᱾᱿": "sat",
}


@functools.cache
def _marks() -> dict[str, str]:
    marks: dict[str, str] = {"en": ""}
    for characters, languages in _MARKS.items():
        for language in languages.split():
            marks[language] = marks.get(language, "") + characters
    return {language: "".join(dict.fromkeys(_END_MARKS + characters)) for language, characters in marks.items()}


def end_marks(language: str | None) -> str:
    """Characters that may end a line by C4's rule: full stops, question and exclamation marks, closing quotes.

    language: ISO 639 code, or None. English has the five of C4, `. ? ! " '`; a hundred languages have these and their own; any
    other has these, every sentence terminal of Unicode and every closing quote. Thai and Lao end a sentence with a space:
    their lines rarely have any mark, so that a rule on the ends of lines should be left out for them.

    Source: C4 (https://arxiv.org/abs/1910.10683) for English; Unicode's Sentence_Terminal and CLDR's quotation marks.

    >>> end_marks("en"), "。" in end_marks("zh"), "。" in end_marks("de")
    ('.?!"\\'', True, False)
    """
    return _marks().get(_code(language)) or "".join(dict.fromkeys(_END_MARKS + SENTENCE_TERMINALS + CLOSING_QUOTES))


# The lists that carry another code than the language has here. The library's `ku` is Sorani, in Arabic letters.
_LISTED = {"nb": "no", "nn": "no", "fil": "tl", "ckb": "ku", "ku": ""}


def stop_words(language: str | None) -> frozenset[str] | None:
    """Stop words of a language, in lower case; None if there is no list for it.

    language: ISO 639 code, or None. Entries that cannot be one word (with white space, or without a letter) are left out.

    Source: Stopwords ISO (https://github.com/stopwords-iso/stopwords-iso, MIT), 58 languages, through the package stopwordsiso.

    >>> "und" in stop_words("de"), stop_words("tlh")
    (True, None)
    """
    code = _code(language)
    return _stop_words(_LISTED.get(code, code))


@functools.cache
def _stop_words(code: str) -> frozenset[str] | None:
    from stopwordsiso import stopwords  # 0.2 MB of JSON, read at import

    words = (word.lower() for word in stopwords(code))
    return frozenset(word for word in words if any(map(str.isalpha, word)) and not any(map(str.isspace, word))) or None


_UNSPACED_LANGUAGES = frozenset(
    "zh yue wuu nan lzh gan hak hsn cdo cjy cpx czh czo mnp ja ryu ryn yoi "  # Chinese, Japanese and relatives
    "th nod tts sou khb tdd lo km kxm my rki shn mnw ksw blk kht aio phk bo dz".split()
)


def word_rule(language: str | None) -> int:
    """How the words of a language are cut: `curate.signals.UNKNOWN`, `SPACED`, `ENGLISH` or `UNSPACED`.

    language: ISO 639 code, or None. Unknown are None, `und`, codes for no or several languages, codes for private use, and
    what is no code: two letters that are not in ISO 639-1, or no two or three letters.

    >>> [word_rule(language) for language in ("en", "de", "zh", "und", None)]
    [2, 1, 3, 0, 0]
    """
    from curate.languages import iso1

    code = _code(language)
    if code == "en":
        return ENGLISH
    if code in _UNSPACED_LANGUAGES:
        return UNSPACED
    if not re.fullmatch("[a-z]{2,3}", code) or code in ("und", "mul", "mis", "zxx") or "qaa" <= code <= "qtz":
        return UNKNOWN
    return SPACED if len(code) == 3 or code in iso1().values() else UNKNOWN


@functools.lru_cache(maxsize=4096)
def _code(language: str | None) -> str:
    """ISO 639-1, else 639-3, of a code that may have a script or region ("zh-Hant", "eng_Latn"); "" for None."""
    from curate.languages import iso1

    code = re.split("[-_]", (language or "").strip().lower())[0]
    return iso1().get(code, code)


def english_exceptions() -> dict[str, tuple[str, ...]]:
    """Chunks that the English word rule cuts in their own way, and the words they give; none holds white space.

    Case counts. Every entry with ' is there with ’ too, in it and in its words. Other languages have no exceptions.

    Source: the special cases of spaCy's English tokenizer (https://spacy.io, MIT), told as rules.

    >>> table = english_exceptions()
    >>> table["can't"], table["Wed"], table["11pm"], table["e.g."]
    (('ca', "n't"), ('We', 'd'), ('11', 'pm'), ('e.g.',))
    """
    return dict(_exceptions())


@functools.cache
def _exceptions() -> dict[str, tuple[str, ...]]:
    table = {}
    for words in (*_contractions(), *((word,) for word in (*_abbreviations(), *_emoticons()))):
        table["".join(words)] = words
    for word in "ill its hell shell shed were well whore".split():
        del table[word], table[word.capitalize()]
    curly = {key.replace("'", "’"): tuple(word.replace("'", "’") for word in words) for key, words in table.items()}
    # entries that exist with both marks on their own account keep their own words
    return {**curly, **table}


_HAVE, _WILL, _WOULD = ("'ve",), ("'ll",), ("'d",)


def _contractions() -> Iterator[tuple[str, ...]]:
    """Words that are run together, with apostrophe and without: ("he", "'ll", "'ve"), ("he", "ll", "ve")."""
    ends: dict[str, set[tuple[str, ...]]] = {}

    def give(words: str, *endings: tuple[str, ...]) -> None:
        for word in words.split():
            ends.setdefault(word, set()).update(endings)

    questions = "who what when where why how there"
    give(f"i you he she it we they {questions} that this these those", _WILL, (*_WILL, *_HAVE), _WOULD, (*_WOULD, *_HAVE))
    give(f"i you we they {questions} these those", _HAVE)
    give(f"you we they {questions} these those", ("'re",))
    give(f"he she it {questions} that this", ("'s",))
    give("i", ("'m",), ("'m", "a"))
    give("ca could do does did had may might must need ought sha should wo would", ("n't",), ("n't", *_HAVE))
    give("ai are is was were have has dare", ("n't",))
    give("could might must should would not", _HAVE)
    for word, endings in ends.items():
        for ending in endings:
            yield word, *ending
            yield word.capitalize(), *ending
            yield word, *(part.replace("'", "") for part in ending)
            yield word.capitalize(), *(part.replace("'", "") for part in ending)
    for words in (("can", "not"), ("gon", "na"), ("got", "ta"), ("let", "'s"), ("c'm", "on"), ("how", "'d", "'y")):
        yield words
        yield words[0].capitalize(), *words[1:]
    yield "y'", "all"
    yield "y", "all"
    for hour, half in product(range(1, 13), ("am", "pm", "a.m.", "p.m.")):
        yield str(hour), half
    for letter in "cfkCFK":
        yield "°", letter, "."


def _abbreviations() -> Iterator[str]:
    """Chunks that stay whole."""
    yield from (letter + "." for letter in "abcdefghijklmnopqrstuvwxyzäöü")
    names = "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec "  # months, then states, titles, firms and persons
    names += (
        "Ak Ala Ariz Ark Calif Colo Conn Del Fla Ga Ia Id Ill Ind Kan Kans Ky La Mass Md Mich Minn Miss Mo Mont Neb Nebr Nev "
    )
    names += "Okla Ore Pa Tenn Va Wash Wis Adm Dr Gen Gov Jr Messrs Mr Mrs Ms Prof Rep Rev Sen St Mt Bros Co co Corp Inc Ltd vs"
    yield from (name + "." for name in names.split())
    yield from "N.C. N.D. N.H. N.J. N.M. N.Y. S.C. D.C. Ph.D. a.m. p.m. v.s. e.g. E.g. E.G. i.e. I.e. I.E.".split()
    for verb, mark in product("do go lov hav noth nuth someth".split(), ("", "'")):
        yield f"{verb}in{mark}"
        yield f"{verb.capitalize()}in{mark}"
    for mark in ("", "'"):
        yield from (f"ol{mark}", f"Ol{mark}", f"{mark}em", f"{mark}ll", f"{mark}nuff")
    for word in ("cause", "cos", "coz", "cuz"):
        yield from (f"'{word}", f"'{word.capitalize()}")
    yield from "' '' 's 'S ‘s ‘S 'd 're 'bout ma'am Ma'am o'clock O'clock and/or w/o C++ — \\t \\n \\\") <space>".split()


def _emoticons() -> Iterator[str]:
    mouths = ")", "))", ")))", "(", "((", "(((", "]", "}", "/", "|", "*", ">", *"3DOoPpXx0"
    yield from map("".join, product(":", ("", "-"), mouths))
    yield from map("".join, product(":", ("'", "'-"), "()"))
    yield from map("".join, product("=", "()[]/|3D"))
    yield from map("".join, product("8;", ("", "-"), ")D"))
    yield from map("".join, product("([", ("", "-"), ":"))
    yield from map("".join, product("(", ("", "-"), ";"))
    yield from (eyes + laugh for eyes in "xX" for laugh in ("D", "DD"))
    yield from ("(=", "[=", "]=", "(-8", "):", ")-:", ":o)", "(o:", ":1", ":()", ">:(", ">:o")
    for eye, mouth in zip("vvVV<>.;@ಠಠ", "._._..____︵", strict=True):
        yield eye + mouth + eye
    yield from ("^_^", "^__^", "^___^", "-_-", "-__-")
    for eyes, mouth in product(("oo", "oO", "Oo", "OO", "0o", "o0", "00"), "._"):
        yield mouth.join(eyes)
    yield from (">.<", "<3", "<33", "<333", "</3", "><(((*>", "¯\\(ツ)/¯", "(╯°□°）╯︵┻━┻")
    yield from (f"({eye}_{eye})" for eye in "^-.*¬ಠ")
    yield "(>_<)"
