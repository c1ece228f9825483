"""CoLoR-Filter in a few cells: choose what helps a target, and see how fast a model learns the target from it.

    python examples/color_filter.py [--data DIR] [--target DOMAIN] [--megabytes 12] [--out FOLDER]

DIR has `domains/domains.parquet` with the columns text and domain (CURATE_DATA, or ../shared/data beside the checkout);
without it, a small made-up corpus. One domain is the target: some of its documents say what is wanted, others judge, and the
rest lies in the pool, to be found. All models are n-gram models, so that this takes seconds and no torch; `models="1m"` below
makes them transformers. The plot is `color_filter.svg`, by matplotlib where it is installed, else drawn here.
"""

# %% What is wanted, what judges, and the pool
from __future__ import annotations

import argparse
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.lm import ngram
from curate.stages.color_filter import ColorFilter
from curate.stages.random import Random

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, default=os.environ.get("CURATE_DATA") or Path(__file__).parents[2] / "shared" / "data")
parser.add_argument("--target", default="")
parser.add_argument("--megabytes", type=float, default=12, help="of text that is looked at")
parser.add_argument("--out", type=Path, default=Path())
args = parser.parse_args()


def made_up() -> pa.Table:
    """Documents of three kinds, each with words of its own."""
    draw = random.Random(0)
    words = {kind: [f"{kind}{i}" for i in range(400)] for kind in ("law", "cell", "shop")}
    common = "the of and to in a is that for it as was with be by on not he his but at are this have".split()
    rows = []
    for _ in range(1500):
        kind = draw.choice(sorted(words))
        text = " ".join(draw.choice(words[kind] if draw.random() < 0.4 else common) for _ in range(150))
        rows.append({"text": text, "domain": kind})
    return pa.Table.from_pylist(rows)


file = Path(args.data) / "domains" / "domains.parquet"
corpus = pq.read_table(file, columns=["text", "domain"]) if file.is_file() else made_up()
order = list(range(len(corpus)))
random.Random(1).shuffle(order)
corpus = corpus.take(pa.array(order))
size = pc.cumulative_sum(pc.binary_length(corpus["text"]).cast(pa.int64())).combine_chunks()
corpus = corpus.filter(pc.less(size, int(args.megabytes * 1e6)))
target = args.target or ("science_abstracts" if file.is_file() else "cell")

mine = pc.equal(corpus["domain"], target)
own = corpus.filter(mine)
if len(own) < 10:
    raise SystemExit(
        f"there are {len(own)} documents of {target!r}: name another domain with --target, or give more --megabytes"
    )
fifth = len(own) // 5
wanted, judge, hidden = own.slice(0, fifth), own.slice(fifth, fifth), own.slice(2 * fifth)
pool = pa.concat_tables([corpus.filter(pc.invert(mine)), hidden])
print(f"pool: {len(pool):,} documents, {len(hidden) / len(pool):.1%} of them {target}; {len(wanted)} more say what is wanted")

# %% Score the pool once: what do a prior of the pool and the same model after the target lose on each document?
scorer = ColorFilter(texts=tuple(wanted["text"].to_pylist()), tau=16)  # models="1m" for transformers (the extra `lm`)
result = scorer(pool)
scored = pa.concat_tables([result.kept, result.dropped.select(result.kept.column_names)])
best = scored.sort_by([("color_score", "descending")])
for row in best.slice(0, 3).to_pylist():
    print(f"  {row['color_score']:+.2f} nats a token  {row['domain']:20} {' '.join(row['text'].split())[:70]}")

# %% The best documents beside as many tokens at random
found = pc.mean(pc.equal(result.kept["domain"], target).cast(pa.float64())).as_py()
print(f"of the best sixteenth {found:.0%} are {target}")
units = ngram.train(pool["text"].chunks)  # for its tokens: what models with the same tokens lose can be compared


def loss(texts: pa.ChunkedArray) -> float:
    """Nats a token on the documents that judge, of a model of these texts."""
    lost = ngram.train(texts.chunks, units=units).losses(judge["text"].combine_chunks())
    return float(lost.nll.sum() / lost.tokens.sum())


total = pc.sum(scored["tokens"]).as_py()
curves: dict[str, dict[int, float]] = {"random": {}, "CoLoR-Filter": {}}
for part in (128, 64, 32, 16, 8, 4, 2, 1):
    if part >= 8:
        chosen = best.filter(pc.less_equal(pc.cumulative_sum(best["tokens"].cast(pa.int64())), total // part))
        curves["CoLoR-Filter"][pc.sum(chosen["tokens"]).as_py() or 0] = loss(chosen["text"])
    drawn = Random(tokens=total // part)(pool).kept
    curves["random"][pc.sum(drawn["tokens"]).as_py() or 0] = loss(drawn["text"])
for name, curve in curves.items():
    print(f"{name:13}", "  ".join(f"{tokens:,}: {value:.3f}" for tokens, value in curve.items()))
for tokens, value in curves["CoLoR-Filter"].items():
    enough = [n for n, other in curves["random"].items() if other <= value]
    times = f"{min(enough) / tokens:.0f}" if enough else f"more than {max(curves['random']) / tokens:.0f}"
    print(f"the {tokens:,} best do what {times} times as many random tokens do")

# %% The plot: target loss against training tokens


def draw(curves: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """A plot by hand, with a logarithmic scale of tokens."""
    import math

    xs = [math.log(t) for c in curves.values() for t in c]
    ys = [v for c in curves.values() for v in c.values()]

    def at(tokens: int, value: float) -> tuple[float, float]:
        x = 60 + 520 * (math.log(tokens) - min(xs)) / (max(xs) - min(xs))
        return x, 330 - 280 * (value - min(ys)) / (max(ys) - min(ys))

    def text(x: float, y: float, said: str, anchor: str = "middle") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{said}</text>'

    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 390" font-family="sans-serif" font-size="12">']
    parts += ['<rect width="640" height="390" fill="white"/>', '<path d="M60 40V340H590" fill="none" stroke="#888"/>']
    parts += [text(325, 380, "training tokens"), text(60, 28, "nats a token on held-out documents of the target", "start")]
    parts += [text(54, at(1, value)[1] + 4, f"{value:.2f}", "end") for value in (min(ys), max(ys))]
    for (name, curve), colour in zip(curves.items(), ("#777777", "#c03020"), strict=True):
        points: Sequence[tuple[float, float]] = [at(*point) for point in sorted(curve.items())]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(f'<g fill="{colour}">{text(points[-1][0] - 6, points[-1][1] - 10, name, "end")}</g>')
        if name == "random":
            parts += [text(x, 356, f"{t / 1000:,.0f}k") for (x, _), t in zip(points, sorted(curve), strict=True)]
    path.write_text("\n".join([*parts, "</svg>"]))


args.out.mkdir(parents=True, exist_ok=True)
try:
    import matplotlib.pyplot as plt
except ImportError:
    draw(curves, args.out / "color_filter.svg")
else:
    for name, curve in curves.items():
        plt.semilogx(list(curve), list(curve.values()), "o-", label=name)
    plt.xlabel("training tokens")
    plt.ylabel("nats a token on held-out documents of the target")
    plt.legend()
    plt.savefig(args.out / "color_filter.svg")
print("plot:", args.out / "color_filter.svg")
