r"""Formulas with known LaTeX, and the markup in which web pages carry them. For tests and benchmarks of extraction.

`formulas(seed, count)` draws formulas from a grammar; `Formula.tex` is what a person would type, `Formula.mathml(style)` writes
the same tree as one of the programs that make MathML would (their spelling of fences, accents and functions differs). Nothing
here uses Curate, so agreement between the two says something.

`squeeze` is the white space that does not matter in LaTeX: none is needed but between a command and a letter after it.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from html import escape
from typing import ClassVar

MATHJAX2, MATHJAX3, KATEX, BY_HAND = "mathjax2", "mathjax3", "katex", "by hand"
STYLES = (MATHJAX2, MATHJAX3, KATEX, BY_HAND)

_TEXT = re.compile(r"(\\(?:text|operatorname\*?)\{[^{}]*\})")
_NEEDED = re.compile(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])")


def squeeze(tex: str) -> str:
    r"""LaTeX without the white space that means nothing. Words in \text keep theirs."""
    parts = _TEXT.split(" ".join(tex.split()))
    for k in range(0, len(parts), 2):
        kept = _NEEDED.sub(r"\1" + "\0", parts[k]).replace("\\ ", "\\\1")
        parts[k] = kept.replace(" ", "").replace("\0", " ").replace("\1", " ")
    return "".join(parts)


# --- Trees. Each kind of node writes itself twice. ---


class Node:
    """A piece of a formula."""

    tall = False  # whether parentheses around it grow

    def tex(self) -> str:
        raise NotImplementedError

    def mathml(self, style: str) -> str:
        raise NotImplementedError

    def one(self) -> bool:
        """Whether it is one token, which as a script needs no braces."""
        return False


def _group(node: Node, style: str) -> str:
    """A TeX group: MathJax marks it, KaTeX wraps only what is several."""
    inner = node.mathml(style)
    if style == MATHJAX2:
        return f'<mrow class="MJX-TeXAtom-ORD">{inner}</mrow>'
    if style == MATHJAX3:
        return f'<mrow data-mjx-texclass="ORD">{inner}</mrow>'
    return inner if node.one() else f"<mrow>{inner}</mrow>"


@dataclass(frozen=True)
class Leaf(Node):
    """A letter, number or symbol. element: mi, mn or mo."""

    latex: str
    text: str
    element: str = "mi"
    attributes: str = ""

    def tex(self) -> str:
        return self.latex

    def mathml(self, style: str) -> str:
        return f"<{self.element}{self.attributes}>{escape(self.text, quote=False)}</{self.element}>"

    def one(self) -> bool:
        return len(self.latex) == 1 or (self.latex[0] == "\\" and self.latex[1:].isalpha())


@dataclass(frozen=True)
class Row(Node):
    parts: tuple[Node, ...]

    @property
    def tall(self) -> bool:  # type: ignore[override]
        return any(part.tall for part in self.parts)

    def tex(self) -> str:
        return " ".join(part.tex() for part in self.parts)

    def mathml(self, style: str) -> str:
        return "".join(part.mathml(style) for part in self.parts)

    def one(self) -> bool:
        return len(self.parts) == 1 and self.parts[0].one()


@dataclass(frozen=True)
class Fraction(Node):
    above: Node
    below: Node
    tall = True

    def tex(self) -> str:
        return f"\\frac{{{self.above.tex()}}}{{{self.below.tex()}}}"

    def mathml(self, style: str) -> str:
        return f"<mfrac>{_argument(self.above, style)}{_argument(self.below, style)}</mfrac>"


def _argument(node: Node, style: str) -> str:
    inner = node.mathml(style)
    return inner if node.one() else f"<mrow>{inner}</mrow>"


@dataclass(frozen=True)
class Root(Node):
    of: Node
    index: Node | None = None

    def tex(self) -> str:
        return f"\\sqrt{'' if self.index is None else f'[{self.index.tex()}]'}{{{self.of.tex()}}}"

    def mathml(self, style: str) -> str:
        if self.index is None:
            return f"<msqrt>{self.of.mathml(style)}</msqrt>"
        return f"<mroot>{_argument(self.of, style)}{_argument(self.index, style)}</mroot>"


def _as_script(node: Node) -> str:
    return node.tex() if node.one() else f"{{{node.tex()}}}"


@dataclass(frozen=True)
class Script(Node):
    base: Node
    sub: Node | None
    sup: Node | None
    primes: int = 0

    def tex(self) -> str:
        tex = self.base.tex()
        if self.sub is not None:
            tex += f"_{_as_script(self.sub)}"
        if self.primes:
            return tex + "'" * self.primes
        return tex if self.sup is None else f"{tex}^{_as_script(self.sup)}"

    def mathml(self, style: str) -> str:
        base = self.base.mathml(style)
        sup = "" if self.sup is None else _group(self.sup, style)
        if self.primes:
            prime = "<mo>″</mo>" if self.primes == 2 and style == MATHJAX2 else "<mo>′</mo>" * self.primes
            attributes = ' mathvariant="normal"' if style == KATEX else ""
            prime = prime.replace("<mo>", f"<mo{attributes}>")
            sup = prime if prime.count("<mo") == 1 else f"<mrow>{prime}</mrow>"
        if self.sub is None:
            return f"<msup>{base}{sup}</msup>"
        sub = _group(self.sub, style)
        return f"<msubsup>{base}{sub}{sup}</msubsup>" if sup else f"<msub>{base}{sub}</msub>"


@dataclass(frozen=True)
class Large(Node):
    r"""A sum, an integral or the like. limits: whether its scripts stand under and over it in display mathematics."""

    latex: str
    text: str
    sub: Node | None
    sup: Node | None
    limits: bool
    display: bool
    tall = True

    def tex(self) -> str:
        return Script(Leaf(self.latex, self.text), self.sub, self.sup).tex()

    def mathml(self, style: str) -> str:
        role = ' data-mjx-texclass="OP"' if style == MATHJAX3 else ""
        base = f"<mo{role}>{self.text}</mo>"
        under = self.limits and self.display
        sub = "" if self.sub is None else _group(self.sub, style)
        sup = "" if self.sup is None else _group(self.sup, style)
        if sub and sup:
            name = "munderover" if under else "msubsup"
        elif sub:
            name = "munder" if under else "msub"
        else:
            return base
        return f"<{name}>{base}{sub}{sup}</{name}>"


@dataclass(frozen=True)
class Limit(Node):
    """lim, max and so on, with something below."""

    name: str
    sub: Node
    display: bool

    def tex(self) -> str:
        return f"\\{self.name}_{_as_script(self.sub)}"

    def mathml(self, style: str) -> str:
        sub = _group(self.sub, style)
        base = {
            MATHJAX2: '<mo movablelimits="true" form="prefix">{}</mo>',
            MATHJAX3: '<mo data-mjx-texclass="OP" movablelimits="true">{}</mo>',
        }
        word = base.get(style, "<mi>{}</mi>").format(self.name)
        name = "munder" if self.display else "msub"
        apply = "<mo>\u2061</mo>" if style in (KATEX, BY_HAND) else ""
        if style == KATEX:
            return f"<{name}><mrow>{word}{apply}</mrow>{sub}</{name}>"
        return f"<{name}>{word}{sub}</{name}>{apply}"


@dataclass(frozen=True)
class Function(Node):
    """sin, log and so on, or a name of one's own, applied to something. power: over the name."""

    name: str
    of: Node
    own: bool = False
    power: Node | None = None

    def tex(self) -> str:
        name = f"\\operatorname{{{self.name}}}" if self.own else f"\\{self.name}"
        power = "" if self.power is None else f"^{_as_script(self.power)}"
        return f"{name}{power} {self.of.tex()}"

    def mathml(self, style: str) -> str:
        variant = ' mathvariant="normal"' if self.own and style in (KATEX, MATHJAX3) else ""
        variant += ' data-mjx-texclass="OP"' if self.own and style == MATHJAX3 else ""
        word = f"<mi{variant}>{self.name}</mi>"
        mark = "<mo>\u2061</mo>"
        if style == KATEX:
            word, mark = f"<mrow>{word}{mark}</mrow>", ""
        if self.power is not None:
            word = f"<msup>{word}{_group(self.power, style)}</msup>"
        return f"{word}{mark}{self.of.mathml(style)}"


@dataclass(frozen=True)
class Font(Node):
    r"""Letters in a font: \mathbf{x}, \mathrm{max}."""

    command: str
    letters: str

    VARIANTS: ClassVar = {
        "mathbf": "bold",
        "mathbb": "double-struck",
        "mathcal": "script",
        "mathrm": "normal",
        "mathfrak": "fraktur",
        "mathsf": "sans-serif",
    }

    def tex(self) -> str:
        return f"\\{self.command}{{{self.letters}}}"

    def mathml(self, style: str) -> str:
        variant = self.VARIANTS[self.command]
        if style == MATHJAX3 and self.command == "mathcal":
            variant = "-tex-calligraphic"
        shapes = ' class="MJX-tex-caligraphic"' if style == MATHJAX2 and self.command == "mathcal" else ""
        if style in (MATHJAX3, BY_HAND):
            found = f'<mi{shapes} mathvariant="{variant}">{self.letters}</mi>'
        else:
            found = "".join(f'<mi{shapes} mathvariant="{variant}">{c}</mi>' for c in self.letters)
        if style == MATHJAX2:
            return f'<mrow class="MJX-TeXAtom-ORD">{found}</mrow>'
        return f"<mrow>{found}</mrow>" if len(self.letters) > 1 or style == MATHJAX3 else found


@dataclass(frozen=True)
class Accent(Node):
    r"""\hat, \bar, \vec and so on over one letter; \overline and \widehat over several."""

    command: str
    of: Node

    # command: what MathJax, KaTeX and others put there
    SIGNS: ClassVar = {
        "hat": "^^^",
        "tilde": "~~~",
        "bar": "¯ˉ¯",
        "vec": "→\u20d7→",
        "dot": "˙˙˙",
        "ddot": "¨¨¨",
        "overline": "¯‾¯",
        "widehat": "^^^",
        "underline": "__\u0332",
    }

    def tex(self) -> str:
        return f"\\{self.command}{{{self.of.tex()}}}"

    def mathml(self, style: str) -> str:
        wide = self.command in ("overline", "widehat", "underline")
        sign = self.SIGNS[self.command][{MATHJAX2: 0, MATHJAX3: 0, KATEX: 1}.get(style, 2)]
        if style == KATEX:
            mark = f'<mo stretchy="true">{sign}</mo>' if wide else f"<mo>{sign}</mo>"
        elif style == BY_HAND or self.command in ("widehat", "underline"):
            mark = f"<mo>{sign}</mo>"
        else:
            mark = f'<mo accent="false">{sign}</mo>' if wide else f'<mo stretchy="false">{sign}</mo>'
        if self.command == "underline":
            return f"<munder>{_argument(self.of, style)}{mark}</munder>"
        base = _group(self.of, style) if style in (MATHJAX2, MATHJAX3) else _argument(self.of, style)
        attributes = ' accent="true"' if style == KATEX else ""
        return f"<mover{attributes}>{base}{mark}</mover>"


@dataclass(frozen=True)
class Fenced(Node):
    """Something between delimiters, which grow where it is tall."""

    left: str
    right: str
    of: Node

    TEXT: ClassVar = {"\\{": "{", "\\}": "}", "\\langle": "⟨", "\\rangle": "⟩", "\\lfloor": "⌊", "\\rfloor": "⌋", "\\|": "‖"}

    @property
    def tall(self) -> bool:  # type: ignore[override]
        return self.of.tall

    def tex(self) -> str:
        if self.of.tall:
            return f"\\left{self.left} {self.of.tex()} \\right{self.right}"
        return (
            f"{self.left} {self.of.tex()} {self.right}"
            if self.left[-1].isalpha()
            else f"{self.left}{self.of.tex()}{self.right}"
        )

    def mathml(self, style: str) -> str:
        left, right = self.TEXT.get(self.left, self.left), self.TEXT.get(self.right, self.right)
        inner = self.of.mathml(style)
        if style == BY_HAND:
            return f"<mrow><mo>{left}</mo>{inner}<mo>{right}</mo></mrow>"
        if not self.of.tall:
            if left in "|‖":  # an ordinary symbol
                if style == KATEX:
                    sign = {"|": "∣", "‖": "∥"}[left]
                    return f'<mi mathvariant="normal">{sign}</mi>{inner}<mi mathvariant="normal">{sign}</mi>'
                sign = f'<mo fence="false" stretchy="false">{left}</mo>'
                return f"{sign}{inner}{sign}"
            return f'<mo stretchy="false">{left}</mo>{inner}<mo stretchy="false">{right}</mo>'
        if style == KATEX:
            left, right = ({"|": "∣", "‖": "∥"}.get(sign, sign) for sign in (left, right))
            return f'<mrow><mo fence="true">{left}</mo>{inner}<mo fence="true">{right}</mo></mrow>'
        if style == MATHJAX3:
            opening, closing = (f'<mo data-mjx-texclass="{role}">' for role in ("OPEN", "CLOSE"))
            return f'<mrow data-mjx-texclass="INNER">{opening}{left}</mo>{inner}{closing}{right}</mo></mrow>'
        return f"<mrow><mo>{left}</mo>{inner}<mo>{right}</mo></mrow>"


@dataclass(frozen=True)
class Table(Node):
    """A matrix, cases or aligned equations."""

    environment: str
    rows: tuple[tuple[Node, ...], ...]
    tall = True

    FENCES: ClassVar = {"pmatrix": "()", "bmatrix": "[]", "vmatrix": "||", "cases": "{."}
    ALIGN: ClassVar = {"cases": "left left", "aligned": "right left"}

    def tex(self) -> str:
        rows = " \\\\ ".join(" & ".join(cell.tex() for cell in row) for row in self.rows)
        return f"\\begin{{{self.environment}}} {rows} \\end{{{self.environment}}}"

    def mathml(self, style: str) -> str:
        align = self.ALIGN.get(self.environment, "")
        if style == KATEX and not align:
            align = " ".join(["center"] * len(self.rows[0]))
        shown = self.environment == "aligned" or style == KATEX
        cells = (
            "<mtd>{}</mtd>"
            if style != KATEX
            else '<mtd><mstyle scriptlevel="0" displaystyle="false"><mrow>{}</mrow></mstyle></mtd>'
        )
        rows = "".join(f"<mtr>{''.join(cells.format(cell.mathml(style)) for cell in row)}</mtr>" for row in self.rows)
        attributes = f' columnalign="{align}"' if align and (style != BY_HAND or self.environment == "aligned") else ""
        attributes += ' displaystyle="true"' if shown and style != KATEX and self.environment == "aligned" else ""
        table = f'<mtable{attributes} rowspacing="4pt" columnspacing="1em">{rows}</mtable>'
        fences = self.FENCES.get(self.environment)
        if not fences:
            return table
        left, right = fences[0], fences[1].replace(".", "")
        if style == KATEX:
            left, right = left.replace("|", "∣"), right.replace("|", "∣")
            return f'<mrow><mo fence="true">{left}</mo>{table}<mo fence="true">{right}</mo></mrow>'
        if style == BY_HAND:
            closing = f"<mo>{right}</mo>" if right else ""
            return f"<mrow><mo>{left}</mo>{table}{closing}</mrow>"
        roles = (' data-mjx-texclass="OPEN"', ' data-mjx-texclass="CLOSE"') if style == MATHJAX3 else ("", "")
        empty = "" if right else ' fence="true" stretchy="true" symmetric="true"'
        return f"<mrow><mo{roles[0]}>{left}</mo>{table}<mo{roles[1]}{empty}>{right}</mo></mrow>"


@dataclass(frozen=True)
class Words(Node):
    r"""\text{…}; spaces are no-break spaces in MathML."""

    words: str

    def tex(self) -> str:
        return f"\\text{{{self.words}}}"

    def mathml(self, style: str) -> str:
        return f"<mtext>{self.words.replace(' ', chr(0xA0))}</mtext>"


@dataclass(frozen=True)
class Space(Node):
    latex: str
    WIDTHS: ClassVar = {"\\,": "0.167em", "\\quad": "1em", "\\qquad": "2em", "\\;": "0.278em"}

    def tex(self) -> str:
        return self.latex

    def mathml(self, style: str) -> str:
        named = {"\\,": "thinmathspace", "\\;": "thickmathspace"}
        width = named.get(self.latex, self.WIDTHS[self.latex]) if style == MATHJAX2 else self.WIDTHS[self.latex]
        return f'<mspace width="{width}"></mspace>'


@dataclass(frozen=True)
class Binomial(Node):
    above: Node
    below: Node
    tall = True

    def tex(self) -> str:
        return f"\\binom{{{self.above.tex()}}}{{{self.below.tex()}}}"

    def mathml(self, style: str) -> str:
        both = f'<mfrac linethickness="0">{_argument(self.above, style)}{_argument(self.below, style)}</mfrac>'
        if style == KATEX:
            both = both.replace('linethickness="0"', 'linethickness="0px"')
            return f'<mrow><mo fence="true">(</mo>{both}<mo fence="true">)</mo></mrow>'
        if style == BY_HAND:
            return f"<mrow><mo>(</mo>{both}<mo>)</mo></mrow>"
        sized = '<mrow class="MJX-TeXAtom-{}"><mo maxsize="1.2em" minsize="1.2em">{}</mo></mrow>'
        return f'<mrow class="MJX-TeXAtom-ORD">{sized.format("OPEN", "(")}{both}{sized.format("CLOSE", ")")}</mrow>'


@dataclass(frozen=True)
class Over(Node):
    """Something small over a relation, or text over an arrow."""

    above: Node
    base: Leaf

    def tex(self) -> str:
        if self.base.latex == "\\to":
            return f"\\xrightarrow{{{self.above.tex()}}}"
        return f"\\overset{{{self.above.tex()}}}{{{self.base.tex()}}}"

    def mathml(self, style: str) -> str:
        return f"<mover>{self.base.mathml(style)}{_argument(self.above, style)}</mover>"


@dataclass(frozen=True)
class Formula:
    root: Node
    display: bool

    @property
    def tex(self) -> str:
        return self.root.tex()

    def mathml(self, style: str, *, annotation: str = "", attributes: str = "") -> str:
        """`<math>`; with the annotation where one is given, else without."""
        block = ' display="block"' if self.display else ""
        inner = self.root.mathml(style)
        if annotation:
            tex = escape(annotation, quote=False)
            inner = f'<semantics><mrow>{inner}</mrow><annotation encoding="application/x-tex">{tex}</annotation></semantics>'
        return f'<math xmlns="http://www.w3.org/1998/Math/MathML"{block}{attributes}>{inner}</math>'


# --- The grammar ---

_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHIJKLMNPQRSTUVWXYZ"
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ϵ", "varepsilon": "ε", "zeta": "ζ", "eta": "η",
          "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ",
          "tau": "τ", "phi": "ϕ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "infty": "∞", "ell": "ℓ", "partial": "∂",
          "nabla": "∇", "emptyset": "∅"}  # fmt: skip
_CAPITAL = {"Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω"}
_BINARY = {
    "+": "+",
    "-": "−",
    "\\cdot": "⋅",
    "\\times": "×",
    "\\pm": "±",
    "\\cup": "∪",
    "\\cap": "∩",
    "\\otimes": "⊗",
    "\\circ": "∘",
}
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "\\leq": "≤", "\\geq": "≥", "\\neq": "≠", "\\approx": "≈", "\\equiv": "≡", "\\in": "∈",
    "\\subset": "⊂", "\\sim": "∼", "\\to": "→", "\\mapsto": "↦", "\\Rightarrow": "⇒", "\\propto": "∝", "\\mid": "∣",
    "\\subseteq": "⊆", "\\ll": "≪", "\\cong": "≅", "\\leftrightarrow": "↔",
}  # fmt: skip
_FUNCTIONS = ("sin", "cos", "tan", "log", "ln", "exp", "arctan", "det", "dim", "ker", "cosh")
_OWN = ("tr", "rank", "Var", "sgn", "softmax", "Cov", "diag")
_LIMITS = ("lim", "max", "min", "sup", "inf", "limsup")


class Grammar:
    """Random formulas; the same for the same seed."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def pick(self, table: dict[str, str], element: str, prefix: str = "") -> Leaf:
        latex, text = self.rng.choice(list(table.items()))
        return Leaf(prefix + latex, text, element)

    def atom(self) -> Node:
        kind = self.rng.random()
        if kind < 0.45:
            letter = self.rng.choice(_LETTERS)
            return Leaf(letter, letter)
        if kind < 0.65:
            return self.pick(_GREEK, "mi", "\\")
        if kind < 0.7:
            latex, text = self.rng.choice(list(_CAPITAL.items()))
            return Leaf("\\" + latex, text, "mi", ' mathvariant="normal"')
        if kind < 0.9:
            number = self.rng.choice(["0", "1", "2", "3", "4", "7", "10", "12", "100", "2024", "3.14", "0.5"])
            return Leaf(number, number, "mn")
        command = self.rng.choice(["mathbf", "mathbb", "mathcal", "mathrm", "mathfrak", "mathsf"])
        if command == "mathrm":
            return Font(command, self.rng.choice(["d", "max", "eff", "kg", "T"]))
        return Font(command, self.rng.choice("ABCEFHLNPQRSVXZ" if command != "mathbf" else "ABuvwxyz"))

    def letter(self) -> Leaf:
        letter = self.rng.choice(_LETTERS)
        return Leaf(letter, letter)

    def index(self) -> Node:
        """What stands in a script: mostly a letter or a number."""
        kind = self.rng.random()
        if kind < 0.5:
            return self.letter()
        if kind < 0.7:
            return Leaf(number := self.rng.choice("0123456789"), number, "mn")
        if kind < 0.8:
            return self.pick(_GREEK, "mi", "\\")
        if kind < 0.9:
            return Row((self.letter(), Leaf(*self.rng.choice([("+", "+"), ("-", "−")]), "mo"), Leaf("1", "1", "mn")))
        if kind < 0.95:
            return Row((Leaf("-", "−", "mo"), Leaf(number := self.rng.choice("123"), number, "mn")))
        return Row((self.letter(), self.letter()))

    def term(self, depth: int, display: bool) -> Node:
        rng = self.rng
        kind = rng.random()
        if depth <= 0 or kind < 0.22:
            return self.atom()
        if kind < 0.45:
            base = rng.choice([self.letter, lambda: self.pick(_GREEK, "mi", "\\"), lambda: Font("mathbf", "x")])()
            which = rng.random()
            if which < 0.35:
                return Script(base, self.index(), None)
            if which < 0.75:
                return Script(base, None, self.index())
            if which < 0.9:
                return Script(base, self.index(), self.index())
            return Script(self.letter(), None, None, primes=rng.choice([1, 1, 2]))
        if kind < 0.57:
            return Fraction(self.sum(depth - 1, display), self.sum(depth - 1, display))
        if kind < 0.63:
            return Root(self.sum(depth - 1, display), Leaf("3", "3", "mn") if rng.random() < 0.25 else None)
        if kind < 0.72:
            fences = [("(", ")")] * 4 + [
                ("[", "]"),
                ("\\{", "\\}"),
                ("|", "|"),
                ("\\langle", "\\rangle"),
                ("\\lfloor", "\\rfloor"),
                ("\\|", "\\|"),
            ]
            return Fenced(*rng.choice(fences), self.sum(depth - 1, display))
        if kind < 0.8:
            latex, text, limits = rng.choice(
                [("\\sum", "∑", True), ("\\prod", "∏", True), ("\\int", "∫", False), ("\\bigcup", "⋃", True)]
            )
            lower: Node = self.index()
            if limits and rng.random() < 0.7:
                lower = Row((self.letter(), Leaf("=", "=", "mo"), Leaf("1", "1", "mn")))
            upper = rng.choice([None, self.letter(), Leaf("\\infty", "∞")])
            return Row((Large(latex, text, lower, upper, limits, display), self.term(depth - 1, display)))
        if kind < 0.84:
            below = Row((self.letter(), Leaf("\\to", "→", "mo"), rng.choice([Leaf("0", "0", "mn"), Leaf("\\infty", "∞")])))
            return Row((Limit(rng.choice(_LIMITS), below, display), self.term(depth - 1, display)))
        if kind < 0.91:
            own = rng.random() < 0.25
            power = Leaf("2", "2", "mn") if rng.random() < 0.2 and not own else None
            of = self.letter() if rng.random() < 0.5 and not own else Fenced("(", ")", self.sum(depth - 1, display))
            return Function(rng.choice(_OWN if own else _FUNCTIONS), of, own, power)
        if kind < 0.95:
            if rng.random() < 0.25:
                return Accent(rng.choice(["overline", "widehat", "underline"]), Row((self.letter(), self.letter())))
            return Accent(rng.choice(["hat", "tilde", "bar", "vec", "dot", "ddot"]), self.letter())
        if kind < 0.975:
            return Binomial(self.index(), self.letter())
        if display:
            return self.table(depth)
        return Row((Words(rng.choice(["if ", " for all ", " and "])), self.letter()))

    def table(self, depth: int) -> Node:
        environment = self.rng.choice(["pmatrix", "bmatrix", "vmatrix", "cases", "cases"])
        if environment == "cases":
            rows = tuple(
                (self.sum(1, True), Row((Words(word), self.letter(), self.pick(_RELATIONS, "mo"), Leaf("0", "0", "mn"))))
                for word in ("if ", "for ")
            )
        else:
            size = self.rng.choice([2, 2, 3])
            rows = tuple(tuple(self.term(min(depth - 1, 1), True) for _ in range(size)) for _ in range(size))
        return Table(environment, rows)

    def sum(self, depth: int, display: bool) -> Node:
        parts: list[Node] = []
        count = self.rng.choice([1, 1, 2, 2, 3])
        if self.rng.random() < 0.08:
            parts.append(Leaf("-", "−", "mo"))
        for k in range(count):
            if k:
                parts.append(self.pick(_BINARY, "mo"))
            parts.append(self.term(depth, display))
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def formula(self) -> Formula:
        display = self.rng.random() < 0.35
        depth = self.rng.choice([1, 2, 2, 3])
        kind = self.rng.random()
        if display and kind < 0.12:
            rows = tuple((self.sum(1, True), Row((self.pick(_RELATIONS, "mo"), self.sum(2, True)))) for _ in range(2))
            return Formula(Table("aligned", rows), True)
        if kind < 0.3:
            return Formula(self.sum(depth, display), display)
        parts: list[Node] = [self.sum(depth, display)]
        for _ in range(self.rng.choice([1, 1, 1, 2])):
            relation: Node = self.pick(_RELATIONS, "mo")
            if self.rng.random() < 0.06:
                relation = Over(self.letter(), self.rng.choice([Leaf("=", "=", "mo"), Leaf("\\to", "→", "mo")]))
            parts += [relation, self.sum(depth - 1, display)]
        if self.rng.random() < 0.1:
            parts += [Leaf(",", ",", "mo"), Space(self.rng.choice(["\\,", "\\quad", "\\;"])), self.letter()]
        return Formula(Row(tuple(parts)), display)


def formulas(seed: int, count: int) -> list[Formula]:
    """So many different formulas."""
    grammar, found = Grammar(seed), {}
    while len(found) < count:
        formula = grammar.formula()
        found.setdefault(formula.tex, formula)
    return list(found.values())
