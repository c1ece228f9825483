"""From a crawl to batches of text: make a sample crawl, run the web recipe, ask why, and read the result.

python examples/quickstart.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import polars as pl

from curate import Recipe
from curate.sample import write_sample


def main(folder: Path) -> None:
    write_sample(folder / "sample", pages=300, files=2)

    recipe = Recipe.load("web", ["stages.language.keep=[en]", "output.validation=0.02"])
    run = recipe.with_inputs([str(folder / "sample/crawl")]).run(folder / "run", workers=2)
    for stage in run.summary["stages"]:
        print(f"{stage['id']:12} {stage['rows_out']:6,} documents  {stage['drops'] or ''}")
    print("digest", run.manifest.digest)

    # every removal can be explained
    dropped = run.drops("exact_dedup").to_pylist()[0]
    life = run.why(dropped["id"])[0]
    print(f"{life['url']} went as a duplicate of {life['fate']['duplicate_of']}")

    # layers of dropped documents are still there: look at scores without running anything again
    scores = run.dataset(after="language").scan().group_by("language").agg(pl.len(), pl.col("language_score").mean())
    print(scores.sort("len", descending=True).collect())

    # and any tool reads the output
    texts = pl.scan_parquet(folder / "run/output/data/train-*.parquet").select("text").head(1).collect()
    print(texts["text"][0][:200])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
