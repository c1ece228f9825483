"""manifest.json: complete, in agreement with itself and its schema, and any changed byte of an output is found."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
import yaml
from test_export import corpus, documents, run

from curate import card, manifest
from curate.errors import ManifestError
from curate.export import ShardEntry
from curate.manifest import Manifest
from curate.recipe import Output
from curate.storage import canonical, sha256_file, write_bytes

RECIPE = {"name": "web-en", "description": "Test data | a pipe.", "source": {"jsonl": {}}, "stages": []}


def build(shards: list[ShardEntry], columns: dict[str, str] | None = None, **more: object) -> Manifest:
    n = sum(s.documents for s in shards)
    stages = [
        {"id": "ingest", "name": "ingest", "params": {}, "rows_in": n + 3, "rows_added": 0, "rows_out": n + 2,
         "drops": {"too_large": 1}},
        {"id": "where", "name": "where", "params": {"column": "x"}, "rows_in": n + 2, "rows_added": 0, "rows_out": n,
         "drops": {"where.x": 2}},
    ]  # fmt: skip
    given: dict = {
        "recipe": RECIPE,
        "inputs": [{"corpus": "web", "name": "a.jsonl", "bytes": 9, "sha256": "0" * 64, "documents": n, "rejected": 1}],
        "columns": columns or {"text": "string"},
        "tokenizer": "bytes/4",
        "shards": shards,
        "stages": stages,
        "deterministic": True,
        "provenance": {"curate": "0", "created": "2026-01-01T00:00:00Z"},
    }
    return manifest.build(**{**given, **more})


def export(root: Path, n: int = 300, output: Output | None = None) -> tuple[Path, Manifest]:
    """A whole output folder, made as a run makes it."""
    data = corpus(root, documents(n))
    entries, _ = run(data, output or Output(validation=0.1))
    columns = {}
    if entries:
        columns = {f.name: str(f.type) for f in pq.read_schema(root / "output" / entries[0].path)}
    made = build(entries, columns)
    card.write_card(root / "output", made)
    return root / "output", made.write(root / "output")


def test_an_untouched_output_verifies(tmp_path: Path) -> None:
    out, made = export(tmp_path)
    for deep in (False, True):
        found = Manifest.verify(out, deep)
        assert found["ok"] and found["digest"] == made.digest and found["documents"] == 300
    assert Manifest.load(out / "manifest.json") == made
    assert manifest.verify(out)["documents"] == 300
    shutil.move(out, tmp_path / "elsewhere")
    assert Manifest.verify(tmp_path / "elsewhere", deep=True)["ok"]


def test_an_empty_output_verifies(tmp_path: Path) -> None:
    out, made = export(tmp_path, 0)
    assert Manifest.verify(out, deep=True)["documents"] == 0
    assert made.shards == [] and made.totals.tokens == 0


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    out, _ = export(tmp_path, 200)
    rng = random.Random(1)
    paths = [p for p in sorted(out.rglob("*")) if p.is_file()]
    assert len(paths) == 5
    for path in paths:
        whole = path.read_bytes()
        at = {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))}
        if path.name == "manifest.json":
            at = set(range(0, len(whole), 3))
        for i in sorted(at):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << rng.randrange(8))]) + whole[i + 1 :])
            with pytest.raises(ManifestError):
                Manifest.verify(out)
        path.write_bytes(whole[:-1])
        with pytest.raises(ManifestError):
            Manifest.verify(out)
        path.write_bytes(whole)
    assert Manifest.verify(out)["ok"]


def test_added_and_missing_files_are_found(tmp_path: Path) -> None:
    out, made = export(tmp_path)
    for name in ("data/train-00001-of-00002.parquet", "notes.txt", "data/.hidden", "more/x"):
        write_bytes(out / name, b"x")
        with pytest.raises(ManifestError, match=r"is not listed"):
            Manifest.verify(out)
        (out / name).unlink()
    for name in (made.shards[0].path, "README.md", "croissant.json", "manifest.json"):
        whole = (out / name).read_bytes()
        (out / name).unlink()
        with pytest.raises(ManifestError, match=f"{Path(name).name} is missing"):
            Manifest.verify(out)
        (out / name).write_bytes(whole)


def test_files_that_were_swapped_are_found(tmp_path: Path) -> None:
    out, made = export(tmp_path)
    a, b = (out / s.path for s in made.shards)
    a.rename(out / "x")
    b.rename(a)
    (out / "x").rename(b)
    with pytest.raises(ManifestError, match="was changed"):
        Manifest.verify(out)


@pytest.mark.parametrize("what", ["documents", "bytes", "tokens"])
def test_deep_counts_again(tmp_path: Path, what: str) -> None:
    """A manifest that was signed over wrong figures."""
    data = corpus(tmp_path, documents(100))
    entries, _ = run(data)
    wrong = [ShardEntry(**{**entries[0].__dict__, what: getattr(entries[0], what) + 1})]
    columns = {f.name: str(f.type) for f in pq.read_schema(tmp_path / "output" / entries[0].path)}
    build(wrong, columns).write(tmp_path / "output")
    Manifest.verify(tmp_path / "output")
    with pytest.raises(ManifestError, match=rf"holds \d+ {what}, manifest.json says"):
        Manifest.verify(tmp_path / "output", deep=True)


def test_a_forged_checksum_does_not_hide_a_wrong_digest_or_sum(tmp_path: Path) -> None:
    out, made = export(tmp_path)
    for change, message in (
        ({"digest": "1" * 64}, "the digest"),
        ({"totals": made.totals.model_copy(update={"tokens": 1})}, "the totals"),
    ):
        made.model_copy(update=change).write(out)
        with pytest.raises(ManifestError, match=message):
            Manifest.verify(out)


def test_stages_that_do_not_add_up(tmp_path: Path) -> None:
    stage = {"id": "x", "name": "x", "params": {}, "rows_in": 5, "rows_added": 0, "rows_out": 3, "drops": {"a": 1}}
    build([], stages=[stage]).write(tmp_path)
    with pytest.raises(ManifestError, match="rows of stage 'x' do not add up"):
        Manifest.verify(tmp_path)


def test_paths_outside_the_folder_are_refused(tmp_path: Path) -> None:
    entry = ShardEntry("../secret", 0, 0, 0, "0" * 64, "train")
    build([entry]).write(tmp_path)
    with pytest.raises(ManifestError, match="not below its folder"):
        Manifest.verify(tmp_path)


def test_digest_is_of_what_decides_and_not_of_when(tmp_path: Path) -> None:
    entry = ShardEntry("data/a.parquet", 1, 2, 3, "0" * 64, "train")
    one = build([entry])
    later = build([entry], provenance={"created": "2030-01-01T00:00:00Z"})
    assert one.digest == later.digest and one.write(tmp_path).checksum != later.write(tmp_path).checksum
    assert one.digest != build([entry], recipe={**RECIPE, "name": "other"}).digest
    value = {k: one.model_dump()[k] for k in ("format", "recipe", "inputs", "columns", "stages", "shards")}
    assert one.digest == hashlib.sha256(canonical(value)).hexdigest()


def test_unknown_fields_and_bad_json_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    build([]).write(tmp_path)
    value = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps({**value, "surprise": 1}))
    with pytest.raises(ManifestError, match="surprise"):
        Manifest.load(path)
    path.write_bytes(b"{")
    with pytest.raises(ManifestError, match="is not JSON"):
        Manifest.load(path)
    path.write_bytes(orjson.dumps({**value, "format": "curate-manifest/2"}))
    with pytest.raises(ManifestError, match="format"):
        Manifest.load(path)


def test_the_published_schema_is_current_and_fits(tmp_path: Path) -> None:
    published = json.loads((Path(__file__).parent.parent / "docs" / "manifest.schema.json").read_text())
    assert published == manifest.json_schema(), "run: python -m curate.manifest > docs/manifest.schema.json"
    jsonschema = pytest.importorskip("jsonschema")
    out, _ = export(tmp_path)
    value = json.loads((out / "manifest.json").read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(value, published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**value, "surprise": 1}, published)


# --------------------------------------------------------------------------------------------- the card


def test_card_says_what_happened(tmp_path: Path) -> None:
    out, made = export(tmp_path)
    text = (out / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["size_categories"] == ["n<1K"]
    assert [f["split"] for f in front["configs"][0]["data_files"]] == ["train", "validation"]
    assert "| where | 302 | 0 | 300 | 2 (0.7%) | where.x 2 |" in body
    assert "| `file` | string |" in body
    assert made.digest in body and "a.jsonl" in body
    assert "Test data | a pipe." in body
    again = tmp_path / "again"
    card.write_card(again, Manifest.load(out / "manifest.json"))
    for name in ("README.md", "croissant.json"):
        assert sha256_file(again / name) == sha256_file(out / name)  # made out of the manifest alone


@pytest.mark.parametrize(
    ("n", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (5 * 10**6, "1M<n<10M"), (10**13, "n>1T")]
)
def test_size_categories(n: int, name: str) -> None:
    entry = ShardEntry("data/train-00000-of-00001.parquet", n, 0, 0, "0" * 64, "train")
    text = card.readme(build([entry]))
    assert yaml.safe_load(text.split("---\n")[1])["size_categories"] == [name]
