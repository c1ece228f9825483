"""Pages whose formulas and code are known, in the markup of the web, and how many of them an extractor gives back exactly.

An article has paragraphs between a menu, a side column and a footer. Formulas stand in its sentences or as displays, listings
between its paragraphs. Each has a number, and the words around it with that number tell where it should stand in the text.

Formulas are equal up to white space that means nothing in LaTeX (`formulas.squeeze`); code must be equal to the character,
but for empty lines before and after it and white space at the ends of lines.
"""

from __future__ import annotations

import inspect
import pydoc
import random
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

import formulas as maths
from formulas import BY_HAND, KATEX, MATHJAX2, MATHJAX3, Formula, squeeze

Extract = Callable[[str], str]


# --- Prose ---

_SENTENCES = """
Every estimate in this section rests on the assumption that the samples are independent of each other.
The proof follows the same path as before, except that the constant has to be chosen with a little more care.
Readers who know the classical argument can skip ahead without losing the thread of the discussion.
It took several decades until somebody noticed that both conditions describe the same set of points.
In practice the difference is small, but it explains why the measured values never quite agree with the prediction.
We come back to this point at the end, once the necessary vocabulary is in place.
A short experiment on a laptop is enough to convince oneself that the bound cannot be improved much.
The older literature uses a different notation, which is why comparisons between papers are tedious.
Nothing in the argument depends on the dimension, so we keep it fixed for the rest of the chapter.
Engineers usually take the approximation for granted, and for most purposes they are right to do so.
Two of the three cases are routine, and the third one is where all the work has to be done.
What makes the method attractive is that it needs neither derivatives nor a good starting point.
If the data are noisy, a larger window helps, at the price of a slower response to sudden changes.
The function reads its input once from left to right and keeps only a small amount of state.
Errors of this kind are easy to make and surprisingly hard to find, because the program still runs.
A careful reader will have noticed that the last step is not reversible in general.
The table in the appendix lists the values that we found, together with the time that each run took.
This is the version that we recommend today, although the earlier one still works in most places.
""".strip().split("\n")


class Prose:
    """Paragraphs of sentences in random order."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def sentences(self, count: int) -> str:
        return " ".join(self.rng.sample(_SENTENCES, count))

    def paragraph(self) -> str:
        return f"<p>{self.sentences(self.rng.choice([3, 4, 5]))}</p>"


def article(title: str, parts: list[str], rng: random.Random) -> str:
    """A page around the parts of an article."""
    topics = ["Analysis", "Algebra", "Geometry", "Probability", "Numerics", "Compilers", "Databases", "Networks"]
    menu = "".join(f'<li><a href="/{topic.lower()}">{topic}</a></li>' for topic in topics)
    recent = "".join(f'<li><a href="/post/{n}">Notes on {rng.choice(topics).lower()}, part {n}</a></li>' for n in range(6))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body class="single-post"><header class="site-header"><a href="/">Notebook</a><nav class="main-nav"><ul>{menu}</ul></nav>
</header>
<div class="layout"><main><article class="post"><h1>{title}</h1>
{"".join(parts)}
</article></main><aside class="sidebar"><h3>Recent posts</h3><ul>{recent}</ul></aside></div>
<footer class="site-footer"><p>Copyright 2024 Notebook. All rights reserved.</p><a href="/privacy">Privacy</a></footer>
</body></html>"""


# --- Formulas in markup: tex or tree to HTML ---


def _glyphs(formula: Formula, tag: str) -> str:
    """What a renderer puts there for the eye: the letters again, each in elements of its own."""
    text = re.sub(r"<[^>]*>", "", formula.mathml(BY_HAND))
    return "".join(
        f'<{tag} class="mord"><{tag} class="mathnormal">{escape(c)}</{tag}></{tag}>' for c in text if not c.isspace()
    )


def _mathml(formula: Formula) -> str:
    return formula.mathml(BY_HAND)


def _annotated(formula: Formula) -> str:
    return formula.mathml(MATHJAX2, annotation=formula.tex)


def _latexml(formula: Formula) -> str:
    alt = escape(formula.tex.replace(" = ", " =%\n"))
    return formula.mathml(BY_HAND, attributes=f' class="ltx_Math" alttext="{alt}"')


def _katex(formula: Formula) -> str:
    mathml = formula.mathml(KATEX, annotation=formula.tex)
    inner = (
        f'<span class="katex"><span class="katex-mathml">{mathml}</span><span class="katex-html" aria-hidden="true">'
        f'<span class="base"><span class="strut" style="height:1em;"></span>{_glyphs(formula, "span")}</span></span></span>'
    )
    return f'<span class="katex-display">{inner}</span>' if formula.display else inner


def _mathjax2(formula: Formula) -> str:
    mode = "; mode=display" if formula.display else ""
    assistive = formula.mathml(MATHJAX2)
    shown = (
        f'<span class="MathJax" id="MathJax-Element-1-Frame" tabindex="0" data-mathml="{escape(assistive)}" role="presentation"'
        f' style="position: relative;"><nobr aria-hidden="true"><span class="math" id="MathJax-Span-1">'
        f"{_glyphs(formula, 'span')}</span></nobr>"
        f'<span class="MJX_Assistive_MathML" role="presentation">{assistive}</span></span>'
    )
    if formula.display:
        shown = f'<div class="MathJax_Display" style="text-align: center;">{shown}</div>'
    preview = '<span class="MathJax_Preview" style="color: inherit;"></span>'
    return f'{preview}{shown}<script type="math/tex{mode}" id="MathJax-Element-1">{formula.tex}</script>'


def _mathjax2_unrendered(formula: Formula) -> str:
    mode = "; mode=display" if formula.display else ""
    tex = f"% <![CDATA[\n{formula.tex} %]]>" if "&" in formula.tex or "<" in formula.tex else formula.tex
    return f'<span class="MathJax_Preview">{escape(formula.tex)}</span><script type="math/tex{mode}">{tex}</script>'


def _mathjax3(formula: Formula) -> str:
    display = ' display="true"' if formula.display else ""
    return (
        f'<mjx-container class="MathJax" jax="CHTML" tabindex="0"{display} style="font-size: 119%; position: relative;">'
        f'<mjx-math class="MJX-TEX" aria-hidden="true">{_glyphs(formula, "mjx-mi")}</mjx-math>'
        f'<mjx-assistive-mml unselectable="on" display="{"block" if formula.display else "inline"}">{formula.mathml(MATHJAX3)}'
        "</mjx-assistive-mml></mjx-container>"
    )


def _wikipedia(formula: Formula) -> str:
    tex = f"{{\\displaystyle {formula.tex}}}"
    kind = "display" if formula.display else "inline"
    mathml = formula.mathml(MATHJAX2, annotation=tex, attributes=f' alttext="{escape(tex)}"')
    return (
        f'<span class="mwe-math-element"><span class="mwe-math-mathml-{kind} mwe-math-mathml-a11y" style="display: none;">'
        f'{mathml}</span><img src="https://wikimedia.example/api/rest_v1/media/math/render/svg/0c1d" aria-hidden="true"'
        f' class="mwe-math-fallback-image-{kind}" style="width:10ex; height:2.6ex;" alt="{escape(tex)}"></span>'
    )


def _wordpress(formula: Formula) -> str:
    source = f"https://s0.wordpress.example/latex.php?latex={quote(formula.tex)}&bg=ffffff&fg=000000&s=0"
    return f'<img src="{escape(source)}" alt="{escape(formula.tex)}" title="{escape(formula.tex)}" class="latex" />'


def _delimited(formula: Formula) -> str:
    opening, closing = ("\\[", "\\]") if formula.display else ("\\(", "\\)")
    return f"{opening}{escape(formula.tex)}{closing}"


MATHS: dict[str, Callable[[Formula], str]] = {
    "MathML": _mathml,
    "MathML, annotated": _annotated,
    "LaTeXML, alttext": _latexml,
    "KaTeX": _katex,
    "MathJax 2": _mathjax2,
    "MathJax 2, not rendered": _mathjax2_unrendered,
    "MathJax 3": _mathjax3,
    "Wikipedia": _wikipedia,
    "WordPress images": _wordpress,
    "TeX in the text": _delimited,
}


@dataclass(frozen=True)
class Item:
    """A formula or a listing, how it should stand in the text, and the words before and after it."""

    expected: str
    before: str
    after: str


def maths_pages(kind: str, seed: int, pages: int, each: int = 8) -> Iterator[tuple[str, list[Item]]]:
    """Articles with so many formulas each, in one kind of markup."""
    write, rng = MATHS[kind], random.Random(seed)
    drawn = iter(maths.formulas(seed, pages * each))
    for _ in range(pages):
        prose, parts, items = Prose(rng), [], []
        for number in range(each):
            formula = next(drawn)
            markup = write(formula)
            before, after = f"In relation {number},", f"which is relation {number}."
            if formula.display and kind != "WordPress images":
                parts.append(f"<p>{prose.sentences(2)} {before}</p><p>{markup}</p><p>{after} {prose.sentences(2)}</p>")
            else:
                parts.append(f"<p>{prose.sentences(1)} {before} {markup} {after} {prose.sentences(2)}</p>")
            display = formula.display and kind != "WordPress images"
            if kind == "TeX in the text":
                expected = f"\\[{formula.tex}\\]" if display else f"\\({formula.tex}\\)"
            else:
                expected = f"$${formula.tex}$$" if display else f"${formula.tex}$"
            items.append(Item(expected, before, after))
        yield article("How the relations fit together", parts, rng), items


def exact_maths(text: str, items: list[Item]) -> list[bool]:
    """Whether each formula stands in the text exactly, but for white space."""
    return [squeeze(between(text, item) or "") == squeeze(item.expected) for item in items]


def between(text: str, item: Item) -> str | None:
    start = text.find(item.before)
    stop = text.find(item.after, start + 1)
    return text[start + len(item.before) : stop] if 0 <= start < stop else None


# --- Code in markup ---

_OTHERS = [
    """#include <stdio.h>

int main(int argc, char **argv)
{
\tint n = argc > 1 && argv[1][0] != '-';

\tif (n)
\t\tprintf("%d < %d\\n", n, argc);
\treturn 0;
}""",
    """all: build test

build:
\tcc -O2 -o main main.c
\t@echo done && ls -l

test: build
\t./main < input.txt > output.txt""",
    """<ul class="menu">
  <li><a href="/?a=1&amp;b=2">One</a></li>

  <li>&nbsp;</li>
</ul>""",
    """services:
  web:
    image: nginx
    ports:
      - "80:80"

  db:
    image: postgres  # comment""",
    """SELECT name, count(*) AS n
  FROM visits
 WHERE day >= '2024-01-01'
   AND n <> 0
 GROUP BY name;""",
    """--- a/one.txt
+++ b/one.txt
@@ -1,3 +1,3 @@
 context
-old line
+new line
 context""",
    """$ for f in *.txt; do
>   wc -l "$f" | sort -n
> done
  12 a.txt
 340 b.txt""",
    """    return x if x < y else y


  # less indented
final = [
        1,
    2]""",
    """fn main() {
    let v: Vec<u32> = (0..10).collect();
    let s = v.iter().map(|x| x * 2).sum::<u32>();
    println!("{s:>5}");\x20\x20
}""",
    """x  =  1



y  =  `2`  # three   spaces""",
]
_MODULES = ("textwrap bisect heapq fnmatch colorsys statistics difflib shlex calendar fractions string csv random configparser"
            " copy glob graphlib html.parser json.decoder pprint queue sched tokenize").split()  # fmt: skip


def listings(seed: int, count: int) -> list[str]:
    """Pieces of code: functions of the standard library, and other languages; some indented by tabs."""
    rng, found = random.Random(seed), []
    for name in _MODULES:
        module = __import__(name, fromlist=["_"])
        for _, thing in sorted(vars(module).items()):
            if isinstance(thing, types.FunctionType) and thing.__module__ == module.__name__:
                source = textwrap.dedent(inspect.getsource(thing)).strip("\n").rstrip()
                if 3 <= source.count("\n") <= 40:
                    found.append(source)
    rng.shuffle(found)
    chosen = [rng.choice(_OTHERS) if k % 3 == 0 else found[k % len(found)] for k in range(count)]
    return [re.sub(r"(?m)^( {4})+", lambda m: "\t" * (len(m[0]) // 4), s) if k % 5 == 1 else s for k, s in enumerate(chosen)]


def _tokens(code: str) -> list[list[tuple[str, str]]]:
    """Lines of (class, text), as a highlighter cuts them."""
    word = re.compile(
        r"(?P<str>\"[^\"\n]*\"|'[^'\n]*')|(?P<com>#[^\n]*)|(?P<num>\b\d+\b)"
        r"|(?P<kw>\b(?:def|return|if|else|for|in|int|import|class|not|and|SELECT|FROM)\b)|\n"
    )
    lines: list[list[tuple[str, str]]] = [[]]
    at = 0
    for m in word.finditer(code):
        if m.start() > at:
            lines[-1].append(("", code[at : m.start()]))
        if m.group() == "\n":
            lines.append([])
        else:
            lines[-1].append((m.lastgroup or "", m.group()))
        at = m.end()
    if at < len(code):
        lines[-1].append(("", code[at:]))
    return lines


def _spans(line: list[tuple[str, str]], names: dict[str, str], plain: str = "") -> str:
    """A line as spans."""
    found = ""
    for kind, text in line:
        name = names.get(kind, plain) if kind else plain
        found += f'<span class="{name}">{escape(text, quote=False)}</span>' if name else escape(text, quote=False)
    return found


_HLJS = {"str": "hljs-string", "com": "hljs-comment", "num": "hljs-number", "kw": "hljs-keyword"}
_PRISM = {"str": "token string", "com": "token comment", "num": "token number", "kw": "token keyword"}
_PL = {"str": "pl-s", "com": "pl-c", "num": "pl-c1", "kw": "pl-k"}


def _pygments(**options: object) -> Callable[[str], str]:
    def write(code: str) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        lexer = PythonLexer(stripnl=False, ensurenl=True)
        return highlight(code, lexer, HtmlFormatter(**options))

    return write


def _hljs(code: str) -> str:
    lines = "\n".join(_spans(line, _HLJS) for line in _tokens(code))
    return f'<pre><code class="hljs language-python" data-highlighted="yes">{lines}\n</code></pre>'


def _hljs_numbers(code: str) -> str:
    rows = "".join(
        f'<tr><td class="hljs-ln-line hljs-ln-numbers" data-line-number="{n}"><div class="hljs-ln-n" data-line-number="{n}">'
        f'</div></td><td class="hljs-ln-line hljs-ln-code" data-line-number="{n}">{_spans(line, _HLJS) or " "}</td></tr>'
        for n, line in enumerate(_tokens(code), 1)
    )
    return f'<pre><code class="hljs python"><table class="hljs-ln"><tbody>{rows}</tbody></table></code></pre>'


def _prism_numbers(code: str) -> str:
    lines = "\n".join(_spans(line, _PRISM) for line in _tokens(code))
    rows = "<span></span>" * (code.count("\n") + 1)
    return (
        f'<div class="code-toolbar"><pre class="line-numbers language-python"><code class="language-python">{lines}'
        f'<span aria-hidden="true" class="line-numbers-rows">{rows}</span></code></pre>'
        '<div class="toolbar"><div class="toolbar-item"><button type="button">Copy</button></div></div></div>'
    )


def _github(code: str) -> str:
    rows = "".join(
        f'<tr><td id="L{n}" class="blob-num js-line-number js-code-nav-line-number" data-line-number="{n}"></td>\n'
        f'<td id="LC{n}" class="blob-code blob-code-inner js-file-line">{_spans(line, _PL)}</td></tr>\n'
        for n, line in enumerate(_tokens(code), 1)
    )
    table = f'<table class="highlight tab-size js-file-line-container" data-tab-size="8"><tbody>{rows}</tbody></table>'
    return f'<div itemprop="text" class="Box-body p-0 blob-wrapper data type-python">{table}</div>'


def _rouge(code: str) -> str:
    numbers = "".join(f"{n}\n" for n in range(1, code.count("\n") + 2))
    lines = "\n".join(_spans(line, {"str": "s2", "com": "c1", "num": "mi", "kw": "k"}) for line in _tokens(code))
    return (
        '<div class="language-python highlighter-rouge"><div class="highlight"><pre class="highlight"><code>'
        '<table class="rouge-table"><tbody><tr><td class="rouge-gutter gl"><pre class="lineno">'
        f'{numbers}</pre></td><td class="rouge-code"><pre>{lines}\n</pre></td></tr></tbody></table></code></pre></div></div>'
    )


def _docusaurus(code: str) -> str:
    lines = "".join(
        f'<span class="token-line" style="color:#393A34">{_spans(line, _PRISM, "token plain") or chr(32) * 0}<br></span>'
        for line in _tokens(code)
    )
    return (
        '<div class="language-python codeBlockContainer theme-code-block"><div class="codeBlockContent"><pre tabindex="0"'
        f' class="prism-code language-python codeBlock thin-scrollbar"><code class="codeBlockLines">{lines}</code></pre>'
        '<div class="buttonGroup"><button type="button" aria-label="Copy code to clipboard" class="clean-btn"><span'
        ' class="copyButtonIcons" aria-hidden="true"></span></button></div></div></div>'
    )


def _shiki(code: str) -> str:
    lines = "\n".join(f'<span class="line">{_spans(line, _HLJS, "plain")}</span>' for line in _tokens(code))
    return f'<pre class="shiki github-dark" style="background-color:#24292e" tabindex="0"><code>{lines}</code></pre>'


def _chroma(code: str) -> str:
    numbers = "".join(f'<span class="lnt">{n}\n</span>' for n in range(1, code.count("\n") + 2))
    names = {"str": "s2", "com": "c1", "num": "mi", "kw": "k"}
    lines = "".join(f'<span class="line"><span class="cl">{_spans(line, names)}\n</span></span>' for line in _tokens(code))
    pre = '<pre tabindex="0" class="chroma"><code class="language-python" data-lang="python">'
    return (
        f'<div class="highlight"><div class="chroma"><table class="lntable"><tr><td class="lntd">\n{pre}{numbers}</code></pre>'
        f'</td>\n<td class="lntd">\n{pre}{lines}</code></pre></td></tr></table></div></div>'
    )


def _prettify(code: str) -> str:
    names = {"str": "str", "com": "com", "num": "lit", "kw": "kwd"}
    lines = "".join(f'<li class="L{n % 10}">{_spans(line, names, "pln")}</li>' for n, line in enumerate(_tokens(code)))
    return f'<pre class="prettyprint linenums prettyprinted"><ol class="linenums">{lines}</ol></pre>'


def _geshi(code: str) -> str:
    numbers = "".join(f"{n}\n" for n in range(1, code.count("\n") + 2))
    lines = "\n".join(_spans(line, {"str": "st0", "com": "co1", "num": "nu0", "kw": "kw1"}) for line in _tokens(code))
    return (
        f'<div class="wp_syntax"><table><tbody><tr><td class="line_numbers"><pre>{numbers}</pre></td>'
        f'<td class="code"><pre class="python" style="font-family:monospace;">{lines}</pre></td></tr></tbody></table></div>'
    )


def _crayon(code: str) -> str:
    numbers = "".join(f'<div class="crayon-num">{n}</div>' for n in range(1, code.count("\n") + 2))
    lines = "".join(
        f'<div class="crayon-line" id="crayon-5-{n}">{_spans(line, _HLJS, "crayon-e") or "&nbsp;"}</div>'
        for n, line in enumerate(_tokens(code), 1)
    )
    return (
        '<div id="crayon-5" class="crayon-syntax crayon-theme-classic"><div class="crayon-main"><table class="crayon-table">'
        f'<tr class="crayon-row"><td class="crayon-nums" data-settings="show"><div class="crayon-nums-content">{numbers}</div>'
        f'</td><td class="crayon-code"><div class="crayon-pre">{lines}</div></td></tr></table></div></div>'
    )


def _hard(text: str) -> str:
    return escape(text.expandtabs(4), quote=False).replace(" ", "&nbsp;")


def _syntaxhighlighter(code: str) -> str:
    gutter = "".join(f'<div class="line number{n} index{n - 1} alt1">{n}</div>' for n in range(1, code.count("\n") + 2))
    lines = ""
    for n, line in enumerate(code.split("\n"), 1):
        indent = len(line) - len(line.lstrip())
        lead = f'<code class="python spaces">{_hard(line[:indent])}</code>' if indent else ""
        rest = f'<code class="python plain">{escape(line[indent:], quote=False)}</code>' if line.strip() else "&nbsp;"
        lines += f'<div class="line number{n} index{n - 1} alt{n % 2 + 1}">{lead}{rest}</div>'
    return (
        '<div><div id="highlighter_1" class="syntaxhighlighter python"><table border="0" cellpadding="0"><tbody>'
        f'<tr><td class="gutter">{gutter}</td><td class="code"><div class="container">{lines}</div></td></tr></tbody></table>'
        "</div></div>"
    )


def _breaks(code: str) -> str:
    return "<p><code>" + "<br>\n".join(_hard(line) for line in code.split("\n")) + "</code></p>"


CODE: dict[str, Callable[[str], str]] = {
    "pre": lambda code: f"<pre>{escape(code, quote=False)}</pre>",
    "pre, line breaks around": lambda code: f"<pre>\n{escape(code, quote=False)}\n\n</pre>",
    "pre code": lambda code: f'<pre><code class="language-python">{escape(code)}\n</code></pre>',
    "Pygments": _pygments(),
    "Pygments, table of numbers": _pygments(linenos="table"),
    "Pygments, numbers in line": _pygments(linenos="inline"),
    "highlight.js": _hljs,
    "highlight.js, numbers": _hljs_numbers,
    "Prism, numbers": _prism_numbers,
    "GitHub, table of lines": _github,
    "Rouge, table of numbers": _rouge,
    "Docusaurus": _docusaurus,
    "Shiki": _shiki,
    "Chroma, table of numbers": _chroma,
    "code-prettify, numbers": _prettify,
    "GeSHi, table of numbers": _geshi,
    "Crayon": _crayon,
    "SyntaxHighlighter": _syntaxhighlighter,
    "code with br and nbsp": _breaks,
}
HARD_SPACES = ("SyntaxHighlighter", "code with br and nbsp")  # where a tab cannot be told from spaces


def code_pages(kind: str, seed: int, pages: int, each: int = 4) -> Iterator[tuple[str, list[Item]]]:
    """Articles with so many listings each, in one kind of markup."""
    write, rng = CODE[kind], random.Random(seed)
    drawn = iter(listings(seed, pages * each))
    for _ in range(pages):
        prose, parts, items = Prose(rng), [], []
        for number in range(each):
            code = next(drawn)
            before, after = f"So far for the preparation of listing {number}:", f"That is all of listing {number}."
            parts.append(f"<p>{prose.sentences(3)} {before}</p>\n{write(code)}\n<p>{after} {prose.sentences(3)}</p>")
            items.append(Item(code.expandtabs(4) if kind in HARD_SPACES else code, before, after))
        yield article("A few small programs", parts, rng), items


def exact_code(text: str, items: list[Item]) -> list[bool]:
    """Whether each listing stands in the text exactly, between its paragraphs."""
    found = (between(text, item) for item in items)
    return [part is not None and _bare(part) == _bare(item.expected) for part, item in zip(found, items, strict=True)]


def _bare(code: str) -> str:
    return re.sub(r"[ \t]+\n", "\n", code + "\n").strip("\n")


# --- Pages of pydoc ---


def pydoc_pages() -> Iterator[tuple[str, list[str]]]:
    """Modules of the standard library as pydoc writes them, and for each function what stands there: its head and its text."""
    for name in _MODULES:
        module = __import__(name, fromlist=["_"])
        page = pydoc.HTMLDoc().page(f"Python: module {name}", pydoc.HTMLDoc().docmodule(module))
        expected = []
        for _, thing in inspect.getmembers(module, inspect.isfunction):
            public = thing.__name__ in getattr(module, "__all__", [thing.__name__])
            doc = pydoc.getdoc(thing)
            if thing.__module__ == name and public and doc and not thing.__name__.startswith("_"):
                head = f"{thing.__name__}{inspect.signature(thing)}"
                expected.append(f"{head}\n{doc}")
        if expected:
            yield page, expected


def exact_pydoc(text: str, expected: list[str]) -> list[bool]:
    """Whether heads and texts stand there as in a terminal, but for empty lines and white space at the ends of lines."""

    def plain(text: str) -> str:
        return "\n" + "".join(line.rstrip() + "\n" for line in text.split("\n") if line.strip())

    whole = plain(text)
    return [plain(one) in whole for one in expected]
