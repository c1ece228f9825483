"""datatrove: its own steps run as stages, and a step that breaks the contract is told so."""

import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.filters.base_filter import BaseFilter

from curate.errors import ColumnError, RecipeError, StageError
from curate.recipe import loads
from curate.stages.datatrove import Datatrove

HERE = __name__


class Short(LambdaFilter):
    """A LambdaFilter with its function in it, since a recipe holds none."""

    def __init__(self, limit: int):
        super().__init__(lambda doc: len(doc.text) < limit)


class ByLanguage(BaseFilter):
    name = "by language"

    def filter(self, doc):
        doc.metadata["seen"] = doc.metadata["language"] or "none"
        return doc.metadata["language"] == "en"


class Step(PipelineStep):
    name = type = "test"

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def run(self, data, rank=0, world_size=1):
        yield from getattr(self, self.how)(list(data))

    def upper(self, docs):
        for doc in docs:
            doc.text = doc.text.upper()
            doc.metadata.update(n=len(doc.text), share=0.5, flag=True, word=doc.text[:1])
        return docs

    def copies(self, docs):
        return [Document(text=d.text + "!", id=d.id, metadata={"n": 1}) for d in reversed(docs)]

    def twice(self, docs):
        return docs + docs[:1]

    def strangers(self, docs):
        return [Document(text="", id="who?")]

    def nothing(self, docs):
        return []


def step(how, **more):
    return Datatrove(step=f"{HERE}:Step", params={"how": how}, **more)


def test_a_real_filter_drops():
    result = Datatrove(step=f"{HERE}:Short", params={"limit": 4})(["abc", "abcd", None])
    assert result.kept["id"].to_pylist() == ["0", "2"]
    assert result.dropped["_reason"].to_pylist() == ["datatrove.dropped"]


def test_gopher_quality_as_in_datatrove():
    from datatrove.pipeline.filters import GopherQualityFilter

    prose = "The quick brown fox and the lazy dog have been in the garden with that of the man to see. " * 20
    docs = [prose, "too short", "- bullet\n" * 100 + prose, prose.replace(" ", "… ")]
    result = Datatrove(step="datatrove.pipeline.filters:GopherQualityFilter", params={"min_doc_words": 10})(docs)
    theirs = GopherQualityFilter(min_doc_words=10).run(Document(text=t, id=str(i)) for i, t in enumerate(docs))
    assert result.kept["id"].to_pylist() == [d.id for d in theirs] != []


def test_columns_go_there_and_back():
    docs = pa.table({"text": ["a", "b", "c"], "language": ["en", None, "de"]})
    stage = Datatrove(step=f"{HERE}:ByLanguage", read_columns=("language",), write_columns={"seen": "string"})
    result = stage(docs)
    assert result.kept["seen"].to_pylist() == ["en"] and result.dropped["text"].to_pylist() == ["b", "c"]


def test_a_formatter_changes_the_text_and_writes_typed_columns():
    types = {"text": "string", "n": "int64", "share": "double", "flag": "bool", "word": "string", "absent": "double"}
    kept = step("upper", write_columns=types)(["abc", ""]).kept
    assert kept["text"].to_pylist() == ["ABC", ""]
    assert kept["text_bytes"].to_pylist() == [3, 0]
    assert [str(kept.schema.field(n).type) for n in ("n", "share", "flag", "word")] == ["int64", "double", "bool", "string"]
    assert kept.select(["n", "share", "flag", "word", "absent"]).to_pylist()[0] == {
        "n": 3, "share": 0.5, "flag": True, "word": "A", "absent": None,
    }  # fmt: skip


def test_new_documents_in_another_order_are_matched_by_id():
    kept = step("copies", write_columns={"text": "string", "n": "int64"})(["a", "b", "c"]).kept
    assert kept["text"].to_pylist() == ["a!", "b!", "c!"]


def test_documents_of_one_id_are_told_apart_if_they_are_the_same_objects():
    docs = pa.table({"id": ["x", "x"], "text": ["abc", "abcd"]})
    assert Datatrove(step=f"{HERE}:Short", params={"limit": 4})(docs).kept["text"].to_pylist() == ["abc"]
    with pytest.raises(StageError, match="'x', which is not unique"):
        step("copies", write_columns={"text": "string"})(docs)


@pytest.mark.parametrize(
    "how, more, message",
    [
        ("twice", {}, "more than one document for '0'"),
        ("strangers", {}, "'who\\?', which it was not given"),
        ("upper", {}, "declare it: writes: {text: string}"),
        ("upper", {"write_columns": {"text": "string", "word": "int64"}}, "'word' with a value that is not a int64"),
    ],
)
def test_a_broken_contract_is_an_error(how, more, message):
    with pytest.raises(StageError, match=message):
        step(how, **more)(["a", "b"])


def test_a_step_may_drop_everything():
    assert step("nothing")(["a"]).kept.num_rows == 0


@pytest.mark.parametrize(
    "name, params, message",
    [
        ("datatrove.pipeline.filters:NoSuchFilter", {}, "cannot be loaded"),
        ("no_such_module:X", {}, "cannot be loaded"),
        ("RegexFilter", {}, "write module:Class"),
        ("builtins:dict", {}, "not a subclass"),
        ("datatrove.pipeline.filters:RegexFilter", {"regex": "a"}, "it takes"),
    ],
)
def test_a_wrong_step_is_an_error_before_any_work(name, params, message):
    with pytest.raises(RecipeError, match=message):
        Datatrove(step=name, params=params).reads()


def test_a_missing_column_is_an_error_before_any_work():
    with pytest.raises(ColumnError, match="'language'"):
        Datatrove(step=f"{HERE}:ByLanguage", read_columns=("language",))(["a"])


def test_the_recipe_says_reads_and_writes():
    recipe = loads("name: r\nstages:\n  - datatrove: {step: 'a:B', params: {x: [1]}, reads: [text, url], writes: {n: int64}}\n")
    stage = recipe.stages[0].stage
    assert stage.read_columns == ("text", "url") and stage.write_columns == {"n": "int64"}
    assert loads(recipe.dump()) == recipe
    with pytest.raises(RecipeError, match=r"recipe:3: .*'read'.* did you mean 'reads'"):
        loads("name: r\nstages:\n  - datatrove: {step: 'a:B', read: [text]}\n")
    with pytest.raises(RecipeError, match="the type of 'n' is 'int'"):
        loads("name: r\nstages:\n  - datatrove: {step: 'a:B', writes: {n: int}}\n")
    with pytest.raises(RecipeError, match=r"parameter 'reads\.0'"):
        loads("name: r\nstages:\n  - datatrove: {step: 'a:B', reads: [1]}\n")
