"""Personal data: replaced, counted, or the reason to drop a document."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, did_you_mean
from curate.stage import REASON, Stage, with_columns


@dataclass(frozen=True, kw_only=True)
class Pii(Stage):
    """Finds e-mail addresses, IP addresses, telephone numbers, card numbers, IBANs and API keys, and replaces them.

    kinds: which to look for: email, ip, phone, credit_card, iban, api_key. action: `replace`, `drop` the document, or only
    `count`; for all kinds, or by kind as in `{email: replace, api_key: drop}`, where others are replaced. replacements: what
    stands for a kind, by kind: one text or several, of which the first goes to the first value in a document, the second to the
    next other one, and so on in turn; a value that comes again gets the same. The defaults are
    email: email@example.com, firstname.lastname@example.org (as in FineWeb; names that RFC 2606 reserves); ip: 192.0.2.1,
    198.51.100.1, 203.0.113.1 (RFC 5737) and for version 6 2001:db8::1 (RFC 3849); phone: <PHONE>; credit_card: <CREDIT_CARD>;
    iban: <IBAN>; api_key: <API_KEY>. None of them is found again.

    email: local part, domain with a dot, ending in letters; not example.com and its like, nor names of images (logo@2x.png).
    ip: version 4 and 6, public addresses only: private, loopback, link-local, documentation, multicast and reserved ranges are
    left. Dotted quads after a word such as "version" or "section", or inside longer names, are taken for versions; so are those
    of small numbers (all below 32, or the first below 10 and the others below 100) without a word such as "IP" before them.
    phone: + and country code; the North American 3-3-4 with dashes, dots or parentheses; a leading 0 with 9 to 11 digits in
    groups; other numbers of 7 to 13 digits only after a word such as "tel". Numbers without these marks are left.
    credit_card: 12 to 19 digits of a length and prefix that issuers use, with the right check digit (Luhn), in one piece or in
    groups as printed. iban: the length of the country, modulo 97 right. api_key: keys of AWS, GitHub, GitLab, Slack, Google,
    OpenAI and others with `sk-`, Stripe, npm, PyPI, SendGrid, Hugging Face, Shopify, DigitalOcean; JSON Web Tokens; private
    keys in PEM blocks.

    Columns written: `text` (string) where something is replaced, and for each kind its count: `pii_email`, `pii_ip`,
    `pii_phone`, `pii_credit_card`, `pii_iban`, `pii_api_key` (uint32). Reasons: `pii.email`, `pii.ip`, `pii.phone`,
    `pii.credit_card`, `pii.iban`, `pii.api_key`, with `_value` the count; of several kinds the first in this order.

    Source: what is replaced for e-mail and IP addresses follows FineWeb (Penedo et al. 2024, https://arxiv.org/abs/2406.17557);
    ISO/IEC 7812 and 13616, IANA's registries of special-purpose addresses (RFC 6890), and E.164; the rules are our own.

    >>> found = Pii()(["Write to ann@mail.org or bob@mail.org, from 10.0.0.1 or 93.184.216.34, or call +44 20 7946 0018."]).kept
    >>> print(found["text"][0])
    Write to email@example.com or firstname.lastname@example.org, from 10.0.0.1 or 192.0.2.1, or call <PHONE>.
    >>> found["pii_email"][0].as_py(), found["pii_ip"][0].as_py(), found["pii_phone"][0].as_py()
    (2, 1, 1)
    """

    example: ClassVar[dict[str, Any]] = {"action": {"api_key": "drop", "iban": "count"}}

    kinds: tuple[str, ...] = ("email", "ip", "phone", "credit_card", "iban", "api_key")
    action: str | Mapping[str, str] = "replace"
    replacements: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.kinds:
            raise RecipeError(f"pii: kinds is empty; known: {', '.join(_KINDS)}")
        for kind in self.kinds:
            if kind not in _KINDS:
                raise RecipeError(f"pii: kinds holds {kind!r}{did_you_mean(kind, _KINDS)}")
        for name, given in (("action", self.action), ("replacements", self.replacements)):
            for kind in given if isinstance(given, Mapping) else ():
                if kind not in self.kinds:
                    raise RecipeError(f"pii: {name} is given for {kind!r}, which is not among kinds: {', '.join(self.kinds)}")
        for value in self.action.values() if isinstance(self.action, Mapping) else [self.action]:
            if value not in ("replace", "drop", "count"):
                raise RecipeError(f"pii: action is {value!r}; known: replace, drop, count")
        for kind, texts in self.replacements.items():
            if not texts:
                raise RecipeError(f"pii: replacements for {kind!r} are empty; a text such as '<{kind.upper()}>' is needed")

    def writes(self) -> pa.Schema:
        counts = [(f"pii_{kind}", pa.uint32()) for kind in _KINDS if kind in self.kinds]
        return pa.schema([("text", pa.string()), *counts] if "replace" in self._actions().values() else counts)

    def reasons(self) -> tuple[str, ...]:
        return tuple(f"pii.{kind}" for kind in _KINDS if self._actions().get(kind) == "drop")

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch["text"]
        spans = _find(texts, tuple(k for k in _KINDS if k in self.kinds))
        columns: dict[str, pa.Array] = {}
        reason, value = pa.nulls(len(texts), pa.string()), pa.nulls(len(texts), pa.float64())
        actions = self._actions()
        for kind in reversed(_KINDS):  # so that the first has the last word
            if kind not in self.kinds:
                continue
            rows = spans[spans[:, 3] == _KINDS.index(kind), 0]
            count = np.bincount(rows, minlength=len(texts))
            columns[f"pii_{kind}"] = pa.array(count.astype(np.uint32))
            if actions[kind] == "drop":
                met = pa.array(count > 0)
                reason = pc.if_else(met, f"pii.{kind}", reason)
                value = pc.if_else(met, pa.array(count.astype(np.float64)), value)
        if "replace" in actions.values():
            columns["text"] = self._replaced(texts, spans[[actions[_KINDS[k]] == "replace" for k in spans[:, 3]]])
        if "drop" in actions.values():
            columns |= {REASON: reason, "_value": value}
        return with_columns(batch, columns)

    def _actions(self) -> dict[str, str]:
        given = self.action if isinstance(self.action, Mapping) else dict.fromkeys(self.kinds, self.action)
        return {kind: given.get(kind, "replace") for kind in self.kinds}

    def _replaced(self, texts: pa.Array, spans: np.ndarray) -> pa.Array:
        from curate.kernels.words import offsets_and_bytes

        if not len(spans):
            return texts
        offsets, data = offsets_and_bytes(texts)
        view = memoryview(data)  # type: ignore[arg-type]
        stands_for = {**_REPLACEMENTS, **self.replacements}
        found: list[bytes] = []
        bounds = np.flatnonzero(np.diff(spans[:, 0], prepend=-1, append=len(texts)))
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            seen: dict[tuple[str, bool], dict[bytes, bytes]] = {}
            row = int(spans[first, 0])
            at, pieces = int(offsets[row]), list[bytes | memoryview]()
            for _, start, end, k in spans[first:last].tolist():
                value = bytes(view[start:end])
                known = seen.setdefault((_KINDS[k], b":" in value), {})
                if value not in known:
                    known[value] = _choose(stands_for[_KINDS[k]], len(known), _KINDS[k] == "ip", b":" in value)
                pieces += (view[at:start], known[value])
                at = end
            found.append(b"".join([*pieces, view[at : offsets[row + 1]]]))
        mask = np.zeros(len(texts), np.bool_)
        mask[spans[:, 0]] = True
        return pc.replace_with_mask(texts, pa.array(mask), pa.array(found, pa.binary()).cast(pa.string()))


_KINDS = ("email", "ip", "phone", "credit_card", "iban", "api_key")
_REPLACEMENTS: dict[str, str | tuple[str, ...]] = {
    "email": ("email@example.com", "firstname.lastname@example.org"),
    "ip": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"),
    "phone": "<PHONE>",
    "credit_card": "<CREDIT_CARD>",
    "iban": "<IBAN>",
    "api_key": "<API_KEY>",
}


def _choose(texts: str | tuple[str, ...], number: int, address: bool, version6: bool) -> bytes:
    choices = [texts] if isinstance(texts, str) else list(texts)
    if address:  # of the same version, if there is one
        choices = [text for text in choices if (":" in text) == version6] or choices
    return choices[number % len(choices)].encode()


# --------------------------------------------------------------------------------------------- finding


def _find(texts: pa.Array, kinds: tuple[str, ...]) -> np.ndarray:
    """(row, start, end, place in _KINDS) of what is found, as int64 in the order of the text, without overlaps.

    Where two overlap, the more particular one counts: api_key, iban, credit_card, email, ip, phone.
    """
    from curate.kernels import pii
    from curate.kernels.words import offsets_and_bytes

    bits = {"email": pii.WANT_EMAIL, "ip": pii.WANT_IP, "phone": pii.WANT_PHONE, "credit_card": pii.WANT_CARD,
            "iban": pii.WANT_IBAN, "api_key": pii.WANT_KEY}  # fmt: skip
    offsets, data = offsets_and_bytes(texts)
    raw = pii.candidates(offsets, data, sum(bits[kind] for kind in kinds))
    view = memoryview(data)  # type: ignore[arg-type]
    place = {pii.EMAIL: 0, pii.IPV4: 1, pii.IPV6: 1, pii.PHONE: 2, pii.CARD: 3, pii.IBAN: 4, pii.KEY: 5}
    found: list[tuple[int, int, int, int]] = []
    for row, start, end, kind in raw.tolist():
        if kind == pii.KEY:
            match = _KEY.match(view, start, int(offsets[row + 1]))
            if not match:
                continue
            start, end = match.span(match.lastgroup or 0)
        elif (kind == pii.EMAIL and not _is_address(bytes(view[start:end]))) or (
            kind == pii.IPV6 and not _is_public6(bytes(view[start:end]))
        ):
            continue
        found.append((row, start, end, place[kind]))
    return np.array(_apart(found), np.int64).reshape(-1, 4)


_RANK = (2, 1, 0, 3, 4, 5)  # by place in _KINDS


def _apart(spans: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    spans.sort(key=lambda s: (s[0], s[1]))
    kept: list[tuple[int, int, int, int]] = []
    for span in spans:
        worse = False
        while kept and kept[-1][0] == span[0] and span[1] < kept[-1][2]:
            if _RANK[kept[-1][3]] >= _RANK[span[3]]:
                worse = True
                break
            kept.pop()
        if not worse:
            kept.append(span)
    return kept


_RESERVED = re.compile(rb"(?:^|\.)(?:example\.(?:com|net|org|edu)|example|test|invalid|localhost|local|localdomain)$", re.I)
_FILES = frozenset(b"png jpg jpeg gif webp svg bmp ico css js mjs html htm php json xml yaml yml txt pdf mp3 mp4 py rb".split())


def _is_address(address: bytes) -> bool:
    domain = address.rpartition(b"@")[2]
    return not _RESERVED.search(domain) and domain.rpartition(b".")[2].lower() not in _FILES


@functools.lru_cache(maxsize=1)
def _special6() -> list[ipaddress.IPv6Network]:
    ranges = "::/8 0100::/8 64:ff9b::/96 2001::/23 2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/9 ff00::/8"
    return [ipaddress.IPv6Network(r) for r in ranges.split()]


def _is_public6(text: bytes) -> bool:
    """Whether this is an address that belongs to someone: with `::`, only in the range that is given out (2000::/3)."""
    try:
        address = ipaddress.IPv6Address(text.decode())
    except ValueError:
        return False
    if b"::" in text and address.packed[0] >> 5 != 1:
        return False
    return not any(address in network for network in _special6())


_KEY = re.compile(
    rb"""
    (?: (?: AKIA | ASIA ) (?! [A-Z2-7]{9} EXAMPLE ) [A-Z2-7]{16}
      | (?: aws_secret_access_key | AWS_SECRET_ACCESS_KEY ) [\s"':=]{1,8} (?P<secret> [A-Za-z0-9/+]{40} )
      | gh[pousr]_ [A-Za-z0-9]{36,251}
      | github_pat_ [A-Za-z0-9]{22} _ [A-Za-z0-9]{59}
      | glpat- [A-Za-z0-9_-]{20,}
      | xox[abeprs] [.-] (?= [A-Za-z0-9.-]* [0-9] ) [A-Za-z0-9.-]{20,}
      | xapp- [0-9] - [A-Za-z0-9-]{20,}
      | hooks\.slack\.com/services/ (?P<hook> T[A-Z0-9]{8,12} / B[A-Z0-9]{8,12} / [A-Za-z0-9]{20,} )
      | AIza [A-Za-z0-9_-]{35}
      | ya29\. [A-Za-z0-9_-]{40,}
      | GOCSPX- [A-Za-z0-9_-]{28}
      | sk- (?= [\w-]* [0-9] ) (?= [\w-]* [A-Z] ) (?= [\w-]* [a-z] ) [A-Za-z0-9_-]{32,}
      | [sr]k_ (?: live | test ) _ [A-Za-z0-9]{16,}
      | whsec_ [A-Za-z0-9]{32,}
      | eyJ [A-Za-z0-9_-]{10,} \. eyJ [A-Za-z0-9_-]{10,} \. [A-Za-z0-9_-]{20,}
      | npm_ [A-Za-z0-9]{36}
      | pypi-AgE [A-Za-z0-9_-]{50,}
      | SG\. [A-Za-z0-9_-]{22} \. [A-Za-z0-9_-]{43}
      | hf_ [A-Za-z]{34}
      | shpat_ [0-9a-fA-F]{32}
      | dop_v1_ [0-9a-f]{64}
    ) (?! [A-Za-z0-9_/+] )
    | -----BEGIN \s (?: [A-Z0-9]+ \s )* PRIVATE \s KEY (?: \s BLOCK )? ----- (?: [^-] | - (?! ---- ) ){20,20000}
      -----END \s (?: [A-Z0-9]+ \s )* PRIVATE \s KEY (?: \s BLOCK )? -----
    """,
    re.VERBOSE,
)
