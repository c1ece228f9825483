"""extract: the text of HTML that was kept."""

import pyarrow as pa
import pytest

from curate.errors import RecipeError
from curate.extract import columns
from curate.stages.extract import Extract


def pages(*html):
    return pa.table({"html": pa.array(html, pa.binary()), "url": pa.array([f"http://{i}.test" for i in range(len(html))])})


def test_text_or_a_reason():
    deep = b"<div>" * 100_000 + b"x"
    article = "<html><body><article><p>Ein Absatz für den Test, lang genug für einen Text.</p></article></body></html>"
    result = Extract()(pages(article.encode(), b"", b"<html><body><script>x</script></body></html>", None, deep))
    assert result.kept["text"].to_pylist() == ["Ein Absatz für den Test, lang genug für einen Text."]
    assert result.kept["text_bytes"].to_pylist() == [len(result.kept["text"][0].as_py().encode())]
    assert result.dropped["_reason"].to_pylist() == ["empty_text", "empty_text", "extract.no_html", "extract.too_deep"]


def test_an_old_text_is_replaced():
    docs = pages(b"<p>new</p>").append_column("text", pa.array(["old"]))
    assert Extract()(docs).kept["text"].to_pylist() == ["new"]


def test_whatever_the_extractor_says_is_a_known_reason(monkeypatch):
    import curate.extract as extract

    def gives_up(html, url, charset):
        raise extract.Unextractable("extract.ValueError", "page 7")

    monkeypatch.setattr(extract, "load", lambda name, **options: gives_up)
    assert Extract()(pages(b"<p>a</p>")).dropped["_reason"].to_pylist() == ["extract.failed"]


HTML = b"""<html lang="de-AT"><head><title>Eine Seite</title></head><body><nav>Zur Startseite</nav><article>
<p>Ein Absatz, lang genug.</p></article></body></html>"""


def test_what_the_page_says_of_itself():
    kept = Extract(engine="resiliparse")(pages(HTML, b"<p>Only a text</p>", None)).kept
    assert kept["title"].to_pylist() == ["Eine Seite", None]
    assert kept["declared_language"].to_pylist() == ["de", None]
    assert "author" not in kept.column_names  # the engine does not look for it
    known = pages(HTML, b"<p>Only a text</p>").append_column("declared_language", pa.array(["fr", "fr"]))
    known = known.append_column("title", pa.array(["An old title", "An old title"]))
    again = Extract(engine="resiliparse")(known).kept
    assert again["declared_language"].to_pylist() == ["de", "fr"]  # a header's word stays where the page says nothing
    assert again["title"].to_pylist() == ["Eine Seite", None]
    without = Extract(engine="resiliparse", metadata=False)(known).kept
    assert without["title"].to_pylist() == ["An old title"] * 2 and without["declared_language"].to_pylist() == ["fr", "fr"]
    assert without["text"].equals(again["text"])


def test_the_columns_of_each_engine():
    everything = ["text", "declared_language", *columns("curate").names]
    assert Extract(engine="curate").writes().names == everything
    assert Extract(engine="resiliparse").writes().names == ["text", "declared_language", "title"]
    assert Extract(engine="curate", metadata=False).writes().names == ["text"]
    assert Extract(engine="curate").writes().field("licence_links").type == pa.list_(pa.string())


def test_options():
    found = Extract(engine="resiliparse", keep="all_text")(pages(HTML)).kept["text"][0].as_py()
    assert "Zur Startseite" in found and "Zur Startseite" not in Extract()(pages(HTML)).kept["text"][0].as_py()
    with pytest.raises(RecipeError, match=r"extract: keep is 'mian'; did you mean 'main'"):
        Extract(keep="mian")
    with pytest.raises(RecipeError, match="extractor 'resiliparse' has no format: 'markdown', only 'text'"):
        Extract(engine="resiliparse", format="markdown")(pages(HTML))


def test_an_unknown_engine():
    with pytest.raises(RecipeError, match="did you mean 'resiliparse'"):
        Extract(engine="resiliparser")(pages(b"<p>a</p>"))
