"""What part of the matmul peak of a processor the scoring of texts with a causal language model reaches.

    python benchmarks/lm.py [--size 10m] [--dtype float32,bfloat16] [--device cpu] [--workers 1,all] [--repeats 7]
                            [--data DIR] [--profile] [--check]
    python benchmarks/lm.py --device cuda --size 150m              # bfloat16, with the share of the peak as MFU

Each worker is a process of its own with one thread, as in a run; several do the same at the same time, and their figures are
added up. In a worker all sides take turns, a round of each `--repeats` times, in CPU seconds of the calls alone, or in seconds
of the wall on a GPU:

- peak: the product of two large square matrices (1,024 and 2,048 wide on a CPU, 4,096 and 8,192 on a GPU), in the same
  precision; the better of the two counts. `shapes` is the same for the products of the model at hand, one layer and the head,
  weighted as they come up in it.
- windows: `Neural.spans` over full windows of 512 tokens.
- documents: `Neural.losses` over whole texts, turning them into tokens included; what they are padded by counts as waste.
- transformers: `AutoModelForCausalLM` over the same full windows as `windows`, in blocks of 1 and of 8 (of 64 on a GPU), the
  better of the two; then log_softmax and what it says of the next token. Beside it the ratio of ours to it.

A token costs 2 FLOP for each weight of a matrix that it goes through, the head included, and 4 times the width of a layer for
each token that it looks back on, itself included; nothing is counted for norms, rotations, exponentials, or padding.

The model has random weights; the tokenizer is trained on the texts: those of `domains` in `--data`, or synthetic ones. Where
the goal is missed, or with --profile, the time of `windows` is shown by operator. --check exits 1 where one worker does not
reach the goal in float32.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import Spread, table

GOAL = 0.5
WINDOW = 512
WINDOWS = {"cpu": 8, "cuda": 512}  # that are scored in one go
BLOCKS = {"cpu": (1, 8), "cuda": (8, 64)}  # of transformers
SQUARES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
CHARACTERS = {"cpu": 20_000, "cuda": 4_000_000}
HERE = Path(__file__).resolve().parent

# --------------------------------------------------------------------------------------------- the input


def texts(data: Path, characters: int) -> tuple[list[str], str]:
    """Documents of about so many characters in all, and where they are from."""
    path = data / "domains" / "domains.parquet"
    if path.is_file():
        import pyarrow.parquet as pq

        found = pq.read_table(path, columns=["text"])["text"].to_pylist()
        random.Random(0).shuffle(found)
        origin = "domains"
    else:
        rng = random.Random(0)
        words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(5000)]
        found = [" ".join(rng.choices(words, k=int(rng.lognormvariate(5.5, 1)) + 1)) for _ in range(characters // 1000 + 100)]
        origin = "synthetic"
    sums = list(itertools.accumulate(len(text) for text in found))
    return found[: 1 + next((i for i, total in enumerate(sums) if total >= characters), len(sums))], origin


def make(folder: Path, size: str, data: Path, vocabulary: int, characters: int) -> str:
    """A model of random weights, its tokenizer, and texts.json. Returns where the texts are from."""
    import pyarrow as pa
    import torch
    import transformers

    from curate.lm.tokenizer import train_tokenizer
    from curate.lm.train import SIZES

    here, origin = texts(data, characters)
    train_tokenizer([pa.array(texts(data, 5_000_000)[0])], folder, vocabulary=vocabulary)
    about = SIZES[size]
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=about.hidden,
        num_hidden_layers=about.layers,
        num_attention_heads=about.heads,
        intermediate_size=about.mlp,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "texts.json").write_text(json.dumps(here))
    return origin


def cost(folder: Path, sizes: Any) -> float:
    """FLOP for windows of these numbers of tokens."""
    import numpy as np

    config = json.loads((folder / "config.json").read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    weights = layers * (4 * width**2 + 3 * width * inner) + config["vocab_size"] * width
    sizes = np.asarray(sizes, np.float64)
    return float(2 * weights * sizes.sum() + 4 * layers * width * (sizes * (sizes + 1) / 2).sum())


# --------------------------------------------------------------------------------------------- a worker


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds: of this process on a CPU, of the wall on a GPU."""
    import torch

    if device != "cuda":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def products(folder: Path, kind: Any, device: str) -> list[tuple[Any, Any, int]]:
    """(tokens, weights, how often) of the products of a block."""
    import torch

    config = json.loads((folder / "config.json").read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    places = 512 if device == "cpu" else 32_768
    shapes = [
        (width, 3 * width, layers),
        (width, width, layers),
        (width, 2 * inner, layers),
        (inner, width, layers),
        (width, config["vocab_size"], 1),
    ]
    return [
        (torch.randn(places, a, device=device).to(kind), torch.randn(b, a, device=device).to(kind), n) for a, b, n in shapes
    ]


def sides(folder: Path, device: str, dtype: str) -> tuple[dict[str, Callable[[], tuple[float, int]]], Any, Any]:
    """Name to a function that returns (FLOP, tokens); the scorer; the function of `windows`."""
    import numpy as np
    import pyarrow as pa
    import torch
    import transformers
    from torch.nn import functional

    from curate.lm import neural

    kind = getattr(torch, dtype)
    scorer = neural.load(str(folder), device=device, dtype=dtype)
    documents = pa.array(json.loads((folder / "texts.json").read_text()))
    ids, _ = scorer.encode(documents)
    many = WINDOWS[device]
    ids = np.resize(ids, many * WINDOW)
    starts = np.arange(many) * WINDOW
    full = cost(folder, np.full(many, WINDOW))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind).to(device).eval()
    found: dict[str, Callable[[], tuple[float, int]]] = {}

    def square(width: int) -> Callable[[], tuple[float, int]]:
        one, other = (torch.randn(width, width, device=device).to(kind) for _ in range(2))
        times = 4

        def run() -> tuple[float, int]:
            for _ in range(times):
                functional.linear(one, other)
            return times * 2.0 * width**3, 0

        return run

    for width in SQUARES[device]:
        found[f"square {width}"] = square(width)
    shapes = products(folder, kind, device)

    def at_hand() -> tuple[float, int]:
        total = 0.0
        for tokens, weights, often in shapes:
            for _ in range(often):
                functional.linear(tokens, weights)
            total += 2.0 * often * tokens.shape[0] * weights.numel()
        return total, 0

    def windows() -> tuple[float, int]:
        _, tokens = scorer.spans(ids, starts, starts + WINDOW)
        return full, int(tokens.sum())

    def whole() -> tuple[float, int]:
        losses = scorer.losses(documents)
        return cost(folder, losses.tokens), int(losses.tokens.sum())

    def theirs(block: int) -> Callable[[], tuple[float, int]]:
        rows = ids.reshape(many, WINDOW).astype(np.int64)
        given = np.concatenate([np.full((many, 1), scorer.separator), rows[:, :-1]], 1)

        def run() -> tuple[float, int]:
            with torch.inference_mode():
                for at in range(0, many, block):
                    after = torch.from_numpy(rows[at : at + block]).to(device)
                    logits = model(torch.from_numpy(given[at : at + block]).to(device), use_cache=False).logits.float()
                    torch.log_softmax(logits, -1).gather(2, after[..., None]).double().sum((1, 2)).cpu()
            return full, many * WINDOW

        return run

    found |= {"shapes": at_hand, "windows": windows, "documents": whole}
    found |= {f"transformers {block}": theirs(block) for block in BLOCKS[device]}
    return found, scorer, windows


def work(folder: Path, device: str, dtype: str, repeats: int, barrier: Any, out: Any, profile: bool) -> None:
    """One worker: puts {side: [(seconds, FLOP, tokens)]} and, with `profile`, a table of operators."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    run, scorer, windows = sides(folder, device, dtype)
    seen: dict[str, list[tuple[float, float, int]]] = {name: [] for name in run}
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for name, side in run.items():
                barrier.wait()
                result: list[tuple[float, int]] = []
                seconds = timed(lambda side=side, result=result: result.append(side()), device)
                if turn:  # the first is for caches and, on a GPU, for the compiler
                    seen[name].append((seconds, *result[0]))
    out.put((seen, operators(windows, device) if profile else "", scorer.device))


def operators(windows: Callable[[], Any], device: str) -> str:
    """Shares of the time of `windows` by operator."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=kinds) as seen:
        windows()
    spent = {
        event.key: event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        for event in seen.key_averages()
    }
    total = sum(spent.values())
    top = sorted(spent.items(), key=lambda item: -item[1])[:12]
    rows = [[name[:60], f"{time / total:.1%}"] for name, time in top if time / total >= 0.005]
    return table("by operator", ["", "share"], rows)


# --------------------------------------------------------------------------------------------- the comparison


def together(folder: Path, device: str, dtype: str, workers: int, repeats: int, profile: bool) -> tuple[dict, str]:
    """{side: [(FLOP a second, tokens a second)]} of all workers together, and a table of operators of one."""
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=work, args=(folder, device, dtype, repeats, barrier, out, profile and not i))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    taken = []
    while len(taken) < workers:
        try:
            taken.append(out.get(timeout=5))
        except Exception:  # nothing yet: queue.Empty
            if any(process.exitcode for process in processes):
                for process in processes:
                    process.terminate()
                sys.exit("a worker failed; its message is above")
    for process in processes:
        process.join()
    summed = {
        name: [
            tuple(sum(one[0][name][i][what] / one[0][name][i][0] for one in taken) for what in (1, 2)) for i in range(repeats)
        ]
        for name in taken[0][0]
    }
    return summed, next((one[1] for one in taken if one[1]), "")


def best(summed: dict, name: str) -> list[tuple[float, float]]:
    """The better of the sides that begin with a name, by the median."""
    return max(
        (values for key, values in summed.items() if key.startswith(name)),
        key=lambda values: Spread.of([one[0] for one in values]).mid,
    )


def show(title: str, summed: dict) -> float:
    """Print a table; returns the share of the peak that `windows` reaches."""
    peak = [one[0] for one in best(summed, "square")]
    theirs = [one[1] for one in best(summed, "transformers")]
    rows, reached = [], 0.0
    for name, values in summed.items():
        flops = [one[0] for one in values]
        share = Spread.ratio(flops, peak)
        rate = Spread.of([one[1] for one in values])
        ratio = Spread.ratio([one[1] for one in values], theirs).show(2) + "x" if name in ("windows", "documents") else ""
        tokens = rate.show(0) if rate.mid else ""
        rows.append([name, Spread.of([f / 1e9 for f in flops]).show(1), share.show(2), tokens, ratio])
        reached = share.mid if name == "windows" else reached
    print(table(title, ["", "GFLOP/s", "of the peak", "tokens/s", "beside transformers"], rows), flush=True)
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", help="float32,bfloat16 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--workers", help="1,all on a CPU, 1 on a GPU")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CURATE_DATA") or HERE.parents[1] / "shared" / "data"))
    parser.add_argument("--profile", action="store_true", help="show the time by operator in any case")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    on_cpu = given.device == "cpu"
    dtypes = (given.dtype or ("float32,bfloat16" if on_cpu else "bfloat16")).split(",")
    cores = len(os.sched_getaffinity(0))
    counts = [cores if n == "all" else int(n) for n in (given.workers or ("1,all" if on_cpu else "1")).split(",")]
    missed = False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        origin = make(folder, given.size, given.data, given.vocabulary, CHARACTERS[given.device])
        for dtype in dtypes:
            for workers in dict.fromkeys(counts):
                summed, by_operator = together(folder, given.device, dtype, workers, given.repeats, True)
                title = f"{given.size}, {dtype}, {given.device}, {workers} of {cores} cores, texts: {origin}"
                reached = show(title, summed)
                print(f"{'MFU' if not on_cpu else 'share of the peak'}: {reached:.2f}, goal {GOAL}")
                if reached < GOAL or given.profile:
                    print(by_operator)
                missed |= reached < GOAL and dtype == "float32" and workers == 1
                print(flush=True)
    if given.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
