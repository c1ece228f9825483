"""What scores of membership find: a small model reads half of some texts, and is audited on all of them.

    python benchmarks/membership.py [--texts 400] [--characters 600] [--epochs 1 2 4 8 16] [--size 1m]

Texts are the first characters of documents of one domain of domains/, chosen by hash; every other one is a member. Tokenizer
and frequencies of DC-PDD come from other documents of that domain. One model is trained for each number of epochs, all with one
seed. Shown are the AUC and the share of members found at 5% false alarms, with 95% intervals of 1,000 bootstrap samples.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curate import audit
from curate.lm.tokenizer import train_tokenizer
from curate.lm.train import train
from curate.stages.membership import Membership

DATA = Path(os.environ.get("CURATE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--texts", type=int, default=400)
    ask.add_argument("--characters", type=int, default=600)
    ask.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    ask.add_argument("--size", default="1m")
    ask.add_argument("--domain", default="medical")
    options = ask.parse_args()

    table = pq.read_table(DATA / "domains" / "domains.parquet", columns=["text", "domain"])
    found = [t for t, d in zip(table["text"].to_pylist(), table["domain"].to_pylist(), strict=True) if d == options.domain]
    found = sorted({t[: options.characters] for t in found}, key=lambda t: xxhash.xxh3_64_intdigest(t.encode()))
    texts, others = found[: options.texts], found[options.texts :]
    docs = pa.table({"text": texts, "member": [i % 2 == 0 for i in range(len(texts))]})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train_tokenizer([pa.array(others)], folder / "tokenizer")
        (folder / "others.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in others))
        print(f"{len(texts):,} texts of {options.domain}, {len(others):,} for the tokenizer and the frequencies")
        for epochs in options.epochs:
            model = folder / f"model-{epochs}"
            made = train([pa.array(texts[::2])], model, size=options.size, tokenizer=folder / "tokenizer", epochs=epochs)
            scored = Membership(model=str(model), reference=str(folder / "others.jsonl"), ratios=(0.1, 0.2, 0.4))(docs).kept
            print(f"\n{options.size}, {epochs} epochs ({made.tokens:,} tokens)")
            for separation in audit.evaluate(scored):
                print(f"  {separation}", flush=True)


if __name__ == "__main__":
    main()
