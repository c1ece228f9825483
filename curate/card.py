"""What people and hubs read about an output: README.md (a Hugging Face dataset card) and croissant.json.

Both are made out of the manifest alone, so that they are the same for the same output: no dates, no host. croissant.json
follows Croissant 1.0 (docs.mlcommons.org/croissant) and is written by hand, so that no extra package is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from curate.manifest import Manifest
from curate.storage import write_bytes, write_json

_LISTED_INPUTS = 40
_MEANINGS = {
    "id": "id in the input, else the WARC record's id, else a hash of file and record",
    "text": "the document",
    "url": "where it was found",
    "date": "when it was fetched or published, as the input has it",
    "tokens": "length in tokens of the tokenizer below",
    "text_bytes": "length of `text` in UTF-8 bytes",
    "corpus": "input root that it came from",
    "file": "input file, relative to its root",
    "record": "byte offset or row in that file",
    "language": "ISO 639-1, else 639-3, else `und`",
    "language_score": "confidence in `language`, 0 to 1",
}
_PRIMITIVE = re.compile(r"string|bool|u?int(8|16|32|64)|halffloat|float|double|binary")
_HF = {"halffloat": "float16", "float": "float32", "double": "float64"}
_SIZES = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]


def write_card(output: Path, manifest: Manifest) -> None:
    """Write README.md and croissant.json into the output folder."""
    write_bytes(output / "README.md", readme(manifest).encode())
    write_json(output / "croissant.json", croissant(manifest))


# --------------------------------------------------------------------------------------------- README.md


def readme(manifest: Manifest) -> str:
    """The dataset card: a YAML header for the Hugging Face Hub, and what a reader wants to know."""
    head = yaml.safe_dump(_front_matter(manifest), sort_keys=False, allow_unicode=True, width=120)
    parts = [f"---\n{head}---", *_summary(manifest), *_funnel(manifest), *_columns(manifest), *_loading(manifest)]
    return "\n\n".join([*parts, *_lineage(manifest), *_inputs(manifest)]) + "\n"


def _front_matter(manifest: Manifest) -> dict[str, Any]:
    groups: dict[str | None, dict[str, dict[str, int]]] = {}
    for (group, split), entry in _parts(manifest).items():
        groups.setdefault(group, {})[split] = entry
    found: dict[str, Any] = {"pretty_name": _name(manifest)}
    found["task_categories"] = ["text-generation"]
    found["size_categories"] = [_size_category(manifest.totals.documents)]
    found["tags"] = ["curate", "pretraining", "croissant"]
    if not groups:
        return found
    found["configs"] = [
        {
            "config_name": group or "default",
            "data_files": [{"split": split, "path": _files(group, split)} for split in splits],
            **({"default": True} if group and number == 0 else {}),
        }
        for number, (group, splits) in enumerate(groups.items())
    ]
    if all(_PRIMITIVE.fullmatch(kind) for kind in manifest.columns.values()):
        about = [
            {
                **({"config_name": group} if group else {}),
                "features": [{"name": n, "dtype": _HF.get(kind, kind)} for n, kind in manifest.columns.items()],
                "splits": [{"name": s, "num_bytes": e["bytes"], "num_examples": e["documents"]} for s, e in splits.items()],
            }
            for group, splits in groups.items()
        ]
        found["dataset_info"] = about[0] if None in groups else about
    return found


def _files(group: str | None, split: str) -> str:
    """The pattern of the files of a group and split."""
    return f"data/{group}/{split}-*.parquet" if group else f"data/{split}-*.parquet"


def _size_category(documents: int) -> str:
    """The Hub's name for a number of examples."""
    low = ""
    for k, high in enumerate(_SIZES):
        if documents < 10 ** (k + 3):
            return f"{low}<n<{high}" if low else f"n<{high}"
        low = high
    return f"n>{low}"


def _summary(manifest: Manifest) -> list[str]:
    totals = manifest.totals
    about = str(manifest.recipe.get("description") or "Documents for language-model pretraining.").strip()
    exact = "" if manifest.deterministic else "\n\nA page ran into the time limit, so another run may differ from this one."
    parts = _parts(manifest)
    grouped = any(group for group, _ in parts)
    rows = [
        [
            *([group or ""] if grouped else []), split,
            f"{e['documents']:,}", f"{e['tokens']:,}", f"{e['bytes']:,}", f"{e['files']:,}",
        ]
        for (group, split), e in parts.items()
    ]  # fmt: skip
    head = [*(["group"] if grouped else []), "split", "documents", "tokens", "bytes of text", "files"]
    return [
        f"# {_name(manifest)}",
        about,
        f"{totals.documents:,} documents, {totals.tokens:,} tokens ({_tokenizer(manifest)}), {totals.bytes:,} bytes of text. "
        f"Made by [Curate](https://pypi.org/project/curate-corpus/); digest `{manifest.digest}`.{exact}",
        _table(head, rows),
    ]


def _tokenizer(manifest: Manifest) -> str:
    name = manifest.tokenizer
    return f"estimated as {name}" if name.startswith("bytes/") else f"by {name}"


def _funnel(manifest: Manifest) -> list[str]:
    rows = []
    for stage in manifest.stages:
        gone = sum(stage.drops.values())
        reached = stage.rows_in + stage.rows_added
        reasons = ", ".join(f"{r} {n:,}" for r, n in sorted(stage.drops.items(), key=lambda kv: (-kv[1], kv[0])))
        share = f"{gone:,} ({gone / reached:.1%})" if gone else "0"
        rows.append([stage.id, f"{stage.rows_in:,}", f"{stage.rows_added:,}", f"{stage.rows_out:,}", share, reasons])
    return [
        "## What was kept and dropped",
        "Every row is accounted for: rows in + rows added = rows out + rows dropped, stage by stage.",
        _table(["stage", "in", "added", "out", "dropped", "reasons"], rows),
    ]


def _columns(manifest: Manifest) -> list[str]:
    rows = [[f"`{n}`", kind, _MEANINGS.get(n, "")] for n, kind in manifest.columns.items()]
    return ["## Columns", _table(["column", "type", "meaning"], rows)]


def _loading(manifest: Manifest) -> list[str]:
    groups = list(manifest.groups)
    files = _files(groups[0] if groups else None, "train")
    phases = []
    if groups:
        listed = ", ".join(f"`{group}`" for group in groups)
        phases = [f"The groups are phases of a training, each with files and an order of its own: {listed}."]
    return [
        "## Loading",
        *phases,
        "Rows are shuffled over the whole corpus, so reading the files in order is reading in random order.",
        f"""```python
import datasets, polars

data = datasets.load_dataset("parquet", data_files={{"train": "{files}"}}, streaming=True)
frame = polars.scan_parquet("{files}")
```""",
        f"""```python
import glob, pyarrow.parquet as pq, torch

class Documents(torch.utils.data.IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for path in sorted(glob.glob("{files}"))[first::step]:
            for batch in pq.ParquetFile(path).iter_batches(1024, columns=["text"]):
                yield from batch["text"].to_pylist()
```""",
    ]


def _lineage(manifest: Manifest) -> list[str]:
    return [
        "## Lineage",
        "`corpus`, `file` and `record` name the input file and the record in it that a row was made from; the inputs are "
        "listed below with their sha256. `manifest.json` holds the recipe, the sha256 of every file here and what each stage "
        "did. `curate verify .` checks every byte, and in the run folder `curate why . ID` tells the life of a document.",
    ]


def _inputs(manifest: Manifest) -> list[str]:
    listed = manifest.inputs[:_LISTED_INPUTS]
    rows = [[i.corpus, i.name, f"{i.bytes:,}", f"{i.documents:,}", f"{i.rejected:,}", f"`{i.sha256[:16]}`"] for i in listed]
    parts = ["## Inputs", _table(["corpus", "file", "bytes", "documents", "rejected", "sha256"], rows)]
    if len(manifest.inputs) > len(listed):
        parts.append(f"… and {len(manifest.inputs) - len(listed):,} more; all are in `manifest.json`.")
    return parts


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _name(manifest: Manifest) -> str:
    return " ".join(str(manifest.recipe.get("name") or "corpus").split())


def _parts(manifest: Manifest) -> dict[tuple[str | None, str], dict[str, int]]:
    """Documents, bytes, tokens and files of each split of each group that there is."""
    found: dict[tuple[str | None, str], dict[str, int]] = {}
    for shard in manifest.shards:
        entry = found.setdefault((shard.group, shard.split), {"documents": 0, "bytes": 0, "tokens": 0, "files": 0})
        for key in ("documents", "bytes", "tokens"):
            entry[key] += getattr(shard, key)
        entry["files"] += 1
    return found


# --------------------------------------------------------------------------------------------- croissant.json


def croissant(manifest: Manifest) -> dict[str, Any]:
    """Croissant 1.0: every file with its sha256, and a record set per split. Columns of structs and bytes are left out."""
    files: list[dict[str, Any]] = []
    for shard in manifest.shards:
        files.append(
            {
                "@type": "cr:FileObject",
                "@id": shard.path,
                "name": shard.path,
                "contentUrl": shard.path,
                "encodingFormat": "application/x-parquet",
                "sha256": shard.sha256,
            }
        )
    records = []
    for group, split in _parts(manifest):
        part = f"{group}-{split}" if group else split
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": f"{part}-files",
                "name": f"{part}-files",
                "encodingFormat": "application/x-parquet",
                "includes": _files(group, split),
            }
        )
        fields = [_field(part, name, kind) for name, kind in manifest.columns.items()]
        records.append(
            {
                "@type": "cr:RecordSet",
                "@id": part,
                "name": part,
                "description": f"Documents of the {split} split" + (f" of {group}." if group else "."),
                "field": [f for f in fields if f],
            }
        )
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": _name(manifest),
        "description": str(manifest.recipe.get("description") or "Documents for language-model pretraining, made by Curate."),
        "version": "1.0.0",
        "identifier": f"sha256:{manifest.digest}",
        "distribution": files,
        "recordSet": records,
    }


def _field(part: str, name: str, kind: str) -> Mapping[str, Any] | None:
    """A field out of a column; None for a type that Croissant does not have."""
    inner = re.fullmatch(r"(?:large_|fixed_size_)?list<\w+: ([\w]+)(?: not null)?>(?:\[\d+\])?", kind)
    data_type = _data_type(inner[1] if inner else kind)
    if data_type is None:
        return None
    return {
        "@type": "cr:Field",
        "@id": f"{part}/{name}",
        "name": f"{part}/{name}",
        "description": _MEANINGS.get(name, f"Column {name}."),
        "dataType": data_type,
        **({"repeated": True} if inner else {}),
        "source": {"fileSet": {"@id": f"{part}-files"}, "extract": {"column": name}},
    }


def _data_type(kind: str) -> str | None:
    if kind in ("halffloat", "float", "double"):
        return "sc:Float"
    if re.fullmatch(r"u?int\d+", kind):
        return "sc:Integer"
    return {"string": "sc:Text", "bool": "sc:Boolean"}.get(kind, "sc:Date" if kind.startswith(("timestamp", "date")) else None)


_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset "
            "jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source "
            "subField transform"
        ).split()
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}
