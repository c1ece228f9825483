"""What a page says of itself: title, author, date of publication, language, canonical address, licence.

Pages say these things in many places, and not the same in all of them. Of the places that have something usable the first in
this order is believed:

    author, date    JSON-LD of an article, then of the page; `article:` and `og:` properties; Dublin Core; `citation_…`;
                    microdata (`itemprop`); `<meta name=author>`, `<meta name=date>` and their like; `<time datetime>`;
                    an element whose class says byline, author or date
    title           `og:title`, `citation_title`, headline of the JSON-LD article, `<title>`, Dublin Core
    language        `<html lang>`, `<meta http-equiv=content-language>`, Dublin Core, JSON-LD, `og:locale`
    canonical URL   `<link rel=canonical>`, `og:url`
    licence         all of them: `rel=license`, links to Creative Commons, JSON-LD, Dublin Core

A name or a date that cannot be one is passed over, and the next place is asked: placeholders such as `admin`, addresses,
templates that were not filled in; dates that do not exist, or before 1450 or after 2049 (a fixed bound, since results do not
depend on the clock), or that stand for zero in some calendar, as 1970-01-01 does; years of two digits, and numbers of which
one cannot tell the day from the month.

The name of the site is cut off a title where it is known to be that: as the page itself gives it (`og:site_name`, publisher),
or as the host is called. What else stands behind a separator is cut off where the rest is a heading of the page.

The vocabularies are public: schema.org, ogp.me, Dublin Core (DCMI), Highwire Press tags as Google Scholar reads them, rel
values of HTML. Nothing here builds a tree: the scan has found the elements, and they are cut up by splitting.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from html import unescape
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import urljoin

import orjson

from curate.extract import primary_language

MAX_JSON = 200_000  # characters of JSON-LD that are read of one page
MAX_NODES = 500  # objects in it that are looked at
MAX_TITLE, MAX_NAME, MAX_NAMES, MAX_URL, MAX_LINKS = 500, 80, 30, 2000, 50
MAX_VALUE = 2000  # characters of a value that are looked at
MAX_SHOWN, MAX_HEADINGS, MAX_ELEMENT = 16, 8, 1000  # elements of the body that are looked at, and how much of one
FIRST_YEAR, LAST_YEAR = 1450, 2049


@dataclass(slots=True)
class Metadata:
    """Facts about a page, None where it does not say; the fields mean what they mean in `curate.extract.Extracted`."""

    title: str | None
    author: str | None
    published: str | None
    language: str | None
    licence_links: list[str] | None
    canonical_url: str | None


def metadata(elements: Sequence[str], url: str | None, headings: Sequence[str] = ()) -> Metadata:
    """The facts in the elements of a page that may hold some.

    Args:
        elements: as markup in document order, as a parser serialises it: tags in lower case, attributes in double quotes.
            These are the start tag of `<html>`; `<title>`, `<meta>`, `<link>`, JSON-LD `<script>`, `<time>` and `<a>`; and
            any element whose `itemprop` or class speaks of an author or a date.
        url: of the page. Without it, relative links are passed over.
        headings: texts of the page's headings of the first level.
    """
    page = _Page(url)
    for element in elements:
        if element.startswith("<meta"):
            parts = element.split('"')
            if len(parts) == 5 and parts[2] == " content=" and parts[0] in _PLAIN_META:
                # nearly all are like this, and most of no interest here
                if known := META_NAMES.get(parts[1].lower()):
                    page.add(*known, parts[3])
            else:
                page.attributed(_attributes(element))
        elif element.startswith("<script"):
            page.json(element)
        elif element.startswith(("<a ", "<link ")):
            page.link(element)
        elif element.startswith("<title"):
            page.add(_TITLE, 3, element[element.find(">") + 1 : element.rfind("</")])
        elif element.startswith("<html"):
            found = _attributes(element)
            page.add(_LANGUAGE, 0, found.get("lang") or found.get("xml:lang"))
        else:
            page.visible.append(element)
    page.nodes()
    trust, author = page.author()
    if trust > _ITEM and page.visible:
        page.shown_author()
        _, author = page.author()
    trust, published = page.published()
    if trust > _ITEM and page.visible:
        page.shown_date()
        _, published = page.published()
    return Metadata(page.title(headings), author, published, page.language(), page.licences(), page.canonical())


# Kinds of facts.
_AUTHOR, _DATE, _TITLE, _LANGUAGE, _CANONICAL, _SITE, _RIGHTS = range(7)
# Where an author or a date comes from, in the order of trust. The names of a place have ranks of their own from there on.
_JSON, _JSON_PAGE, _PROPERTY, _DUBLIN, _CITATION, _ITEM, _NAMED, _TIME, _BYLINE, _NOWHERE = range(0, 1000, 100)


def _meta_names() -> dict[str, tuple[int, int]]:
    """`name`, `property` or `itemprop` of a <meta> in lower case -> the fact, and its rank, the lower the better."""
    table = [
        (_AUTHOR, _PROPERTY, "article:author og:article:author og:author"),
        (_DATE, _PROPERTY, "article:published_time og:article:published_time article:published og:published_time og:pubdate"),
        (_AUTHOR, _CITATION, "citation_author citation_authors"),
        (_DATE, _CITATION, "citation_publication_date citation_online_date citation_date"),
        (_DATE, _ITEM, "datepublished"),
        (_AUTHOR, _NAMED, "author authors byl byline creator parsely-author sailthru.author cxenseparse:author"),
        (_DATE, _NAMED, "date pubdate pdate publishdate publish_date publish-date published published_at published_date"),
        (_DATE, _NAMED + 10, "published-date publication_date originalpublicationdate parsely-pub-date sailthru.date"),
        (_DATE, _NAMED + 20, "cxenseparse:recs:publishtime cxenseparse:publishtime datecreated ms.date"),
        (_TITLE, 0, "og:title citation_title"),
        (_LANGUAGE, 1, "content-language"),
        (_LANGUAGE, 9, "og:locale"),
        (_CANONICAL, 1, "og:url"),
        (_SITE, 0, "og:site_name application-name"),
    ]
    for fact, rank, names in (
        (_AUTHOR, _DUBLIN, "creator author creator.personalname"),
        (_DATE, _DUBLIN, "date.issued issued date.created created date"),
        (_TITLE, 4, "title"),
        (_LANGUAGE, 2, "language"),
        (_RIGHTS, 0, "license rights rights.license"),
    ):
        table += [(fact, rank, " ".join(prefix + name for name in names.split())) for prefix in _DUBLIN_PREFIXES]
    return {name: (fact, rank + k) for fact, rank, names in table for k, name in enumerate(names.split())}


_DUBLIN_PREFIXES = ("dc.", "dcterms.", "dc:", "dcterms:")
META_NAMES = _meta_names()  # no other <meta> reaches the parser
_ATTRIBUTE = re.compile(r'([^\s"=<>]+)="([^"]*)"')
_MARKUP = re.compile(r"<(script|style|svg)\b.*?</\1>|<[^>]*>", re.S)
_CREATIVE_COMMONS = re.compile(r"//(?:www\.)?creativecommons\.org/(?:licenses|licences|publicdomain)\b", re.I)
_RANK = itemgetter(0)


def _attributes(element: str) -> dict[str, str]:
    """Attributes of the start tag; a parser writes `>` in a value as an entity."""
    return dict(_ATTRIBUTE.findall(element[: element.find(">")]))


class _Page:
    """What was found, as (rank, value) for each kind of fact. Values are as written, entities and all."""

    def __init__(self, url: str | None):
        self.url = url if url and _split(url) else None
        self.found: list[list[tuple[int, str]]] = [[] for _ in range(7)]
        self.visible: list[str] = []  # looked at only where the head does not say enough
        self.links: list[str] = []
        self.json_left = MAX_JSON
        self.json_values: list[Any] = []

    def add(self, fact: int, rank: int, value: str | None) -> None:
        if value:
            self.found[fact].append((rank, value[:MAX_VALUE]))

    # -- elements of the head

    def attributed(self, attributes: dict[str, str]) -> None:
        """A <meta> with these attributes."""
        for kind, name in attributes.items():
            if kind in _NAMING and (known := META_NAMES.get(name.strip().lower())):
                fact, rank = known
                if kind != "itemprop":
                    self.add(fact, rank, attributes.get("content"))
                elif fact in (_AUTHOR, _DATE):
                    self.add(fact, _ITEM, attributes.get("content"))

    def link(self, element: str) -> None:
        attributes = _attributes(element)
        href, rel = attributes.get("href", ""), attributes.get("rel", "").lower().split()
        if "license" in rel or "licence" in rel or ("creativecommons" in href and _CREATIVE_COMMONS.search(href)):
            self.links.append(unescape(href))
        if "canonical" in rel and element.startswith("<link"):
            self.add(_CANONICAL, 0, href)
        elif element.startswith("<a"):
            self.visible.append(element)

    # -- JSON-LD

    def json(self, element: str) -> None:
        """Read the script of JSON-LD; broken JSON says nothing."""
        body = element[element.find(">") + 1 : element.rfind("</")]
        self.json_left -= len(body)
        if self.json_left < 0:
            return
        if "<![CDATA[" in body:
            body = body.partition("<![CDATA[")[2].rpartition("]]>")[0].rstrip("/ ")
        body = body.strip().rstrip(";")
        try:
            self.json_values.append(orjson.loads(body))
        except orjson.JSONDecodeError:
            try:  # line breaks within strings are the most common fault
                self.json_values.append(orjson.loads(body.translate(_NO_CONTROLS)))
            except orjson.JSONDecodeError:
                return

    def nodes(self) -> None:
        """Facts out of the objects of JSON-LD that are about the page."""
        if not self.json_values:
            return
        waiting, named, about = self.json_values[::-1], {}, []
        for _ in range(MAX_NODES):
            if not waiting:
                break
            node = waiting.pop()
            if isinstance(node, list):
                waiting.extend(node[:MAX_NODES][::-1])
            elif isinstance(node, dict):
                if isinstance(node.get("@id"), str) and "name" in node:
                    named[node["@id"]] = node["name"]
                rank = _about(node)
                if rank is not None:
                    about.append((rank, node))
                for key in ("mainEntityOfPage", "mainEntity", "@graph"):
                    inner = node.get(key)
                    if isinstance(inner, dict) or (key == "@graph" and isinstance(inner, list)):
                        waiting.append(inner)
        seen: set[int] = set()
        for rank, node in about:
            self._licence(node.get("license"))
            if rank == _SITE_NODE:
                self.add(_SITE, 2, _name(node.get("name")))
                continue
            publisher = node.get("publisher")
            self.add(_SITE, 2, _name(publisher))
            if rank in seen:
                continue  # the first article is the page's own
            seen.add(rank)
            author = node.get("author") or node.get("creator")
            for one in author if isinstance(author, list) else [author]:
                if isinstance(one, dict) and "name" not in one:
                    one = named.get(one.get("@id")) if isinstance(one.get("@id"), str) else None
                self.add(_AUTHOR, rank, _name(one))
            for key in ("datePublished", "dateCreated", "uploadDate"):
                value = node.get(key)
                if isinstance(value, str):
                    self.add(_DATE, rank, value)
                    break
            if rank == _JSON:
                self.add(_TITLE, 2, _string(node.get("headline")) or _string(node.get("name")))
            self.add(_LANGUAGE, 8, _name(node.get("inLanguage")))

    def _licence(self, value: Any) -> None:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                one = one.get("url") or one.get("@id")
            if isinstance(one, str):
                self.links.append(one)

    # -- elements of the body

    @cached_property
    def body(self) -> list[tuple[str, dict[str, str], frozenset[str]]]:
        """The visible elements, their attributes and the words of their classes."""
        elements = self.visible[:MAX_SHOWN]
        attributes = [_attributes(element) for element in elements]
        return [(e, a, _class_words(a.get("class", "")[:MAX_NAME])) for e, a in zip(elements, attributes, strict=True)]

    def shown_author(self) -> None:
        """Authors where readers see them. Of each kind of mark the first run: those below it wrote comments or other pages."""
        last: dict[int, int] = {}  # rank -> place of the run's last element so far
        for place, (element, attributes, words) in enumerate(self.body):
            item = attributes.get("itemprop")
            if item and not _AUTHOR_WORDS.isdisjoint(item.lower().split()):
                rank = _ITEM
            elif "rel" in attributes and "author" in attributes["rel"].lower().split():
                rank = _BYLINE
            elif not words.isdisjoint(_AUTHOR_WORDS) and words.isdisjoint(_OTHERS):
                rank = _BYLINE + 1
            else:
                continue
            if last.get(rank, place - 1) != place - 1:
                continue
            if rank == _ITEM:
                inner = _ITEM_NAME.search(element[:MAX_ELEMENT])
                text = (inner.group(1) or inner.group(2)) if inner else attributes.get("content") or _text(element)
            else:
                text = _text(element) if rank == _BYLINE else _byline(_text(element))
            if text:
                last[rank] = place
                self.add(_AUTHOR, rank, text)

    def shown_date(self) -> None:
        """Dates where readers see them. On the start page of a host they are those of other pages."""
        for element, attributes, words in () if self.start_page else self.body:
            item = attributes.get("itemprop", "").lower()
            time = element.startswith("<time")
            if not words.isdisjoint(_OTHERS) or not words.isdisjoint(_LATER) or "datemodified" in item:
                continue
            if "datepublished" in item or (time and "pubdate" in attributes):
                rank = _ITEM
            elif time:
                rank = _TIME
            elif not words.isdisjoint(_DATE_WORDS):
                rank = _BYLINE
            elif not words.isdisjoint(_AUTHOR_WORDS):
                rank = _BYLINE + 1
            else:
                continue
            self.add(_DATE, rank, attributes.get("datetime") or attributes.get("content") or attributes.get("title"))
            self.add(_DATE, rank, _text(element))

    # -- what is believed

    def author(self) -> tuple[int, str | None]:
        """The names of the best rank that has any, and that rank."""
        for rank, values in groupby(sorted(self.found[_AUTHOR], key=_RANK)[:MAX_NAMES], _RANK):
            known: dict[str, str] = {}
            for _, value in values:
                for name in _names(value, self):
                    known.setdefault(name.casefold(), name)
            if known:
                return rank, "; ".join(_without_longer(list(known.values())[:MAX_NAMES]))
        return _NOWHERE, None

    def published(self) -> tuple[int, str | None]:
        """The first date of the best rank that has one, and that rank."""
        for rank, value in sorted(self.found[_DATE], key=_RANK):
            if found := iso_date(value):
                return rank, found
        return _NOWHERE, None

    def title(self, headings: Sequence[str]) -> str | None:
        """The first title, or the one that is also a heading of the page; without the name of the site.

        On the start page of a host, the name of the site is the title.
        """
        own = self.start_page
        keys = {key for heading in headings[:MAX_HEADINGS] if (key := _key(heading)) and (own or key not in self.sites)}
        best = None
        for _, value in sorted(self.found[_TITLE], key=_RANK):
            if title := _plain(value):
                if keys and (found := _heading_of(title, keys)):
                    return found[:MAX_TITLE].strip()
                best = best or title
                if not keys:
                    break
        if best is None:
            return None
        return (best if own else _without_site(best, self))[:MAX_TITLE].strip()

    @cached_property
    def start_page(self) -> bool:
        return _is_root(self.url)

    @cached_property
    def sites(self) -> set[str]:
        """Names of the site, letters and digits only: as it names itself, and its host."""
        names = {_key(_plain(value)) for _, value in self.found[_SITE]}
        if self.url:
            host = _host(self.url)
            names |= {_key(host), *(_key(label) for label in host.split(".")[:-1] if len(label) > 3)}
        return names - {""}

    def language(self) -> str | None:
        for _, value in sorted(self.found[_LANGUAGE], key=_RANK):
            if found := primary_language(value.partition(",")[0]):
                return found
        return None

    def canonical(self) -> str | None:
        for rank, value in sorted(self.found[_CANONICAL], key=_RANK):
            found = self._absolute(unescape(value))
            if found and (not self.url or self.start_page or not _is_root(found) or (rank == 0 and self._same_host(found))):
                return found
        return None

    def _same_host(self, url: str) -> bool:
        return _host(url) == _host(self.url)

    def licences(self) -> list[str] | None:
        for _, value in self.found[_RIGHTS]:
            self.links += _URL.findall(unescape(value))
        links = dict.fromkeys(found for link in self.links[: 4 * MAX_LINKS] if (found := self._absolute(link)))
        return list(links)[:MAX_LINKS] or None

    def _absolute(self, link: str) -> str | None:
        """The link as an absolute URL; None if it is not on the web."""
        link = link.strip()
        if not link.lower().startswith(("http://", "https://")):
            if link.startswith("//"):
                link = ("http:" if (self.url or "").startswith("http:") else "https:") + link
            elif self.url and link:
                try:
                    link = urljoin(self.url, link)
                except ValueError:
                    return None
        return link if _split(link) else None


_PLAIN_META = frozenset(["<meta name=", "<meta property="])
_NAMING = frozenset(["name", "property", "itemprop", "http-equiv"])
_NO_CONTROLS = dict.fromkeys(range(32), " ")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_URL = re.compile(r"https?://[^\s\"'<>()]+", re.I)
_ITEM_NAME = re.compile(r'itemprop="name"(?:[^>]*? content="([^"]*)"[^>]*>|[^>]*>\s*(?:<[^>]*>\s*)*([^<]+))')
_AUTHOR_WORDS = frozenset("author authors byline byl creator".split())
_DATE_WORDS = frozenset("date dateline datetime pubdate published timestamp posted".split())
_OTHERS = frozenset("comment comments commentlist reply replies related footer sidebar widget".split())
_LATER = frozenset("updated update modified lastmod revised edited reviewed review event registration".split())


@lru_cache(maxsize=4096)
def _class_words(value: str) -> frozenset[str]:
    """Words of a class, `pubDate` and `post-date` cut up. The elements of a page, and the pages of a host, share theirs."""
    return frozenset(word.lower() for word in _WORD.findall(value))


# -- JSON-LD

_SITE_NODE = 999
_ARTICLES = frozenset(
    "report recipe question howto chapter book course dataset softwaresourcecode creativework podcastepisode".split()
)


def _about(node: dict[str, Any]) -> int | None:
    """What an object of JSON-LD is to its page: the article, the page itself, the site, or something else."""
    types = node.get("@type")
    rank = None
    for kind in types if isinstance(types, list) else [types]:
        if not isinstance(kind, str):
            continue
        kind = kind.rpartition("/")[2].lower()
        if kind.endswith(("article", "posting")) or kind in _ARTICLES:
            return _JSON
        if kind.endswith("page"):
            rank = _JSON_PAGE
        elif kind == "website" or kind.endswith("organization"):
            rank = rank or _SITE_NODE
    return rank


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: Any) -> str | None:
    """A string, or the name of an object."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("name")
    return _string(value)


# -- text


def _plain(value: str) -> str:
    """White space collapsed, entities decoded, those too that were written twice."""
    if "&" in value:
        value = unescape(value)
        if "&" in value and ";" in value:
            value = unescape(value)
    if "</" in value:
        value = _MARKUP.sub("", value)
    if not value.isprintable():
        value = _CONTROLS.sub(" ", value)
    return " ".join(value.split())


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\ufeff\ufffd\ud800-\udfff]")


def _text(element: str) -> str:
    """The text of an element, tags as spaces. Entities stay."""
    if len(element) > MAX_ELEMENT:
        element = element[:MAX_ELEMENT]
        if (last := element.rfind("<")) > element.rfind(">"):
            element = element[:last]
    return " ".join(_MARKUP.sub(" ", element).split())


def _key(text: str) -> str:
    """Letters and digits, by which names and titles are compared."""
    if text.isascii():  # many times faster
        return text.lower().encode().translate(None, _NOT_ASCII_LETTERS).decode()
    return _NOT_LETTERS.sub("", text.casefold())


_NOT_LETTERS = re.compile(r"[\W_]+")
_NOT_ASCII_LETTERS = bytes(code for code in range(128) if not chr(code).isalnum())


def _split(url: str | None) -> tuple[str, str] | None:
    """Host (without `www.`) and the rest of an address on the web; None for what is none."""
    found = _ADDRESS.match(url) if url and len(url) <= MAX_URL else None
    return (found[1].lower(), found[2]) if found else None


def _host(url: str | None) -> str:
    return (_split(url) or ("", ""))[0]


def _is_root(url: str | None) -> bool:
    """Whether it is the start page of a host."""
    return (_split(url) or ("", "x"))[1].partition("#")[0] in ("", "/")


_ADDRESS = re.compile(
    r"https?://(?:[^/?#@\s]*@)?(?:www\.)?([^/?#:@\s\[\]<>\"\x00-\x1f\x7f]+|\[[0-9a-f:.]+\])(?::\d*)?"
    r"((?:[/?#][^\s\x00-\x1f\x7f<>\"]*)?)\Z",
    re.I,
)


# What stands between the title and the name of the site.
_BETWEEN = re.compile(r"\s[-–—|•·»«:/›>~]{1,2}\s|\||:\s|[»›]\s")


def _heading_of(title: str, keys: set[str]) -> str | None:
    """The title, or the part of it before or after a separator, that has one of these keys."""
    if _key(title) in keys:
        return title
    for cut in _BETWEEN.finditer(title):
        if not cut.group().startswith(":"):  # what follows a colon is of the title, as far as one can tell
            for part in (title[: cut.start()], title[cut.end() :]):
                if _key(part) in keys:
                    return part
    return None


def _without_site(title: str, page: _Page) -> str:
    """The title without the name of the site at its end or beginning, where it is known to be that."""
    for _ in range(2):
        for cut in _BETWEEN.finditer(title):
            before, after = title[: cut.start()], title[cut.end() :]
            if _key(after) in page.sites and _key(before):
                title = before
                break
            if _key(before) in page.sites and _key(after):
                title = after
                break
        else:
            break
    return title


# -- names

_EMAIL = re.compile(r"[(<\[]?\s*(?:mailto:)?[\w.+-]+@[\w-]+(?:\.[\w-]+)+\s*[)>\]]?")
_LINK = re.compile(r"(?:https?:)?//\S*|\bwww\.\S+|\S+\.(?:com|org|net|html?|php)(?:/\S*)?(?=\s|$)", re.I)
_BY = re.compile(
    r"(?:(?:[^\W\d_]+\s+){0,2}by|(?:(?:geschrieben|verfasst|veröffentlicht|erstellt|artikel|bericht|text|beitrag)\s+)?von|"
    r"(?:[^\W\d_]+\s+)?(?:par|por)|di|a cura di|door|av|af|autor(?:in)?|authors?|auteur|text)\s*(?::\s*|\s+)",
    re.I,
)
_PARTICLES = frozenset("von van der den de del della di da dos du la le ten ter zu zur al bin ibn el y und and e st".split())
_PLACEHOLDERS = frozenset(
    "admin administrator administrador author authors user username guest unknown anonymous anonym none null nil undefined na "
    "webmaster root publisher default test staff editor redaktion wordpress wpadmin siteadmin webadmin superuser autor "
    "firstlast yourname name 作者 佚名".split()
)
_SEPARATORS = re.compile(r"\s*[;|•·]\s*|\s+[/–—-]\s+")
_JOINTS = re.compile(r"\s*,\s*(?:and|und|et|y)\s+|\s*,\s*|\s+(?:and|und|et|y|&|en|e|og|och)\s+")
_EDGES = ' \t,;:|·•–—-*"“”„«»/\\'


def _names(value: str, page: _Page) -> list[str]:
    """The names in what a page gives as its author."""
    text = _plain(value)
    if "@" in text:
        text = _EMAIL.sub(" ", text)
    if "." in text or "//" in text:
        text = _LINK.sub(" ", text)
    found = []
    for part in _SEPARATORS.split(text):
        part = part.strip(_EDGES)
        if (by := _BY.match(part)) and by.end() < len(part):
            rest = part[by.end() :]
            if rest[0].isupper() or not rest[0].isascii() or by.group().lower().startswith("by"):
                part = rest.strip(_EDGES)
        pieces = [piece for piece in _JOINTS.split(part) if piece]
        if len(pieces) > 1:
            others = [piece for piece in pieces if _key(piece) not in page.sites]
            pieces = others if others and all(map(_is_name, others)) else [part]
        for name in pieces:
            words = name.split()
            half = len(words) // 2
            name = " ".join(words[:half] if half and words[:half] == words[half:] else words).strip(_EDGES)
            if _usable(name):
                found.append(name)
    if len(found) > 1:
        found = [name for name in found if _key(name) not in page.sites] or found
    return found


def _without_longer(names: list[str]) -> list[str]:
    """Without the names that hold another one: markup around the name itself."""
    return [name for name in names if not any(other != name and other in name for other in names)]


def _usable(name: str) -> bool:
    """Whether this can be a name at all."""
    key = _key(name)
    return (
        len(key) > 1
        and len(name) <= MAX_NAME
        and key not in _PLACEHOLDERS
        and not key.isdigit()
        and len(name.split()) <= 8
        and not any(c in "{}<>[]%=$\\@" for c in name)
    )


def _is_name(text: str) -> bool:
    """Whether this looks like the full name of a person: two to five words with capitals, or two to four Chinese characters."""
    words = text.split()
    if len(words) == 1:
        return 2 <= len(text) <= 4 and all("\u4e00" <= c <= "\u9fff" for c in text)
    return (
        2 <= len(words) <= 5
        and words[-1][0].isupper()
        and all((w[0].isupper() or w in _PARTICLES) and not any(c.isdigit() for c in w) for w in words)
    )


_CUT = re.compile(r"[\d|•·(@:]|\s[–—-]\s|\b(?:on|updated|published|posted|am|vor|le|el|il)\b", re.I)
_BY_INSIDE = re.compile(r"(?:^|\W)[Bb]y\s+(?=[A-ZÀ-Þ])")
_DAYS = frozenset("mon tue wed thu fri sat sun monday tuesday wednesday thursday friday saturday sunday".split())


def _byline(text: str) -> str | None:
    """The name in a line that tells readers who wrote this: after `by`, or all of the line if it is a name."""
    text = _plain(text[:300])
    if by := _BY.match(text) or _BY_INSIDE.search(text):
        text = text[by.end() :]
    cut = _CUT.search(text)
    words = (text[: cut.start()] if cut else text).strip(_EDGES).split()
    while cut and words and (last := words[-1].lower().strip(".,")) and (last in _MONTHS or last in _DAYS):
        words.pop()
    text = " ".join(words).strip(_EDGES)
    return text if _is_name(text) or all(map(_is_name, _JOINTS.split(text))) else None


# -- dates

_ISO = re.compile(
    r"\s*(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})|(\d{2})(\d{2}))(?!\d)"
    r"(?:(?:[T_]|\s+|\s*,\s*)(\d{1,2}):?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9}))?)?\s*([AaPp]\.?[Mm])?"
    r"\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?(?![\d:]))?"
)
_CHINESE = re.compile(r"(\d{4})\s*[年년]\s*(\d{1,2})\s*[月월]\s*(\d{1,2})\s*[日일号]")
_NUMBERS = re.compile(r"(?<![\d./-])(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?![\d/-]|\.\d)")
_YEAR_FIRST = re.compile(r"(?<![\d./-])(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d|[-/]\d)")
_DAY_MONTH = re.compile(
    r"(?<!\d)(\d{1,2})(?:st|nd|rd|th|\.|º|°|er|ème)?\s*(?:of\s+|de\s+|-|/)?\s*([^\W\d_]{3,12})\.?,?\s*(?:del?\s+|-|/)?\s*(\d{4})(?!\d)"
)
_MONTH_DAY = re.compile(r"([^\W\d_]{3,12})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(?:\d{1,2}:\d{2}(?::\d{2})?\s+)?(\d{4})(?!\d)")
_ZERO_DAYS = frozenset([(1970, 1, 1), (1900, 1, 1), (1899, 12, 30), (1899, 12, 31), (1601, 1, 1)])
# Months in full and in short, of the languages that write dates in letters on much of the web: one line a language.
_MONTHS = {
    word: number + 1
    for line in (
        "january february march april may june july august september october november december",
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "jän feber mrz apr mai jun jul aug sept okt nov dez",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "janv févr mars avr mai juin juil août sept oct nov déc",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "ene feb mar abr may jun jul ago set oct nov dic",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "jan fev mar abr mai jun jul ago set out nov dez",
        "januari februari maart april mei juni juli augustus september oktober november december",
        "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
        "januari februari mars april maj juni juli augusti september oktober november december",
        "januar februar marts april maj juni juli august september oktober november desember",
    )
    for number, word in enumerate(line.split())
}


def iso_date(text: str) -> str | None:
    """The date, or date and time, that a text gives, in ISO 8601; None unless it is one day beyond doubt.

    A date that stands first and in figures, year first, keeps its time and zone. Elsewhere only the day is taken: named months,
    figures with the year first, and figures with the year last where the day is above 12, equals the month, or is followed by
    dots, which no one writes after a month.
    """
    text = text.strip()[:200]
    if found := _ISO.match(text):
        year, _, month, day, month2, day2, hour, minute, second, fraction, half, zone = found.groups()
        whole = _day(year, month or month2, day or day2)
        if whole is None or hour is None or half or int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
            return whole
        time = f"T{int(hour):02d}:{minute}:{second or '00'}" + (f".{fraction}" if fraction else "")
        if zone:
            time += "Z" if zone in ("Z", "UTC", "GMT") else f"{zone[:3]}:{zone[-2:] if len(zone) > 3 else '00'}"
        return whole + time
    for found in _DAY_MONTH.finditer(text):
        if month := _MONTHS.get(found[2].lower()):
            return _day(found[3], month, found[1])
    for found in _MONTH_DAY.finditer(text):
        if month := _MONTHS.get(found[1].lower()):
            return _day(found[3], month, found[2])
    if found := _CHINESE.search(text) or None:
        return _day(*found.groups())
    if found := _YEAR_FIRST.search(text):
        return _day(found[1], found[3], found[4])
    if found := _NUMBERS.search(text):
        first, second = int(found[1]), int(found[3])
        if found[2] == "." or first > 12 or first == second:
            return _day(found[4], second, first)
        if second > 12:
            return _day(found[4], first, second)
    return None


def _day(year: Any, month: Any, day: Any) -> str | None:
    """`YYYY-MM-DD` of a day that exists and may be meant."""
    key = int(year), int(month), int(day)
    if not FIRST_YEAR <= key[0] <= LAST_YEAR or key in _ZERO_DAYS:
        return None
    try:
        return date(*key).isoformat()
    except ValueError:
        return None
