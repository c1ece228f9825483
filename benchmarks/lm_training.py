"""How fast small language models are trained, beside a plain loop over transformers, and against the matmul peak.

    python benchmarks/lm_training.py [--size 1m] [--vocabulary 4096] [--window 512] [--batch 2048] [--threads 1,all]
                                     [--device cpu] [--dtype float32,bfloat16] [--steps 3] [--repeats 5] [--check]
    python benchmarks/lm_training.py --size 150m --batch 131072 --device cuda --steps 20

The sides, in one process, in turns, a round of `--steps` steps each `--repeats` times; both go over the same rows of the same
tokens (random ones: what they are changes nothing in the time) from the same weights, so that their losses say whether they do
the same:

- curate: `curate.lm.train`, reading the tokens from disk; the whole step.
- plain: `LlamaForCausalLM` of transformers, the batch in one piece (on a GPU in pieces of 32,768 tokens), cross entropy,
  clipping, AdamW as they come; tokens in memory. In the same precision: by autocast where that is not float32.
- peak: the product of two square matrices (1,024 wide, on a GPU 8,192) in the same precision, on as many threads.

A token costs 6 FLOP for each weight of a matrix that it goes through, the head included, and 12 times the width of a layer for
each token that it looks back on, itself included; nothing is counted for all else. With one thread seconds are those of the
processor, so other work on the machine hardly shows; with more they are the wall's, and the machine should be quiet. --check
exits 1 where the plain loop is not slower on one thread, or the losses differ.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import Spread, table

SAME = 2e-3  # of a loss, in float32
PRODUCTS = 20  # of a step of `peak`


def sides(
    args: argparse.Namespace, folder: Path, kind: str, threads: int, stack: contextlib.ExitStack
) -> dict[str, Callable[[int], Any]]:
    """Functions that do a step of a number, and `peak`, which does 2 * n³ FLOP."""
    import numpy as np
    import torch
    from transformers import LlamaForCausalLM

    from curate.lm import train as training

    tokens = args.batch * args.steps * (args.repeats + 1)
    asked = training._Asked(
        size=args.size, vocabulary=args.vocabulary, tokens=tokens, epochs=None, batch_tokens=args.batch, lr=None, warmup=None,
        schedule="cosine", weight_decay=0.0, clip=1.0, window=args.window, seed=0, device=args.device, dtype=kind,
        threads=threads, checkpoint_every=1e9, weights=None,
    )  # fmt: skip
    packed = training.Packed.open(folder)
    device, dtype = torch.device(args.device), getattr(torch, kind)
    ours = training._Run(asked, packed, None, folder / "model", folder / "work", {}, device, dtype)
    theirs = LlamaForCausalLM(ours._model.state()[0]).to(device)
    with torch.no_grad():
        for name, weight in ours._model._shape.to_transformers(ours._model.weights).items():
            theirs.get_parameter(name).copy_(weight)
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=1.0, betas=training.BETAS, weight_decay=0.0)
    stream, plan, losses = np.array(packed.read()), ours._plan, {"curate": ours._losses, "plain": torch.zeros(ours._plan.steps)}
    piece = max(1, (args.batch if args.device == "cpu" else 32_768) // args.window)

    def plain(step: int) -> None:
        rows = plan.order(0)[plan.seen(step) : plan.seen(step + 1)]
        for at in range(0, len(rows), piece):
            here = rows[at : at + piece]
            block = torch.from_numpy(np.stack([stream[r * args.window : (r + 1) * args.window + 1] for r in here]).astype("i8"))
            block = block.to(device)
            with torch.autocast(args.device, dtype, enabled=kind != "float32"):
                logits = theirs(input_ids=block[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), block[:, 1:].reshape(-1))
            (loss * (len(here) / len(rows))).backward()
            losses["plain"][step] += loss.item() * len(here) / len(rows)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        optimiser.step()
        optimiser.zero_grad()

    wide = 1024 if args.device == "cpu" else 8192
    a, b = (torch.randn(wide, wide, device=device).to(dtype) for _ in range(2))

    def peak(_: int) -> None:
        for _ in range(PRODUCTS):
            a @ b

    stack.enter_context(ours.pooled())
    return {"curate": ours.step, "plain": plain, "peak": peak, "losses": lambda _: losses}


def flop(args: argparse.Namespace) -> float:
    """Of a token."""
    from curate.lm.train import SIZES

    size = SIZES[args.size]
    weights = size.layers * (4 * size.hidden**2 + 3 * size.hidden * size.mlp) + args.vocabulary * size.hidden
    return 6 * weights + 12 * size.layers * size.hidden * (args.window + 1) / 2


def measure(args: argparse.Namespace, folder: Path, kind: str, threads: int) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        return _measured(args, sides(args, folder, kind, threads, stack), kind, threads)


def _measured(args: argparse.Namespace, found: dict[str, Callable[[int], Any]], kind: str, threads: int) -> dict[str, Any]:
    import torch

    clock = time.process_time if threads == 1 and args.device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {"curate": [], "plain": [], "peak": []}
    for turn in range(args.repeats + 1):
        names = list(seconds)
        for name in names if turn % 2 else names[::-1]:
            torch.set_num_threads(1 if name == "curate" else threads)
            started = clock()
            for step in range(turn * args.steps, (turn + 1) * args.steps):
                found[name](step)
            if args.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first is not counted
                seconds[name].append((clock() - started) / args.steps)
    losses = {name: values.cpu() for name, values in found["losses"](0).items()}
    wide = 1024 if args.device == "cpu" else 8192
    return {
        "kind": kind,
        "threads": threads,
        "speed": {name: [args.batch / each for each in seconds[name]] for name in ("curate", "plain")},
        "peak": [2 * wide**3 * PRODUCTS / each / 1e9 for each in seconds["peak"]],
        "apart": float((losses["curate"] - losses["plain"]).abs().max() / losses["plain"].abs().max()),
        "loss": float(losses["curate"][-1]),
    }


def corpus(args: argparse.Namespace, folder: Path) -> None:
    """Random tokens as `pack` writes texts, enough for all steps."""
    import numpy as np

    from curate.lm.packed import ABOUT, TOKENS
    from curate.storage import write_json

    count = args.batch * args.steps * (args.repeats + 1) + 1
    rng = np.random.default_rng(0)
    tokens = (args.vocabulary * rng.random(count) ** 3).astype(np.uint16 if args.vocabulary <= 1 << 16 else np.uint32)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / TOKENS, tokens)
    about = {"tokens": count, "documents": 1, "separator": 0, "vocabulary": args.vocabulary, "tokenizer": "", "texts": ""}
    write_json(folder / ABOUT, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1m")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2048, help="tokens of a step")
    parser.add_argument("--threads", default="1,all", help="on a CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--steps", type=int, default=3, help="of a round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    threads = [cores if n == "all" else int(n) for n in args.threads.split(",")] if args.device == "cpu" else [1]
    rows, missed = [], False
    with tempfile.TemporaryDirectory() as scratch:
        corpus(args, Path(scratch))
        for kind in (args.dtype or ("float32" if args.device == "cpu" else "bfloat16")).split(","):
            for count in dict.fromkeys(threads):
                found = measure(args, Path(scratch), kind, count)
                peak, each = found["peak"], flop(args) / 1e9
                for name, speed in found["speed"].items():
                    share = Spread.ratio([each * rate for rate in speed], peak)
                    ratio = Spread.ratio(speed, found["speed"]["plain"]).show(2) + "x" if name == "curate" else ""
                    rows.append([name, kind, str(count), Spread.of(speed).show(0), share.show(2), ratio])
                rows.append(["peak", kind, str(count), f"{Spread.of(peak).show(0)} GFLOP/s", "", ""])
                rows.append(["losses apart", kind, str(count), f"{found['apart']:.1e}", "", ""])
                if kind == "float32":
                    faster = Spread.ratio(found["speed"]["curate"], found["speed"]["plain"]).mid > 1
                    missed |= found["apart"] > SAME or (count == 1 and not faster)
    title = f"{args.size} on {args.device}, {args.vocabulary:,} tokens, windows of {args.window}, {args.batch:,} tokens a step"
    print(table(title, ["", "dtype", "threads", "tokens/s", "of the peak", "beside plain"], rows))
    if args.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
