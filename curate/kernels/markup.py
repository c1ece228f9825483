"""What a page would cost to parse: one pass over its bytes, before any tree is built.

HTML's tree construction can make far more of a page than stands in it. Formatting elements that are left open (`<b>`,
`<font>`) are made again in every following block, attributes and all, so that 100 kB can become gigabytes; and parsers take
quadratic time in the attributes of an element, the options of a list and the number of different names. A limit on bytes or
tags alone either lets these through or refuses real pages. So this walks the tags as a tree builder would, with a stack of
open elements and the list of active formatting elements, but builds nothing: it counts.

It follows the rules of tree construction where they decide what is open (implied end tags, scopes, table parts, formatting made
again, Noah's Ark clause, misnested end tags, foreign content) and leaves out insertion modes that only refuse elements
(framesets, most of <head>, what may stand in a <select>), where it counts a few elements too many.

Source: the chapters on tokenising and tree construction of the HTML standard; the method of counting is our own.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from curate.kernels.chars import inline_kernel, kernel
from curate.kernels.tags import BREAKERS, ESCAPED_TEXTS, RAW_TEXTS, VOIDS, raw_end

# Kinds of elements, by what their tags do to the stack.
_PLAIN, _VOID, _FORMAT, _RAW, _PLAINTEXT, _BLOCK, _P, _LI, _DD, _HEADING = range(10)
_TABLE, _GROUP, _ROW, _CELL, _CAPTION, _SELECT, _OPTION, _BUTTON, _OBJECT, _TEMPLATE = range(10, 20)
_ROOT, _FOREIGN, _INNER, _SPECIAL, _RUBY = range(20, 25)

_NAMES = {
    _VOID: VOIDS,
    _FORMAT: "a b big code em font i nobr s small strike strong tt u",
    _RAW: f"{RAW_TEXTS} {ESCAPED_TEXTS}",
    _PLAINTEXT: "plaintext",
    _BLOCK: "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer form header"
    " hgroup listing main menu nav ol pre search section summary ul",
    _P: "p",
    _LI: "li",
    _DD: "dd dt",
    _HEADING: "h1 h2 h3 h4 h5 h6",
    _TABLE: "table",
    _GROUP: "tbody thead tfoot colgroup",
    _ROW: "tr",
    _CELL: "td th",
    _CAPTION: "caption",
    _SELECT: "select",
    _OPTION: "option optgroup",
    _BUTTON: "button",
    _OBJECT: "applet object marquee",
    _TEMPLATE: "template",
    _ROOT: "html body head",
    _FOREIGN: "svg math",
    _INNER: "foreignobject desc annotation-xml mi mo mn ms mtext",  # in foreign content: HTML again
    _SPECIAL: "noscript frameset",
    _RUBY: "rb rp rt rtc",
    _PLAIN: "ruby span sub sup var",
}
_BREAK = 1 << 8  # of a kind: its start tag ends foreign content
_CLOSES_P = (1 << _BLOCK) | (1 << _P) | (1 << _HEADING) | (1 << _PLAINTEXT) | (1 << _LI) | (1 << _DD) | (1 << _TABLE)
_SCOPE = (1 << _TABLE) | (1 << _CELL) | (1 << _CAPTION) | (1 << _OBJECT) | (1 << _TEMPLATE) | (1 << _INNER)
_IS_SPECIAL = (
    _CLOSES_P | _SCOPE | (1 << _GROUP) | (1 << _ROW) | (1 << _SELECT) | (1 << _BUTTON) | (1 << _ROOT) | (1 << _SPECIAL)
)
_TABLE_PART = (1 << _TABLE) | (1 << _GROUP) | (1 << _ROW)
_MARKS = (1 << _CELL) | (1 << _CAPTION) | (1 << _OBJECT) | (1 << _TEMPLATE)  # formatting inside does not reach outside

_SPACE, _ENDS_NAME, _ENDS_ATTRIBUTE, _ENDS_VALUE = 1, 2, 4, 8
_KEYS = 1024
_SEEN_BITS = 1 << 17
_MARKER = -1


class Cost(NamedTuple):
    """What parsing a page would make. Counting ends where a limit is passed, so that one number may be too small then.

    tags: start tags, end tags and comments. depth: the most elements inside each other. copies, copied: elements that are made
    again, and the bytes of their tags. attributes: the most of one element. pairs: attributes before each attribute of an
    element, summed up. options: the most of one <select>; option_pairs: as pairs. lookups: for every unknown element and every
    attribute, the number of different names before it, summed up.
    """

    tags: int
    depth: int
    copies: int
    copied: int
    attributes: int
    pairs: int
    options: int
    option_pairs: int
    lookups: int


def measure(html: bytes, limits: Cost) -> Cost:
    """The cost of parsing a page.

    Args:
        html: the page in UTF-8 (or any encoding that keeps ASCII).
        limits: where to stop.
    """
    keys, kinds, classes = _table()
    stack = np.empty((limits.depth + 8, 4), np.int64)
    listed = np.empty((2 * limits.depth + 16, 4), np.int64)
    seen = np.zeros(_SEEN_BITS >> 3, np.uint8)
    data = np.frombuffer(html, np.uint8)
    return Cost(*map(int, _measure(data, keys, kinds, classes, np.array(limits, np.int64), stack, listed, seen)))


def _key(name: str) -> int:
    """As `_read_name` does."""
    if len(name) <= 8:
        return int.from_bytes(name.encode(), "big")
    key = 0
    for byte in name.encode():
        key = ((key << 7 | key >> 57) & (1 << 64) - 1) ^ byte
    return key | 1 << 63


@functools.lru_cache(maxsize=1)
def _table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys uint64 [1024], kinds int64 [1024], classes uint8 [256]): a hash table, probed on; what a byte ends in a tag."""
    keys, kinds = np.zeros(_KEYS, np.uint64), np.zeros(_KEYS, np.int64)
    breakers = frozenset(BREAKERS.split())
    for kind, names in _NAMES.items():
        for name in names.split():
            key = _key(name)
            slot = (key * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 54
            while keys[slot]:
                slot = (slot + 1) % _KEYS
            keys[slot], kinds[slot] = key, kind | (_BREAK if name in breakers else 0)
    classes = np.zeros(256, np.uint8)
    classes[list(b" \t\n\f\r")] = _SPACE | _ENDS_NAME | _ENDS_ATTRIBUTE | _ENDS_VALUE
    classes[ord("/")] = _ENDS_NAME | _ENDS_ATTRIBUTE
    classes[ord("=")] = _ENDS_ATTRIBUTE
    classes[ord(">")] = _ENDS_NAME | _ENDS_ATTRIBUTE | _ENDS_VALUE
    return keys, kinds, classes


_A, _NOBR, _DIV, _OPTION_KEY = (np.uint64(_key(name)) for name in ("a", "nobr", "div", "option"))
_FORM = np.uint64(_key("form"))
_BR, _TBODY, _TR = (np.uint64(_key(name)) for name in ("br", "tbody", "tr"))

# Rows of the stack and of the list.
_NAME, _KIND, _ENTRY, _FOREIGN_FLAG = range(4)
_LIST_NAME, _LIST_OPEN, _LIST_BYTES, _LIST_HASH = range(4)


@inline_kernel
def _kind_of(name, keys, kinds):
    slot = np.int64((name * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(54))
    while keys[slot] != 0:
        if keys[slot] == name:
            return kinds[slot]
        slot = (slot + 1) & (_KEYS - 1)
    return -1


@inline_kernel
def _pop(stack, top, to, listed, n_listed):
    """Pop the stack down to `to` elements; returns the new length of the list."""
    for k in range(top - 1, to - 1, -1):
        kind, entry = stack[k, _KIND], stack[k, _ENTRY]
        if kind == _FORMAT:
            if entry < n_listed:
                listed[entry, _LIST_OPEN] = 0
        elif (1 << kind) & _MARKS and entry >= 0:
            n_listed = min(n_listed, entry)  # the marker and what came after it
    return n_listed


@inline_kernel
def _find(stack, top, name, barrier):
    """Index of the innermost open element of that name; -1 where an element of a kind in `barrier` comes first, or none."""
    for k in range(top - 1, -1, -1):
        if np.uint64(stack[k, _NAME]) == name:
            return k
        if (1 << stack[k, _KIND]) & barrier:
            return -1
    return -1


@inline_kernel
def _find_kind(stack, top, wanted, barrier):
    """Index of the innermost open element of a kind in `wanted`; -1 as in `_find`."""
    for k in range(top - 1, -1, -1):
        bit = 1 << stack[k, _KIND]
        if bit & wanted:
            return k
        if bit & barrier:
            return -1
    return -1


@kernel
def _unlist(stack, top, listed, n_listed, at):
    """Take an entry out of the list; those after it move down, and the stack's references to them."""
    for k in range(at, n_listed - 1):
        for column in range(4):
            listed[k, column] = listed[k + 1, column]
    for k in range(top - 1, -1, -1):
        kind = stack[k, _KIND]
        if (kind == _FORMAT or (1 << kind) & _MARKS) and stack[k, _ENTRY] >= at:
            if stack[k, _ENTRY] == at:
                stack[k, _ENTRY] = 1 << 40
            elif stack[k, _ENTRY] < 1 << 40:
                stack[k, _ENTRY] -= 1
    return n_listed - 1


@kernel
def _measure(data, keys, kinds, classes, limits, stack, listed, seen):
    n = len(data)
    tags = depth = copies = copied = attributes = pairs = options = option_pairs = lookups = 0
    max_depth = limits[1]
    names = root_attributes = n_options = 0
    form = False
    top = n_listed = 0
    at = 0
    while at < n:
        # ------------------------------------------------------------------ text
        start = at
        while at < n and data[at] != 60:
            at += 1
        text = at > start
        if at < n:
            after = data[at + 1] if at + 1 < n else np.uint8(0)
            letter = after | 0x20
            if not (97 <= letter <= 122 or after == 47 or after == 33 or after == 63):
                text = True
        if text and n_listed and listed[n_listed - 1, _LIST_NAME] != _MARKER and not listed[n_listed - 1, _LIST_OPEN]:
            if top and (1 << stack[top - 1, _KIND]) & _TABLE_PART:
                text = False
                for k in range(start, at):
                    if not classes[data[k]] & _SPACE:
                        text = True
                        break
        else:
            text = False
        if at >= n and not text:
            break
        # ------------------------------------------------------------------ tag
        name = np.uint64(0)
        name_end = at
        closing = breaks = False
        kind = -2  # no tag
        tag_start = at
        n_attributes = 0
        self_closed = False
        if at < n:
            at += 1
            if at < n and data[at] == 47:
                closing = True
                at += 1
            letter = data[at] | 0x20 if at < n else np.uint8(0)
            if 97 <= letter <= 122:
                length, mixed = 0, np.uint64(0xCBF29CE484222325)
                while at < n:
                    c = data[at]
                    if classes[c] & _ENDS_NAME:
                        break
                    if 65 <= c <= 90:
                        c |= 0x20
                    name = name << np.uint64(8) | np.uint64(c)
                    mixed = (mixed << np.uint64(7) | mixed >> np.uint64(57)) ^ np.uint64(c)
                    length += 1
                    at += 1
                if length > 8 or name >> np.uint64(63):
                    name = mixed | np.uint64(1) << np.uint64(63)
                name_end = at
                kind = _kind_of(name, keys, kinds)
                if kind >= _BREAK:
                    kind, breaks = kind - _BREAK, True
                if kind < 0:
                    slot = np.int64(mixed * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(47))
                    if not seen[slot >> 3] >> (slot & 7) & 1:
                        seen[slot >> 3] |= np.uint8(1 << (slot & 7))
                        names += 1
                    lookups += names
                    kind = _PLAIN
                # attributes
                while at < n and data[at] != 62:
                    c = data[at]
                    if c == 47 or classes[c] & _SPACE:
                        self_closed = c == 47
                        at += 1
                        continue
                    self_closed = False
                    mixed = np.uint64(c)
                    at += 1  # "=" may begin a name
                    while at < n:
                        c = data[at]
                        if classes[c] & _ENDS_ATTRIBUTE:
                            break
                        mixed = (mixed << np.uint64(7) | mixed >> np.uint64(57)) ^ np.uint64(c)
                        at += 1
                    slot = np.int64(mixed * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(47))
                    if not seen[slot >> 3] >> (slot & 7) & 1:
                        seen[slot >> 3] |= np.uint8(1 << (slot & 7))
                        names += 1
                        lookups += names
                    pairs += n_attributes
                    n_attributes += 1
                    while at < n and classes[data[at]] & _SPACE:
                        at += 1
                    if at < n and data[at] == 61:
                        at += 1
                        while at < n and classes[data[at]] & _SPACE:
                            at += 1
                        if at < n:
                            quote = data[at]
                            if quote == 34 or quote == 39:
                                at += 1
                                while at < n and data[at] != quote:
                                    at += 1
                                at += 1
                            else:
                                while at < n and not classes[data[at]] & _ENDS_VALUE:
                                    at += 1
                if at >= n:
                    kind = -2  # a tag that the end of the page cuts off is none
                    if not text:
                        break
                at += 1
                tags += 1
                attributes = max(attributes, n_attributes)
            elif at < n and (data[at] == 33 or data[at] == 63 or closing):
                # a comment, or what counts as one
                tags += 1
                if data[at] == 33 and at + 2 < n and data[at + 1] == 45 and data[at + 2] == 45:
                    at += 3
                    if at < n and data[at] == 62:
                        at += 1
                    elif at + 1 < n and data[at] == 45 and data[at + 1] == 62:
                        at += 2
                    else:
                        while at < n:
                            if data[at] == 62 and data[at - 1] == 45 and data[at - 2] == 45:
                                break
                            if data[at] == 62 and data[at - 1] == 33 and data[at - 2] == 45 and data[at - 3] == 45:
                                break
                            at += 1
                        at += 1
                elif data[at] == 33 and top and stack[top - 1, _FOREIGN_FLAG] and at + 7 < n and data[at + 1] == 91:
                    while at < n and not (data[at] == 62 and data[at - 1] == 93 and data[at - 2] == 93):
                        at += 1
                    at += 1
                else:
                    while at < n and data[at] != 62:
                        at += 1
                    at += 1
                if not text:
                    if tags > limits[0]:
                        break
                    continue
        # ------------------------------------------------------------------ formatting that is made again
        foreign = top > 0 and stack[top - 1, _FOREIGN_FLAG] != 0
        if kind == _INNER and not foreign and not closing:
            kind = _PLAIN
        if name == _A and kind == _FORMAT and not closing and not foreign:
            # A link that was left open is not made again, only to be ended by this one.
            k = n_listed - 1
            while k >= 0 and listed[k, _LIST_NAME] != _MARKER and np.uint64(listed[k, _LIST_NAME]) != name:
                k -= 1
            if k >= 0 and listed[k, _LIST_NAME] != _MARKER and not listed[k, _LIST_OPEN]:
                n_listed = _unlist(stack, top, listed, n_listed, k)
        inline = not closing and (kind in (_PLAIN, _VOID, _FORMAT, _BUTTON, _SELECT))
        inline = inline or (not closing and (kind in (_OBJECT, _FOREIGN, _OPTION, _INNER)))
        if (text or (inline and not foreign)) and n_listed:
            first = n_listed
            while first and listed[first - 1, _LIST_NAME] != _MARKER and not listed[first - 1, _LIST_OPEN]:
                first -= 1
            for k in range(first, n_listed):
                copies += 1
                copied += listed[k, _LIST_BYTES]
                if top > max_depth:
                    break
                listed[k, _LIST_OPEN] = 1
                stack[top, _NAME], stack[top, _KIND] = listed[k, _LIST_NAME], _FORMAT
                stack[top, _ENTRY], stack[top, _FOREIGN_FLAG] = k, 0
                top += 1
            depth = max(depth, top)
        if kind == -2:
            if copies > limits[2] or copied > limits[3] or top > max_depth:
                break
            if at >= n:
                break
            continue
        # ------------------------------------------------------------------ end tags
        if closing:
            if foreign:
                found = -1
                for k in range(top - 1, -1, -1):
                    if np.uint64(stack[k, _NAME]) == name:
                        found = k
                        break
                    if not stack[k, _FOREIGN_FLAG]:
                        break
                if found >= 0:
                    n_listed = _pop(stack, top, found, listed, n_listed)
                    top = found
                    continue
            if kind == _FORMAT:
                entry = n_listed - 1
                while entry >= 0 and listed[entry, _LIST_NAME] != _MARKER and np.uint64(listed[entry, _LIST_NAME]) != name:
                    entry -= 1
                if entry < 0 or listed[entry, _LIST_NAME] == _MARKER:
                    found = _find(stack, top, name, _IS_SPECIAL)
                    if found >= 0:
                        n_listed = _pop(stack, top, found, listed, n_listed)
                        top = found
                elif not listed[entry, _LIST_OPEN]:
                    n_listed = _unlist(stack, top, listed, n_listed, entry)
                else:
                    place, blocks, inner, inner_bytes, scoped = -1, 0, 0, 0, True
                    for k in range(top - 1, -1, -1):
                        if stack[k, _KIND] == _FORMAT:
                            if stack[k, _ENTRY] == entry:
                                place = k
                                break
                            if inner < 3 and stack[k, _ENTRY] < n_listed:
                                inner += 1
                                inner_bytes += listed[stack[k, _ENTRY], _LIST_BYTES]
                        elif (1 << stack[k, _KIND]) & _IS_SPECIAL:
                            blocks += 1
                            if (1 << stack[k, _KIND]) & _SCOPE:
                                scoped = False
                    if place >= 0 and scoped and blocks == 0:
                        n_listed = _pop(stack, top, place, listed, n_listed)
                        top = place
                        n_listed = _unlist(stack, top, listed, n_listed, entry)
                    elif place >= 0 and scoped:
                        rounds = min(blocks, 8)
                        copies += rounds * (1 + inner)
                        copied += rounds * (listed[entry, _LIST_BYTES] + inner_bytes)
                        if blocks <= 8:  # else it stays in the list
                            n_listed = _unlist(stack, top, listed, n_listed, entry)
                            for k in range(place, top - 1):
                                for column in range(4):
                                    stack[k, column] = stack[k + 1, column]
                            top -= 1
            else:
                found = -1
                bit = 1 << kind
                if kind == _HEADING:
                    found = _find_kind(stack, top, bit, _SCOPE)
                elif kind == _P:
                    found = _find(stack, top, name, _SCOPE | 1 << _BUTTON)
                    if found < 0:
                        copies += 1  # an empty one is made
                elif kind in (_TABLE, _GROUP, _ROW, _CELL, _CAPTION):
                    found = _find(stack, top, name, 1 << _TABLE | 1 << _TEMPLATE)
                elif kind in (_SELECT, _TEMPLATE):
                    found = _find(stack, top, name, 0)
                elif kind == _OPTION:
                    found = _find(stack, top, name, _IS_SPECIAL)
                elif name == _FORM:
                    # Taken out alone: what lies open inside stays so.
                    found = _find(stack, top, name, _SCOPE) if form else -1
                    form = False
                    if found >= 0:
                        for k in range(found, top - 1):
                            for column in range(4):
                                stack[k, column] = stack[k + 1, column]
                        top -= 1
                        found = -1
                elif bit & _IS_SPECIAL and kind != _ROOT:
                    found = _find(stack, top, name, _SCOPE)
                elif kind in (_PLAIN, _FOREIGN, _INNER, _RUBY):
                    found = _find(stack, top, name, _IS_SPECIAL)
                elif kind == _VOID and name == _BR:
                    copies += 1
                if found >= 0:
                    n_listed = _pop(stack, top, found, listed, n_listed)
                    top = found
            if tags > limits[0] or copies > limits[2] or copied > limits[3]:
                break
            continue
        # ------------------------------------------------------------------ start tags
        bit = 1 << kind
        if foreign and breaks:
            to = top
            while to and stack[to - 1, _FOREIGN_FLAG]:
                to -= 1
            n_listed = _pop(stack, top, to, listed, n_listed)
            top, foreign = to, False
        push = True
        entry = -1
        in_foreign = 0
        if name == _FORM and not foreign:
            if form:
                continue
            form = True
        if foreign:
            in_foreign = 0 if kind == _INNER else 1
            push = not self_closed
            kind = _INNER if kind == _INNER else _PLAIN
        elif kind == _FOREIGN:
            in_foreign = 1
            push = not self_closed
        elif kind == _VOID:
            push = False
        elif kind in (_RAW, _PLAINTEXT):
            push = False
            at = n if kind == _PLAINTEXT else raw_end(data, at, tag_start + 1, name_end)
        elif kind == _ROOT:
            push = False
            # Those of a second <body> go to the first.
            pairs += n_attributes * root_attributes
            root_attributes += n_attributes
            attributes = max(attributes, root_attributes)
        else:
            if bit & _CLOSES_P:
                if kind in (_LI, _DD):
                    # An item ends the one before it, unless another block than <div> or <p> lies between.
                    for k in range(top - 1, -1, -1):
                        if stack[k, _KIND] == kind:
                            n_listed = _pop(stack, top, k, listed, n_listed)
                            top = k
                            break
                        block = (1 << stack[k, _KIND]) & _IS_SPECIAL and stack[k, _KIND] != _P
                        if block and np.uint64(stack[k, _NAME]) != _DIV:
                            break
                found = _find_kind(stack, top, 1 << _P, _SCOPE | 1 << _BUTTON)
                if found >= 0:
                    n_listed = _pop(stack, top, found, listed, n_listed)
                    top = found
                if kind == _TABLE:  # in the parts of a table other than cells, another <table> ends it
                    found = _find_kind(stack, top, 1 << _TABLE, 1 << _CELL | 1 << _CAPTION | 1 << _TEMPLATE)
                    if found >= 0:
                        n_listed = _pop(stack, top, found, listed, n_listed)
                        top = found
                if kind == _HEADING and top and stack[top - 1, _KIND] == _HEADING:
                    n_listed = _pop(stack, top, top - 1, listed, n_listed)
                    top -= 1
            elif kind in (_GROUP, _ROW, _CELL, _CAPTION):
                table = _find_kind(stack, top, 1 << _TABLE, 1 << _TEMPLATE)
                if table < 0:
                    push = False
                else:
                    to = table + 1
                    if (kind in (_ROW, _CELL)) and to < top and stack[to, _KIND] == _GROUP:
                        to += 1
                        if kind == _CELL and to < top and stack[to, _KIND] == _ROW:
                            to += 1
                    n_listed = _pop(stack, top, to, listed, n_listed)
                    top = to
                    if (kind in (_ROW, _CELL)) and stack[top - 1, _KIND] == _TABLE:
                        stack[top, _NAME], stack[top, _KIND], stack[top, _ENTRY], stack[top, _FOREIGN_FLAG] = (
                            _TBODY,
                            _GROUP,
                            -1,
                            0,
                        )
                        top += 1
                    if kind == _CELL and stack[top - 1, _KIND] == _GROUP:
                        stack[top, _NAME], stack[top, _KIND], stack[top, _ENTRY], stack[top, _FOREIGN_FLAG] = _TR, _ROW, -1, 0
                        top += 1
            elif kind == _SELECT:
                found = _find(stack, top, name, _SCOPE)
                if found >= 0:  # a second start tag ends it
                    n_listed = _pop(stack, top, found, listed, n_listed)
                    top = found
                    push = False
                n_options = 0
            elif kind == _OPTION:
                if top and np.uint64(stack[top - 1, _NAME]) == _OPTION_KEY:
                    top -= 1
                if top and name != _OPTION_KEY and stack[top - 1, _KIND] == _OPTION:
                    top -= 1
                option_pairs += n_options
                n_options += 1
                options = max(options, n_options)
            elif kind == _RUBY:
                while top and stack[top - 1, _KIND] == _RUBY:
                    top -= 1
            elif kind == _BUTTON:
                found = _find(stack, top, name, _SCOPE)
                if found >= 0:
                    n_listed = _pop(stack, top, found, listed, n_listed)
                    top = found
            elif kind == _FORMAT:
                if name in (_A, _NOBR):
                    k = n_listed - 1
                    while k >= 0 and listed[k, _LIST_NAME] != _MARKER and np.uint64(listed[k, _LIST_NAME]) != name:
                        k -= 1
                    if k >= 0 and listed[k, _LIST_NAME] != _MARKER:
                        # As its end tag would; what lies open inside stays so.
                        for place in range(top - 1, -1, -1):
                            if stack[place, _KIND] == _FORMAT and stack[place, _ENTRY] == k:
                                copies += min(top - 1 - place, 32)
                                for j in range(place, top - 1):
                                    for column in range(4):
                                        stack[j, column] = stack[j + 1, column]
                                top -= 1
                                break
                        n_listed = _unlist(stack, top, listed, n_listed, k)
                whole = np.uint64(0xCBF29CE484222325)
                for k in range(tag_start, min(at, n)):
                    whole = (whole ^ np.uint64(data[k])) * np.uint64(0x100000001B3)
                same, earliest = 0, -1
                for k in range(n_listed - 1, -1, -1):
                    if listed[k, _LIST_NAME] == _MARKER:
                        break
                    if np.uint64(listed[k, _LIST_HASH]) == whole:
                        same, earliest = same + 1, k
                if same >= 3:
                    n_listed = _unlist(stack, top, listed, n_listed, earliest)
                if n_listed >= len(listed) - 1:
                    copies = limits[2] + 1
                    break
                pairs += n_attributes * n_listed
                listed[n_listed, _LIST_NAME], listed[n_listed, _LIST_OPEN] = np.int64(name), 1
                listed[n_listed, _LIST_BYTES], listed[n_listed, _LIST_HASH] = at - tag_start, np.int64(whole)
                entry = n_listed
                n_listed += 1
            if push and bit & _MARKS:
                if n_listed >= len(listed) - 1:
                    copies = limits[2] + 1
                    break
                listed[n_listed, _LIST_NAME], listed[n_listed, _LIST_OPEN] = _MARKER, 0
                entry = n_listed
                n_listed += 1
        if push:
            stack[top, _NAME], stack[top, _KIND] = np.int64(name), kind
            stack[top, _ENTRY], stack[top, _FOREIGN_FLAG] = entry, in_foreign
            top += 1
            depth = max(depth, top)
            if top > max_depth:
                break
        if tags > limits[0] or copies > limits[2] or copied > limits[3] or attributes > limits[4] or pairs > limits[5]:
            break
        if options > limits[6] or option_pairs > limits[7] or lookups > limits[8]:
            break
    return tags, depth, copies, copied, attributes, pairs, options, option_pairs, lookups
