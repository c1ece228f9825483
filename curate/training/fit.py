"""Fitting a classifier: fastText through its library, linear heads by our own solver.

The library is not deterministic by itself: it reads memory before it writes it, and several threads write to one matrix. Here
it runs in a child process, with one thread and with memory that the C library hands out zeroed (`MALLOC_PERTURB_=255`), on
documents in an order that follows from their contents and the seed. So the same documents, parameters and seed make the same
bytes, in whatever order they came.

Source: Joulin et al. 2016 (https://arxiv.org/abs/1607.01759); L-BFGS after Nocedal 1980
(doi:10.1090/S0025-5718-1980-0572855-7).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from curate.errors import MissingExtra, RecipeError, StageError
from curate.storage import atomic

PREFIX = "__label__"
SPACE = dict.fromkeys(map(ord, "\n\r\t\v\f\0"), " ")

_CHILD = """
import sys, json
import fasttext
asked = json.loads(sys.stdin.read())
model = fasttext.train_supervised(asked["input"], **asked["train"])
if asked["quantise"] is not None:
    model.quantize(asked["input"], thread=1, verbose=0, **asked["quantise"])
model.save_model(asked["output"])
"""


def fit_fasttext(
    texts: Sequence[str] | pa.Array | pa.ChunkedArray,
    labels: Sequence[str],
    *,
    path: str | Path,
    dim: int = 100,
    epoch: int = 5,
    lr: float = 0.1,
    ngrams: int = 1,
    bucket: int = 2_000_000,
    minn: int = 0,
    maxn: int = 0,
    min_count: int = 1,
    loss: str = "softmax",
    seed: int = 0,
    quantise: bool = False,
    cutoff: int = 0,
    dsub: int = 2,
    retrain: bool = False,
    repeats: Sequence[int] | np.ndarray | None = None,
) -> None:
    """Train a supervised fastText model and write it to `path`; the same input and seed give the same bytes.

    texts: one document each, prepared as they will be when they are scored. labels: one per text, without white space.
    dim, epoch, lr, ngrams (longest word n-gram), bucket (places for hashed n-grams), minn and maxn (lengths of character
    n-grams, 0: none), min_count, loss (`softmax`, `hs`, `ova`, `ns`): as the library has them.
    quantise: write product-quantised vectors of `dsub` numbers a part (`.ftz`); cutoff: only so many words and n-grams stay,
    those with the largest norms; retrain: and are trained once more before they are quantised.
    repeats: how often each text is seen in an epoch (int; 0: never), for class balance. Default once each.

    Raises MissingExtra without the library, RecipeError for a parameter that makes no sense or for fewer than two labels, and
    StageError where training itself fails (a learning rate that is too high ends in NaN).
    """
    if importlib.util.find_spec("fasttext") is None:
        raise MissingExtra("fasttext-numpy2-wheel", "train", "training a fastText model")
    _check(dim=dim, epoch=epoch, lr=lr, ngrams=ngrams, bucket=bucket, minn=minn, maxn=maxn, loss=loss)
    if len(texts) != len(labels):
        raise RecipeError(f"training: {len(texts):,} texts and {len(labels):,} labels; there must be one label per text")
    with tempfile.TemporaryDirectory(prefix="curate-fit-") as folder:
        file = Path(folder, "train.txt")
        seen = _write_lines(file, texts, labels, repeats, seed)
        if len(seen) < 2:
            only = f"only the label {next(iter(seen))!r}" if seen else "no labelled text"
            raise RecipeError(f"training: there is {only}; a classifier needs at least two")
        asked: dict[str, Any] = {
            "input": str(file),
            "output": str(Path(folder, "model")),
            "train": {
                "dim": dim, "epoch": epoch, "lr": lr, "wordNgrams": ngrams, "bucket": bucket, "minn": minn, "maxn": maxn,
                "minCount": min_count, "loss": loss, "seed": seed, "thread": 1, "verbose": 0, "label": PREFIX,
            },
            "quantise": {"cutoff": cutoff, "dsub": dsub, "retrain": retrain, "qnorm": True} if quantise else None,
        }  # fmt: skip
        environment = {**os.environ, "MALLOC_PERTURB_": "255", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", _CHILD], input=orjson.dumps(asked), env=environment, capture_output=True, check=False
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = said[-1] if said else f"the library ended with {done.returncode}"
            hint = "; use a lower lr" if "NaN" in why else ""
            raise StageError(f"training of the fastText model failed: {why}{hint}")
        with atomic(path) as temporary:
            temporary.write_bytes(Path(asked["output"]).read_bytes())


def _check(*, dim: int, epoch: int, lr: float, ngrams: int, bucket: int, minn: int, maxn: int, loss: str) -> None:
    for name, value, least, most in (
        ("dim", dim, 1, 2000), ("epoch", epoch, 1, 10_000), ("ngrams", ngrams, 1, 20), ("bucket", bucket, 0, 1 << 30),
        ("minn", minn, 0, 50), ("maxn", maxn, 0, 50),
    ):  # fmt: skip
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise RecipeError(f"training: {name} is {value!r}; it is a whole number from {least} to {most}")
    if not isinstance(lr, int | float) or not 0 < lr <= 100:
        raise RecipeError(f"training: lr is {lr!r}; it is a number above 0, such as 0.5")
    if loss not in ("softmax", "hs", "ova", "ns"):
        raise RecipeError(f"training: loss is {loss!r}; it is softmax, hs, ova or ns")
    if minn > maxn:
        raise RecipeError(f"training: minn is {minn} and maxn {maxn}; character n-grams go from minn to maxn")
    if (ngrams > 1 or maxn > 0) and not bucket:
        raise RecipeError("training: n-grams need places to be hashed to: set bucket, such as 2000000")


def _write_lines(
    file: Path, texts: Iterable[Any], labels: Sequence[str], repeats: Sequence[int] | np.ndarray | None, seed: int
) -> dict[str, int]:
    """The library's input, in an order that follows from the texts and the seed; returns how many lines each label has."""
    counts: dict[str, int] = {}
    lines: list[tuple[bytes, bytes]] = []
    key = seed.to_bytes(8, "little", signed=True)
    for i, (text, label) in enumerate(zip(_strings(texts), labels, strict=True)):
        if not label or any(c.isspace() or c == "\0" for c in label):
            raise RecipeError(f"training: {label!r} cannot be a label of fastText; labels have no white space")
        # a document that speaks of fastText must not bring labels of its own, nor end its line early
        plain = text.translate(SPACE).replace(PREFIX, "__ label__").replace("</s>", "< /s>")
        line = f"{PREFIX}{label} {plain}\n".encode("utf-8", "replace")
        times = 1 if repeats is None else int(repeats[i])
        for k in range(times):
            lines.append((hashlib.blake2b(line, key=key, salt=k.to_bytes(8, "little"), digest_size=16).digest(), line))
        if times:
            counts[label] = counts.get(label, 0) + times
    lines.sort()
    with file.open("wb") as out:
        out.writelines(line for _, line in lines)
    return counts


def _strings(texts: Iterable[Any]) -> Iterable[str]:
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        return (text or "" for text in texts.to_pylist())
    return (text or "" for text in texts)


# --------------------------------------------------------------------------------------------- linear heads


def fit_linear(
    vectors: np.ndarray,
    targets: np.ndarray,
    *,
    task: str = "classes",
    l2: float = 1e-3,
    weights: np.ndarray | None = None,
    seed: int = 0,
    outputs: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A linear head on vectors: (weights float32 [outputs, dim], bias float32 [outputs]).

    vectors: float [n, dim], finite. targets: class numbers (int [n]) for the task "classes", where the head is a softmax over
    as many outputs as there are classes (`outputs`, or one more than the largest number); float [n] or [n, outputs] for
    "regression", where it is ridge regression. l2: penalty on the mean loss, not on the bias. weights: float [n], of each
    document (default 1). seed: unused, as the optimum is unique; it is here so that callers need not know.

    Raises RecipeError for shapes that do not fit, NaN, one class, or a class without a document.
    """
    x = np.ascontiguousarray(vectors, np.float64)
    y = np.asarray(targets)
    if x.ndim != 2 or len(x) != len(y) or not len(x):
        raise RecipeError(f"training: vectors of shape {x.shape} and targets of shape {y.shape} do not go together")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(1).sum())
        raise RecipeError(f"training: {bad:,} of {len(x):,} vectors hold NaN or infinity; leave those documents out")
    if l2 <= 0 or not np.isfinite(l2):
        raise RecipeError(f"training: l2 is {l2!r}; it is a number above 0, such as 0.001")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(x),) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise RecipeError("training: weights are one number of at least 0 per document, and not all 0")
    w = w / w.sum()
    if task == "classes":
        if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1 or y.min() < 0:
            raise RecipeError("training: targets of the task 'classes' are class numbers from 0")
        return _softmax(x, y.astype(np.int64), w, l2, max(outputs, int(y.max()) + 1))
    if task == "regression":
        return _ridge(x, y.astype(np.float64), w, l2)
    raise RecipeError(f"training: task is {task!r}; it is classes or regression")


def _ridge(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    y = y[:, None] if y.ndim == 1 else y
    if not np.isfinite(y).all():
        bad = int((~np.isfinite(y)).any(1).sum())
        raise RecipeError(f"training: {bad:,} of {len(y):,} targets are NaN or infinite; leave those documents out")
    mean, level = w @ x, w @ y
    centred = x - mean
    gram = (centred * w[:, None]).T @ centred + l2 * np.eye(x.shape[1])
    found = np.linalg.solve(gram, (centred * w[:, None]).T @ (y - level)).T
    return found.astype(np.float32), (level - found @ mean).astype(np.float32)


def _softmax(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    found = np.bincount(y, weights=w, minlength=classes)
    if classes < 2 or (found > 0).sum() < 2:
        raise RecipeError("training: there is only one class; a classifier needs at least two")
    if (found <= 0).any():
        raise RecipeError(f"training: class {int(np.argmin(found))} has no document")
    n, dim = x.shape
    rows = np.arange(n)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        head = flat.reshape(classes, dim + 1)
        z = x @ head[:, :dim].T + head[:, dim]
        z -= z.max(1, keepdims=True)
        e = np.exp(z)
        total = e.sum(1, keepdims=True)
        value = w @ (np.log(total[:, 0]) - z[rows, y]) + 0.5 * l2 * float((head[:, :dim] ** 2).sum())
        p = e / total
        p[rows, y] -= 1
        p *= w[:, None]
        slope = np.empty_like(head)
        slope[:, :dim] = p.T @ x + l2 * head[:, :dim]
        slope[:, dim] = p.sum(0)
        return float(value), slope.ravel()

    start = np.zeros((classes, dim + 1))
    start[:, dim] = np.log(found / found.sum())
    head = minimise(loss, start.ravel()).reshape(classes, dim + 1)
    head -= head.mean(0)  # softmax knows differences only
    return head[:, :dim].astype(np.float32), head[:, dim].astype(np.float32)


def minimise(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, *, steps: int = 1000, tolerance: float = 1e-7
) -> np.ndarray:
    """The minimum of a smooth convex function by L-BFGS with backtracking, from `start` (float64 [n]).

    loss: gives the value and the gradient at a point. Ends where no part of the gradient is above `tolerance`.
    """
    x = start.copy()
    value, slope = loss(x)
    moves: list[tuple[np.ndarray, np.ndarray, float]] = []
    for _ in range(steps):
        if np.abs(slope).max() <= tolerance:
            break
        direction = -slope
        factors = []
        for s, g, r in reversed(moves):
            factors.append(r * (s @ direction))
            direction -= factors[-1] * g
        if moves:
            s, g, r = moves[-1]
            direction *= 1 / (r * (g @ g))
        else:
            direction /= max(1.0, float(np.linalg.norm(slope)))
        for (s, g, r), a in zip(moves, reversed(factors), strict=True):
            direction += (a - r * (g @ direction)) * s
        down = float(slope @ direction)
        if down >= 0:
            direction, down, moves = -slope, -float(slope @ slope), []
        step = 1.0
        while True:
            ahead = x + step * direction
            new, new_slope = loss(ahead)
            if new <= value + 1e-4 * step * down or step < 1e-10:
                break
            step *= 0.5
        s, g = ahead - x, new_slope - slope
        curved = float(s @ g)
        if curved > 1e-14:
            moves = [*moves[-11:], (s, g, 1 / curved)]
        stuck = value - new <= 1e-15 * max(1.0, abs(value))
        x, value, slope = ahead, new, new_slope
        if stuck:
            break
    return x
