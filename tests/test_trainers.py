"""What trainers and hubs do with an output, by their own libraries."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from test_manifest import export

from curate.manifest import Manifest
from curate.recipe import Output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    return export(tmp_path_factory.mktemp("run"), 3000, Output(validation=0.1, shard_mb=0.1))


def texts(output: tuple[Path, Manifest], split: str) -> list[str]:
    """The texts of a split in file order, as pyarrow reads them."""
    out, made = output
    paths = [out / s.path for s in made.shards if s.split == split]
    return [t for p in paths for t in pq.read_table(p)["text"].to_pylist()]


def test_there_are_several_files(output: tuple[Path, Manifest]) -> None:
    assert len([s for s in output[1].shards if s.split == "train"]) > 1
    assert len(texts(output, "train")) == 2700 and len(texts(output, "validation")) == 300


def test_datasets(output: tuple[Path, Manifest], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out, made = output
    data_files = {s: f"{out}/data/{s}-*.parquet" for s in ("train", "validation")}
    loaded = datasets.load_dataset("parquet", data_files=data_files, cache_dir=str(tmp_path))
    for split in ("train", "validation"):
        assert loaded[split]["text"][:] == texts(output, split)
    assert loaded["train"].column_names == list(made.columns)
    streamed = datasets.load_dataset("parquet", data_files=data_files, streaming=True, split="train")
    assert [row["text"] for row in streamed] == texts(output, "train")


def test_datasets_by_the_card(output: tuple[Path, Manifest], tmp_path: Path) -> None:
    """The folder itself is a data set: its README.md names the splits and the features."""
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(output[0]), cache_dir=str(tmp_path))
    assert {s: len(d) for s, d in loaded.items()} == {"train": 2700, "validation": 300}
    assert loaded["train"].features["tokens"].dtype == "uint32"


def test_card_of_the_hub(output: tuple[Path, Manifest]) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.DatasetCard.load(output[0] / "README.md")
    assert card.data.pretty_name == "web-en"
    assert card.data.size_categories == ["1K<n<10K"]
    assert "What was kept and dropped" in card.text


def test_polars(output: tuple[Path, Manifest]) -> None:
    frame = pl.scan_parquet(f"{output[0]}/data/train-*.parquet")
    assert frame.select("text").collect()["text"].to_list() == texts(output, "train")
    few = frame.filter(pl.col("record") < 100).select("id", "tokens").collect()
    assert 70 < few.height <= 100
    total = pl.scan_parquet(f"{output[0]}/data/*.parquet").select(pl.col("tokens").sum()).collect().item()
    assert total == output[1].totals.tokens


@pytest.mark.parametrize("workers", [0, 2])
def test_torch(output: tuple[Path, Manifest], workers: int) -> None:
    """The class that the card shows."""
    torch = pytest.importorskip("torch")

    class Documents(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[str]:
            info = torch.utils.data.get_worker_info()
            first, step = (info.id, info.num_workers) if info else (0, 1)
            for path in sorted(glob.glob(f"{output[0]}/data/train-*.parquet"))[first::step]:
                for batch in pq.ParquetFile(path).iter_batches(1024, columns=["text"]):
                    yield from batch["text"].to_pylist()

    found = [t for batch in torch.utils.data.DataLoader(Documents(), batch_size=16, num_workers=workers) for t in batch]
    expected = texts(output, "train")
    assert found == expected if workers == 0 else sorted(found) == sorted(expected)


def test_a_flat_folder_whose_last_file_is_validation(output: tuple[Path, Manifest]) -> None:
    """nanochat's contract: Parquet files in one folder, a column `text`, sorted names, the last for validation."""
    paths = sorted(glob.glob(f"{output[0]}/data/*.parquet"))
    assert "validation" in paths[-1] and all("train" in p for p in paths[:-1])
    for path in paths:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            assert len(file.read_row_group(group)["text"].to_pylist()) > 0


def test_mlcroissant(output: tuple[Path, Manifest]) -> None:
    croissant = pytest.importorskip("mlcroissant")
    found = croissant.Dataset(jsonld=str(output[0] / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    assert {r.uuid for r in found.metadata.record_sets} == {"train", "validation"}
    for split in ("train", "validation"):
        read = [row[f"{split}/text"] for row in found.records(record_set=split)]
        assert [t.decode() if isinstance(t, bytes) else t for t in read] == texts(output, split)
    objects = {o.uuid: o.sha256 for o in found.metadata.file_objects}
    assert objects == {s.path: s.sha256 for s in output[1].shards}


def test_mlcroissant_of_an_empty_output(tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant")
    out, _ = export(tmp_path, 0)
    found = croissant.Dataset(jsonld=str(out / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
