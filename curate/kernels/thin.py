"""A page without what nobody reads later: contents of scripts and styles, comments, and most attributes.

Half of a page's bytes are such, and a parser makes a node or an attribute of each. This pass knows tags, attributes and raw
text as the tokeniser of the HTML standard does (WHATWG HTML, section 13.2.5), and drops nothing that decides what the text of
a page is: no tag goes but scripts, styles, links and `<meta>` that say none of the facts that are read, and shapes inside
drawings. White space with a line break where a block begins or ends goes as well; on pages whose `<b>` and `<font>` are not
closed, that can move these elements a level inwards.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from curate.kernels.html import is_of_tex
from curate.kernels.tags import (
    BASIS,
    BREAKERS,
    ESCAPED_TEXTS,
    MASK,
    PRIME,
    RAW_TEXTS,
    find,
    fnv,
    hash_lower,
    hash_table,
    index_of,
    raw_end,
)

_KEPT = (
    "class id role hidden aria-hidden type start value alt itemprop rel name content property http-equiv datetime colspan lang"
    " xml:lang encoding shadowrootmode open pubdate charset itemscope itemtype display alttext"
)
_ALWAYS, _STYLE, _HREF, _TITLE, _SRC = 1, 2, 3, 4, 5
_DEEP = 64  # blocks inside each other that are kept track of
_SPACE, _END, _SLASH, _SPACE_OR_END = 1, 2, 4, 3  # classes of bytes
# What a tag means for the pass.
(
    _RAW,
    _RCDATA,
    _PLAIN,
    _FOREIGN,
    _BREAKS,
    _MATH,
    _LINK,
    _ANCHOR,
    _TITLED,
    _ITEM,
    _IMAGE,
    _SHOWN,
    _SCRIPT,
    _SHAPE,
    _EDGE,
    _PRE,
    _FACT,
    _NESTS,
    _PARAGRAPH,
    _HEADING,
    _LIST,
    _ENTRY,
    _TABLE,
    _GROUP,
    _ROW,
    _CELL,
    _BUTTON,
    _SELECT,
    _UPSETS,
) = (1 << n for n in range(29))
_EDGES = (  # which a parser never ignores
    "address article aside blockquote dd div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre"
    " section ul"
)


@functools.lru_cache(maxsize=1)
def tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of attributes and of tags with what they mean, and the bytes that end a name."""
    attributes = {fnv(name): _ALWAYS for name in _KEPT.split()}
    attributes |= {fnv("style"): _STYLE, fnv("href"): _HREF, fnv("title"): _TITLE, fnv("src"): _SRC}
    tags: dict[int, int] = {}
    for names, bit in (
        (RAW_TEXTS, _RAW),
        (ESCAPED_TEXTS, _RCDATA),
        ("plaintext", _PLAIN),
        ("svg math", _FOREIGN),
        ("math", _MATH),
        ("link", _LINK),
        ("a", _ANCHOR),
        ("time abbr", _TITLED),
        ("li", _ITEM),
        ("img", _IMAGE),
        ("title xmp noframes", _SHOWN),
        ("script style", _SCRIPT),
        (_EDGES, _EDGE),
        ("pre listing textarea", _PRE),
        ("meta", _FACT),
        (_EDGES.replace(" hr", ""), _NESTS),
        ("center details dialog dir fieldset form hgroup listing menu noscript search summary", _NESTS),
        ("table tbody thead tfoot tr td th button", _NESTS),
        ("p", _PARAGRAPH),
        ("h1 h2 h3 h4 h5 h6", _HEADING),
        ("ul ol dl", _LIST),
        ("li dd dt", _ENTRY),
        ("table", _TABLE),
        ("tbody thead tfoot", _GROUP),
        ("tr", _ROW),
        ("td th", _CELL),
        ("button", _BUTTON),
        ("select", _SELECT),
        (
            "html head body frameset template object applet marquee caption colgroup rb rp rt rtc select keygen input option"
            " optgroup",
            _UPSETS,
        ),
        (
            "path g circle ellipse rect line polygon polyline use defs stop lineargradient radialgradient clippath symbol",
            _SHAPE,
        ),
        (BREAKERS, _BREAKS),
    ):
        for name in names.split():
            tags[fnv(name)] = tags.get(fnv(name), 0) | bit
    classes = np.zeros(256, np.uint8)
    classes[list(b" \n\t\r\f")] = _SPACE
    classes[ord(">")] = _END
    classes[ord("/")] = _SLASH
    return hash_table(attributes, 128), hash_table(tags, 512), classes


@numba.njit(cache=True, nogil=True)
def _holds(h, start, end, needle):
    """Whether a value holds these bytes, ASCII letters in any case. needle: uint8, in lower case."""
    m = needle.size
    for i in range(start, end - m + 1):
        k = 0
        while k < m and (h[i + k] | 0x20 if 0x41 <= h[i + k] <= 0x5A else h[i + k]) == needle[k]:
            k += 1
        if k == m:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _open(nest, depth, key, kind):
    """The blocks that are certainly open when one begins, as a parser closes some of them by itself; none where in doubt."""
    if not kind & _NESTS and not kind & _EDGE:
        return 0
    top = nest[depth - 1, 1] if depth else 0
    if top & _PARAGRAPH:
        if kind & (_TABLE | _GROUP | _ROW | _CELL):
            return 0
        if kind & _EDGE:
            depth -= 1
            top = nest[depth - 1, 1] if depth else 0
    if not kind & _NESTS:
        return depth
    if depth:
        if kind & _ENTRY:
            fits = top & _LIST != 0
        elif kind & _HEADING:
            fits = top & _HEADING == 0
        elif kind & _GROUP:
            fits = top & _TABLE != 0
        elif kind & _ROW:
            fits = top & (_TABLE | _GROUP) != 0
        elif kind & _CELL:
            fits = top & _ROW != 0
        elif kind & _TABLE:
            fits = top & (_TABLE | _GROUP | _ROW) == 0
        elif kind & _BUTTON:
            fits = not (nest[:depth, 1] & _BUTTON).any()
        else:
            fits = True
        if not fits:
            depth = 0
    if depth == len(nest):
        depth = 0
    nest[depth] = key, kind
    return depth + 1


_LD_JSON, _MATH_TEX, _DISPLAY, _VISIBILITY, _CC, _AUTHOR, _LICENSE, _CANONICAL = (
    np.frombuffer(s, np.uint8)
    for s in (b"ld+json", b"math/tex", b"display", b"visibility", b"creativecommons.org/", b"author", b"license", b"canonical")
)
_TYPE, _REL, _VALUE, _ALT = map(fnv, ("type", "rel", "value", "alt"))
_NAMING = np.array([fnv(name) for name in ("name", "property", "itemprop", "http-equiv")], np.int64)


@numba.njit(cache=True, nogil=True)
def thin(h, attributes, tags, classes, metas):
    """The page without what is not read: uint8, at most a quarter longer than the page.

    Args:
        h: uint8, a page in UTF-8 as it came.
        attributes, tags, classes: `tables()`.
        metas: `hash_table` of the names of the `<meta>` that are read.
    """
    n = h.size
    doubled = 0
    for i in range(n - 1):
        doubled += (h[i] == 0x3C) & (h[i + 1] == 0x3C)
    out = np.empty(n + n // 4 + 3 * doubled + 16, np.uint8)
    pos = 0
    foreign = 0
    in_math = False
    pre = 0
    nest = np.empty((_DEEP, 2), np.int64)  # blocks that are certainly open inside each other: name and kind
    depth = 0
    in_select = False
    at_edge = False  # nothing but white space since a tag at which a block begins or ends
    layout = -1  # where white space begins that the next tag may make superfluous
    i = 0
    while i < n:
        if i < n and h[i] != 0x3C:
            # white space that only lays out the markup: a text node for the parser, and nothing to a reader
            k = i
            broken = False
            while k < n and classes[h[k]] & _SPACE:
                if h[k] == 0x0A:
                    broken = True
                k += 1
            if k < n and h[k] == 0x3C and broken and pre == 0:
                if at_edge:
                    i = k
                else:
                    layout = pos
            else:
                at_edge = False
                layout = -1
            while i < n and h[i] != 0x3C:
                out[pos] = h[i]
                pos += 1
                i += 1
        if i + 1 >= n:
            if i < n:
                out[pos] = h[i]
                pos += 1
            break
        c = h[i + 1]
        if c == 0x21 or c == 0x3F:
            if c == 0x21 and i + 3 < n and h[i + 2] == 0x2D and h[i + 3] == 0x2D:
                k = i + 4
                if k < n and h[k] == 0x3E:
                    i = k + 1
                    continue
                if k + 1 < n and h[k] == 0x2D and h[k + 1] == 0x3E:
                    i = k + 2
                    continue
                end = n
                while k + 2 < n:
                    if h[k] == 0x2D and h[k + 1] == 0x2D:
                        if h[k + 2] == 0x3E:
                            end = k + 3
                            break
                        if h[k + 2] == 0x21 and k + 3 < n and h[k + 3] == 0x3E:
                            end = k + 4
                            break
                    k += 1
                i = end
            elif foreign and c == 0x21 and i + 8 < n and h[i + 2] == 0x5B and h[i + 3] == 0x43 and h[i + 8] == 0x5B:  # [C    [
                k = i + 9
                while k < n and not (h[k] == 0x3E and h[k - 1] == 0x5D and h[k - 2] == 0x5D):
                    k += 1
                k = min(n, k + 1)
                at_edge = False
                layout = -1
                while i < k:
                    out[pos] = h[i]
                    pos += 1
                    i += 1
            else:
                is_doctype = c == 0x21 and i + 2 < n and h[i + 2] | 0x20 == 0x64
                while i < n:
                    if is_doctype:
                        out[pos] = h[i]
                        pos += 1
                    i += 1
                    if h[i - 1] == 0x3E:
                        break
            continue
        closing = c == 0x2F
        at = i + 2 if closing else i + 1
        if at >= n:
            out[pos] = h[i]
            out[pos + 1] = c
            pos += 2
            break
        letter = h[at] | 0x20
        if not 0x61 <= letter <= 0x7A:
            if closing:  # a comment, to the standard
                while i < n and h[i] != 0x3E:
                    i += 1
                i += 1
            else:
                out[pos] = h[i]
                pos += 1
                i += 1
                if c == 0x3C:  # were the next thing dropped, what follows it would make this one the beginning of a tag
                    out[pos - 1] = 0x26
                    out[pos], out[pos + 1], out[pos + 2] = 0x6C, 0x74, 0x3B
                    pos += 3
                at_edge = False
                layout = -1
            continue
        # -- a tag
        mark = pos
        laid_out, layout = layout, -1
        out[pos] = 0x3C
        pos += 1
        if closing:
            out[pos] = 0x2F
            pos += 1
        key = np.int64(BASIS)
        name_start = at
        while at < n:
            b = np.int64(h[at])
            if classes[b]:
                break
            out[pos] = b
            pos += 1
            key = (key ^ (b | 0x20 if 0x41 <= b <= 0x5A else b)) * PRIME & MASK
            at += 1
        name_end = at
        kind = find(tags, key)
        if kind < 0:
            kind = np.int64(0)
        # whether it ends a block for certain: an end tag may be one too many, and then it ends nothing
        ends = closing and kind & _NESTS != 0 and depth > 0 and nest[depth - 1, 0] == key and not foreign and not in_select
        is_edge = kind & _EDGE != 0 and (ends or not closing)
        if is_edge and laid_out >= 0:
            for k in range(mark, pos):
                out[laid_out + k - mark] = out[k]
            pos -= mark - laid_out
            mark = laid_out
        keep_script = False
        is_fact = kind & _FACT == 0 or foreign != 0
        wants_href = False
        href_start = href_end = 0
        seen = np.int64(0)
        self_closing = False
        while at < n and h[at] != 0x3E:
            b = h[at]
            if classes[b] & _SPACE:
                at += 1
                continue
            if b == 0x2F:
                self_closing = at + 1 < n and h[at + 1] == 0x3E
                at += 1
                continue
            attribute = at
            name = np.int64(BASIS)
            first = True
            while at < n:
                b = np.int64(h[at])
                if classes[b]:
                    break
                if b == 0x3D and not first:
                    break
                first = False
                name = (name ^ (b | 0x20 if 0x41 <= b <= 0x5A else b)) * PRIME & MASK
                at += 1
            attribute_end = at
            k = at
            while k < n and classes[h[k]] & _SPACE:
                k += 1
            start = end = at
            if k < n and h[k] == 0x3D:
                k += 1
                while k < n and classes[h[k]] & _SPACE:
                    k += 1
                if k < n and (h[k] == 0x22 or h[k] == 0x27):
                    quote = h[k]
                    k += 1
                    start = k
                    k = index_of(h, quote, k)
                    end = k
                    at = k + 1
                    attribute_end = min(at, n)
                else:
                    start = k
                    while k < n:
                        b = np.int64(h[k])
                        if classes[b] & _SPACE_OR_END:
                            break
                        k += 1
                    end = at = attribute_end = k
            if closing:
                continue
            use = find(attributes, name)
            if use > 1:  # of an attribute given twice the first one counts, so the second must not outlive it
                if seen & 1 << use:
                    continue
                seen |= 1 << use
            kept = in_math or kind & _MATH != 0
            if use == 1:
                kept = True
                if name == _TYPE:
                    keep_script = _holds(h, start, end, _LD_JSON) or _holds(h, start, end, _MATH_TEX)
                elif name == _REL and kind & (_ANCHOR | _LINK):
                    wants_href = wants_href or _holds(h, start, end, _AUTHOR) or _holds(h, start, end, _LICENSE)
                    wants_href = wants_href or (kind & _LINK != 0 and _holds(h, start, end, _CANONICAL))
                elif name == _VALUE:
                    kept = kind & _ITEM != 0
                elif name == _ALT:
                    kept = kind & _IMAGE != 0
                elif kind & _FACT and (name == _NAMING).any():
                    is_fact = is_fact or find(metas, hash_lower(h, start, end)) >= 0
            elif use == 2:
                kept = kept or _holds(h, start, end, _DISPLAY) or _holds(h, start, end, _VISIBILITY)
            elif use == 3:
                wants_href = wants_href or (kind & _ANCHOR != 0 and _holds(h, start, min(end, start + 40), _CC))
                if kept or wants_href:
                    kept = True
                else:
                    href_start, href_end = attribute, attribute_end
            elif use == 4:
                kept = kept or kind & _TITLED != 0
            elif use == 5:
                kept = kept or (kind & _IMAGE != 0 and is_of_tex(h, start, end))
            if kept:
                out[pos] = 0x20
                pos += 1
                for q in range(attribute, attribute_end):
                    out[pos] = h[q]
                    pos += 1
        if at >= n:  # the standard ignores a tag that does not end
            pos = mark
            break
        if wants_href and href_end > href_start:
            out[pos] = 0x20
            pos += 1
            for q in range(href_start, href_end):
                out[pos] = h[q]
                pos += 1
        if foreign and not in_math and kind & _SHAPE:
            pos = mark
            i = at + 1
            continue
        if (kind & _LINK and not wants_href) or not is_fact:
            pos = mark
            i = at + 1
            continue
        if self_closing:
            out[pos] = 0x20
            out[pos + 1] = 0x2F
            pos += 2
        out[pos] = 0x3E
        pos += 1
        i = at + 1
        at_edge = is_edge
        if ends:
            depth -= 1
        elif closing:
            if kind & (_NESTS | _UPSETS):
                depth = 0
                in_select = in_select and not kind & _SELECT
        elif kind & (_NESTS | _UPSETS | _EDGE):
            depth = _open(nest, depth, key, kind)
            if foreign and not kind & _BREAKS:
                depth = 0
            in_select = in_select or kind & _SELECT != 0
        if kind & _PRE:
            if not closing:
                pre += 1
            elif pre:
                pre -= 1
        # -- what is text behind it
        if closing:
            if kind & _FOREIGN and foreign:
                foreign -= 1
                in_math = in_math and foreign > 0
        elif foreign:
            if kind & _BREAKS:
                foreign = 0
                in_math = False
            elif kind & _FOREIGN and not self_closing:
                foreign += 1
        elif kind & _FOREIGN:
            if not self_closing:
                foreign = 1
                in_math = kind & _MATH != 0
        elif kind & _PLAIN:
            while i < n:
                out[pos] = h[i]
                pos += 1
                i += 1
        elif kind & (_RAW | _RCDATA):
            end = raw_end(h, i, name_start, name_end)
            if kind & _SCRIPT and not keep_script:
                pos = mark
                while end < n and h[end] != 0x3E:
                    end += 1
                    if end + 1 < n and h[end - 1] == 0x3D and (h[end] == 0x22 or h[end] == 0x27):
                        quote = h[end]
                        end += 1
                        while end < n and h[end] != quote:
                            end += 1
                end = min(n, end + 1)
            elif keep_script or kind & _SHOWN:
                while i < end:
                    out[pos] = h[i]
                    pos += 1
                    i += 1
            i = end
    return out[:pos]
