"""One pass over a serialised HTML page: blocks of text, the elements around them, and places to look at later.

The input is what an HTML5 parser writes out again: every element is closed, names are in lower case, attribute values stand
in double quotes, and text knows no entities but the four that a serialiser writes. So the pass needs no tree: a stack of open
elements is all, and it runs at the speed of reading.

A block is a run of text that no block-level element interrupts. Its text has its white space collapsed, as a browser shows it,
but for what stands in `<pre>`; `<br>` is a line feed. Controls of the page are dropped, so some mark places in the text:
CODE_OPEN and CODE_CLOSE around inline code, SPAN_OPEN, the number of a span in decimal and SPAN_CLOSE where a formula stands.
What browsers never show (scripts, selects, templates without a shadow root) and what repeats a formula in another form is
left out. All else is there, menus and hidden parts included: the model decides.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from curate.kernels.tags import BASIS, MASK, PRIME, RAW_TEXTS, VOIDS, find, fnv, hash_lower, hash_table, raw_end

# Kinds of blocks; 1 to 6 are the levels of headings.
PARAGRAPH, ITEM, CODE, DATA, HEADER, TERM, DEFINITION, CAPTION = 0, 7, 8, 9, 10, 11, 12, 13

# Columns of a block: START, END: bytes in the text. QUOTE, LIST: depth of quotations and lists. ORDINAL: in the first block of
# an item its number, 0 for a bullet; else -1. TABLE: number of the innermost data table, or -1; ROW, CELL: place in it.
# ELEMENT: innermost element that holds all of the text.
START, END, KIND, QUOTE, LIST, ORDINAL, TABLE, ROW, CELL, ELEMENT = range(10)
# LINK_BYTES to BUTTON_BYTES: bytes inside such elements; LINKS, BREAKS, IMAGES, FIELDS: how many; BITS: of the stack, below;
# PUNCT: full stops, commas and their like; SYMBOLS: bars, bullets, arrows; UNSPACED: characters of scripts without spaces,
# each of which counts as a word; OPENS, CLOSES: class of the first and last character; TITLE: words that are in the title.
LINK_BYTES, EMPHASIS_BYTES, BUTTON_BYTES, LINKS, BREAKS, IMAGES, FIELDS, BITS = range(10, 18)
WORDS, LETTERS, UPPER, DIGITS, PUNCT, STOPS, SYMBOLS, UNSPACED, OPENS, CLOSES, TITLE = range(18, 29)
BLOCK_COLUMNS = 29
FIRST_WORDS = 8  # hashes of a block's first words

# Columns of an element. FIRST, LAST: its blocks, half open. NAMES_FROM, NAMES_TO: its words in `names`: of tag, class, id and
# role. SIGNATURE: hash of tag and first class, equal for repeated siblings.
PARENT, TAG, FIRST, LAST, DEPTH, NAMES_FROM, NAMES_TO, SIGNATURE = range(8)
ELEMENT_COLUMNS = 8

# Kinds of spans.
SPAN_MATH, SPAN_TEX, SPAN_IMAGE, SPAN_FACT, SPAN_NONE = 0, 1, 2, 10, 11
CODE_OPEN, CODE_CLOSE, SPAN_OPEN, SPAN_CLOSE = 3, 4, 5, 6
MAX_FACTS, MAX_FACT = 160, 2000  # places with metadata, bytes of one outside of scripts

# What an open element says of the text in it.
IN_LINK, IN_PRE, IN_CODE, IN_EMPHASIS, IN_BUTTON, IN_FORM, IN_NOSCRIPT, IN_HIDDEN = (1 << n for n in range(8))
UNSEEN, INVISIBLE = 1 << 8, 1 << 9  # never text; no text, but a formula in it is one
IN_LINES, HARD_SPACES = 1 << 10, 1 << 11  # code whose lines are elements; where spaces that do not break are indentation

# Properties of tags.
_BLOCK, _VOID, _RAW, _UNSEEN, _FIELD = 1, 2, 4, 8, 16
_BLOCKS = (
    "address article aside blockquote body center dd details dialog dir div dl dt fieldset figcaption figure footer form"
    " frameset h1 h2 h3 h4 h5 h6 header hgroup hr html legend li listing main menu nav ol p plaintext pre search section"
    " summary table caption colgroup tbody thead tfoot tr td th ul xmp"
)
_RAWS = f"{RAW_TEXTS} plaintext"
_NEVER_SEEN = (
    "head script style iframe noembed noframes template select datalist textarea svg math canvas audio video object applet map"
    " rp rt title mjx-math mjx-copytext amp-consent amp-analytics amp-state amp-sidebar"
)
_OTHERS = (
    "a b strong i em u mark code kbd samp tt var span label button option input noscript time abbr acronym cite q small s del"
    " ins sub sup big font ruby rb bdi bdo dfn output picture title link meta img mjx-container"
)
TAGS = ("", *dict.fromkeys(f"{_BLOCKS} {VOIDS} {_RAWS} {_NEVER_SEEN} {_OTHERS}".split()))
T = {name: n for n, name in enumerate(TAGS)}
_TAG_A, _TAG_B, _TAG_BODY, _TAG_BR, _TAG_BUTTON, _TAG_CAPTION = (T[t] for t in "a b body br button caption".split())
_TAG_CODE, _TAG_DD, _TAG_DIR, _TAG_DT, _TAG_EM, _TAG_FIGCAPTION = (T[t] for t in "code dd dir dt em figcaption".split())
_TAG_FORM, _TAG_H1, _TAG_HEAD, _TAG_HTML, _TAG_I, _TAG_IMG, _TAG_KBD = (T[t] for t in "form h1 head html i img kbd".split())
_TAG_LI, _TAG_LINK, _TAG_LISTING, _TAG_MATH, _TAG_MENU, _TAG_META = (T[t] for t in "li link listing math menu meta".split())
_TAG_NOSCRIPT, _TAG_OL, _TAG_PLAINTEXT, _TAG_PRE, _TAG_QUOTE = (T[t] for t in "noscript ol plaintext pre blockquote".split())
_TAG_SAMP, _TAG_SCRIPT, _TAG_STRONG, _TAG_TABLE, _TAG_TBODY = (T[t] for t in "samp script strong table tbody".split())
_TAG_TD, _TAG_TEMPLATE, _TAG_TH, _TAG_THEAD, _TAG_TIME, _TAG_TITLE = (T[t] for t in "td template th thead time title".split())
_TAG_TR, _TAG_TT, _TAG_UL, _TAG_XMP, _TAG_MJX, _TAG_DIALOG = (T[t] for t in "tr tt ul xmp mjx-container dialog".split())

# Frequent words that carry no content: prose has many, menus have few.
_STOPS = """
the of and to a in is that for it as was with be by on not he his but at are this have from or had an they which one you were
all her she there would their we him been has when who will no if out so said what up its about than into them can only i your
der die das und in zu den ist von mit sich des auf für im dem nicht ein eine als auch es an werden aus er hat dass sie nach wird
bei einer um am sind noch wie einem über so zum war haben nur oder aber vor zur bis mehr durch man
le la les de et des en un une du est que pour dans qui sur par plus ne pas au avec il ce se sont son cette mais ou nous vous
el los las y del por con una para es al lo como más pero sus su sin sobre este ya entre cuando muy
di che è per non si sono della nel alla dei anche con più gli ha delle come
o os e da do em uma não na no com por mais dos se ao são foi à
het van een dat met voor niet zijn op aan door ook maar bij naar wordt
i w na z że się do jest to nie o jak od po za co ale dla czy
och att det som på är av för med den till inte har om ett men var
a v se na je že s z o k do i ale jako si by
и в не на что с по как это но он из за от для так же у бы
的 了 是 在 和 有 我 不 人 这 他 们 也 就 到 说 要 你 会 着 の に は を た が で て と し れ さ も
ve bir bu için ile de da çok daha olarak
""".split()

_A_CLASS, _A_ID, _A_ROLE, _A_STYLE, _A_HIDDEN, _A_ARIA, _A_TYPE = map(
    fnv, ("class", "id", "role", "style", "hidden", "aria-hidden", "type")
)
_A_START, _A_VALUE, _A_ALT, _A_ITEMPROP, _A_REL, _A_HREF = map(fnv, ("start", "value", "alt", "itemprop", "rel", "href"))
_A_COLSPAN, _A_SHADOW, _A_SRC, _A_OPEN = map(fnv, ("colspan", "shadowrootmode", "src", "open"))
_PRESENTATION, _NONE, _TRUE, _UNTIL_FOUND = map(fnv, ("presentation", "none", "true", "until-found"))
_REL_AUTHOR, _REL_LICENSE, _REL_CANONICAL = map(fnv, ("author", "license", "canonical"))

# Class tokens that mean something to the scan itself.
_HIDE, _GUTTER, _CODE_LINES, _TEX_IMAGE, _BYLINE, _TEX_FALLBACK, _READERS, _HARD, _SIGN_LINK = (1 << n for n in range(9))
_TOKENS = {
    # the visible rendering of a formula whose source stands beside it
    **dict.fromkeys("katex-html MathJax MathJax_Display MathJax_Preview MathJax_SVG MathJax_SVG_Display".split(), _HIDE),
    **dict.fromkeys("MathJax_CHTML mjx-chtml MJXc-display".split(), _HIDE),
    # signs beside headings that link to them; some sites put the heading itself into such a link
    **dict.fromkeys("headerlink hash-link anchorjs-link heading-anchor".split(), _SIGN_LINK),
    "mw-editsection": _HIDE,
    # for screen readers only
    **dict.fromkeys("sr-only visually-hidden visuallyhidden screen-reader-text screen-reader-only sr-text".split(), _READERS),
    # numbers of lines beside code
    **dict.fromkeys("linenos lineno linenodiv linenumber line-number line-numbers lnum gutter blob-num".split(), _GUTTER),
    **dict.fromkeys("rouge-gutter hljs-ln-numbers hljs-ln-n gl ln lnt line_numbers line-numbers-rows".split(), _GUTTER),
    **dict.fromkeys("react-line-number crayon-nums crayon-num".split(), _GUTTER),
    # code outside of <pre>, each line in an element
    **dict.fromkeys("js-file-line-container hljs-ln syntaxhighlighter crayon-pre cm-content".split(), _CODE_LINES),
    **dict.fromkeys("CodeMirror-code ace_text-layer".split(), _CODE_LINES),
    "code": _HARD,
    **dict.fromkeys("latex tex math mathtex equation mwe-math-fallback-image-inline ee_img tr_noresize".split(), _TEX_IMAGE),
    **dict.fromkeys("mwe-math-fallback-image-inline mwe-math-fallback-image-display".split(), _TEX_IMAGE | _TEX_FALLBACK),
}
_BYLINES = "byline author authors dateline date published pubdate datetime timestamp posted".split()
_FACT_PROPS = "author datepublished datemodified datecreated".split()
LICENCES = b"creativecommons.org/"


@functools.lru_cache(maxsize=1)
def tables() -> tuple[np.ndarray, ...]:
    """What the scan looks up: tags, properties of tags, class tokens, stop words and classes of bytes."""
    tags = hash_table({fnv(name): n for n, name in enumerate(TAGS) if name}, 1024)
    properties = np.zeros(len(TAGS), np.int64)
    for names, bit in ((_BLOCKS, _BLOCK), (VOIDS, _VOID), (_RAWS, _RAW), (_NEVER_SEEN, _UNSEEN)):
        for name in names.split():
            properties[T[name]] |= bit
    for name in ("xmp", "plaintext"):
        properties[T[name]] |= _RAW | _BLOCK
    for name in ("input", "select", "textarea", "button"):
        properties[T[name]] |= _FIELD
    tokens = hash_table({fnv(name): bits for name, bits in _TOKENS.items()}, 256)
    bylines = hash_table({fnv(name): n for n, name in enumerate((*_BYLINES, *_FACT_PROPS))}, 128)
    stops = hash_table({fnv(word): 1 for word in _STOPS}, 2048)
    plain = np.zeros(256, np.bool_)  # bytes that are copied without another look
    plain[0x21:0x7F] = True
    plain[0x80:] = True
    plain[[0x26, 0x3C, 0xC2, 0xE2, 0xE3, 0xEF]] = False
    return tags, properties, tokens, bylines, stops, plain, _classes()


@numba.njit(cache=True, nogil=True)
def _name_words(h, start, end, names, n_names, tokens, bylines):
    """Appends the hashes of the words in a class or id: cut at what is no letter, and before capitals inside words.

    Returns (number of names, what its tokens and words mean to the scan).
    """
    key = token = np.int64(BASIS)
    length = 0
    was_lower = False
    special = np.int64(0)
    for i in range(start, end + 1):
        b = np.int64(h[i]) if i < end else np.int64(0x20)
        is_upper = 0x41 <= b <= 0x5A
        is_letter = is_upper or 0x61 <= b <= 0x7A or b >= 0x80
        if length and (not is_letter or (is_upper and was_lower)):
            if length > 1:
                names[n_names] = key
                n_names += 1
                if find(bylines, key) >= 0:
                    special |= _BYLINE
            key, length = np.int64(BASIS), 0
        if b <= 0x20:
            value = find(tokens, token)
            if value > 0:
                special |= value
            token = np.int64(BASIS)
        else:
            token = (token ^ b) * PRIME & MASK
            if is_letter:
                key = (key ^ (b | 0x20 if is_upper else b)) * PRIME & MASK
                length += 1
        was_lower = is_letter and not is_upper  # type: ignore[assignment]
    return n_names, special


@numba.njit(cache=True, nogil=True)
def _is_layout(h, i):
    """Whether the text up to the next tag is white space with a line break in it."""
    broken = False
    while i < h.size and h[i] <= 0x20:
        if h[i] == 0x0A:
            broken = True
        i += 1
    return broken and (i == h.size or h[i] == 0x3C)


@numba.njit(cache=True, nogil=True)
def _is_sign(h, i):
    """Whether an element that begins here holds no letter and no digit up to its end."""
    depth = 0
    while i < h.size:
        b = h[i]
        if b == 0x3C:
            closing = i + 1 < h.size and h[i + 1] == 0x2F
            if closing and depth == 0:
                return True
            depth += -1 if closing else 1
            while i < h.size and h[i] != 0x3E:
                i += 1
        elif 0x30 <= b <= 0x39 or 0x41 <= b <= 0x5A or 0x61 <= b <= 0x7A or (0xC3 <= b <= 0xEF and b != 0xE2):
            return False
        i += 1
    return True


@numba.njit(cache=True, nogil=True)
def _asks_for_scripts(out, start, end):
    """Whether a text speaks of JavaScript, which is called so in all languages."""
    for i in range(start, end - 9):
        k = 0
        while k < 10 and out[i + k] | 0x20 == _JAVASCRIPT[k]:
            k += 1
        if k == 10:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _number(h, start, end):
    """A small number at the start of a value; 0 if there is none."""
    value = 0
    for i in range(start, min(end, start + 6)):
        if not 0x30 <= h[i] <= 0x39:
            break
        value = value * 10 + h[i] - 0x30
    return value


@numba.njit(cache=True, nogil=True)
def _contains(h, start, end, needle):
    """Whether the bytes stand in a part of the page."""
    m = needle.size
    for i in range(start, end - m + 1):
        k = 0
        while k < m and h[i + k] == needle[k]:
            k += 1
        if k == m:
            return True
    return False


_JAVASCRIPT = np.frombuffer(b"javascript", np.uint8)
_HOLDERS_OF_LINES = (_TAG_CODE, _TAG_OL, _TAG_UL, _TAG_LI, _TAG_TABLE, _TAG_TBODY)
# Addresses of images that services make of TeX.
_PHP, _CODECOGS, _CGI, _CHART = (
    np.frombuffer(part, np.uint8) for part in b"latex.php? latex.codecogs.com/ tex.cgi? cht=tx".split()
)


@numba.njit(cache=True, nogil=True)
def is_of_tex(h, start, end):
    """Whether the address of an image holds its formula."""
    return (
        _contains(h, start, end, _PHP)
        or _contains(h, start, end, _CODECOGS)
        or _contains(h, start, end, _CGI)
        or _contains(h, start, end, _CHART)
    )


@numba.njit(cache=True, nogil=True)
def _hides(h, start, end):
    """Whether a style has `display: none` or `visibility: hidden`."""
    i = start
    while i < end:
        b = h[i]
        b |= 0x20
        if (
            b == 0x64 and end - i >= 12 and h[i + 1] | 0x20 == 0x69 and h[i + 2] | 0x20 == 0x73 and h[i + 6] | 0x20 == 0x79
        ):  # dis   y
            k = i + 7
            while k < end and (h[k] == 0x20 or h[k] == 0x3A):
                k += 1
            if end - k >= 4 and h[k] == 0x6E and h[k + 1] == 0x6F and h[k + 2] == 0x6E and h[k + 3] == 0x65:
                return True
        elif (
            b == 0x76 and end - i >= 17 and h[i + 1] | 0x20 == 0x69 and h[i + 2] | 0x20 == 0x73 and h[i + 9] | 0x20 == 0x79
        ):  # vis      y
            k = i + 10
            while k < end and (h[k] == 0x20 or h[k] == 0x3A):
                k += 1
            if end - k >= 6 and h[k] == 0x68 and h[k + 1] == 0x69 and h[k + 2] == 0x64:
                return True
        i += 1
    return False


# Classes of bytes for the counts below; OPENS and CLOSES hold those up to _BRACKET.
_OTHER, _LOWER, _UPPER, _DIGIT, _STOP, _COMMA, _COLON, _SIGN, _BRACKET, _TAIL, _WIDE, _LATIN_SIGN, _PUNCTUATION = range(13)
_CJK, _FULL_WIDTH, _LETTER = 13, 14, 15


def _classes() -> np.ndarray:
    """uint8 [256]: the class of a byte; the lead byte of a character stands for it."""
    classes = np.zeros(256, np.uint8)
    classes[0x61:0x7B] = _LOWER
    classes[0x41:0x5B] = _UPPER
    classes[0x30:0x3A] = _DIGIT
    for chars, value in (".!?", _STOP), (",;", _COMMA), (":", _COLON), ("|>/+~^*#", _SIGN), ("\"'()", _BRACKET):
        classes[[ord(c) for c in chars]] = value
    classes[0x80:0xC0] = _TAIL
    classes[0xC0:] = _LETTER
    classes[0xC2] = _LATIN_SIGN
    classes[0xE2] = _PUNCTUATION
    classes[0xE3] = _CJK
    classes[0xE4:0xEA] = _WIDE
    classes[0xEF] = _FULL_WIDTH
    return classes


@numba.njit(cache=True, nogil=True)
def _measure(out, start, end, row, first, stops, titles, n_titles, title_bits, classes, counts):
    """Counts of a block's text, into its row; the hashes of its first words.

    title_bits: a bit for the low six bits of each hash in `titles`, as most words are not in the title. counts: scratch.
    """
    words = n_stops = unspaced = in_title = 0
    for k in range(counts.size):
        counts[k] = 0
    key = np.int64(BASIS)
    length = 0
    opens = closes = np.int64(0)
    i = start
    while i <= end:
        step = 1
        alone = False
        if i < end:
            b = np.int64(out[i])
            kind = np.int64(classes[b])
        else:
            b, kind = np.int64(0x20), np.int64(_OTHER)
        if _LOWER <= kind <= _DIGIT:
            counts[kind] += 1
            if kind == _UPPER:
                b |= 0x20
            key = (key ^ b) * PRIME & MASK
            length += 1
            if opens == 0:
                opens = kind
            closes = kind
            i += 1
            continue
        if kind == _TAIL:
            key = (key ^ b) * PRIME & MASK
            i += 1
            continue
        if kind > _TAIL:
            if kind == _LATIN_SIGN:
                kind = np.int64(_SIGN)
            elif kind == _PUNCTUATION:
                step = 3
                kind = np.int64(_SIGN)
                if i + 2 < end and out[i + 1] == 0x80:
                    third = out[i + 2]
                    if 0x98 <= third <= 0x9F:
                        kind = np.int64(_BRACKET)
                    elif third == 0xA6:
                        kind = np.int64(_STOP)
                    elif third <= 0x97:
                        kind = np.int64(_COMMA)
            elif kind == _CJK and i + 2 < end and out[i + 1] == 0x80:
                step = 3
                third = out[i + 2]
                kind = np.int64(_STOP if third == 0x82 else _COMMA if third == 0x81 else _BRACKET)
            elif kind == _FULL_WIDTH and i + 2 < end and out[i + 1] == 0xBC:
                step = 3
                third = out[i + 2]
                kind = np.int64(_COLON)
                if third == 0x81 or third == 0x9F:
                    kind = np.int64(_STOP)
                elif third == 0x8C or third == 0x9B:
                    kind = np.int64(_COMMA)
            elif kind in (_CJK, _WIDE) and i + 2 < end:
                alone = True
                step = 3
                counts[_LETTER] += 1
                unspaced += 1
                kind = np.int64(_LOWER)
            else:
                counts[_LETTER] += 1
                key = (key ^ b) * PRIME & MASK
                length += 1
                if opens == 0:
                    opens = np.int64(_LOWER)
                closes = np.int64(_LOWER)
                i += 1
                continue
        # a word ends here; a character of a script without spaces is one by itself
        while length or alone:
            if not length:
                for k in range(3):
                    key = (key ^ np.int64(out[i + k])) * PRIME & MASK
                alone = False
            words += 1
            if find(stops, key) >= 0:
                n_stops += 1
            if words <= first.size:
                first[words - 1] = key
            if title_bits >> np.uint64(key & 63) & np.uint64(1):
                for k in range(n_titles):
                    if titles[k] == key:
                        in_title += 1
                        break
            key, length = np.int64(BASIS), 0
        key = np.int64(BASIS)
        if b > 0x20 and i < end:
            if opens == 0:
                opens = kind
            if kind != _BRACKET or closes == 0:
                closes = kind
            counts[kind] += kind != _LOWER
        i += step
    row[WORDS], row[LETTERS] = words, counts[_LOWER] + counts[_UPPER] + counts[_LETTER]
    row[UPPER], row[DIGITS], row[PUNCT] = counts[_UPPER], counts[_DIGIT], counts[_STOP] + counts[_COMMA] + counts[_COLON]
    row[STOPS], row[SYMBOLS], row[UNSPACED], row[OPENS], row[CLOSES] = n_stops, counts[_SIGN], unspaced, opens, closes
    row[TITLE] = in_title


# Columns of an open element on the stack.
_F_TAG, _F_ELEMENT, _F_BITS, _F_KIND, _F_QUOTE, _F_LIST, _F_LIST_FRAME, _F_ITEM, _F_TABLE, _F_SPAN, _F_COUNTER = range(11)
_F_COLUMNS = 11
# Columns of a table.
_T_ROWS, _T_CELLS, _T_HEADS, _T_NESTED, _T_BLOCKS, _T_BYTES, _T_LONGEST, _T_ROW, _T_CELL, _T_NEXT, _T_WIDTH, _T_LAYOUT = range(
    12
)
_T_COLUMNS = 12


@numba.njit(cache=True, nogil=True)
def _begin(begun, frame, data):
    """What the open element says of a block that begins in it, into the columns of a block; ORDINAL: number of the item."""
    begun[KIND] = CODE if frame[_F_BITS] & IN_PRE else frame[_F_KIND]
    begun[QUOTE], begun[LIST], begun[ORDINAL] = frame[_F_QUOTE], frame[_F_LIST], frame[_F_ITEM]
    begun[BITS], begun[TABLE] = frame[_F_BITS], frame[_F_TABLE]
    begun[ROW] = begun[CELL] = -1
    if frame[_F_TABLE] >= 0:
        begun[ROW], begun[CELL] = data[frame[_F_TABLE], _T_ROW], data[frame[_F_TABLE], _T_CELL]


@numba.njit(cache=True, nogil=True)
def scan(h, tags, properties, tokens, bylines, stops, plain, classes, cc):
    """(text, blocks, first, elements, names, spans) of a page.

    Args:
        h: uint8, the serialised page.
        tags, properties, tokens, bylines, stops, plain, classes: `tables()`.
        cc: uint8, what the address of a licence holds.

    Returns:
        text uint8; blocks int32 [n, BLOCK_COLUMNS]; first int64 [n, FIRST_WORDS], hashes of first words, 0 where there are
        fewer; elements int32 [m, ELEMENT_COLUMNS]; names int64, hashes of the words in names; spans int32 [k, 3].
    """
    n = h.size
    n_tags = 1
    for i in range(n):
        if h[i] == 0x3C:
            n_tags += 1
    out = np.empty(n + 64, np.uint8)
    blocks = np.empty((n_tags + 1, BLOCK_COLUMNS), np.int32)
    first = np.zeros((n_tags + 1, FIRST_WORDS), np.int64)
    elements = np.empty((n_tags + 1, ELEMENT_COLUMNS), np.int32)
    names = np.empty(n // 2 + n_tags + 8, np.int64)
    spans = np.empty((n_tags + 1, 3), np.int32)
    data = np.zeros((16, _T_COLUMNS), np.int32)
    items = np.empty(n_tags + 1, np.int32)
    stack = np.zeros((256, _F_COLUMNS), np.int64)
    titles = np.zeros(48, np.int64)
    title_row = np.zeros(BLOCK_COLUMNS, np.int32)
    n_titles = 0
    title_bits = np.uint64(0)
    counts = np.zeros(16, np.int64)
    has_title = False
    n_blocks = n_elements = n_names = n_spans = n_facts = n_tables = n_items = 0
    sp = 0  # stack[0] is the document
    stack[0, _F_ELEMENT] = 0
    stack[0, _F_LIST_FRAME] = -1
    stack[0, _F_ITEM] = -1
    stack[0, _F_TABLE] = -1
    stack[0, _F_SPAN] = -1
    for k in range(ELEMENT_COLUMNS):
        elements[0, k] = 0
    elements[0, PARENT] = -1
    n_elements = 1
    pos = 0  # in out
    begin = 0  # of the block
    started = False
    base = 0  # frame that holds all text of the block so far
    lowest = 0  # frame that has stayed open since the last text
    begun = np.zeros(BLOCK_COLUMNS, np.int32)  # what held where the block began
    around = np.int64(0)  # element of the frame `base`, whose place on the stack may be another's when the block ends
    link_bytes = emphasis_bytes = button_bytes = links = breaks = images = fields = 0
    space = False
    feeds = 0
    hard = 0  # spaces that do not break, since the last visible character
    code_open = False  # an inline code has been opened in the text
    after_link = False
    fresh_link = False
    raw_until = -1
    promised = 1  # from here on elements may count the open block as theirs
    i = 0
    while True:
        # -- text up to the next tag
        if i < n and (h[i] != 0x3C or i < raw_until):
            bits = stack[sp, _F_BITS]
            in_pre = bits & IN_PRE != 0
            run = pos
            if bits & (UNSEEN | INVISIBLE) != 0:
                while i < n and (h[i] != 0x3C or i < raw_until):
                    i += 1
            elif (bits & IN_LINES and _is_layout(h, i)) or (
                in_pre
                and (
                    stack[sp, _F_TAG] == _TAG_TABLE
                    or stack[sp, _F_TAG] == _TAG_TR
                    or stack[sp, _F_TAG] == _TAG_TBODY
                    or stack[sp, _F_TAG] == _TAG_THEAD
                )
            ):
                while i < n and h[i] != 0x3C:
                    i += 1
            else:
                while i < n and (h[i] != 0x3C or i < raw_until):
                    b = h[i]
                    if not in_pre and (b == 0x20 or b == 0x0A or b == 0x09):
                        space = True
                        i += 1
                        continue
                    step = 1
                    char = np.int64(b)
                    if not plain[b]:
                        if b == 0x26 and i >= raw_until:  # &
                            if i + 3 < n and h[i + 1] == 0x6C and h[i + 2] == 0x74 and h[i + 3] == 0x3B:
                                char, step = np.int64(0x3C), 4
                            elif i + 3 < n and h[i + 1] == 0x67 and h[i + 2] == 0x74 and h[i + 3] == 0x3B:
                                char, step = np.int64(0x3E), 4
                            elif i + 4 < n and h[i + 1] == 0x61 and h[i + 2] == 0x6D and h[i + 3] == 0x70 and h[i + 4] == 0x3B:
                                step = 5
                            elif (
                                i + 5 < n
                                and h[i + 1] == 0x6E
                                and h[i + 2] == 0x62
                                and h[i + 3] == 0x73
                                and h[i + 4] == 0x70
                                and h[i + 5] == 0x3B
                            ):
                                char, step = np.int64(0x20), 6
                                hard += 1
                        elif b == 0x0A or b == 0x09:
                            if not in_pre:
                                char = np.int64(0x20)
                        elif b == 0x0D or b == 0x0C:
                            char = np.int64(0x20) if not in_pre else np.int64(-1)
                        elif b < 0x20 or b == 0x7F:
                            char = np.int64(-1)
                        elif b == 0xC2 and i + 1 < n:
                            if h[i + 1] == 0xA0:
                                char, step = np.int64(0x20), 2
                                hard += 1
                            elif h[i + 1] == 0xAD or 0x80 <= h[i + 1] < 0xA0:  # a soft hyphen, a control
                                char, step = np.int64(0x20 if h[i + 1] == 0x85 else -1), 2
                        elif b == 0xE2 and i + 2 < n and h[i + 1] == 0x80:
                            third = h[i + 2]
                            if third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF:
                                char, step = np.int64(0x20), 3
                            elif third == 0x8B:
                                char, step = np.int64(-1), 3
                        elif b == 0xE3 and i + 2 < n and h[i + 1] == 0x80 and h[i + 2] == 0x80:
                            char, step = np.int64(0x20), 3
                        elif b == 0xEF and i + 2 < n and h[i + 1] == 0xBB and h[i + 2] == 0xBF:
                            char, step = np.int64(-1), 3
                    i += step
                    if char < 0:
                        continue
                    if char == 0x20 and not in_pre:
                        space = True
                        continue
                    if not started:
                        started = True
                        begin = run = pos
                        if hard > 1 and bits & HARD_SPACES:
                            for _ in range(hard):
                                out[pos] = 0x20
                                pos += 1
                        base = lowest = sp
                        around = stack[sp, _F_ELEMENT]
                        _begin(begun, stack[sp], data)
                        space = False
                        feeds = 0
                    elif feeds:
                        for _ in range(feeds):
                            out[pos] = 0x0A
                            pos += 1
                        if bits & HARD_SPACES:
                            for _ in range(hard):
                                out[pos] = 0x20
                                pos += 1
                        feeds = 0
                        space = False
                    elif space:
                        for _ in range(hard if bits & HARD_SPACES and hard > 1 else 1):
                            out[pos] = 0x20
                            pos += 1
                        space = False
                    hard = 0
                    if bits & IN_CODE and not code_open and not in_pre:
                        out[pos] = CODE_OPEN
                        pos += 1
                        code_open = True
                    out[pos] = char
                    pos += 1
                    if not in_pre and i < n and step == 1:
                        while i < n:
                            b = h[i]
                            if plain[b]:
                                out[pos] = b
                                pos += 1
                                i += 1
                            elif b == 0x20 and i + 1 < n and plain[h[i + 1]]:  # from word to word
                                out[pos] = 0x20
                                out[pos + 1] = h[i + 1]
                                pos += 2
                                i += 2
                            else:
                                break
                if pos > run and started:
                    after_link = False
                    if lowest < base:
                        base = lowest
                        around = stack[base, _F_ELEMENT]
                    lowest = sp
                    if bits & IN_LINK:
                        link_bytes += pos - run
                        if fresh_link:
                            links += 1
                            fresh_link = False
                    if bits & IN_EMPHASIS:
                        emphasis_bytes += pos - run
                    if bits & IN_BUTTON:
                        button_bytes += pos - run
        # -- what follows: a tag, a comment, or the end
        at_end = i >= n
        closing = False
        tag = 0
        tag_at = i
        prop = 0
        name_start = name_end = 0
        if not at_end:
            raw_until = -1
            c = h[i + 1] if i + 1 < n else np.uint8(0)
            if c == 0x21 or c == 0x3F:
                if i + 3 < n and h[i + 2] == 0x2D and h[i + 3] == 0x2D:
                    i += 6
                    while i < n and not (h[i] == 0x3E and h[i - 1] == 0x2D and h[i - 2] == 0x2D):
                        i += 1
                else:
                    while i < n and h[i] != 0x3E:
                        i += 1
                i += 1
                continue
            closing = c == 0x2F
            name_start = i + 2 if closing else i + 1
            name_end = name_start
            key = np.int64(BASIS)
            while name_end < n and h[name_end] != 0x3E and h[name_end] != 0x20:
                key = (key ^ np.int64(h[name_end])) * PRIME & MASK
                name_end += 1
            found = find(tags, key)
            if found > 0:
                tag = found
                prop = properties[tag]
        # -- where a block ends
        bits = stack[sp, _F_BITS]
        flush = at_end
        if prop & _BLOCK:
            if bits & IN_PRE == 0 or (closing and sp > 0 and stack[sp, _F_TAG] == tag and stack[sp - 1, _F_BITS] & IN_PRE == 0):
                flush = True
            elif (
                started
                and pos > begin
                and (out[pos - 1] != 0x0A or (closing and tag in (_TAG_TR, _TAG_LI) and stack[sp, _F_COUNTER] == pos))
                and tag not in (_TAG_TD, _TAG_TH)
                and not bits & UNSEEN
            ):
                # lines of code in elements of their own; a row or an item without text is an empty line
                out[pos] = 0x0A
                pos += 1
        elif tag == _TAG_BR:
            hard = 0
            if bits & IN_PRE:
                if started and not bits & (UNSEEN | INVISIBLE):
                    out[pos] = 0x0A
                    pos += 1
            elif started and bits & HARD_SPACES:
                feeds += 1
            elif started:
                if feeds:
                    flush = True
                else:
                    feeds = 1
                    breaks += 1
        if flush and started:
            end = pos
            if code_open:
                out[end] = CODE_CLOSE
                end += 1
                code_open = False
            if begun[BITS] & IN_PRE:
                while end > begin and (out[end - 1] == 0x0A or out[end - 1] == 0x20 or out[end - 1] == 0x09):
                    end -= 1
                k = begin
                while k < end and (out[k] == 0x0A or out[k] == 0x20 or out[k] == 0x09):
                    if out[k] == 0x0A:
                        begin = k + 1
                    k += 1
            if begun[BITS] & IN_NOSCRIPT and _asks_for_scripts(out, begin, end):
                end = begin
            if end > begin:
                row = blocks[n_blocks]
                row[START], row[END] = begin, end
                for k in (KIND, QUOTE, LIST, TABLE, ROW, CELL, BITS):
                    row[k] = begun[k]
                row[ORDINAL] = -1
                item = begun[ORDINAL]
                if item >= 0 and items[item] >= 0:
                    row[ORDINAL] = items[item]
                    items[item] = -1
                row[ELEMENT] = around
                row[LINK_BYTES], row[EMPHASIS_BYTES], row[BUTTON_BYTES] = link_bytes, emphasis_bytes, button_bytes
                row[LINKS], row[BREAKS], row[IMAGES], row[FIELDS] = links, breaks, images, fields
                _measure(out, begin, end, row, first[n_blocks], stops, titles, n_titles, title_bits, classes, counts)
                table = begun[TABLE]
                if table >= 0:
                    data[table, _T_BLOCKS] += 1
                    data[table, _T_BYTES] += end - begin
                    if end - begin > data[table, _T_LONGEST]:
                        data[table, _T_LONGEST] = end - begin
                n_blocks += 1
                pos = end
            else:
                pos = begin
                for k in range(promised, n_elements):
                    if elements[k, LAST] > n_blocks:
                        elements[k, LAST] = n_blocks
            images = fields = 0
        if flush:
            hard = 0
            promised = n_elements
            started = False
            space = False
            feeds = 0
            code_open = False
            link_bytes = emphasis_bytes = button_bytes = links = breaks = 0
        if at_end:
            break
        # -- end tags
        if closing:
            i = name_end + 1
            if tag == _TAG_A:
                after_link = started
            if sp > 0 and stack[sp, _F_TAG] == tag:
                target = sp
            else:
                target = sp
                while target > 0 and stack[target, _F_TAG] != tag:
                    target -= 1
            if target > 0:
                while sp >= target:
                    if stack[sp, _F_ELEMENT] != stack[sp - 1, _F_ELEMENT]:
                        # a block that is still open may reach beyond this element: then it belongs to one around
                        elements[stack[sp, _F_ELEMENT], LAST] = n_blocks
                        if started and base >= sp:
                            elements[stack[sp, _F_ELEMENT], LAST] += 1
                            promised = min(promised, stack[sp, _F_ELEMENT])
                    span = stack[sp, _F_SPAN]
                    if span >= 0:
                        spans[span, 2] = i
                        if spans[span, 0] == SPAN_FACT and i - spans[span, 1] > MAX_FACT and stack[sp, _F_TAG] != _TAG_SCRIPT:
                            spans[span, 0] = SPAN_NONE  # a region, not a line
                            n_facts -= 1
                    if stack[sp, _F_TAG] == _TAG_TITLE and not has_title and span >= 0:
                        has_title = True
                        s = spans[span, 1]
                        while h[s] != 0x3E:
                            s += 1
                        for k in range(s + 1, tag_at):
                            out[pos + k - s - 1] = h[k]  # a place where nothing has been written yet
                        _measure(
                            out,
                            pos,
                            pos + tag_at - s - 1,
                            title_row,
                            titles,
                            stops,
                            titles,
                            n_titles,
                            title_bits,
                            classes,
                            counts,
                        )
                        n_titles = min(title_row[WORDS], titles.size)
                        for k in range(n_titles):
                            title_bits |= np.uint64(1) << np.uint64(titles[k] & 63)
                    if code_open and stack[sp, _F_BITS] & IN_CODE and not stack[sp - 1, _F_BITS] & IN_CODE:
                        out[pos] = CODE_CLOSE
                        pos += 1
                        code_open = False
                    sp -= 1
                if sp < lowest:
                    lowest = sp
            continue
        # -- start tags: attributes
        j = name_end
        own_names = n_names
        special = 0
        hidden = False
        aria_hidden = False
        fact = tag in (_TAG_META, _TAG_TIME, _TAG_HTML)
        if tag == _TAG_TITLE and not has_title:
            fact = stack[sp, _F_TAG] == _TAG_HEAD or not stack[sp, _F_BITS] & UNSEEN
        tex = 0
        has_alt = False
        number = 0
        colspan = 1
        layout = False
        shadow = opened = False
        names[n_names] = fnv_of_tag(h, name_start, name_end)
        n_names += 1
        named = False
        signature = names[n_names - 1]
        while j < n and h[j] != 0x3E:
            if h[j] == 0x20:
                j += 1
                continue
            key = (np.int64(BASIS) ^ np.int64(h[j])) * PRIME & MASK
            j += 1
            while j < n and h[j] != 0x3D and h[j] != 0x3E and h[j] != 0x20:
                key = (key ^ np.int64(h[j])) * PRIME & MASK
                j += 1
            start = end = j
            if j + 1 < n and h[j] == 0x3D and h[j + 1] == 0x22:
                start = j + 2
                j = start
                while j < n and h[j] != 0x22:
                    j += 1
                end = j
                j += 1
            if key in (_A_CLASS, _A_ID):
                if end - start <= 2000:
                    named = named or end > start
                    before = n_names
                    if n_names + (end - start) < names.size:
                        n_names, meaning = _name_words(h, start, end, names, n_names, tokens, bylines)
                        if key == _A_CLASS:
                            special |= meaning
                            if n_names > before:
                                signature = (signature ^ names[before]) * PRIME & MASK
            elif key == _A_ROLE:
                value = hash_lower(h, start, end)
                if value in (_PRESENTATION, _NONE):
                    layout = True
                elif n_names < names.size - 1 and end > start:
                    names[n_names] = (value ^ 0x72) * PRIME & MASK  # a role is another word than a class
                    n_names += 1
                    named = True
            elif key == _A_STYLE:
                hidden = hidden or _hides(h, start, end)
            elif key == _A_HIDDEN:
                hidden = hidden or hash_lower(h, start, end) != _UNTIL_FOUND
            elif key == _A_ARIA:
                aria_hidden = hash_lower(h, start, end) == _TRUE
            elif key == _A_TYPE and tag == _TAG_SCRIPT:
                if (
                    end - start >= 8
                    and h[start] == 0x6D
                    and h[start + 1] == 0x61
                    and h[start + 2] == 0x74
                    and h[start + 5] == 0x74
                ):
                    tex = 1  # math/tex
                elif end - start >= 19 and h[end - 7] == 0x6C and h[end - 6] == 0x64 and h[end - 5] == 0x2B:
                    fact = True  # application/ld+json
            elif (key == _A_START and tag == _TAG_OL) or (key == _A_VALUE and tag == _TAG_LI):
                number = _number(h, start, end)
            elif key == _A_COLSPAN:
                colspan = max(1, min(50, _number(h, start, end)))
            elif key == _A_ALT:
                has_alt = has_alt or end > start
            elif key == _A_SRC and tag == _TAG_IMG and is_of_tex(h, start, end):
                special |= _TEX_IMAGE
                has_alt = True
            elif key == _A_ITEMPROP:
                fact = fact or find(bylines, hash_lower(h, start, end)) >= 0
            elif key == _A_REL and (tag in (_TAG_A, _TAG_LINK)):
                k = start
                while k < end:
                    stop = k
                    while stop < end and h[stop] > 0x20:
                        stop += 1
                    value = hash_lower(h, k, stop)
                    fact = fact or value in (_REL_AUTHOR, _REL_LICENSE, _REL_CANONICAL)
                    k = stop + 1
            elif key == _A_HREF and tag == _TAG_A:
                fact = fact or (end - start > cc.size and _contains(h, start, min(end, start + 40), cc))
            elif key == _A_OPEN:
                opened = True
            elif key == _A_SHADOW:
                shadow = True
        i = j + 1
        outer = stack[sp, _F_BITS]
        if special & _BYLINE and not outer & IN_PRE:
            fact = True
        if prop & _FIELD:
            fields += 1
        # -- places to look at later
        span = -1
        if tag == _TAG_MATH or tex:
            if not outer & UNSEEN or (tex and not outer & INVISIBLE and stack[sp, _F_TAG] != _TAG_HEAD):
                span = n_spans
                spans[n_spans, 0] = SPAN_TEX if tex else SPAN_MATH
        elif tag == _TAG_IMG:
            images += 1
            if special & _TEX_IMAGE and has_alt and not outer & (UNSEEN | INVISIBLE):
                doubled = special & _TEX_FALLBACK and n_spans and spans[n_spans - 1, 0] == SPAN_MATH
                if not (doubled and tag_at - spans[n_spans - 1, 2] < 300):
                    span = n_spans
                    spans[n_spans, 0] = SPAN_IMAGE
        if span >= 0:
            spans[span, 1], spans[span, 2] = tag_at, i
            n_spans += 1
            if not started:
                started = True
                begin = pos
                base = lowest = sp
                around = stack[sp, _F_ELEMENT]
                _begin(begun, stack[sp], data)
            elif feeds:
                for _ in range(feeds):
                    out[pos] = 0x0A
                    pos += 1
            elif space:
                out[pos] = 0x20
                pos += 1
            feeds = hard = 0
            space = False
            if lowest < base:
                base = lowest
                around = stack[base, _F_ELEMENT]
            lowest = sp
            out[pos] = SPAN_OPEN
            pos += 1
            digits = 1
            rest = span
            while rest >= 10:
                rest //= 10
                digits += 1
            rest = span
            for k in range(digits):
                out[pos + digits - 1 - k] = 0x30 + rest % 10
                rest //= 10
            pos += digits
            out[pos] = SPAN_CLOSE
            pos += 1
        elif fact and n_facts < MAX_FACTS:
            span = n_spans
            spans[span, 0], spans[span, 1], spans[span, 2] = SPAN_FACT, tag_at, i
            n_spans += 1
            n_facts += 1
            if tag == _TAG_HTML:
                span = -1
        if prop & _VOID:
            n_names = own_names
            continue
        # -- a new open element
        sp += 1
        if sp == stack.shape[0]:
            larger = np.zeros((2 * sp, _F_COLUMNS), np.int64)
            for k in range(sp):
                for q in range(_F_COLUMNS):
                    larger[k, q] = stack[k, q]
            stack = larger
        frame = stack[sp]
        for q in range(_F_COLUMNS):
            frame[q] = stack[sp - 1, q]
        frame[_F_TAG] = tag
        frame[_F_SPAN] = span
        bits = outer
        if tag == _TAG_A:
            bits |= IN_LINK
            fresh_link = True
            if after_link and started and not outer & IN_PRE:
                space = True
        elif tag in (_TAG_PRE, _TAG_LISTING, _TAG_XMP, _TAG_PLAINTEXT):
            bits |= IN_PRE
        elif tag in (_TAG_CODE, _TAG_KBD, _TAG_SAMP, _TAG_TT):
            bits |= IN_CODE | HARD_SPACES
        elif tag in (_TAG_B, _TAG_STRONG, _TAG_I, _TAG_EM):
            bits |= IN_EMPHASIS
        elif tag == _TAG_BUTTON:
            bits |= IN_BUTTON | (UNSEEN if outer & IN_PRE else 0)
        elif tag == _TAG_FORM:
            bits |= IN_FORM
        elif tag == _TAG_NOSCRIPT:
            bits |= IN_NOSCRIPT
        elif tag == _TAG_LI:
            frame[_F_COUNTER] = pos
            if not outer & IN_PRE:  # where items are lines of code
                frame[_F_KIND] = ITEM
                list_frame = stack[sp, _F_LIST_FRAME]
                ordinal = 0
                if list_frame >= 0 and stack[list_frame, _F_TAG] == _TAG_OL:
                    stack[list_frame, _F_COUNTER] = number if number else stack[list_frame, _F_COUNTER] + 1
                    ordinal = stack[list_frame, _F_COUNTER]
                items[n_items] = ordinal
                frame[_F_ITEM] = n_items
                n_items += 1
        elif tag in (_TAG_UL, _TAG_OL, _TAG_MENU, _TAG_DIR) and not outer & IN_PRE:
            frame[_F_LIST] += 1
            frame[_F_LIST_FRAME] = sp
            frame[_F_COUNTER] = number - 1 if number else 0
            frame[_F_KIND] = PARAGRAPH
        elif _TAG_H1 <= tag < _TAG_H1 + 6:
            frame[_F_KIND] = tag - _TAG_H1 + 1
        elif tag == _TAG_DT:
            frame[_F_KIND] = TERM
        elif tag == _TAG_DD:
            frame[_F_KIND] = DEFINITION
        elif tag == _TAG_QUOTE:
            frame[_F_QUOTE] += 1
        elif tag in (_TAG_FIGCAPTION, _TAG_CAPTION):
            frame[_F_KIND] = CAPTION
        elif tag == _TAG_TABLE:
            if not outer & IN_PRE:
                if n_tables == data.shape[0]:
                    grown = np.zeros((2 * n_tables, _T_COLUMNS), np.int32)
                    for k in range(n_tables):
                        for q in range(_T_COLUMNS):
                            grown[k, q] = data[k, q]
                    data = grown
                if frame[_F_TABLE] >= 0:
                    data[frame[_F_TABLE], _T_NESTED] += 1
                data[n_tables, _T_ROW] = -1
                data[n_tables, _T_CELL] = -1
                data[n_tables, _T_LAYOUT] = layout
                frame[_F_TABLE] = n_tables
                frame[_F_KIND] = PARAGRAPH
                n_tables += 1
        elif tag == _TAG_TR:
            table = frame[_F_TABLE]
            frame[_F_COUNTER] = pos
            if table >= 0 and not outer & IN_PRE:
                data[table, _T_ROWS] += 1
                data[table, _T_ROW] += 1
                data[table, _T_NEXT] = 0
        elif tag in (_TAG_TD, _TAG_TH):
            table = frame[_F_TABLE]
            if table >= 0 and not outer & IN_PRE:
                frame[_F_KIND] = HEADER if tag == _TAG_TH else DATA
                frame[_F_ITEM] = -1
                data[table, _T_CELL] = data[table, _T_NEXT]
                data[table, _T_NEXT] += colspan
                data[table, _T_CELLS] += 1
                if tag == _TAG_TH:
                    data[table, _T_HEADS] += 1
                if data[table, _T_NEXT] > data[table, _T_WIDTH]:
                    data[table, _T_WIDTH] = data[table, _T_NEXT]
        if prop & _UNSEEN and not (tag == _TAG_TEMPLATE and shadow) and not tex:
            bits |= UNSEEN
        if tex:
            bits |= UNSEEN
        if special & _HIDE and tag != _TAG_MJX:  # which has the class too, and the source inside
            bits |= UNSEEN
        if special & _SIGN_LINK and _is_sign(h, i):
            bits |= UNSEEN
        if special & _HARD:
            bits |= HARD_SPACES
        if special & _CODE_LINES and not outer & IN_PRE:
            bits |= IN_PRE | IN_LINES
        if special & _GUTTER:
            # such a word on a <pre> by itself, or on the list that holds the lines, says only that they are numbered
            if tag == _TAG_PRE:
                if outer & IN_PRE:
                    bits |= UNSEEN
            elif (outer & IN_PRE or tag == _TAG_TD) and tag not in _HOLDERS_OF_LINES:
                bits |= UNSEEN
        if special & _READERS or (tag == _TAG_DIALOG and not opened):
            hidden = True
        if (hidden or aria_hidden) and tag != _TAG_HTML and tag != _TAG_BODY:
            if prop & _BLOCK:
                bits |= IN_HIDDEN
            elif hidden or tag in (_TAG_A, _TAG_I):
                bits |= INVISIBLE
        frame[_F_BITS] = bits
        if prop & _BLOCK or named or tag == 0:
            element = n_elements
            row = elements[element]
            row[PARENT], row[TAG], row[FIRST], row[LAST] = frame[_F_ELEMENT], tag, n_blocks, n_blocks
            row[DEPTH] = sp
            row[NAMES_FROM], row[NAMES_TO], row[SIGNATURE] = own_names, n_names, signature & 0x7FFFFFFF
            if not prop & _BLOCK and started:
                row[FIRST] = n_blocks  # the text of this block before it makes no difference
            frame[_F_ELEMENT] = element
            n_elements += 1
        else:
            n_names = own_names
        if prop & _RAW:
            raw_until = raw_end(h, i, name_start, name_end)
    while sp > 0:
        if stack[sp, _F_ELEMENT] != stack[sp - 1, _F_ELEMENT]:
            elements[stack[sp, _F_ELEMENT], LAST] = n_blocks
        if stack[sp, _F_SPAN] >= 0:
            spans[stack[sp, _F_SPAN], 2] = n
        sp -= 1
    elements[0, LAST] = n_blocks
    _tables_of_data(blocks[:n_blocks], data[:n_tables])
    return (
        out[:pos].copy(),
        blocks[:n_blocks].copy(),
        first[:n_blocks].copy(),
        elements[:n_elements].copy(),
        names[:n_names].copy(),
        spans[:n_spans].copy(),
    )


@numba.njit(cache=True, nogil=True)
def fnv_of_tag(h, start, end):
    """A tag as a word among the names: its hash, and a byte that no class has in front."""
    key = (np.int64(BASIS) ^ 0x3C) * PRIME & MASK
    for i in range(start, end):
        key = (key ^ np.int64(h[i])) * PRIME & MASK
    return key


@numba.njit(cache=True, nogil=True)
def _tables_of_data(blocks, data):
    """Blocks of tables that only arrange a page stand in none, or in the data table around it."""
    tables = data.shape[0]
    shown = np.empty(tables, np.int32)
    for t in range(tables):
        cells = max(1, data[t, _T_CELLS])
        per_cell = data[t, _T_BLOCKS] / cells
        is_data = data[t, _T_LAYOUT] == 0 and data[t, _T_NESTED] == 0 and data[t, _T_ROWS] > 1 and data[t, _T_WIDTH] > 1
        if is_data:
            if data[t, _T_HEADS] > 0:
                is_data = per_cell <= 4 and data[t, _T_LONGEST] <= 4000
            else:
                is_data = per_cell <= 1.7 and data[t, _T_LONGEST] <= 1000 and data[t, _T_BYTES] / cells <= 250
        if is_data:
            shown[t] = t
        else:
            shown[t] = -1
    number = 0
    for t in range(tables):
        if shown[t] >= 0:
            shown[t] = number
            number += 1
    for k in range(blocks.shape[0]):
        t = blocks[k, TABLE]
        if t >= 0:
            if shown[t] < 0:
                blocks[k, TABLE] = -1
                blocks[k, ROW] = -1
                blocks[k, CELL] = -1
                if blocks[k, KIND] == DATA or blocks[k, KIND] == HEADER:
                    blocks[k, KIND] = PARAGRAPH
            else:
                blocks[k, TABLE] = shown[t]
