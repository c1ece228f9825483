"""where: SQL's three-valued logic, and nothing that looks beyond the row."""

import pyarrow as pa
import pytest

from curate.errors import ColumnError, RecipeError, StageError
from curate.stages.where import Where

DOCS = pa.table(
    {
        "text": list("abcdef"),
        "language": ["en", "en", "de", None, "en", "en"],
        "quality": [0.9, 0.3, 0.9, 0.9, None, float("nan")],
        "n": [1, 2, 3, 4, 5, None],
        "my col": [True, False, True, False, None, True],
    }
)


@pytest.mark.parametrize(
    "sql, kept, null",
    [
        ("language = 'en' AND quality > 0.3", "af", "de"),  # NaN is greater than any number, as in Polars and Postgres
        ("language <> 'en'", "c", "d"),
        ("quality IS NULL", "e", ""),
        ("NOT (language = 'en')", "c", "d"),
        ("language = 'en' OR quality > 0.5", "abcdef", ""),  # true or null is true
        ("language = 'fr' AND n > 100", "", ""),  # null and false is false
        ("coalesce(quality, 0) < 0.5", "be", ""),
        ('"my col"', "acf", "e"),
        ("n BETWEEN 2 AND 3", "bc", "f"),
        ("n IN (1, 4)", "ad", "f"),
        ("text LIKE '%a%' OR text = 'it''s'", "a", ""),
        ("CASE WHEN n > 3 THEN language = 'en' ELSE TRUE END", "abcef", "d"),
        ("length(text) = 1", "abcdef", ""),
    ],
)
def test_a_row_stays_where_the_condition_is_true(sql, kept, null):
    result = Where(sql=sql)(DOCS)
    reasons = dict(zip(result.dropped["text"].to_pylist(), result.dropped["_reason"].to_pylist(), strict=True))
    assert "".join(result.kept["text"].to_pylist()) == kept
    expected = {t: "where.null" if t in null else "where.false" for t in "abcdef" if t not in kept}
    assert reasons == expected


def test_it_reads_what_it_names():
    assert Where(sql="language = 'en' AND quality > 0.3 AND language < 'f'").reads() == ("language", "quality")
    assert Where(sql="\"my col\" AND text LIKE '%quality%'").reads() == ("my col", "text")


@pytest.mark.parametrize(
    "sql",
    [
        "quality >",
        "",
        "quality > AVG(quality)",
        "SUM(n) OVER (PARTITION BY language) > 1",
        "ROW_NUMBER() OVER (ORDER BY n) > 3",
        "COUNT(*) > 3",
        "UNNEST(n) = 1",
        "n IN (SELECT 1)",
        "EXISTS (SELECT * FROM read_csv('/etc/passwd'))",
        "n = 1 -- ' \n AND EXISTS (SELECT * FROM read_csv('x')) --'",
        "text = E'\\'' OR EXISTS (SELECT * FROM read_csv('x')) OR text = ''",
        "text = $$'$$ OR EXISTS (SELECT * FROM read_csv('x')) OR text = ''",
        "`select` = 1",
        '"avg"(n) > 1',
        "date > CURRENT_DATE",
        "1 = 1",
        "n; n",
        "text = 'open",
    ],
)
def test_what_is_refused_before_any_work(sql):
    with pytest.raises(RecipeError, match="where: "):
        Where(sql=sql).reads()


def test_no_file_is_opened_for_a_subquery(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(RecipeError, match="not allowed"):
        Where(sql=f"n IN (SELECT a FROM read_csv('{secret}'))").reads()


def test_a_condition_that_does_not_fit_the_types_stops_rather_than_drops():
    with pytest.raises(StageError, match="does not fit its columns"):
        Where(sql="text > 3")(DOCS)
    with pytest.raises(StageError, match="not a condition"):
        Where(sql="n + 1")(DOCS)
    with pytest.raises(ColumnError, match="qualty"):
        Where(sql="qualty > 0.3")(DOCS)


def test_a_cast_that_fails_is_an_error_of_its_row():
    docs = pa.table({"text": ["1", "x", "3"]})
    result = Where(sql="CAST(text AS INT) > 2")(docs)
    assert result.kept["text"].to_pylist() == ["3"]
    assert result.dropped["_reason"].to_pylist() == ["where.false", "error.InvalidOperationError"]
