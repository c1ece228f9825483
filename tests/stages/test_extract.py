"""extract: the text of HTML that was kept."""

import pyarrow as pa
import pytest

from curate.errors import RecipeError
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


def test_an_unknown_engine():
    with pytest.raises(RecipeError, match="did you mean 'resiliparse'"):
        Extract(engine="resiliparser")(pages(b"<p>a</p>"))
