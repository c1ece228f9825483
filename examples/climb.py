"""CLIMB in one picture: clusters of a pool, the search for the mixture of them that is best for a target, and what it found.

    python examples/climb.py [--data DIR] [--target DOMAIN ...] [--megabytes 6] [--models ngram] [--out FOLDER]

DIR has `domains/domains.parquet` with the columns text and domain (CURATE_DATA, or ../shared/data beside the checkout);
without it, a small made-up corpus. Some documents of the target domains say what is wanted; all that is left is the pool, and
nobody is told its domains. The recipe is `pipelines/climb.yaml`, smaller: proxies are mixtures of n-gram models, which takes
seconds and no torch; `--models 1m` trains transformers instead (half an hour on two cores). Needs the extra `cluster`. The
picture is `climb.svg`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import Recipe
from curate.storage import read_json


def made_up() -> pa.Table:
    """Documents of six kinds, each with words of its own, and of some kinds more than of others."""
    draw = random.Random(0)
    kinds = {"court": 4, "cell": 4, "shop": 6, "ship": 4, "bread": 5, "proof": 3}
    words = {kind: [f"{kind}{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(300)] for kind in kinds}
    common = "the of and to in a is that for it as was with be by on not he his but at are this have".split()
    rows = []
    for _ in range(3000):
        kind = draw.choices(list(kinds), list(kinds.values()))[0]
        part = draw.randrange(2) * 150  # subjects within a kind
        own = words[kind][part : part + 150]
        text = " ".join(draw.choice(own if draw.random() < 0.4 else common) for _ in range(120))
        rows.append({"text": text, "domain": kind})
    return pa.Table.from_pylist(rows)


# ---------------------------------------------------------------------------------------------------- the picture

GREY, DARK, RED = "#9a9a9a", "#333333", "#c03020"
HALO = 'stroke="white" stroke-width="3" paint-order="stroke" stroke-linejoin="round"'


def colour(group: int | None) -> str:
    """One that differs from those of its neighbours; grey for what was pruned."""
    return "#d0d0d0" if group is None else f"hsl({group * 137.5 % 360:.0f},{62 - 12 * (group % 3)}%,{44 + 8 * (group % 2)}%)"


def text(x: float, y: float, said: str, anchor: str = "start", size: int = 11, more: str = "") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {more}>{escape(said)}</text>'


def short(said: str, most: int) -> str:
    """At most so many characters."""
    return said if len(said) <= most else said[: most - 1].rstrip(" ,") + "…"


Box = tuple[float, float, float, float]


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes (left, top, right, bottom) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def draw_clusters(found: dict[str, Any], x: float, y: float, width: float, height: float) -> list[str]:
    """Clusters by the first two principal components of their centroids; area: tokens, colour: group."""
    clusters = sorted(found["clusters"], key=lambda c: -c["tokens"])
    places = np.array([c["centroid"] for c in clusters])
    at = np.array([x, y]) + 36 + principal(places - places.mean(axis=0)) * [width - 72, height - 72]
    most = max(c["tokens"] for c in clusters)
    radius = [max(3.0, 30 * math.sqrt(c["tokens"] / most)) for c in clusters]
    parts = []
    for (cx, cy), r, c in zip(at, radius, clusters, strict=True):
        said = f"cluster {c['cluster']}: {c['documents']:,} documents, {c['tokens']:,} tokens"
        fill = f'fill="{colour(c["group"])}" fill-opacity="0.7" stroke="white"'
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{r:.1f}" {fill}><title>{said}</title></circle>')
    round_about = [(cx - r, cy - r, cx + r, cy + r) for (cx, cy), r in zip(at, radius, strict=True)]
    taken: list[Box] = []
    labels = []
    for group in found["groups"]:
        mine = [i for i, c in enumerate(clusters) if c["group"] == group["group"]]
        others = [box for i, box in enumerate(round_about) if i not in mine or radius[i] < 9]
        cx, cy = at[mine[0]]  # its largest cluster
        said = short(group["name"] or f"group {group['group']}", 30)
        w, h = 6.1 * len(said) + 4, 13
        options = []
        for far, angle in itertools.product(range(0, 200, 10), np.arange(0, 6.28, 0.524)):
            left = min(max(cx + far * math.cos(angle) - w / 2, x), x + width - w)
            top = min(max(cy + far * math.sin(angle) - h / 2, y), y + height - h)
            box = (left, top, left + w, top + h)
            hidden = sum(overlap(box, other) for other in taken) + 0.3 * sum(overlap(box, other) for other in others)
            options.append((hidden + far / 4, box))
        _, box = min(options)
        taken.append(box)
        near = min(max(cx, box[0]), box[2]), min(max(cy, box[1]), box[3])
        if math.dist(near, (cx, cy)) > radius[mine[0]] + 6:
            parts.append(f'<path d="M{cx:.1f} {cy:.1f}L{near[0]:.1f} {near[1]:.1f}" stroke="{DARK}" stroke-width="0.6"/>')
        labels.append(text((box[0] + box[2]) / 2, box[3] - 3, said, "middle", 11, f'fill="{DARK}" {HALO}'))
    return parts + labels


def principal(places: np.ndarray) -> np.ndarray:
    """The first two principal components of rows around zero, each within 0 to 1: half the value, half its rank, since most
    clusters lie close together and a few far away."""
    _, _, axes = np.linalg.svd(places, full_matrices=False)
    flat = np.zeros((len(places), 2))
    for k, axis in enumerate(axes[:2]):
        value = places @ axis * np.sign(axis[np.abs(axis).argmax()])
        span = max(float(np.ptp(value)), 1e-9)
        rank = np.argsort(np.argsort(value)) / max(len(value) - 1, 1)
        flat[:, k] = ((value - value.min()) / span + rank) / 2
    return flat


class Frame:
    """A place for points: x and y from `low` to `high` in each direction."""

    def __init__(self, box: Box, xs: Sequence[float], ys: Sequence[float]):
        self.left, self.top, self.right, self.bottom = box
        (self.x0, self.x1), (self.y0, self.y1) = widened(xs), widened(ys)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point goes; one that lies outside, at the edge."""
        a = min(max((x - self.x0) / (self.x1 - self.x0), 0), 1)
        b = min(max((y - self.y0) / (self.y1 - self.y0), 0), 1)
        return self.left + a * (self.right - self.left), self.bottom - b * (self.bottom - self.top)

    def axes(self, below: str, across: bool) -> list[str]:
        """Lines and numbers. across: numbers below, too."""
        parts = [f'<path d="M{self.left} {self.top}V{self.bottom}H{self.right}" fill="none" stroke="{GREY}"/>']
        digits = max(0, 2 - math.floor(math.log10(self.y1 - self.y0)))
        for k in range(5):
            value = self.y0 + (self.y1 - self.y0) * k / 4
            parts.append(text(self.left - 6, self.at(self.x0, value)[1] + 4, f"{value:.{digits}f}", "end", 10))
        if across:
            digits = max(0, 2 - math.floor(math.log10(self.x1 - self.x0)))
            for k in (0, 2, 4):
                value = self.x0 + (self.x1 - self.x0) * k / 4
                parts.append(text(self.at(value, self.y0)[0], self.bottom + 14, f"{value:.{digits}f}", "middle", 10))
        return [*parts, text((self.left + self.right) / 2, self.bottom + 28, below, "middle")]


def widened(values: Sequence[float]) -> tuple[float, float]:
    """A little more than what values reach."""
    low, high = min(values), max(values)
    gap = max((high - low) * 0.06, abs(high) * 1e-6, 1e-9)
    return low - gap, high + gap


def draw_search(mixture: dict[str, Any], x: float, y: float, width: float, height: float) -> list[str]:
    """What was measured on each proxy in its turn, with what had been predicted; and one against the other."""
    runs = [run for run in mixture["evidence"]["runs"] if run["metric"] is not None]
    lower = mixture["metric"]["lower_is_better"]
    rounds = sorted({run["round"] for run in runs})
    shade = {r: f"hsl(215,{30 + 45 * k / len(rounds):.0f}%,{74 - 42 * k / len(rounds):.0f}%)" for k, r in enumerate(rounds)}
    measured = np.array([run["metric"] for run in runs])
    worst = np.quantile(measured, 0.85 if lower else 0.15)  # beyond it a random mixture is only drawn at the edge
    shown = np.minimum(measured, worst) if lower else np.maximum(measured, worst)
    guesses = [run["predicted"] for run in runs if run["predicted"] is not None]
    history = Frame((x + 48, y, x + width - 44, y + 0.5 * height), [0, len(runs) - 1], [*shown.tolist(), *guesses])
    name = mixture["metric"]["name"]
    parts = [
        text(x, y - 8, f"{name} on the target", "start", 11),
        *history.axes("proxies in their order; far worse ones at the edge", False),
    ]
    free = history.bottom + 14.0  # of names beside lines that are close, the lower stands below
    for value, origin in sorted((run["metric"], run["origin"]) for run in runs if run.get("origin") in ("natural", "uniform")):
        _, at = history.at(0, value)
        free = min(at + 4, free - 11)
        parts.append(f'<path d="M{history.left} {at:.1f}H{history.right}" stroke="{RED}" stroke-width="0.8"/>')
        parts.append(text(history.right + 4, free, str(origin), "start", 10, f'fill="{RED}"'))
    best = measured[0]
    steps = []
    for k, run in enumerate(runs):
        best = min(best, run["metric"]) if lower else max(best, run["metric"])
        steps.append("{:.1f} {:.1f}".format(*history.at(k, best)))
        cx, cy = history.at(k, run["metric"])
        if run["predicted"] is not None:
            _, guess = history.at(k, run["predicted"])
            parts.append(f'<path d="M{cx:.1f} {cy:.1f}V{guess:.1f}" stroke="{GREY}" stroke-width="0.7"/>')
            parts.append(f'<circle cx="{cx:.1f}" cy="{guess:.1f}" r="2.5" fill="white" stroke="{GREY}"/>')
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.5" fill="{shade[run["round"]]}" stroke="white"/>')
    parts.append(f'<path d="M{"L".join(steps)}" fill="none" stroke="{DARK}" stroke-width="0.8" stroke-dasharray="3 2"/>')
    if guesses:
        later = [run for run in runs if run["predicted"] is not None]
        found, hoped = (mixture["measured"] or {}).get("metric"), mixture["predicted"]
        points = [(run["predicted"], run["metric"]) for run in later]
        points += [(hoped, found)] if found is not None and hoped is not None else []
        against = Frame((x + 48, y + 0.5 * height + 62, x + width, y + height - 34), *zip(*points, strict=True))
        parts += [text(x, against.top - 8, "measured", "start", 11), *against.axes(f"predicted {name}", True)]
        low, high = max(against.x0, against.y0), min(against.x1, against.y1)
        if low < high:
            line = "M{:.1f} {:.1f}L{:.1f} {:.1f}".format(*against.at(low, low), *against.at(high, high))
            parts.append(f'<path d="{line}" stroke="{GREY}" stroke-dasharray="5 4"/>')
        for run in later:
            cx, cy = against.at(run["predicted"], run["metric"])
            parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.5" fill="{shade[run["round"]]}" stroke="white"/>')
        if len(points) > len(later):
            cx, cy = against.at(*points[-1])
            parts.append(f'<path d="M{cx - 7:.1f} {cy:.1f}h14m-7 -7v14" stroke="black" stroke-width="2"/>')
            parts.append(text(x + width, against.top - 8, "+ the mixture that was found", "end", 10))
    key = [(shade[r], f"round {r}") for r in rounds] + [("white", "predicted")]
    for k, (fill, said) in enumerate(key):
        at = x + 150 + 72 * (k - (len(key) > 4))
        edge = GREY if fill == "white" else "white"
        parts.append(f'<circle cx="{at:.1f}" cy="{y - 12:.1f}" r="4" fill="{fill}" stroke="{edge}"/>')
        parts.append(text(at + 8, y - 8, said, "start", 10))
    return parts


def draw_mixture(mixture: dict[str, Any], x: float, y: float, width: float, height: float) -> list[str]:
    """The share of tokens that each group has by nature (grey) and in the mixture (its colour)."""
    groups = sorted(mixture["weights"], key=lambda g: (-mixture["weights"][g], g))
    most = max(*mixture["weights"].values(), *mixture["natural"].values())
    step = min(34.0, height / len(groups))
    start, bar = x + 190, step * 0.38
    scale = (width - 190 - 52) / most
    parts = []
    for k, group in enumerate(groups):
        top = y + k * step
        name = short(mixture["names"].get(group) or f"group {group}", 29)
        parts.append(text(start - 8, top + bar + 4, name, "end", 11))
        for row, (share, fill) in enumerate(
            ((mixture["weights"][group], colour(int(group))), (mixture["natural"][group], GREY))
        ):
            at = top + row * bar
            parts.append(
                f'<rect x="{start:.1f}" y="{at:.1f}" width="{share * scale:.1f}" height="{bar - 1:.1f}" fill="{fill}"/>'
            )
            parts.append(
                text(start + share * scale + 4, at + bar - 2, f"{share:.1%}", "start", 9, f'fill="{DARK if not row else GREY}"')
            )
    return parts


def picture(clusters: dict[str, Any], mixture: dict[str, Any], target: str) -> str:
    """All three panels as SVG."""
    correlation = mixture["rank_correlation"]
    order = "no rank correlation"
    if correlation:
        order = f"rank correlation {correlation['spearman']:.2f} ({correlation['low']:.2f} to {correlation['high']:.2f})"
    spent = f"{len(mixture['evidence']['runs'])} proxies, {order}"
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1480 600" font-family="sans-serif">',
        '<rect width="1480" height="600" fill="white"/>',
    ]
    for x, title, below in (
        (20, "Clusters of the pool", "principal components of their centroids, half as ranks; area: tokens, colour: group"),
        (560, "Search", spent),
        (1010, "Mixture", short(f"share of tokens for {target}; grey: in the pool", 72)),
    ):
        parts += [text(x, 30, title, "start", 16, 'font-weight="bold"'), text(x, 48, below, "start", 11, f'fill="{DARK}"')]
    parts += draw_clusters(clusters, 20, 60, 510, 520)
    parts += draw_search(mixture, 560, 86, 420, 494)
    parts += draw_mixture(mixture, 1010, 66, 460, 514)
    return "\n".join([*parts, "</svg>"])


# ---------------------------------------------------------------------------------------------------- the search


def split(corpus: pa.Table, targets: Sequence[str], megabytes: float) -> tuple[pa.Table, pa.Table]:
    """(the pool, documents of the targets that are not in it)."""
    order = list(range(len(corpus)))
    random.Random(1).shuffle(order)
    corpus = corpus.take(pa.array(order))
    size = pc.cumulative_sum(pc.binary_length(corpus["text"]).cast(pa.int64())).combine_chunks()
    corpus = corpus.filter(pc.less(size, int(megabytes * 1e6)))
    mine = np.flatnonzero(pc.is_in(corpus["domain"], pa.array(targets)).to_numpy(zero_copy_only=False))
    if len(mine) < 40:
        raise SystemExit(
            f"there are {len(mine)} documents of {', '.join(targets)}: name other domains, or give more --megabytes"
        )
    held = np.zeros(len(corpus), bool)
    held[mine[: min(len(mine) // 4, 100)]] = True
    return corpus.filter(pa.array(~held)), corpus.filter(pa.array(held))


def main(args: argparse.Namespace, folder: Path) -> None:
    file = Path(args.data) / "domains" / "domains.parquet"
    corpus = pq.read_table(file, columns=["text", "domain"]) if file.is_file() else made_up()
    targets = args.target or (["science_abstracts", "legal_en"] if file.is_file() else ["cell", "ship"])
    pool, wanted = split(corpus, targets, args.megabytes)
    pq.write_table(pool, folder / "pool.parquet")
    pq.write_table(wanted, folder / "target.parquet")
    print(f"pool: {len(pool):,} documents; {len(wanted)} more, of {' and '.join(targets)}, are the target")

    settings = {
        "climb.target": folder / "target.parquet",
        "climb.models": args.models,
        "climb.rounds": "[48,24,12]",
        "climb.start": "''",  # the best mixture for n-gram models, which would leave a search of n-gram proxies nothing to find
        "climb.simulated": 20_000,
        "embed.dim": 128,
        "kmeans.k": 40,
        "merge_clusters.clusters": 14,
    }
    recipe = Recipe.load("climb", [f"stages.{name}={value}" for name, value in settings.items()])
    run = recipe.with_inputs([str(folder / "pool.parquet")]).run(folder / "run", workers=1 if args.models == "ngram" else None)
    for stage in run.summary["stages"]:
        print(f"{stage['id']:14} {stage['rows_out']:6,} documents")

    mixture = read_json(folder / "run" / "output" / "mixture.json")
    (path,) = (folder / "run" / "index").glob("merge_clusters-*/clusters.json")
    for warning in mixture["warnings"]:
        print("warning:", warning)
    measured = {run["origin"]: run["metric"] for run in mixture["evidence"]["runs"] if run["predicted"] is None}
    found = (mixture["measured"] or {}).get("metric") or mixture["predicted"]
    print(f"{mixture['metric']['name']} on the target: natural {measured['natural']:.4f}, found {found:.4f}")
    for group, weight in sorted(mixture["weights"].items(), key=lambda item: -item[1])[:5]:
        print(f"  {mixture['natural'][group]:6.1%} -> {weight:6.1%}  {mixture['names'].get(group, group)}")

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "climb.svg").write_text(picture(read_json(path), mixture, " and ".join(targets)), encoding="utf-8")
    print("picture:", args.out / "climb.svg")


if __name__ == "__main__":
    here = Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=os.environ.get("CURATE_DATA") or here)
    parser.add_argument("--target", nargs="+", default=[])
    parser.add_argument("--megabytes", type=float, default=6, help="of text that is looked at")
    parser.add_argument("--models", default="ngram")
    parser.add_argument("--out", type=Path, default=Path())
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args(), Path(scratch))
