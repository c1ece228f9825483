"""Chunks, checks of answers, and functions in place of a model."""

import asyncio
import math
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_server import Server

from curate import rewriting
from curate.errors import RecipeError, StageError
from curate.llm import Client, Request
from curate.rewriting import (
    CHECKS,
    Checks,
    Function,
    Judge,
    between,
    call,
    chosen_pairs,
    chunks,
    cleaned,
    composed,
    copied_share,
    counted,
    estimated,
    kinds,
    pieces,
    qa_pairs,
    refused,
    rejected,
    stitch,
    unfaithful_share,
    without_markdown,
    without_preamble,
    without_prefix,
    without_quotes,
)
from curate.stage import Task

PROSE = st.lists(
    st.sampled_from(["One", "word ", "end. ", "Is it? ", "\n", "\n\n", " \n\t\n", "他说。", "好」！", "é", "\u3000", "x" * 90]),
    max_size=60,
).map("".join)  # fmt: skip
TEXTS = st.one_of(PROSE, st.text(max_size=300))


# --------------------------------------------------------------------------------------------- chunks


@given(TEXTS, st.integers(0, 40), st.sampled_from(rewriting.UNITS), st.booleans())
def test_chunks_lose_no_character_and_keep_their_size(text, most, unit, cut):
    found = chunks(text, most, unit, cut=cut)
    at = 0
    for a, b in found:
        assert at <= a < b and not text[at:a].strip() and text[a] == text[a:b].lstrip()[0]
        at = b
    assert not text[at:].strip()
    if most and cut:
        assert all(estimated(text[a:b]) <= most or b - a == 1 for a, b in found)


@given(TEXTS, st.integers(0, 40), st.sampled_from(rewriting.UNITS), st.booleans())
def test_stitched_chunks_are_the_text_byte_for_byte(text, most, unit, cut):
    spans = chunks(text, most, unit, cut=cut)
    assert stitch(text, spans, [text[a:b] for a, b in spans]) == (text if spans else "")


def test_chunks_end_where_a_unit_does():
    text = "First one. Second one! Third?\nA line.\n\nA paragraph of its own. With two sentences."

    def cut(most, unit):
        return [text[a:b] for a, b in chunks(text, most, unit)]

    parts = ["First one.", "Second one! Third?", "A line.", "A paragraph of its", "own.", "With two sentences."]
    assert cut(5, "sentence") == parts  # and no part of a sentence with another one
    assert cut(8, "line") == ["First one. Second one! Third?", "A line.\n\nA paragraph of its own.", "With two sentences."]
    assert cut(11, "paragraph") == ["First one. Second one! Third?\nA line.", "A paragraph of its own. With two sentences."]
    assert cut(0, "line") == [text] and chunks("", 40) == chunks(" \n ", 0) == []
    long = "word " * 100 + "\nshort"
    assert [b - a for a, b in chunks(long, 32, "line", cut=False)] == [499, 5]


def test_sentences_of_many_scripts():
    def sentences(text):
        return [text[a:b] for a, b in pieces(text, "sentence")]

    assert sentences('He said "Stop." Then he left… And so on.') == ['He said "Stop."', "Then he left…", "And so on."]
    assert sentences("他来了。「走吧！」他说。真的？！") == ["他来了。", "「走吧！」", "他说。", "真的？！"]
    assert sentences("यह एक है। यह दो है।") == ["यह एक है।", "यह दो है।"]
    assert sentences("e.g. this is one of 2.5 and example.com") == ["e.g. this is one of 2.5 and example.com"]


def test_a_long_text_without_spaces_is_cut_in_little_time():
    text = "x" * 1_000_000
    found = chunks(text, 300)
    assert len(found) == math.ceil(1_000_000 / 1200) and found[-1][1] == 1_000_000


def test_chunks_by_a_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    text = "One two three. Four five six seven. Eight."
    size = counted(str(tmp_path / "tokenizer.json"))
    assert [text[a:b] for a, b in chunks(text, 6, "sentence", size)] == ["One two three.", "Four five six seven.", "Eight."]
    assert [text[a:b] for a, b in chunks(text, 7, "sentence", size)] == ["One two three.", "Four five six seven. Eight."]


def test_stitching_leaves_out_with_the_gap_before():
    text, spans = "  a b\n\nc\n", [(2, 3), (4, 5), (7, 8)]
    assert stitch(text, spans, ["A", None, "C"]) == "  A\n\nC\n"
    assert stitch(text, spans, [None, "B", "C"]) == "  B\n\nC\n"
    assert stitch(text, spans, [None, None, None]) == "" == stitch("", [], [])
    assert stitch(text, spans, ["A", None, "C"], "\n") == "A\nC"


# --------------------------------------------------------------------------------------------- what stands around a text

ANNOUNCED = [
    "Here is the rewritten text:\n\n",
    "Sure! Here's a paraphrased version of the passage:\n",
    "Certainly, here is a summary in simpler words: ",
    "**Rewritten version:** ",
    "Of course!\n\n",
    "Hier ist die überarbeitete Fassung:\n",
    "Gerne! Im Folgenden die Zusammenfassung des Textes:\n",
    "Voici une version reformulée du texte :\n",
    "Claro, aquí tienes una versión reescrita:\n",
    "Ecco il testo riformulato:\n",
    "Aqui está o texto reescrito:\n",
    "Hieronder de herschreven tekst:\n",
    "Oto przeredagowana wersja:\n",
    "Вот переписанный текст:\n",
    "以下是改写后的文本：\n",
    "以下は言い換えた文章です：\n",
]
REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I cannot fulfill this request.",
    "I can't assist.",
    "As an AI language model, I do not have opinions.",
    "Unfortunately, I am unable to rewrite this.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Lo siento, pero no puedo ayudarte.",
    "Mi dispiace, ma non posso aiutarti.",
    "Desculpe, mas não posso ajudar.",
    "Het spijt me, maar daar kan ik niet bij helpen.",
    "Przepraszam, ale nie mogę tego zrobić.",
    "Извините, но я не могу помочь.",
    "抱歉，我无法满足这个请求。",
    "申し訳ありませんが、お手伝いできません。",
]
PLAIN = [
    "Here is where the story begins: a river, a town and a mill.",
    "Here is what you need: flour, water, salt.",
    "Sure enough, the rain came. It stayed for a week.",
    "Certainly the best of its kind: the old bridge.",
    "Unfortunately, the bridge could not be saved.",
    "Sorry is the hardest word, and nobody can say it.",
    "As an AI researcher she built models.",
    "Leider konnte die Brücke nicht gerettet werden.",
    "Voici Paris : une ville de lumière.",
    "I can't help but start with this camera, which is new.",
    "I won't be creating my own calculator. A book of tables is enough.",
    "I can see the sea from here, and I cannot get enough of it.",
]


@pytest.mark.parametrize("preamble", ANNOUNCED)
def test_announcements_are_stripped(preamble):
    assert without_preamble(preamble + "The mill stands by the river.").strip() == "The mill stands by the river."
    assert without_preamble(preamble.rstrip()) == preamble.rstrip()  # nothing follows
    assert without_preamble(preamble + "x", source=preamble + "y") == preamble + "x"


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_told(text):
    assert refused("The mill stands by the river.", text) == refused("", "\n" + text) == "refused"
    assert refused(text, text) is None  # the source says so itself


@pytest.mark.parametrize("text", PLAIN)
def test_texts_like_them_are_left_alone(text):
    assert without_preamble(text) == text and refused("", text) is None


def test_prefixes_markers_markdown_and_quotes():
    assert without_prefix("Paraphrased Text: It rains.", "Paraphrased Text:") == "It rains."
    assert without_prefix("\n**paraphrased text:**\nIt rains.", "Paraphrased Text:") == "It rains."
    assert without_prefix("It rains. Paraphrased Text:", "Paraphrased Text:") is None
    assert between("I think <out> no <out>yes</out> so", ("<out>", "</out>")) == "yes"
    assert between("think\nFINAL:\nyes", ("FINAL:",)) == "\nyes" and between("think", ("FINAL:",)) is None
    assert between("<out>yes", ("<out>", "</out>")) is None
    marked = "# Head\n\n**Bold** and *thin* and __this__, `code`, [a link](http://x.example/y).\n\n---\n> said\n"
    marked += "- item\n```py\na_b * c * d\n```"
    plain = "Head\n\nBold and thin and this, code, a link.\n\nsaid\n- item\na_b * c * d\n"
    assert without_markdown(marked) == plain
    assert without_markdown("2 * 3 * 4 and snake_case_name and C# 5") == "2 * 3 * 4 and snake_case_name and C# 5"
    assert without_quotes(' "It rains." ') == "It rains." and without_quotes("„Ja“") == "Ja"
    assert without_quotes('"Yes," he said, "it rains."') == '"Yes," he said, "it rains."' and without_quotes('"') == '"'


def test_an_answer_is_cleaned_in_a_fixed_order():
    everything = Checks(
        markers=("<out>", "</out>"), nothing="NO USEFUL CONTENT", prefix="Text:", strip_markdown=True, strip_quotes=True,
        max_output_tokens=10,
    )  # fmt: skip

    def of(answer):
        return cleaned(f"<think>hm</think> <out>{answer}</out>", "A source.", everything)

    assert of('**Text:** "A **new** text."') == ("A new text.", None)
    assert of("No useful content.") == ("", "nothing") and of("I'm sorry, but I cannot help.") == ("", "refused")
    assert of("A new text.") == ("", "no_prefix") and of("Text:  ") == ("", "empty")
    assert of("Text: " + "word " * 20) == ("", "above_max")
    assert cleaned("Text: x", "A source.", everything) == ("", "no_marker")
    assert cleaned("NO USEFUL CONTENT here", "", Checks(nothing="NO USEFUL CONTENT")) == ("NO USEFUL CONTENT here", None)
    assert cleaned("<think>all of it</think>", "", Checks()) == ("", "empty")
    off = Checks(refusals=False, preamble=False)
    assert cleaned("I'm sorry, but I cannot help.", "x", off)[1] is None
    assert cleaned("Here is the rewritten text: x", "x", off)[0].startswith("Here is")


@given(st.text(max_size=200), st.text(max_size=50), st.booleans())
def test_no_answer_is_too_odd_to_be_cleaned(answer, source, marks):
    checks = Checks(prefix="P:" if marks else "", strip_markdown=marks, strip_quotes=True, nothing="NONE")
    text, kind = cleaned(answer, source, checks)
    assert (kind is None) == bool(text) and (kind is None or kind in kinds())
    assert rejected(source, text, Checks(copied=0.5, unfaithful=0.1, ngram=2))[0] in (None, "length", "copied", "unfaithful")


@pytest.mark.parametrize(
    "part", ["*a ", "_a ", "[a", "`a", "~~a", "> ", "# ", "- ", "*", "-", " ", "\n", "1. ", "Question:", "<out>", "a.", "。"]
)
def test_long_runs_of_marks_take_no_long_time(part):
    text = part * 30_000
    checks = Checks(strip_markdown=True, strip_quotes=True, markers=("<out>", "</out>"))
    cleaned(f"<out>{text}</out>", text, checks)
    qa_pairs(text)
    for unit in rewriting.UNITS:
        spans = chunks(text, 100, unit)
        assert stitch(text, spans, [text[a:b] for a, b in spans]) == (text if spans else "")


# --------------------------------------------------------------------------------------------- chunks put together


def unit(start, end, answer, error=None):
    return {"prompt": "p", "sample": 0, "start": start, "end": end, "answer": answer, "error": error}


def test_a_document_of_which_some_chunks_failed():
    source = "aaaa bbbb cccc"
    units = [unit(0, 4, "AAAA"), unit(5, 9, None, "timeout"), unit(10, 14, "CCCC")]
    assert composed(source, units, Checks())[:2] == ("", "timeout")
    assert composed(source, units, Checks(partial="original"))[:2] == ("AAAA bbbb CCCC", None)
    assert composed(source, units, Checks(partial="drop"))[:2] == ("AAAA CCCC", None)
    assert composed(source, units, Checks(partial="drop"))[2] == ["timeout"]
    units[0] = unit(0, 4, "NOTHING")
    assert composed(source, units, Checks(nothing="NOTHING", partial="original"))[:2] == ("bbbb CCCC", None)
    units[2] = unit(10, 14, None, "left_out")
    assert composed(source, units, Checks(nothing="NOTHING", partial="original"))[:2] == ("", "timeout")  # nothing of it is new
    units[1] = unit(5, 9, "NOTHING")
    assert composed(source, units, Checks(nothing="NOTHING"))[:2] == ("", "nothing")
    assert composed(source, [unit(0, 4, None, "left_out")], Checks())[:2] == ("", "too_short")
    assert composed(source, [unit(0, 14, None, "too_long")], Checks(partial="original"))[:2] == ("", "too_long")
    cut_off = [unit(0, 14, "AAAA bb", "truncated")]
    assert composed(source, cut_off, Checks())[:2] == ("", "truncated")
    assert composed(source, cut_off, Checks(keep_truncated=True))[:2] == ("AAAA bb", None)


# --------------------------------------------------------------------------------------------- checks of the whole


def test_length_is_a_ratio_of_tokens():
    for n, kind in ((2, "length"), (3, None), (30, None), (31, "length")):
        found = rejected("x" * 10, "y" * n, Checks())
        assert found[0] == kind and (kind is None or found[1] == n / 10)
    assert rejected("x", "y" * 1000, Checks(length=(0.3, 0))) == (None, None)


def test_copied_runs_of_words():
    source = "the quick brown fox jumps over the lazy dog"
    assert copied_share(source, source, 3) == 1.0
    assert copied_share(source, "The quick, brown FOX sleeps", 3) == pytest.approx(2 / 3)
    assert copied_share(source, "two words", 3) == 0.0
    assert copied_share("他说今天会下雨", "我说今天会下雪", 3) == pytest.approx(3 / 5)
    assert rejected(source, source, Checks(copied=0.9, ngram=4))[0] == "copied"


def test_facts_that_the_source_does_not_have():
    source = r"In 1999 there were 1,000 cases, or 2.5%: $\frac{1}{2}$."
    assert unfaithful_share(source, r"1000 cases in 1999: \frac{1}{2}") == 0.0
    assert unfaithful_share(source, r"1. 1000 cases" + "\n" + r"2. \sqrt{2}, 1998") == pytest.approx(2 / 4)
    assert unfaithful_share(source, "no numbers") == 0.0
    assert rejected(source, "It was in 1998, or 2.5%, with other words around", Checks(unfaithful=0.2)) == ("unfaithful", 0.5)


def test_language_likeness_and_quality_are_judged_by_models(tmp_path):
    english = "The old mill stands by the river, and every morning the miller opens its heavy doors to the town."
    german = "Die alte Mühle steht am Fluss, und jeden Morgen öffnet der Müller der Stadt ihre schweren Türen."
    other = "Shares fell on Tuesday as investors weighed interest rates and a surprising report about inflation."
    task = Task(phase="t", rank=0)
    judge = Judge(Checks(), task, "test")
    assert [kind for kind, _ in judge([english] * 3, [german, english.upper(), "1 2 3 " * 20])] == ["language", None, None]
    assert Judge(Checks(same_language=0), task, "test")([english], [german]) == [(None, None)]

    from curate.embeddings import fit_lsa

    words = [english, other, "The mill by the river is old.", "Rates and inflation and shares."] * 5
    fit_lsa(words, 4).save(tmp_path / "lsa.npz")
    like = Checks(same_language=0, length=(0, 0), similarity=0.5, similarity_model=str(tmp_path / "lsa.npz"))
    assert Judge.files(like) == (str(tmp_path / "lsa.npz"),)
    found = Judge(like, task, "test")([english, english, english], ["By the river stands the old mill.", other, "zzz"])
    assert [kind for kind, _ in found] == [None, "unlike", "unlike"] and found[1][1] < 0.5 and found[2][1] is None

    better = Checks(same_language=0, length=(0, 0), quality_gain=0.05)
    assert any(path.endswith("model.ftz") for path in Judge.files(better))
    spam = "click here buy now free shipping login password viagra casino bonus " * 10
    article = (
        "Photosynthesis is the process by which plants convert light into chemical energy. In the first stage, light is "
        "absorbed by chlorophyll; in the second, carbon dioxide is reduced to sugars. "
    ) * 4
    found = Judge(better, task, "test")([spam, article, article], [article, spam, article])
    assert [kind for kind, _ in found] == [None, "no_better", "no_better"]
    assert found[1][1] < 0 == found[2][1]


def test_a_verdict_depends_on_no_other_pair():
    rng = np.random.default_rng(0)
    words = "river stone garden Wasser Brücke letter 12 \\frac".split()
    sources, outputs = ([" ".join(rng.choice(words, 30)) for _ in range(40)] for _ in range(2))
    judge = Judge(Checks(copied=0.3, ngram=2, unfaithful=0.5, quality_gain=0.0), Task(phase="t", rank=0), "test")
    assert judge(sources, outputs) == [judge([a], [b])[0] for a, b in zip(sources, outputs, strict=True)]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"length": (3.0, 0.3)}, "give two ratios"),
        ({"length": (0.3,)}, "give two ratios"),
        ({"markers": ("a", "b", "c")}, "markers"),
        ({"copied": 2.0}, "copied is 2.0"),
        ({"similarity": 3.0}, "cosine"),
        ({"qa": "yes"}, "qa is 'yes'"),
        ({"partial": "keep"}, "partial"),
        ({"ngram": 0}, "ngram"),
    ],
)
def test_checks_that_cannot_be(options, said):
    with pytest.raises(RecipeError, match=f"^here: .*{said}"):
        Checks(**options).check("here")
    assert set(options) <= set(CHECKS)


# --------------------------------------------------------------------------------------------- questions and answers


def test_pairs_are_found_however_they_are_set():
    text = "Here are they.\n\n1. **Question:** Is it?\n**Answer:** Yes.\n\n- Question 2: Why?\nBecause?\nAnswer: A\nB\n\n"
    text += "Question: none"
    assert qa_pairs(text) == ["Question: Is it?\nAnswer: Yes.", "Question: Why?\nBecause?\nAnswer: A\nB"]
    assert qa_pairs("no pairs here") == []


def test_how_many_pairs_follows_from_the_source():
    pairs = [f"pair {i}" for i in range(12)]
    source = "x" * 4 * 90  # 90 tokens: one to six
    found = [chosen_pairs(pairs, source, 42, f"d{i}") for i in range(300)]
    assert {len(f) for f in found} == {1, 2, 3, 4, 5, 6}
    assert all(len(set(f)) == len(f) for f in found) and len({tuple(f) for f in found}) > 200
    assert found == [chosen_pairs(pairs, source, 42, f"d{i}") for i in range(300)]
    assert found != [chosen_pairs(pairs, source, 43, f"d{i}") for i in range(300)]
    assert all(len(chosen_pairs(pairs, "short", 1, f"d{i}")) == 1 for i in range(50))


# --------------------------------------------------------------------------------------------- asking


def test_parameters_of_a_request_take_the_place_of_the_clients():
    with Server() as server, Client(server.url, "test-model", parameters={"temperature": 0.5}) as client:
        plain, other = client.ask([Request("a"), Request("a", parameters={"seed": 1})])
        assert plain.ok and other.ok and not other.cached
    assert [{k: b[k] for k in b if k not in ("model", "messages")} for b in server.bodies] == [
        {"temperature": 0.5},
        {"seed": 1},
    ]


# --------------------------------------------------------------------------------------------- functions

opened: list["Stateful"] = []


def shout(texts):
    return [text.upper() for text in texts]


async def whisper(texts, end=""):
    await asyncio.sleep(0)
    return (text.lower() + end for text in texts)


def picky(texts):
    if any("bad" in text for text in texts):
        raise ValueError("a bad one")
    return shout(texts)


def wrong(texts):
    return texts[:-1]


def not_texts(texts):
    return [1 for _ in texts]


def one_text(texts):
    return "".join(texts)


def failing(texts):
    raise KeyError("always")


class Stateful:
    version = 3

    def __init__(self, mark="!"):
        self.mark, self.calls, self.closed = mark, [], False
        opened.append(self)

    def rewrite(self, texts):
        self.calls.append(list(texts))
        return [text + self.mark if text else None for text in texts]

    def close(self):
        self.closed = True


class Called:
    def __call__(self, texts):
        return shout(texts)


class Nothing:
    pass


def halved(texts):
    return ["\ud83d" if "bad" in text else text for text in texts]


class Settings:
    def __init__(self, cache, batch_size=4):
        self.cache, self.batch_size = str(cache), batch_size


def made(name, texts, cache="none", task=None, **parameters):
    function = Function.find(f"{__name__}:{name}", "test")
    task = task or Task(phase="t", rank=0)
    return [(a, e) for _, a, e in call(Settings(cache), task, "test", function, enumerate(texts), parameters)]


def test_functions_of_all_kinds():
    texts = ["One", "two"]
    assert made("shout", texts) == made("Called", texts) == [("ONE", None), ("TWO", None)]
    assert made("whisper", texts, end=".") == [("one.", None), ("two.", None)]
    assert made("Stateful", texts, mark="?") == [("One?", None), ("two?", None)]
    assert made("Stateful", ["", "x"]) == [(None, "empty"), ("x!", None)]


def test_a_class_is_opened_once_and_sees_no_text_twice():
    opened.clear()
    made("Stateful", [f"text {i % 6}" for i in range(20)])
    (one,) = opened
    assert one.closed and all(len(c) <= 4 and len(set(c)) == len(c) for c in one.calls)


def test_an_error_is_traced_to_its_text(caplog):
    texts = ["good one", "bad", "fine", "good two", "bad too", "well"]
    found = made("picky", texts)
    assert found == [(None, "function_error") if "bad" in t else (t.upper(), None) for t in texts]
    assert caplog.text.count("ValueError: a bad one") == 1
    assert made("halved", ["good", "bad", "well"]) == [("good", None), (None, "function_error"), ("well", None)]
    with pytest.raises(StageError, match="failing has failed on each of the first 10 texts, the last with KeyError"):
        made("failing", [str(i) for i in range(30)])


@pytest.mark.parametrize(
    "name, said", [("wrong", "gave 3 texts for 4"), ("not_texts", "gave a int"), ("one_text", "gave a str")]
)
def test_a_function_that_breaks_its_contract_stops_the_run(name, said):
    with pytest.raises(StageError, match=said):
        made(name, "abcd")


@pytest.mark.parametrize(
    "name, said",
    [
        ("shout", "write module:name"),
        (f"{__name__}:nothing", "cannot be loaded"),
        ("no.such.module:f", "cannot be loaded"),
        (f"{__name__}:Nothing", "neither a function"),
        (f"{__name__}:PLAIN", "neither a function"),
    ],
)
def test_what_is_no_function(name, said):
    with pytest.raises(RecipeError, match=f"^test: .*{said}"):
        Function.find(name, "test")


@pytest.mark.parametrize(
    "name, parameters, said",
    [
        ("shout", {"loud": 1}, r"test: `parameters` do not fit \S+:shout\(texts\): got an unexpected .* 'loud'"),
        ("Stateful", {"marks": "?"}, r"Stateful\(mark='!'\): got an unexpected .* 'marks'"),
        ("Settings", {}, "missing a required argument: 'cache'"),
        ("whisper", {"texts": 1}, "multiple values"),
    ],
)
def test_parameters_that_a_function_does_not_take(name, parameters, said):
    target = globals()[name]
    with pytest.raises(RecipeError, match=said):
        Function(f"{__name__}:{name}", "", "", target).check(parameters, "test")
    Function("f", "", "", dict.fromkeys).check({}, "test")  # built in


def test_a_function_is_cached_by_name_version_parameters_and_text(tmp_path, monkeypatch):
    texts = [f"text {i}" for i in range(10)]

    def calls():
        found = [text for one in opened for group in one.calls for text in group]
        opened.clear()
        return found

    opened.clear()
    task = Task(phase="t", rank=0)
    first = made("Stateful", texts, tmp_path, task)
    assert calls() == texts and "answers from the cache" not in task.counters
    assert made("Stateful", [*texts, "new"], tmp_path, task) == [*first, ("new!", None)]
    assert calls() == ["new"] and task.counters["answers from the cache"] == 10
    made("Stateful", texts, tmp_path, mark="?")
    assert calls() == texts
    monkeypatch.setattr(Stateful, "version", 4)
    made("Stateful", texts, tmp_path)
    assert calls() == texts
    stateful, shouted = (Function.find(f"{__name__}:{name}", "test") for name in ("Stateful", "shout"))
    assert (stateful.told, stateful.version) == ("4", "version 4")
    assert (shouted.told, shouted.version) == ("", sha256(Path(__file__).read_bytes()).hexdigest())
