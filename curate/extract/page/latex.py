r"""Formulas of a page as LaTeX: from TeX where the page carries it, else from MathML.

Most pages with formulas keep the TeX that they were written in, for readers who copy or cannot see: as an annotation of the
MathML (KaTeX, Wikipedia, LaTeXML), as a script (MathJax 2), as the alternative text of an image (WordPress). That is taken as
it stands but for its wrapping. Where there is only MathML, it is written as a person would write LaTeX: `x^2` and `x_{ij}`,
`\frac{a}{b}`, `\left( … \right)` only around what is tall, `\begin{pmatrix}` for a table between parentheses.

What is changed in TeX from the page, and nothing else: white space (line breaks too) becomes single spaces; comments that end
in a line break, and the CDATA marks around scripts, go; so do delimiters (`$…$`, `$$…$$`, `\(…\)`, `\[…\]`), a
`\displaystyle` or `\textstyle` around or before the whole, and the commands for size and colour that image services take.

Source: MathML 3 and MathML Core (W3C) for the elements; how MathJax, KaTeX, LaTeXML, Temml and Wikipedia write them, as seen
in their output. Own conversion.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field, replace
from html import unescape
from urllib.parse import parse_qsl, unquote

MAX_LENGTH = 65_536  # characters of an element; formulas have hundreds
MAX_NESTING = 60  # levels of MathML; what is deeper is read as if it stood at this level

_TAG = re.compile(r"<!--.*?-->|<(/?)([A-Za-z][^\s/>]*)((?:\s+=?[^\s=>]*+(?:=\"[^\"]*\")?)*+)/?>|([^<]+|<)", re.S)
_ATTRIBUTE = re.compile(r"([^\s=\"/]+)\s*=\s*\"([^\"]*)\"")
_ANNOTATION = re.compile(
    r"<(?:\w+:)?annotation\b[^>]*\bencoding=\"(?:application/|text/|image/)?(?:x-)?(?:la)?tex\"[^>]*>(.*?)</(?:\w+:)?annotation>",
    re.S | re.I,
)
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)(\\[A-Za-z]+)?%[^\n]*(?:\n|$)")
_CDATA = re.compile(r"\A\s*(?:%|//)?\s*<!\[CDATA\[|(?:%|//)?\s*\]\]>\s*\Z")
_SERVICE = re.compile(r"\s*\\(?:inline|dpi\s*\{?\d+\}?|bg_(?:\w+|\{\w+\})|fn_\w+|(?:bg|fg)\s*\{[^{}]*\})(?![A-Za-z])")
_STYLE = re.compile(r"\\(?:displaystyle|textstyle)(?![A-Za-z])\s*")
_WORDS = re.compile(r"[^\W\d_]{4,}")
_SOURCE = re.compile(r"latex|mathtex|mimetex|cht=tx", re.I)
_DELIMITERS = (("$$", "$$", True), ("$", "$", False), ("\\[", "\\]", True), ("\\(", "\\)", False))


def latex(element: str) -> tuple[str, bool]:
    """The LaTeX of one formula, without delimiters, and whether it is display mathematics.

    Args:
        element: a serialised element: `<math>`, `<script type="math/tex…">` (or math/mml) or `<img alt="…">`.

    Empty where there is no formula to be had: AsciiMath and alternative texts that are words give nothing. Malformed markup
    gives what text there is.
    """
    tag = _TAG.match(element)
    if not tag or not tag.group(2):
        return "", False
    name, attributes = _local(tag.group(2)), _attributes(tag.group(3))
    if name == "script":
        kind = attributes.get("type", "").lower()
        content = element[tag.end() :].removesuffix("</script>")
        if "asciimath" in kind or "mml" in kind:
            found = re.search(r"<(?:\w+:)?math\b.*", content, re.S)
            return latex(found.group()) if found else ("", False)
        content = content.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        tex, wrapped = _clean(_CDATA.sub("", content))
        return tex, wrapped or "display" in kind
    if name == "img":
        return _image(attributes)
    display = attributes.get("display") == "block" or attributes.get("mode") == "display"
    if found := _ANNOTATION.search(element):
        tex, wrapped = _clean(unescape(found.group(1)))
        if tex:
            return tex, display or wrapped
    alt, wrapped = _clean(attributes.get("alttext", ""))
    if alt and _is_tex(alt):
        return alt, display or wrapped
    if len(element) > MAX_LENGTH:
        return alt, display
    return _join(_row(_parse(element), _PLAIN)) or alt, display


def _image(attributes: dict[str, str]) -> tuple[str, bool]:
    """An image's TeX: its alternative text, or what its address asks a rendering service for."""
    tex = attributes.get("alt", "")
    if not tex.strip() or not _is_tex(tex):
        source = attributes.get("src", "")
        query = source.partition("?")[2]
        if not query or not _SOURCE.search(source):
            return "", False
        fields = dict(parse_qsl(query, keep_blank_values=True))
        tex = fields.get("latex") or fields.get("chl") or fields.get("tex") or unquote(query)
    while service := _SERVICE.match(tex):
        tex = tex[service.end() :]
    tex, display = _clean(tex)
    return tex, display or "display" in attributes.get("class", "")


def _is_tex(text: str) -> bool:
    """Whether an alternative text is a formula rather than words about one."""
    return any(c in text for c in "\\^_{=") or not _WORDS.search(text)


def _clean(tex: str) -> tuple[str, bool]:
    """TeX without its wrapping, in one line; and whether the wrapping was that of display mathematics."""
    if "%" in tex and "\n" in tex:
        tex = _COMMENT.sub(lambda m: m.group(1) + (m.group(2) + " " if m.group(2) else ""), tex)
    tex, display = _trim(tex), False
    for _ in range(4):
        before = tex
        for opening, closing, shows in _DELIMITERS:
            size = len(opening)
            if tex.startswith(opening) and tex.endswith(closing) and len(tex) > 2 * size:
                if _balanced(tex[size:-size], "$" if opening[0] == "$" else "\\"):
                    tex, display = _trim(tex[size:-size]), display or shows
                break
        if tex.startswith("{") and tex.endswith("}") and _STYLE.match(tex, 1) and _balanced(tex[1:-1], ""):
            tex = _trim(tex[1:-1])
        if style := _STYLE.match(tex):
            tex = _trim(tex[style.end() :])
        if tex == before:
            break
    return tex, display


def _trim(tex: str) -> str:
    r"""White space collapsed and trimmed, but for the space of a `\ ` at the end."""
    tex = " ".join(tex.split())
    return tex + " " if (len(tex) - len(tex.rstrip("\\"))) % 2 else tex


def _balanced(inner: str, delimiter: str) -> bool:
    """Whether no brace closes what was opened outside, no such delimiter stands outside braces and no escape is cut in two."""
    depth, at = 0, 0
    while at < len(inner):
        c = inner[at]
        if c == "\\":
            at += 1
            if at == len(inner) or (delimiter == "\\" and depth == 0 and inner[at] in "()[]"):
                return False
        elif c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if depth < 0:
                return False
        elif c == delimiter and depth == 0:
            return False
        at += 1
    return depth == 0


# --- MathML ---


@dataclass(slots=True)
class _Node:
    name: str
    attributes: dict[str, str]
    parts: list[_Node | str] = field(default_factory=list)

    @property
    def children(self) -> list[_Node]:
        return [part for part in self.parts if isinstance(part, _Node)]

    def child(self, k: int) -> _Node:
        """The k-th child; an empty row where there is none."""
        children = self.children
        return children[k] if k < len(children) else _Node("mrow", {})


@dataclass(frozen=True, slots=True)
class _Piece:
    r"""A piece of a row, in LaTeX.

    kind: what TeX would call its class: decides about spaces, and braces under scripts. tall: whether delimiters around it
    grow. stretch: of a delimiter: 0 it never grows, 1 around what is tall, 2 the page says that it does. table: environment
    and rows of a table, and the arguments of a fraction without a line, which delimiters change.
    """

    tex: str
    kind: int
    tall: bool = False
    stretch: int = 0
    table: tuple[str, str] | None = None


_ORD, _OP, _BIN, _REL, _OPEN, _CLOSE, _BAR, _NO_FENCE, _PUNCT, _SPACE, _SCRIPTED, _APPLY, _PRIME = range(13)
_FENCES = (_OPEN, _CLOSE, _BAR, _NO_FENCE)
_WRITTEN_OUT = _Piece("", _NO_FENCE, stretch=2)


@dataclass(frozen=True, slots=True)
class _Context:
    """What an element takes from those around it: its letters' variant, and whether it is (in) a script."""

    variant: str = ""
    script: bool = False


_PLAIN = _Context()
_VOID = frozenset("br hr img input wbr link meta".split())
_TOKENS = frozenset("mi mn mo mtext mspace ms".split())
_SKIPPED = frozenset("annotation annotation-xml mprescripts none maligngroup malignmark mglyph script style".split())
_CONTROL_WORD = re.compile(r"\\[A-Za-z]+")
_ENDS_IN_WORD = re.compile(r".*\\[A-Za-z]+\Z", re.S)
_SPACES = re.compile(r"[ \t\r\n\f]+")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_UPRIGHT = re.compile(r"\\mathrm\{([^{}]{2,})\}")
_NAMED = re.compile(r"\\(?:operatorname|mathrm)\{([^{}]{2,})\}")


def _local(name: str) -> str:
    return name if name.islower() and ":" not in name else name.rpartition(":")[2].lower()


def _attributes(text: str) -> dict[str, str]:
    return {key.lower(): unescape(value) for key, value in _ATTRIBUTE.findall(text)} if '"' in text else {}


def _parse(element: str) -> _Node:
    """The tree of a serialised element. End tags too many are passed over, missing ones supplied."""
    root = _Node("mrow", {})
    stack = [root]
    for tag in _TAG.finditer(element):
        closing, name, attributes, text = tag.groups()
        if text:
            stack[-1].parts.append(unescape(text) if "&" in text else text)
        elif name and closing:
            name = _local(name)
            for k in range(len(stack) - 1, 0, -1):
                if stack[k].name == name:
                    del stack[k:]
                    break
        elif name:
            node = _Node(_local(name), _attributes(attributes))
            stack[-1].parts.append(node)
            if len(stack) < MAX_NESTING and node.name not in _VOID and tag.group()[-2] != "/":
                stack.append(node)
    return root


def _text(node: _Node) -> str:
    """All text of an element, white space collapsed and trimmed, other kinds of spaces kept."""
    if len(node.parts) == 1 and isinstance(node.parts[0], str):
        return _SPACES.sub(" ", node.parts[0]).strip(" ")
    found: list[str] = []
    todo: list[_Node | str] = [node]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            found.append(part)
        elif part.name not in _SKIPPED:
            todo.extend(reversed(part.parts))
    return _SPACES.sub(" ", "".join(found)).strip(" ")


def _row(node: _Node, context: _Context) -> list[_Piece]:
    """The pieces of an element's children one after another, with what goes over several pieces worked out."""
    if merged := _merged(node, context):
        return merged
    pieces: list[_Piece] = []
    upright = ""
    for part in node.parts:
        letter = _upright(part, context)
        if upright and not letter and not (isinstance(part, str) and part.isspace()):
            pieces.append(_Piece(f"\\mathrm{{{upright}}}", _ORD))
            upright = ""
        if letter:
            upright += letter
        elif isinstance(part, _Node):
            pieces += _pieces(part, context)
        elif text := _SPACES.sub(" ", part).strip(" "):  # text where none belongs
            pieces.append(_Piece(f"\\text{{{_escaped(text)}}}", _ORD))
    if upright:
        pieces.append(_Piece(f"\\mathrm{{{upright}}}", _ORD))
    return _settled(_fenced(pieces))


def _upright(part: _Node | str, context: _Context) -> str:
    """A single upright letter: those in a row are a word."""
    if isinstance(part, str) or part.name != "mi" or part.attributes.get("mathvariant", context.variant) != "normal":
        return ""
    text = _text(part)
    return text if len(text) == 1 and text.isascii() and text.isalpha() else ""


def _pieces(node: _Node, context: _Context) -> list[_Piece]:
    """The pieces of an element. Rows within rows are no groups: in MathML they only structure."""
    if node.name in _TOKENS:
        return _token(node, context)
    if node.name in _SKIPPED:
        return []
    if node.name in _SCHEMATA:
        return _SCHEMATA[node.name](node, context)
    return _row(node, _inside(node, context))


def _inside(node: _Node, context: _Context) -> _Context:
    variant = node.attributes.get("mathvariant")
    return replace(context, variant=variant) if variant else context


def _merged(node: _Node, context: _Context) -> list[_Piece]:
    r"""`\mathbf{AB}` from a row of letters of one variant, which is how TeX's fonts for words come out."""
    if len(node.parts) < 2 or node.name not in ("mrow", "mstyle", "mpadded"):
        return []
    letters, variants = "", set()
    for part in node.parts:
        if isinstance(part, str):
            if part.strip():
                return []
        elif part.name in ("mi", "mn"):
            text = _text(part)
            if (len(text) > 1 and not text.isdigit()) or not (text.isascii() and text.isalnum()):
                return []
            letters += text
            variants.add(part.attributes.get("mathvariant", context.variant))
        else:
            return []
    variant = variants.pop() if len(variants) == 1 else ""
    if len(letters) < 2 or variant not in _VARIANTS:
        return []
    return [_Piece(_in_variant(letters, variant), _ORD)]


def _argument(node: _Node, context: _Context) -> str:
    """An element as what stands in braces after a command."""
    return _join(_pieces(node, context), compact=context.script)


def _script(node: _Node, context: _Context) -> str:
    """An element as a sub- or superscript: braces where it is more than one token."""
    pieces = _pieces(node, replace(context, script=True))
    if pieces and all(piece.kind == _PRIME for piece in pieces):
        return "'" * sum(piece.tex.count("\\") for piece in pieces)
    if len(pieces) == 1 and pieces[0].table and pieces[0].table[0] != "binom" and "&" not in pieces[0].table[1]:
        return f"{{\\substack{{{pieces[0].table[1]}}}}}"
    tex = _join(pieces, compact=True)
    return tex if len(tex) <= 1 or _CONTROL_WORD.fullmatch(tex) else f"{{{tex}}}"


def _attached(tex: str, sub: str, sup: str) -> str:
    """LaTeX with its scripts after it."""
    if sub:
        tex += "_" + ("{" + "\\prime" * len(sub) + "}" if sub[0] == "'" else sub)
    if sup:
        tex += sup if sup[0] == "'" else "^" + sup
    return tex


def _scripts(base: list[_Piece], sub: str, sup: str) -> list[_Piece]:
    """Pieces with scripts after the last, or after braces around them."""
    if not sub and not sup:
        return base
    tex = _join(base)
    one = len(base) == 1 and base[0].kind not in (_SCRIPTED, _PRIME)
    if one and base[0].kind == _OP:
        one = _plain_operator(tex)
    if not one and not (len(base) > 1 and base[0].kind == _OPEN and _wraps(base)):
        tex = f"{{{tex}}}"
    if len(base) == 1 and base[0].kind == _OP:
        return [_Piece(_attached(tex, sub, sup), _OP, base[0].tex in _BIG)]
    return [_Piece(_attached(tex, sub, sup), _SCRIPTED, any(piece.tall for piece in base))]


def _plain_operator(tex: str) -> bool:
    """Whether an operator has no scripts yet."""
    return bool(_CONTROL_WORD.fullmatch(tex) or _NAMED.fullmatch(tex)) or tex.startswith(("\\underbrace", "\\overbrace"))


def _wraps(pieces: list[_Piece]) -> bool:
    """Whether the first delimiter is closed by the last piece."""
    depth = 0
    for k, piece in enumerate(pieces):
        depth += (piece.kind == _OPEN) - (piece.kind == _CLOSE)
        if depth <= 0:
            return k == len(pieces) - 1
    return False


def _sub_sup(node: _Node, context: _Context) -> list[_Piece]:
    base = _pieces(node.child(0), context)
    if node.name == "msup":
        return _scripts(base, "", _script(node.child(1), context))
    sup = _script(node.child(2), context) if node.name == "msubsup" else ""
    return _scripts(base, _script(node.child(1), context), sup)


def _multiscripts(node: _Node, context: _Context) -> list[_Piece]:
    children = node.children
    cut = next((k for k, child in enumerate(children) if child.name == "mprescripts"), len(children))
    base = _pieces(children[0], context) if cut else []

    def pair(found: list[_Node]) -> tuple[str, str]:
        rows = (_Node("mrow", {}, list(found[0::2])), _Node("mrow", {}, list(found[1::2])))
        return _script(rows[0], context), _script(rows[1], context)

    before = pair(children[cut + 1 :])
    pieces = _scripts(base, *pair(children[1:cut]))
    return [*_scripts([_Piece("{}", _ORD)], *before), *pieces] if any(before) else pieces


def _under_over(node: _Node, context: _Context) -> list[_Piece]:
    """Limits of operators, accents, braces with labels, arrows with text, and anything else under or over something."""
    below = None if node.name == "mover" else node.child(1)
    above = None if node.name == "munder" else node.child(1 if node.name == "mover" else 2)
    under = node.child(0)
    base = _pieces(under, context)
    if above is not None and (command := _accent(above, under, _OVER)):
        base, above = [_Piece(f"\\{command}{{{_join(base, context.script)}}}", _ORD, command == "overbrace")], None
    if below is not None and (command := _accent(below, under, _UNDER)):
        base, below = [_Piece(f"\\{command}{{{_join(base, context.script)}}}", _ORD, True)], None
    if below is None and above is None:
        return base
    sub = _script(below, context) if below is not None else ""
    sup = _script(above, context) if above is not None else ""
    tex = base[0].tex if len(base) == 1 else ""
    if tex in _LIMITS or tex.startswith(("\\underbrace{", "\\overbrace{")):
        return [_Piece(_attached(tex, sub, sup), _OP if tex in _LIMITS else _SCRIPTED, True)]
    if tex in _BIG:
        return [_Piece(_attached(tex + "\\limits", sub, sup), _OP, True)]
    if name := _NAMED.fullmatch(tex):
        return [_Piece(_attached(f"\\operatorname*{{{name.group(1)}}}", sub, sup), _OP, True)]
    lower = _argument(below, replace(context, script=True)) if below is not None else ""
    upper = _argument(above, replace(context, script=True)) if above is not None else ""
    if tex in _LONG_ARROWS:
        return [_Piece(f"\\{_LONG_ARROWS[tex]}{f'[{lower}]' if lower else ''}{{{upper}}}", _REL, True)]
    kind = base[0].kind if tex and base[0].kind in (_REL, _BIN, _OP) else _ORD
    tex = _join(base)
    if lower:
        tex = f"\\underset{{{lower}}}{{{tex}}}"
    if upper:
        tex = f"\\overset{{{upper}}}{{{tex}}}"
    return [_Piece(tex, kind, True)] if tex else []


def _accent(node: _Node, base: _Node, accents: dict[str, tuple[str, str]]) -> str:
    """The command for an accent: the wide one where it stretches, or would over more than one letter."""
    while node.name in ("mrow", "mstyle", "mpadded") and len(node.children) == 1:
        node = node.children[0]
    found = accents.get(_text(node)) if node.name in ("mo", "mi", "mtext") else None
    if not found:
        return ""
    stretchy, accent = node.attributes.get("stretchy"), node.attributes.get("accent")
    wide = stretchy == "true" or (stretchy != "false" and (accent == "false" or len(_text(base)) > 1))
    return found[wide]


def _fraction(node: _Node, context: _Context) -> list[_Piece]:
    above, below = _argument(node.child(0), context), _argument(node.child(1), context)
    if re.fullmatch(r"0+(\.0*)?[a-z%]*", node.attributes.get("linethickness", "")):
        both = f"{{{above}}}{{{below}}}"
        return [_Piece(f"\\genfrac{{}}{{}}{{0pt}}{{}}{both}", _ORD, True, table=("binom", both))]
    if node.attributes.get("bevelled") == "true":
        return [_Piece(f"{above} / {below}", _SCRIPTED)]
    return [_Piece(f"\\frac{{{above}}}{{{below}}}", _ORD, not context.script)]


def _root(node: _Node, context: _Context) -> list[_Piece]:
    if node.name == "msqrt":
        return [_Piece(f"\\sqrt{{{_join(_row(node, context), context.script)}}}", _ORD)]
    index = _argument(node.child(1), replace(context, script=True))
    return [_Piece(f"\\sqrt[{index}]{{{_argument(node.child(0), context)}}}", _ORD)]


def _style(node: _Node, context: _Context) -> list[_Piece]:
    r"""`\dfrac` and `\tfrac` are fractions with a style of their own."""
    pieces = _row(node, _inside(node, context))
    shown = node.attributes.get("displaystyle")
    if shown and len(node.children) == len(pieces) == 1 and node.children[0].name == "mfrac" and pieces[0].tex[:5] == "\\frac":
        return [replace(pieces[0], tex=("\\dfrac" if shown == "true" else "\\tfrac") + pieces[0].tex[5:])]
    return pieces


def _phantom(node: _Node, context: _Context) -> list[_Piece]:
    inner = _join(_row(node, context))
    return [_Piece(f"\\phantom{{{inner}}}", _ORD)] if inner else []


def _enclose(node: _Node, context: _Context) -> list[_Piece]:
    pieces = _row(node, context)
    notation = set(node.attributes.get("notation", "longdiv").split())
    for needed, command in _ENCLOSURES:
        if pieces and needed <= notation:
            return [_Piece(f"\\{command}{{{_join(pieces)}}}", _ORD, any(piece.tall for piece in pieces))]
    return pieces


def _parted(node: _Node, context: _Context) -> list[_Piece]:
    """`<mfenced>`: delimiters and separators are attributes."""
    given = node.attributes
    separators = "".join(given.get("separators", ",").split())
    pieces = _operator(given.get("open", "(").strip(), {"form": "prefix"}) or [_WRITTEN_OUT]
    for k, child in enumerate(node.children):
        if k and separators:
            pieces += _operator(separators[min(k, len(separators)) - 1], {})
        pieces += _pieces(child, context)
    return _fenced(pieces + (_operator(given.get("close", ")").strip(), {"form": "postfix"}) or [_WRITTEN_OUT]))


def _first(node: _Node, context: _Context) -> list[_Piece]:
    """What is meant by annotations, or shown before any action."""
    return _pieces(node.child(0), context)


_ROW_TAGS = ("mtr", "mlabeledtr")


def _table(node: _Node, context: _Context) -> list[_Piece]:
    """Matrices, aligned equations and arrays, told apart by the columns' alignment; their delimiters come later."""
    context = replace(context, script=False)
    lines: list[list[str]] = []
    first: list[_Node] = []
    for row in node.children:
        if row.name not in _ROW_TAGS:
            continue
        cells = [cell for cell in row.children if "mtr-glue" not in cell.attributes.get("class", "")]
        label = _text(cells.pop(0)) if row.name == "mlabeledtr" and cells else ""
        first = first or cells
        line = [_join(_row(cell, context)) for cell in cells]
        while line and not line[-1]:
            line.pop()
        if label:
            label = label[1:-1] if label[0] == "(" and label[-1] == ")" else label
            line = [*line[:-1], f"{line[-1] if line else ''} \\tag{{{_escaped(label)}}}".strip(" ")]
        lines.append(line)
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return []
    if len(lines) == len(lines[0]) == 1 and "\\tag{" in lines[0][0]:
        return [_Piece(lines[0][0], _ORD, True)]
    width = max(1, max(map(len, lines)))
    columns = _alignments(node, first, width)
    upright, across = _rules(node, "columnlines", width), _rules(node, "rowlines", len(lines))
    body = " & ".join(lines[0])
    for line, rule in zip(lines[1:], across, strict=True):
        body += (" \\\\ \\hline " if rule else " \\\\ ") + " & ".join(line)
    body = re.sub(" +", " ", body).strip(" ") if "  " in body or body[0] == " " else body
    if any(upright) or any(across) or columns not in ("c" * width, "l" * width, ("rl" * width)[:width]):
        columns = columns[0] + "".join("|" * rule + letter for letter, rule in zip(columns[1:], upright, strict=True))
        kind, begin = "array", f"array}}{{{columns}"
    elif columns[0] == "c":
        kind = begin = "matrix"
    elif columns[0] == "r":
        kind = begin = "aligned"
    else:
        kind, begin = "left", f"array}}{{{columns}"
    end = begin.partition("}")[0]
    return [_Piece(f"\\begin{{{begin}}} {body} \\end{{{end}}}", _ORD, True, table=(kind, body))]


def _alignments(node: _Node, first: list[_Node], width: int) -> str:
    """A letter (l, c, r) for each column: by attribute of the table or the first cells, by their style or class."""
    words = node.attributes.get("columnalign", "").split()
    for cell in first if not words else ():
        style = _ALIGNED.search(f"{cell.attributes.get('style', '')};{cell.attributes.get('class', '')}")
        words.append(cell.attributes.get("columnalign") or (style.group(1) if style else "center"))
    letters = "".join(word[:1] if word[:1] in "lrc" else "c" for word in words[:width])
    return letters + (letters[-1:] or "c") * (width - len(letters))


_ALIGNED = re.compile(r"(?:text-align:\s*|tml-)(left|right|center)")


def _rules(node: _Node, attribute: str, count: int) -> list[bool]:
    """Whether there is a line after each row or column but the last; the last value given stands for all that follow."""
    words = node.attributes.get(attribute, "").split() or ["none"]
    return [words[min(k, len(words) - 1)] != "none" for k in range(count - 1)]


_SCHEMATA = {
    **dict.fromkeys(("msub", "msup", "msubsup"), _sub_sup),
    **dict.fromkeys(("munder", "mover", "munderover"), _under_over),
    **dict.fromkeys(("msqrt", "mroot"), _root),
    **dict.fromkeys(("semantics", "maction"), _first),
    "mmultiscripts": _multiscripts,
    "mfrac": _fraction,
    "mstyle": _style,
    "mphantom": _phantom,
    "menclose": _enclose,
    "mfenced": _parted,
    "mtable": _table,
}


# --- Delimiters ---


def _fenced(pieces: list[_Piece]) -> list[_Piece]:
    """Delimiters matched, the outermost first where they stand at both ends of a row."""
    if not any(piece.kind in _FENCES for piece in pieces):
        return pieces
    if len(pieces) > 1 and _whole(pieces):
        return _delimited(pieces[0], _fenced(pieces[1:-1]), pieces[-1])
    levels: list[list[_Piece]] = [[]]
    opened: list[_Piece] = []
    for piece in pieces:
        if piece.kind == _OPEN:
            opened.append(piece)
            levels.append([])
        elif piece.kind == _CLOSE and opened:
            inner = levels.pop()
            levels[-1] += _delimited(opened.pop(), inner, piece)
        else:
            levels[-1].append(piece)
    while opened:
        inner, first = levels.pop(), opened.pop()
        cases = first.tex == "\\{" and len(inner) == 1 and inner[0].table  # have no other delimiter
        levels[-1] += _delimited(first, inner, _WRITTEN_OUT) if cases else [first, *inner]
    return [piece for piece in levels[0] if piece.kind != _NO_FENCE]


def _whole(pieces: list[_Piece]) -> bool:
    """Whether the ends of a row are delimiters around all of it."""
    first, last = pieces[0], pieces[-1]
    if first.kind not in _FENCES or last.kind not in _FENCES or not first.stretch or not last.stretch:
        return False
    if first.stretch == last.stretch == 2 or _NO_FENCE in (first.kind, last.kind):
        return True
    if first.kind == last.kind == _BAR:
        return all(piece.kind != _BAR for piece in pieces[1:-1])
    return first.kind == _OPEN and last.kind == _CLOSE and _wraps(pieces)


def _delimited(first: _Piece, inner: list[_Piece], last: _Piece) -> list[_Piece]:
    """What stands between two delimiters, with them."""
    if len(inner) == 1 and inner[0].table:
        kind, body = inner[0].table
        if kind == "binom" and (first.tex[-1:], last.tex[-1:]) == ("(", ")"):
            command = "dbinom" if "igg" in first.tex else "binom"
            return [_Piece(f"\\{command}{body}", _ORD, True)]
        name = ""
        if (first.tex, last.tex) == ("\\{", "") and kind in ("left", "matrix"):
            name = "cases"
        elif kind == "matrix":
            name = _MATRICES.get((first.tex, last.tex), "")
        if name:
            return [_Piece(f"\\begin{{{name}}} {body} \\end{{{name}}}", _ORD, True)]
    if inner and inner[0].tex in ("\\mathrm{mod}", "\\bmod") and (first.tex, last.tex) == ("(", ")"):
        rest = [piece for piece in inner[1:] if piece.kind != _SPACE]
        return [_Piece(f"\\pmod{{{_join(rest)}}}", _SPACE)]
    tall = any(piece.tall for piece in inner)
    if first.stretch and last.stretch and (tall or first.stretch == 2 or last.stretch == 2):
        inner = [replace(p, tex=f"\\middle{p.tex}", kind=_REL) if p.kind == _BAR and p.stretch == 2 else p for p in inner]
        opening, closing = _Piece(f"\\left{first.tex or '.'}", _OPEN, True), _Piece(f"\\right{last.tex or '.'}", _CLOSE, True)
        return [opening, *inner, closing]
    return [replace(first, kind=_OPEN, stretch=0), *inner, replace(last, kind=_CLOSE, stretch=0)]


def _settled(pieces: list[_Piece]) -> list[_Piece]:
    r"""What takes in its neighbours: the mark of a function, `\iff` and `\implies` between spaces, the space of `\pmod`."""
    found: list[_Piece] = []
    for piece in pieces:
        if piece.kind == _APPLY:
            if found and (name := _UPRIGHT.match(found[-1].tex)):
                word, rest = name.group(1), found[-1].tex[name.end() :]
                word = f"\\{word}" if word in _FUNCTIONS else f"\\operatorname{{{word}}}"
                found[-1] = replace(found[-1], tex=word + rest, kind=_OP)
        elif found and found[-1].kind == _SPACE and piece.tex.startswith("\\pmod{"):
            found[-1] = piece
        elif len(found) > 1 and piece.tex == "\\;" == found[-2].tex and found[-1].tex in _SPACED_ARROWS:
            found[-2:] = [_Piece(_SPACED_ARROWS[found[-1].tex], _REL)]
        else:
            found.append(piece)
    return found


# --- Tokens ---


def _token(node: _Node, context: _Context) -> list[_Piece]:
    if node.name == "mspace":
        return _space(node)
    text = unicodedata.normalize("NFC", _text(node))
    variant = node.attributes.get("mathvariant", context.variant)
    if node.name == "mo":
        return _operator(text, node.attributes, variant)
    if node.name in ("mtext", "ms"):
        return _words(f'"{text}"' if node.name == "ms" else text, variant)
    if not text:
        return []
    if node.name == "mn":
        number = "".join(_character(c)[0] if c not in "," else "{,}" for c in text)
        return [_Piece(_in_variant(number, variant) if text.isascii() and variant != "normal" else number, _ORD)]
    return _identifier(text, variant, node.attributes.get("data-mjx-texclass") == "OP")


def _identifier(text: str, variant: str, operator: bool) -> list[_Piece]:
    if len(text) == 1:
        tex, kind = _character(text)
        if text in "|∣‖∥":
            return [_Piece(*_DELIMITER[text])]
        return [_Piece(_in_variant(tex, variant), kind if kind in (_OP, _PRIME) else _ORD)]
    plain = unicodedata.normalize("NFKC", text)
    if plain != text and plain.isascii() and plain.isalpha() and len(fonts := {_alphabet(c) for c in text}) == 1:
        return [_Piece(_in_variant(plain, fonts.pop() or "italic"), _ORD)]
    name = text.translate(_TO_SPACES)
    if (function := name.replace(" ", "")) in _FUNCTIONS and (operator or variant != "normal"):
        return [_Piece(f"\\{function}", _OP)]
    if " " in name and _WORD.fullmatch(name.replace(" ", "")):
        return [_Piece(f"\\operatorname{{{name.replace(' ', chr(92) + ',')}}}", _OP)]
    if _WORD.fullmatch(name):
        if operator:
            return [_Piece(f"\\operatorname{{{name}}}", _OP)]
        return [_Piece(_in_variant(name, variant or "normal"), _ORD)]
    if " " in name or any(unicodedata.category(c) == "Lo" for c in text):
        return [_Piece(f"\\text{{{_escaped(name)}}}", _ORD)]
    return [_Piece(tex, kind) for tex, kind in map(_character, text)]


def _operator(text: str, attributes: dict[str, str], variant: str = "") -> list[_Piece]:
    given = attributes.get("stretchy")
    role = attributes.get("data-mjx-texclass")
    marked = given == "true" or attributes.get("fence") == "true" or role in ("OPEN", "CLOSE")
    stretch = 0 if given == "false" else 2 if (marked and "form" not in attributes) or given == "true" else 1
    if not text:
        return [_WRITTEN_OUT] if marked and given != "false" else []
    if text in _DELIMITER:
        tex, kind = _DELIMITER[text]
        if text in "∣∥" and not marked and given != "false" and role != "ORD":
            return [_Piece(*_SYMBOLS[text])]
        if size := re.fullmatch(r"([\d.]+)em", attributes.get("minsize", "")):
            big = float(size.group(1)) if size.group(1).count(".") < 2 and size.group(1) != "." else 0
            name = "big" if big < 1.4 else "Big" if big < 1.95 else "bigg" if big < 2.44 else "Bigg"
            return [_Piece(f"\\{name}{tex}", kind)]
        if kind == _BAR and stretch:
            form = attributes.get("form") or (role or "").lower()
            kind = {"prefix": _OPEN, "open": _OPEN, "postfix": _CLOSE, "close": _CLOSE}.get(form, _BAR)
        return [_Piece(tex, kind, stretch=stretch)]
    if len(text) == 1:
        tex, kind = _AS_OPERATOR.get(text) or _character(text)
        if tex[:1].isalpha():
            return _identifier(text, variant or "normal", False)
        return [_Piece(f"\\boldsymbol{{{tex}}}" if variant == "bold" and tex else tex, kind)] if tex or kind == _APPLY else []
    name = text.translate(_TO_SPACES)
    if name == "mod":
        return [_Piece("\\bmod", _BIN)]
    if _WORD.fullmatch(name.replace(" ", "")):
        return _identifier(text, variant, True)
    if set(text) <= set("′'"):
        return [_Piece("\\prime" * len(text), _PRIME)]
    if text in ("...", ". . ."):
        return [_Piece("\\ldots", _ORD)]
    return [_Piece("".join(_character(c)[0] for c in text if c not in _INVISIBLE), _REL)]


def _words(text: str, variant: str) -> list[_Piece]:
    r"""`<mtext>`: words, or only a space."""
    if not text:
        return []
    if all(c in _WIDTHS for c in text):
        if "\u2063" in text:  # a space and this: how KaTeX writes a negative one
            return [_Piece("\\!", _SPACE)] if len(text) > 1 else []
        return [_Piece(_WIDTHS[c], _SPACE) for c in text if _WIDTHS[c]]
    name = text.translate(_TO_SPACES)
    command = {"bold": "textbf", "italic": "textit", "monospace": "texttt", "sans-serif": "textsf"}.get(variant, "text")
    return [_Piece(f"\\{command}{{{_escaped(name)}}}", _ORD)]


def _space(node: _Node) -> list[_Piece]:
    if node.attributes.get("linebreak") == "newline":
        return [_Piece("\\\\", _SPACE)]
    width = node.attributes.get("width", "").strip().lower()
    if width in _NAMED_SPACES:
        return [_Piece(tex, _SPACE)] if (tex := _NAMED_SPACES[width]) else []
    found = re.fullmatch(r"([+-]?\d*\.?\d+)([a-z]+)", width)
    if not found:
        return []
    em = float(found.group(1)) * _UNITS.get(found.group(2), 0)
    if em < -0.1:
        return [_Piece("\\!", _SPACE)]
    tex = next((tex for limit, tex in _STEPS if em < limit), "\\qquad")
    return [_Piece(tex, _SPACE)] if tex else []


def _character(c: str) -> tuple[str, int]:
    """One character in LaTeX, and its class; what has no command stays."""
    if c in _SYMBOLS:
        return _SYMBOLS[c]
    if c.isascii():
        return c, _ORD
    if c in _DELIMITER:
        return _DELIMITER[c]
    if (plain := unicodedata.normalize("NFKC", c)) != c and len(plain) == 1:
        return _in_variant(_character(plain)[0], _alphabet(c)), _ORD
    return c, _REL if unicodedata.category(c) == "Sm" else _ORD


def _alphabet(c: str) -> str:
    """The variant of a letter that has a code of its own: ℝ, 𝐱."""
    name = unicodedata.name(c, "")
    return next((variant for words, variant in _ALPHABETS if name.startswith(words)), "")


def _in_variant(tex: str, variant: str) -> str:
    r"""Letters in a font: `\mathbf{x}`. Symbols only know bold; a single letter is italic anyway."""
    if not variant or variant not in _VARIANTS or (variant == "italic" and len(tex) == 1):
        return tex
    if tex.isascii() and tex.replace("-", "").replace(".", "").isalnum():
        return f"\\{_VARIANTS[variant]}{{{tex}}}" + "}" * _VARIANTS[variant].count("{")
    return f"\\boldsymbol{{{tex}}}" if variant in ("bold", "bold-italic", "-tex-bold-italic") and tex else tex


def _escaped(text: str) -> str:
    return "".join(_IN_TEXT.get(c, c) for c in text)


def _join(pieces: list[_Piece], compact: bool = False) -> str:
    """A row in one string: spaces where the eye wants them (none in scripts) and where TeX needs them."""
    found: list[str] = []
    before, last = _OPEN, ""
    wide = False  # whether the piece before is a \left or the like
    for k, piece in enumerate(pieces):
        tex, kind = piece.tex, piece.kind
        if not tex:
            continue
        if kind == _PRIME and before in (_ORD, _SCRIPTED, _CLOSE) and found:
            tex = "'" * tex.count("\\")
        if kind == _BIN and (before in (_BIN, _REL, _OPEN, _PUNCT, _OP) or k == len(pieces) - 1):
            kind = _ORD
        if not found:
            gap = False
        elif compact:
            gap = (kind == _REL and tex[-1:].isalpha()) or (before == _REL and last[-1:].isalpha() and last[0] == "\\")
        elif kind in (_REL, _BIN, _SPACE) or before in (_REL, _BIN, _SPACE, _PUNCT):
            gap = kind != _PUNCT and before != _OPEN and (kind != _CLOSE or piece.tall)
        elif before == _OP:
            gap = kind not in (_OPEN, _CLOSE, _PUNCT, _BAR)
        elif kind == _OP:
            gap = before in (_ORD, _SCRIPTED, _CLOSE)
        else:
            gap = wide or (kind == _CLOSE and piece.tall)
        if gap or (tex[0].isalpha() and _ENDS_IN_WORD.match(last)):
            found.append(" ")
        found.append(tex)
        before, last, wide = kind, tex, kind == _OPEN and piece.tall
    return "".join(found).strip(" ") if not found or found[-1] != "\\ " else "".join(found)


# --- Tables ---

_VARIANTS = {
    "normal": "mathrm", "bold": "mathbf", "italic": "mathit", "bold-italic": "boldsymbol", "double-struck": "mathbb",
    "script": "mathcal", "bold-script": "boldsymbol{\\mathcal", "fraktur": "mathfrak", "bold-fraktur": "boldsymbol{\\mathfrak",
    "sans-serif": "mathsf", "bold-sans-serif": "boldsymbol{\\mathsf", "monospace": "mathtt", "-tex-calligraphic": "mathcal",
    "-tex-bold-calligraphic": "boldsymbol{\\mathcal", "-tex-mathit": "mathit", "-tex-bold-italic": "boldsymbol",
}  # fmt: skip
# What Unicode calls the letters that come in a font of their own.
_ALPHABETS = (
    ("MATHEMATICAL BOLD ITALIC", "bold-italic"), ("MATHEMATICAL BOLD SCRIPT", "bold-script"),
    ("MATHEMATICAL BOLD FRAKTUR", "bold-fraktur"), ("MATHEMATICAL BOLD", "bold"), ("MATHEMATICAL ITALIC", ""),
    ("MATHEMATICAL SCRIPT", "script"), ("MATHEMATICAL FRAKTUR", "fraktur"), ("MATHEMATICAL DOUBLE-STRUCK", "double-struck"),
    ("MATHEMATICAL SANS-SERIF BOLD", "bold-sans-serif"), ("MATHEMATICAL SANS-SERIF", "sans-serif"),
    ("MATHEMATICAL MONOSPACE", "monospace"), ("DOUBLE-STRUCK ITALIC", ""), ("DOUBLE-STRUCK", "double-struck"),
    ("SCRIPT", "script"), ("BLACK-LETTER", "fraktur"),
)  # fmt: skip

_FUNCTIONS = frozenset(
    "arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf ker lg lim liminf limsup ln log max min Pr sec"
    " sin sinh sup tan tanh".split()
)

_SYMBOLS: dict[str, tuple[str, int]] = {}


def _define(kind: int, pairs: str) -> None:
    words = pairs.split()
    for c, tex in zip(words[0::2], words[1::2], strict=True):
        _SYMBOLS[c] = ("\\" + tex, kind)


_define(
    _ORD,
    "α alpha β beta γ gamma δ delta ϵ epsilon ε varepsilon ζ zeta η eta θ theta ϑ vartheta ι iota κ kappa ϰ varkappa λ lambda"
    " μ mu µ mu ν nu ξ xi π pi ϖ varpi ρ rho ϱ varrho σ sigma ς varsigma τ tau υ upsilon φ varphi ϕ phi χ chi ψ psi ω omega"
    " Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega Ω Omega ϒ Upsilon ϝ digamma"
    " ∞ infty ∂ partial ∇ nabla ∆ Delta ℓ ell ℏ hbar ħ hbar ℑ Im ℜ Re ℘ wp ℵ aleph ℶ beth ı imath ȷ jmath ∅ emptyset ⌀ emptyset"
    " ∀ forall ∃ exists ∄ nexists ¬ neg ⊤ top ⊥ bot ∠ angle ∡ measuredangle △ triangle ▽ triangledown □ square ■ blacksquare"
    " ◻ square ◼ blacksquare ◊ lozenge ♭ flat ♮ natural ♯ sharp ♠ spadesuit ♡ heartsuit ♢ diamondsuit ♣ clubsuit ★ bigstar"
    " … ldots ⋯ cdots ⋮ vdots ⋱ ddots √ surd ✓ checkmark † dagger ‡ ddagger § S ¶ P £ pounds © copyright ð eth ℧ mho"
    " ∁ complement ∖ backslash",
)
_define(
    _BIN,
    "± pm ∓ mp × times ÷ div ⋅ cdot · cdot ∘ circ ∙ bullet • bullet ⊕ oplus ⊖ ominus ⊗ otimes ⊘ oslash ⊙ odot ∧ wedge ∨ vee"
    " ∩ cap ∪ cup ⊎ uplus ⊓ sqcap ⊔ sqcup ⋆ star ⋄ diamond ⧵ setminus ≀ wr ⨿ amalg ⊲ triangleleft ⊳ triangleright"
    " ⊼ barwedge ⊻ veebar ⋉ ltimes ⋊ rtimes ⊞ boxplus ⊟ boxminus ⊠ boxtimes ⊡ boxdot ◯ bigcirc ∔ dotplus ⋓ Cup ⋒ Cap",
)
_define(
    _REL,
    "≤ leq ≥ geq ≠ neq ≈ approx ≡ equiv ∼ sim ≃ simeq ≅ cong ∝ propto ≪ ll ≫ gg ≺ prec ≻ succ ⪯ preceq ⪰ succeq ≼ preccurlyeq"
    " ≽ succcurlyeq ⩽ leqslant ⩾ geqslant ≦ leqq ≧ geqq ⊂ subset ⊃ supset ⊆ subseteq ⊇ supseteq ⊊ subsetneq ⊋ supsetneq"
    " ⊏ sqsubset ⊐ sqsupset ⊑ sqsubseteq ⊒ sqsupseteq ∈ in ∋ ni ∉ notin ⊢ vdash ⊣ dashv ⊨ models ⊩ Vdash ∣ mid ∤ nmid"
    " ∥ parallel ∦ nparallel ≍ asymp ≐ doteq ≜ triangleq ≔ coloneqq ⋈ bowtie ⌣ smile ⌢ frown ∴ therefore ∵ because ≲ lesssim"
    " ≳ gtrsim ≶ lessgtr ≁ nsim ≇ ncong ≮ nless ≯ ngtr ≰ nleq ≱ ngeq ⊄ nsubset ⊈ nsubseteq ⊴ trianglelefteq ⊵ trianglerighteq"
    " ⊬ nvdash ⊭ nvDash ≗ circeq ≏ bumpeq ⋘ lll ⋙ ggg ≾ precsim ≿ succsim ≊ approxeq ∽ backsim ⋔ pitchfork"
    " → to ← leftarrow ↔ leftrightarrow ⇒ Rightarrow ⇐ Leftarrow ⇔ Leftrightarrow ⟶ longrightarrow ⟵ longleftarrow"
    " ⟷ longleftrightarrow ⟹ Longrightarrow ⟸ Longleftarrow ⟺ Longleftrightarrow ↦ mapsto ⟼ longmapsto ↑ uparrow ↓ downarrow"
    " ↕ updownarrow ⇑ Uparrow ⇓ Downarrow ⇕ Updownarrow ↗ nearrow ↘ searrow ↙ swarrow ↖ nwarrow ↪ hookrightarrow"
    " ↩ hookleftarrow ⇀ rightharpoonup ⇁ rightharpoondown ↼ leftharpoonup ↽ leftharpoondown ⇌ rightleftharpoons"
    " ⇋ leftrightharpoons ↠ twoheadrightarrow ↞ twoheadleftarrow ↣ rightarrowtail ⇝ rightsquigarrow ↝ rightsquigarrow"
    " ⇄ rightleftarrows ⇆ leftrightarrows ⇉ rightrightarrows ↛ nrightarrow ↚ nleftarrow ⇏ nRightarrow ⇎ nLeftrightarrow"
    " ↺ circlearrowleft ↻ circlearrowright ⊸ multimap ↾ upharpoonright",
)
_define(
    _OP,
    "∑ sum ∏ prod ∐ coprod ∫ int ∬ iint ∭ iiint ∮ oint ∯ oiint ⋃ bigcup ⋂ bigcap ⨆ bigsqcup ⋁ bigvee ⋀ bigwedge ⨁ bigoplus"
    " ⨂ bigotimes ⨀ bigodot ⨄ biguplus",
)
_AS_OPERATOR = {"⊥": ("\\perp", _REL), "∖": ("\\setminus", _BIN)}
_INVISIBLE = "\u2061\u2062\u2063\u2064\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0e\ufe0f"
_SYMBOLS.update(dict.fromkeys(_INVISIBLE, ("", _ORD)) | {"\u2061": ("", _APPLY)})
_SYMBOLS.update({c: (c, _REL) for c in "=<>:"} | {c: (c, _PUNCT) for c in ",;"} | {c: (c, _BIN) for c in "+-*"})
_SYMBOLS.update({"−": ("-", _BIN), "∗": ("*", _BIN), "‐": ("-", _BIN), "–": ("-", _BIN), "∕": ("/", _ORD), "∶": (":", _REL)})
_SYMBOLS.update(
    {c: ("\\" + c, _ORD) for c in "#$%&_"} | {"\\": ("\\backslash", _ORD), "~": ("\\sim", _REL), "^": ("\\hat{}", _ORD)}
)
_SYMBOLS.update({"′": ("\\prime", _PRIME), "'": ("\\prime", _PRIME), "’": ("\\prime", _PRIME), "″": ("\\prime\\prime", _PRIME)})
_SYMBOLS.update({"‴": ("\\prime\\prime\\prime", _PRIME), "°": ("^\\circ", _ORD), "º": ("^\\circ", _ORD), "!": ("!", _CLOSE)})

_BIG = frozenset(tex for tex, kind in _SYMBOLS.values() if kind == _OP)
_LIMITS = (_BIG - {"\\int", "\\iint", "\\iiint", "\\oint", "\\oiint"}) | {
    "\\" + name for name in "det gcd inf lim liminf limsup max min Pr sup".split()
}
_DELIMITER: dict[str, tuple[str, int]] = {
    "(": ("(", _OPEN), ")": (")", _CLOSE), "[": ("[", _OPEN), "]": ("]", _CLOSE), "{": ("\\{", _OPEN), "}": ("\\}", _CLOSE),
    "⟨": ("\\langle", _OPEN), "⟩": ("\\rangle", _CLOSE), "〈": ("\\langle", _OPEN), "〉": ("\\rangle", _CLOSE),
    "⌊": ("\\lfloor", _OPEN), "⌋": ("\\rfloor", _CLOSE), "⌈": ("\\lceil", _OPEN), "⌉": ("\\rceil", _CLOSE),
    "⟦": ("\\llbracket", _OPEN), "⟧": ("\\rrbracket", _CLOSE), "⌜": ("\\ulcorner", _OPEN), "⌝": ("\\urcorner", _CLOSE),
    "|": ("|", _BAR), "∣": ("|", _BAR), "‖": ("\\|", _BAR), "∥": ("\\|", _BAR), "||": ("\\|", _BAR),
}  # fmt: skip
_MATRICES = {
    ("(", ")"): "pmatrix", ("[", "]"): "bmatrix", ("\\{", "\\}"): "Bmatrix", ("|", "|"): "vmatrix", ("\\|", "\\|"): "Vmatrix",
}  # fmt: skip

# accent -> its command over one letter, and where it stretches
_OVER: dict[str, tuple[str, str]] = {}
for _accents, _narrow, _wide in (
    ("^ˆ\u0302", "hat", "widehat"), ("~˜\u0303∼", "tilde", "widetilde"), ("¯", "bar", "overline"), ("ˉ\u0304", "bar", "bar"),
    ("‾", "bar", "overline"), ("―_\u0305", "overline", "overline"), ("→", "vec", "overrightarrow"), ("\u20d7", "vec", "vec"),
    ("←\u20d6", "overleftarrow", "overleftarrow"), ("↔\u20e1", "overleftrightarrow", "overleftrightarrow"),
    (".˙\u0307", "dot", "dot"), ("¨\u0308", "ddot", "ddot"), ("\u20db", "dddot", "dddot"), ("ˇ\u030c", "check", "check"),
    ("˘\u0306", "breve", "breve"), ("´ˊ\u0301", "acute", "acute"), ("`ˋ\u0300", "grave", "grave"),
    ("˚\u030a", "mathring", "mathring"), ("⏞︷", "overbrace", "overbrace"),
):  # fmt: skip
    _OVER.update({accent: (_narrow, _wide) for accent in _accents if accent not in _OVER})
_UNDER = dict.fromkeys("_‾―¯̲̱", ("underline", "underline")) | dict.fromkeys("⏟︸", ("underbrace", "underbrace"))
_UNDER |= {"→": ("underrightarrow", "underrightarrow"), "←": ("underleftarrow", "underleftarrow")}
_LONG_ARROWS = {
    "\\to": "xrightarrow", "\\leftarrow": "xleftarrow", "\\longrightarrow": "xrightarrow", "\\longleftarrow": "xleftarrow",
    "\\leftrightarrow": "xleftrightarrow", "\\Rightarrow": "xRightarrow", "\\Leftarrow": "xLeftarrow", "\\mapsto": "xmapsto",
    "\\hookrightarrow": "xhookrightarrow", "\\rightleftharpoons": "xrightleftharpoons",
}  # fmt: skip
_SPACED_ARROWS = {"\\Longleftrightarrow": "\\iff", "\\Longrightarrow": "\\implies", "\\Longleftarrow": "\\impliedby"}
_ENCLOSURES = (
    ({"updiagonalstrike", "downdiagonalstrike"}, "xcancel"), ({"updiagonalstrike"}, "cancel"),
    ({"downdiagonalstrike"}, "bcancel"), ({"box"}, "boxed"), ({"radical"}, "sqrt"), ({"top"}, "overline"),
    ({"bottom"}, "underline"),
)  # fmt: skip

_WIDTHS = {" ": "\\ ", "\xa0": "\\ ", "\u2003": "\\quad", "\u2001": "\\quad", "\u2002": "\\enspace", "\u2000": "\\enspace"}
_WIDTHS |= {"\u2004": "\\;", "\u2005": "\\:", "\u2006": "\\,", "\u2009": "\\,", "\u202f": "\\,", "\u205f": "\\:"}
_WIDTHS |= {"\u200a": "", "\u200b": "", "\u2061": "", "\u2062": "", "\u2063": "", "\ufeff": ""}
_TO_SPACES = {ord(c): " " for c in _WIDTHS if c != " " and _WIDTHS[c]} | {ord(c): None for c in _WIDTHS if not _WIDTHS[c]}
_NAMED_SPACES = {
    "veryverythinmathspace": "", "verythinmathspace": "", "thinmathspace": "\\,", "mediummathspace": "\\:",
    "thickmathspace": "\\;", "verythickmathspace": "\\;", "veryverythickmathspace": "\\;", "negativethinmathspace": "\\!",
}  # fmt: skip
_STEPS = ((0.1, ""), (0.2, "\\,"), (0.25, "\\:"), (0.42, "\\;"), (0.75, "\\enspace"), (1.6, "\\quad"))
_UNITS = {"em": 1.0, "ex": 0.43, "mu": 1 / 18, "px": 1 / 16, "pt": 1 / 12, "rem": 1.0, "cm": 2.4, "mm": 0.24}  # in em
_IN_TEXT = {c: "\\" + c for c in "#$%&_{}"} | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
