"""rules: published thresholds, which rule is the reason, what is overridden, and what is not judged."""

import inspect
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from curate.recipe import Recipe, loads
from curate.signals import BY_NAME, ENGLISH, SPACED, UNKNOWN, UNSPACED
from curate.stage import Task
from curate.stages.rules import Rules

SETS = ("gopher", "gopher_repetition", "c4", "c4_any_end", "fineweb")

# rule: (signal, threshold), in the order of datatrove's filters
PUBLISHED = {
    "gopher.min_words": ("gopher_words", 50),
    "gopher.max_words": ("gopher_words", 100_000),
    "gopher.min_mean_word_length": ("gopher_mean_word_length", 3),
    "gopher.max_mean_word_length": ("gopher_mean_word_length", 10),
    "gopher.max_hash_ratio": ("gopher_hash_ratio", 0.1),
    "gopher.max_ellipsis_ratio": ("gopher_ellipsis_ratio", 0.1),
    "gopher.max_bullet_line_share": ("gopher_bullet_line_share", 0.9),
    "gopher.max_ellipsis_line_share": ("gopher_ellipsis_line_share", 0.3),
    "gopher.min_alpha_word_share": ("gopher_alpha_word_share", 0.8),
    "gopher.min_stop_words": ("gopher_stop_words", 2),
    "gopher_repetition.min_chars": ("text_chars", 1),
    "gopher_repetition.max_dup_para_share": ("gopher_dup_para_share", 0.3),
    "gopher_repetition.max_dup_para_char_share": ("gopher_dup_para_char_share", 0.2),
    "gopher_repetition.max_dup_line_share": ("gopher_dup_line_share", 0.3),
    "gopher_repetition.max_dup_line_char_share": ("gopher_dup_line_char_share", 0.2),
    **{
        f"gopher_repetition.max_top_{n}gram_char_share": (f"gopher_top_{n}gram_char_share", share)
        for n, share in ((2, 0.2), (3, 0.18), (4, 0.16))
    },
    **{
        f"gopher_repetition.max_dup_{n}gram_char_share": (f"gopher_dup_{n}gram_char_share", (20 - n) / 100)
        for n in range(5, 11)
    },
    **{
        f"{name}.{rule}": (f"{name}_{signal}", threshold)
        for name in ("c4", "c4_any_end")
        for rule, signal, threshold in (
            ("lorem_ipsum", "lorem_ipsum", 0),
            ("curly_bracket", "curly_bracket", 0),
            ("min_sentences", "sentences", 5),
        )
    },
    "fineweb.min_line_punct_ratio": ("fineweb_line_punct_ratio", 0.12),
    "fineweb.max_short_line_ratio": ("fineweb_short_line_ratio", 0.67),
    "fineweb.max_char_dup_ratio": ("fineweb_char_dup_ratio", 0.01),
    "fineweb.max_new_line_ratio": ("fineweb_new_line_ratio", 0.3),
}
GOOD = {"gopher_words": 500, "gopher_mean_word_length": 5, "gopher_alpha_word_share": 0.9, "gopher_stop_words": 6,
        "text_chars": 2000, "c4_sentences": 9, "c4_any_end_sentences": 9, "fineweb_line_punct_ratio": 0.5}  # fmt: skip
NEED_SPACES = {
    "gopher.min_mean_word_length", "gopher.max_mean_word_length", "gopher.min_alpha_word_share", "gopher.min_stop_words",
    "c4.min_sentences", "c4_any_end.min_sentences", "fineweb.max_short_line_ratio",
    *(code for code in PUBLISHED if "gram" in code),
}  # fmt: skip


def table(*rows, **columns):
    """Documents with the signals of a good text, but for what is given."""
    names = [*dict.fromkeys(signal for signal, _ in PUBLISHED.values()), "c4_bad_words", "word_rule"]
    made = {
        name: pa.array([row.get(name, GOOD.get(name, 0)) for row in rows], getattr(pa, BY_NAME[name].dtype)()) for name in names
    }
    return pa.table({"text": ["x"] * len(rows), **made, **columns})


def reasons(documents, **parameters):
    result = Rules(**{"sets": SETS, **parameters})(documents)
    why = dict(zip(result.dropped["id"].to_pylist(), result.dropped["_reason"].to_pylist(), strict=True))
    return [why.get(str(i)) for i in range(len(documents))]


def breaks(rule, value, threshold):
    return value < threshold if rule.partition(".")[2].startswith("min_") else value > threshold


def test_all_rules_in_order():
    assert Rules(sets=SETS).reasons() == tuple(PUBLISHED)
    assert Rules(sets=("fineweb", "c4")).reasons() == tuple(
        [c for c in PUBLISHED if c.startswith("fineweb.")] + [c for c in PUBLISHED if c.startswith("c4.")]
    )


def test_thresholds_are_those_of_datatrove():
    filters = pytest.importorskip("datatrove.pipeline.filters")

    def defaults(cls):
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

    def ours(name, *rules):
        return [PUBLISHED[f"{name}.{rule}"][1] for rule in rules]

    theirs = defaults(filters.GopherQualityFilter)
    assert ours("gopher", "min_words", "max_words", "min_mean_word_length", "max_mean_word_length", "max_hash_ratio",
                "max_ellipsis_ratio", "max_bullet_line_share", "max_ellipsis_line_share", "min_alpha_word_share",
                "min_stop_words") == [
        theirs[key] for key in ("min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length",
                                "max_symbol_word_ratio", "max_symbol_word_ratio", "max_bullet_lines_ratio",
                                "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words")]  # fmt: skip
    theirs = defaults(filters.GopherRepetitionFilter)
    assert ours("gopher_repetition", "max_dup_line_share", "max_dup_para_share", "max_dup_line_char_share",
                "max_dup_para_char_share") == [
        theirs[key] for key in ("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")]  # fmt: skip
    for kind in ("top", "dup"):
        for n, share in theirs[f"{kind}_n_grams"]:
            assert ours("gopher_repetition", f"max_{kind}_{n}gram_char_share") == [share]
    assert ours("c4", "min_sentences") == [defaults(filters.C4QualityFilter)["min_num_sentences"]]
    theirs = defaults(filters.FineWebQualityFilter)
    keys = ("line_punct_thr", "short_line_thr", "char_duplicates_ratio", "new_line_ratio")
    rules = ("min_line_punct_ratio", "max_short_line_ratio", "max_char_dup_ratio", "max_new_line_ratio")
    assert ours("fineweb", *rules) == [theirs[key] for key in keys]


@pytest.mark.parametrize("rule", PUBLISHED)
def test_each_rule_alone(rule):
    signal, threshold = PUBLISHED[rule]
    whole = BY_NAME[signal].dtype != "float32"
    step = 1 if whole else 1e-4
    worse = threshold - step if breaks(rule, -math.inf, 0) else threshold + step
    better = threshold + step if breaks(rule, -math.inf, 0) else max(threshold - step, 0)
    result = Rules(sets=SETS)(table({signal: worse}, {signal: threshold}, {signal: better}, {}))
    assert result.dropped["id"].to_pylist() == ["0"]
    assert result.dropped["_reason"].to_pylist() == [rule]
    assert result.dropped["_value"].type == pa.float64()
    assert result.dropped["_value"].to_pylist() == [float(worse if whole else np.float32(worse))]


def near(threshold):
    return st.sampled_from([threshold, threshold - 1, threshold + 1, threshold * 0.99, threshold * 1.01, 0, 1]).filter(
        lambda x: x >= 0
    )


ROWS = st.lists(
    st.dictionaries(st.sampled_from(list(PUBLISHED)), st.none(), max_size=4).flatmap(
        lambda some: st.fixed_dictionaries({PUBLISHED[rule][0]: near(PUBLISHED[rule][1]) for rule in some})
    ),
    min_size=1,
    max_size=20,
)


@given(ROWS, st.lists(st.sampled_from(SETS), unique=True, min_size=1), st.data())
def test_against_a_plain_reading(rows, sets, data):
    kinds = data.draw(st.lists(st.sampled_from([UNKNOWN, SPACED, ENGLISH, UNSPACED]), min_size=len(rows), max_size=len(rows)))
    codes = data.draw(st.lists(st.sampled_from(["en", "zh", "de", None]), min_size=len(rows), max_size=len(rows)))
    known = [rule for rule in PUBLISHED if rule.partition(".")[0] in sets]
    some = st.dictionaries(st.sampled_from(known), st.sampled_from([None, 0, 0.5, 1, 3, 60]), max_size=3)
    thresholds, chinese = data.draw(some), data.draw(some)
    rows = [{s: int(v) if BY_NAME[s].dtype != "float32" else v for s, v in row.items()} for row in rows]

    def plain(row, kind, code):
        ordered = sorted(known, key=lambda rule: (sets.index(rule.partition(".")[0]), list(PUBLISHED).index(rule)))
        for rule in ordered:
            signal, threshold = PUBLISHED[rule]
            threshold = thresholds.get(rule, threshold)
            own = code == "zh" and rule in chinese
            if own:
                threshold = chinese[rule]
            if threshold is None or (kind == UNSPACED and rule in NEED_SPACES and not own):
                continue
            value = row.get(signal, GOOD.get(signal, 0))
            if BY_NAME[signal].dtype == "float32":
                value, threshold = np.float32(value), np.float32(threshold)
            if breaks(rule, value, threshold):
                return rule
        return None

    documents = table(
        *({**row, "word_rule": kind} for row, kind in zip(rows, kinds, strict=True)), language=pa.array(codes, pa.string())
    )
    expected = [plain(*each) for each in zip(rows, kinds, codes, strict=True)]
    try:
        found = reasons(documents, sets=tuple(sets), thresholds=thresholds, languages={"zh": chinese})
    except RecipeError as error:
        assert "every rule is switched off" in str(error)
        assert all(thresholds.get(rule, 1) is None for rule in known)
        return
    assert found == expected


def test_a_ratio_at_its_threshold_is_kept():
    at = [3 / 10, 30 / 100, 3e5 / 1e6, 0.30001]
    assert reasons(table(*({"gopher_dup_line_share": x} for x in at))) == [None] * 3 + ["gopher_repetition.max_dup_line_share"]
    assert reasons(table({"fineweb_line_punct_ratio": 12 / 100}, {"fineweb_line_punct_ratio": 0.1199})) == [
        None,
        "fineweb.min_line_punct_ratio",
    ]


def test_the_order_of_the_sets_decides_the_reason():
    bad = table({"gopher_words": 1, "fineweb_new_line_ratio": 1})
    assert reasons(bad, sets=("gopher", "fineweb")) == ["gopher.min_words"]
    assert reasons(bad, sets=("fineweb", "gopher")) == ["fineweb.max_new_line_ratio"]


def test_other_thresholds():
    documents = table({"gopher_words": 40}, {"gopher_words": 20}, {"gopher_hash_ratio": 0.5})
    assert reasons(documents) == ["gopher.min_words", "gopher.min_words", "gopher.max_hash_ratio"]
    for thresholds in (
        {"gopher.min_words": 30, "gopher.max_hash_ratio": None},
        {"gopher": {"min_words": 30, "max_hash_ratio": None}},
        {"gopher.min_words": 30, "gopher": {"max_hash_ratio": None}},
    ):
        assert reasons(documents, thresholds=thresholds) == [None, "gopher.min_words", None]
    assert "gopher_hash_ratio" not in Rules(sets=SETS, thresholds={"gopher.max_hash_ratio": None}).reads()


def test_bad_words_count_where_they_are_asked_for():
    documents = table({"c4_bad_words": 2}, {"c4_bad_words": 0})
    assert reasons(documents) == [None, None]
    assert reasons(documents, sets=("c4",), thresholds={"c4.bad_words": 0}) == ["c4.bad_words", None]
    assert reasons(documents, sets=("c4_any_end",), thresholds={"c4_any_end.bad_words": 2}) == [None, None]


def test_a_recipe_may_set_one_threshold_from_the_command_line():
    recipe = loads("name: a\nstages:\n  - rules: {sets: [gopher, fineweb]}\n")
    changed = loads(recipe.dump(), overrides=["stages.rules.thresholds.gopher.min_words=30"])
    stage = changed.stages[0].stage
    assert stage.thresholds == {"gopher": {"min_words": 30}}
    assert loads(changed.dump()).stages[0].stage == stage
    assert isinstance(changed, Recipe)


def test_only_the_columns_of_active_rules_are_read_and_never_the_text():
    assert Rules(sets=("gopher_repetition",), thresholds={}).reads()[0] == "text_chars"
    for name in SETS:
        reads = Rules(sets=(name,)).reads()
        expected = {signal for rule, (signal, _) in PUBLISHED.items() if rule.partition(".")[0] == name}
        assert set(reads) == {*expected, "word_rule"}
        assert "text" not in reads
    few = Rules(
        sets=("gopher",), thresholds={c: None for c in PUBLISHED if c.startswith("gopher.") and c != "gopher.min_words"}
    )
    assert few.reads() == ("gopher_words",)
    assert "language" in Rules(sets=("gopher",), languages={"de": {"gopher.min_words": 30}}).reads()


def judged(documents, **parameters):
    """(reasons, notes of the task)."""
    task = Task(phase="", rank=0)
    out = Rules(**{"sets": SETS, **parameters}).open(task)(documents.combine_chunks().to_batches()[0])
    return out["_reason"].to_pylist(), task.counters


def test_texts_without_spaces_are_judged_by_what_holds_for_them():
    chinese = {"gopher_mean_word_length": 1.1, "c4_sentences": 0, "fineweb_short_line_ratio": 1.0, "word_rule": UNSPACED}
    documents = table(chinese, {**chinese, "word_rule": SPACED}, {**chinese, "gopher_words": 3}, language=["zh", "zh", "ja"])
    found, counters = judged(documents)
    assert found == [None, "gopher.min_mean_word_length", "gopher.min_words"]
    assert counters == {"documents written without spaces, not judged by the rules that need them": 2}
    own = {"zh": {"gopher.min_mean_word_length": 1.5}, "ja": {"gopher.min_words": 2}}
    found, counters = judged(documents, languages=own)
    assert found == ["gopher.min_mean_word_length", "gopher.min_mean_word_length", None]
    assert list(counters.values()) == [2]
    assert judged(documents, sets=("gopher",), thresholds={c: None for c in NEED_SPACES if c.startswith("gopher.")})[1] == {}


def test_what_is_null_is_not_judged_but_counted():
    documents = table({"gopher_stop_words": None, "word_rule": SPACED}, {"gopher_stop_words": 0}, {"gopher_words": None})
    assert judged(documents) == (
        [None, "gopher.min_stop_words", None],
        {
            "documents without gopher_stop_words, which gopher.min_stop_words did not judge": 1,
            "documents without gopher_words, which gopher.min_words did not judge": 1,
            "documents without gopher_words, which gopher.max_words did not judge": 1,
        },
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"sets": ("gophr",)}, "'gophr'; did you mean 'gopher'"),
        ({"sets": ()}, "name each set once"),
        ({"sets": ("c4", "c4")}, "name each set once"),
        ({"thresholds": {"gopher.min_word": 3}}, "did you mean 'gopher.min_words'"),
        ({"thresholds": {"gopher": {"min_word": 3}}}, "did you mean 'gopher.min_words'"),
        ({"thresholds": {"gopher.min_words": 3, "gopher": {"min_words": 4}}}, "twice"),
        ({"sets": ("c4",), "thresholds": {"gopher.min_words": 3}}, "add it to sets"),
        ({"thresholds": {"gopher.min_words": math.nan}}, "write a number, or null"),
        ({"thresholds": {"gopher.min_words": "30"}}, "write a number, or null"),
        ({"languages": {"german": {}}}, "rules: languages holds 'german'; write ISO 639-1 codes"),
        ({"languages": {"de": 3}}, "write {gopher.min_words: 30}"),
        ({"languages": {"de": {"gopher.min_word": 3}}}, r"languages\.de holds 'gopher\.min_word'"),
        ({"sets": ("fineweb",), "thresholds": {c: None for c in PUBLISHED if c.startswith("fineweb")}}, "every rule is"),
    ],
)
def test_wrong_parameters(wrong, message):
    with pytest.raises(RecipeError, match=message):
        Rules(**{"sets": ("gopher",), **wrong})
