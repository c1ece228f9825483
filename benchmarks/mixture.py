"""How much a small language model learns about a target from the mixture that each method finds, on equal tokens.

    python benchmarks/mixture.py --out DIR             # everything; called again it goes on where it was stopped
    python benchmarks/mixture.py --quick --out DIR     # a look, with n-gram models for everything; a minute or two
    python benchmarks/mixture.py --show --out DIR      # the table of what is there, without any work

The pool is domains/, cut into pieces of about 512 tokens, with the domain as the group (`_selection_data.py`). Two domains are
the target: of each a quarter of the documents is what the searches see, a fifth judges, and the rest lies in the pool among the
other domains, where it is to be found. No near-duplicate of what judges is anywhere else.

For each seed and method: as a user would, a run with a recipe of two stages, a search and `mixture`, writes as many tokens as
the model is to be trained on, out of the pool in the proportions that the search has found, no document more than
`--repeats` times. Then the same model (size 1m; tokenizer, first weights, steps and schedule are those of everybody) is trained
on exactly so many tokens and judged by its loss on the held-out pieces. Every search has as many proxies of as many tokens as
the others; what each has spent is in the table. The seed decides about the candidates, the pool's documents, the proxies'
orders and weights, what `mixture` draws, and the final model. Intervals are t intervals over seeds, at 95%.

Methods:

    uniform         every domain has the same share
    natural         the shares of the pool
    ngram           the weights by which the mixture of the domains' n-gram models is best on the target (EM); no proxies
    regmix          one round of proxies, a regression, the mean of the best predicted mixtures
    quadmix         the same for sampling functions over quality scores in each domain, which `quality-en` and `signals` give
    climb           rounds of proxies, each drawn among the best that the last regression predicts; the first begin with what
                    `ngram` finds, and the last proxy confirms what is found, as in pipelines/climb.yaml
    climb-random    the same without `ngram`: the first are random, as in the paper

All searches have the predictor of the pipelines (`stacked`). Where it cannot be told from chance a search goes on here
(`weak: keep`), and the table shows its correlation.
Every job writes a file of its own under OUT/jobs; results.json holds all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from _measure import table
from _selection_fit import estimate
from selection import Job, say, write

HERE = Path(__file__).resolve().parent
PLAIN = ("uniform", "natural", "ngram")  # train no proxies
SEARCHES = ("regmix", "quadmix", "climb", "climb-random")
METHODS = (*PLAIN, *SEARCHES)
HALVES = "avx512_bf16", "amx_bf16"  # what a processor has that computes in bfloat16
SPEED = {"bfloat16": 9000, "float32": 4800}  # tokens a second and core, of a training, for the estimate
READING = 3  # times as fast as training is evaluation


def halves() -> str:
    """`bfloat16` where the processor computes in it."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "float32"
    return "bfloat16" if any(flag in flags for flag in HALVES) else "float32"


@dataclass(frozen=True)
class Plan:
    """What is compared.

    runs, proxy_tokens: of each search. rounds: shares of the runs in each round of CLIMB. tokens: of the final model.
    target_bytes, test_bytes: of each target, at most. pool_bytes: of the pool, of the pieces with the lowest hash; 0 for all.
    """

    targets: tuple[str, ...] = ("medical", "science_abstracts")
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (1, 2, 3)
    runs: int = 35
    rounds: tuple[int, ...] = (4, 2, 1)
    models: str = "1m"
    proxy_tokens: int = 100_000
    tokens: int = 500_000
    repeats: int = 4
    learner: str = "1m"
    vocabulary: int = 4096
    batch_tokens: int = 1024
    lr: float = 3e-3
    dtype: str = "float32"
    window: int = 256
    target_bytes: int = 1 << 16
    test_bytes: int = 1 << 17
    pool_bytes: int = 0

    def sizes(self) -> list[int]:
        """How many proxies each round of CLIMB has; they add up to `runs`, with the one that confirms what is found."""
        so_far = [(self.runs - 1) * sum(self.rounds[:i]) // sum(self.rounds) for i in range(len(self.rounds) + 1)]
        return [b - a for a, b in itertools.pairwise(so_far)]


QUICK = Plan(
    seeds=(1,),
    models="ngram",
    proxy_tokens=50_000,
    learner="ngram",
    tokens=100_000,
    target_bytes=1 << 15,
    test_bytes=1 << 15,
    pool_bytes=8 << 20,
)


def jobs(plan: Plan) -> Iterator[Job]:
    """All jobs, a seed after the other."""
    yield Job("prepare", "prepare", {})
    for seed in plan.seeds:
        for method in sorted(plan.methods, key=lambda m: m in PLAIN):  # the long ones first
            args = {"seed": seed, "method": method}
            yield Job(f"search-{seed}-{method}", "search", args, ("prepare",))
            yield Job(f"learn-{seed}-{method}", "learn", args, (f"search-{seed}-{method}",))


def told_before(plan: Plan, workers: int) -> str:
    """How long it may take."""
    speed, per_byte = SPEED.get(plan.dtype, SPEED["float32"]), 0.3
    searches = sum(m not in PLAIN for m in plan.methods) * len(plan.seeds)
    finals = len(plan.methods) * len(plan.seeds)
    proxies = plan.runs * (plan.proxy_tokens + len(plan.targets) * plan.target_bytes * per_byte / READING)
    final = plan.tokens + len(plan.targets) * plan.test_bytes * per_byte / READING
    busy = (searches * proxies if plan.models != "ngram" else 0) + (finals * final if plan.learner != "ngram" else 0)
    around = 60 + 30 * finals / workers
    return (
        f"{searches} searches of {plan.runs} proxies of {plan.proxy_tokens:,} tokens ({plan.models}), {finals} models of "
        f"{plan.tokens:,} tokens ({plan.learner}): about {(busy / speed / workers + around) / 60:.0f} minutes with {workers} "
        f"workers, at {speed:,} tokens a second each ({plan.dtype})"
    )


# --------------------------------------------------------------------------------------------- running them


def _do(plan: Plan, data: Path, out: Path, job: Job) -> dict[str, Any]:
    from _mixture_jobs import Work

    return Work(plan, data, out).do(job.kind, job.name, job.args)


def work(plan: Plan, data: Path, out: Path, workers: int) -> None:
    """Do every job that has no file yet, as many beside each other as there are workers, in order where they can be."""
    folder = out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs(plan) if not (folder / f"{job.name}.json").is_file()]
    done = {job.name for job in jobs(plan)} - {job.name for job in todo}
    failed: set[str] = set()
    started, total = time.monotonic(), len(todo)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: dict[Future[dict[str, Any]], Job] = {}
        while todo or running:
            for job in list(todo):
                if failed.intersection(job.after):
                    failed.add(job.name)
                    todo.remove(job)
                elif len(running) < workers and done.issuperset(job.after):
                    running[pool.submit(_do, plan, data, out, job)] = job
                    todo.remove(job)
            for future in wait(running, return_when=FIRST_COMPLETED)[0]:
                job = running.pop(future)
                said = total - len(todo) - len(running)
                try:
                    found = future.result()
                except Exception:  # one method that fails takes nothing from the others
                    failed.add(job.name)
                    (folder / f"{job.name}.failed").write_text(traceback.format_exc())
                    say(started, said, total, f"{job.name}: FAILED, see {folder / job.name}.failed")
                    continue
                write(folder / f"{job.name}.json", {"job": job.name, "kind": job.kind, **job.args, **found})
                done.add(job.name)
                say(started, said, total, f"{job.name}: {told(found)}")
    if failed:
        print(f"{len(failed)} jobs were not done: {', '.join(sorted(failed))}", file=sys.stderr)


def told(found: Mapping[str, Any]) -> str:
    """One job in a few words."""
    said = [f"{found['wall_s']:.0f} s"]
    if "loss" in found:
        said.append(", ".join(f"{t} {v:.4f}" for t, v in found["loss"].items()))
    if "weights" in found:
        most = sorted(found["weights"].items(), key=lambda kv: -kv[1])[:4]
        said.append(f"{found['proxy_tokens']:,} proxy tokens; " + ", ".join(f"{g} {w:.2f}" for g, w in most))
    if found.get("spearman") is not None:
        said.append(f"Spearman {found['spearman']:.2f}")
    return "; ".join(said)


# --------------------------------------------------------------------------------------------- what came out


def gathered(plan: Plan, out: Path) -> dict[str, Any]:
    """What all jobs that are done have found, by name."""
    paths = (out / "jobs" / f"{job.name}.json" for job in jobs(plan))
    return {"plan": asdict(plan), "jobs": {path.stem: json.loads(path.read_text()) for path in paths if path.is_file()}}


def show(plan: Plan, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Print the table, and return its rows: of each method the losses as a mean over targets, and of each target."""
    found = result["jobs"]
    rows: list[dict[str, Any]] = []
    lines = []
    for method in METHODS:
        seeds = [s for s in plan.seeds if f"learn-{s}-{method}" in found and f"search-{s}-{method}" in found]
        if not seeds:
            continue
        learnt = [found[f"learn-{s}-{method}"] for s in seeds]
        searched = [found[f"search-{s}-{method}"] for s in seeds]
        each = {t: estimate([job["loss"][t] for job in learnt]) for t in plan.targets}
        loss = estimate([sum(job["loss"].values()) / len(job["loss"]) for job in learnt])
        per_byte = estimate([sum(job["loss_per_byte"].values()) / len(job["loss_per_byte"]) for job in learnt])
        spent = [job["proxy_tokens"] for job in searched]
        runs = [job["proxies"] for job in searched]
        share = estimate([sum(job["weights"].get(t, 0.0) for t in plan.targets) for job in searched])
        fits = [job["spearman"] for job in searched if job.get("spearman") is not None]
        seconds = sum(job["wall_s"] for job in searched) / len(searched)
        rows.append(
            {
                "method": method,
                "loss": asdict(loss),
                "loss_per_byte": asdict(per_byte),
                "targets": {t: asdict(e) for t, e in each.items()},
                "proxies": runs,
                "proxy_tokens": spent,
                "share_of_target_domains": asdict(share),
                "spearman": fits,
                "search_s": seconds,
                "repeats": [job["most_repeats"] for job in searched],
            }
        )
        cells = [loss.show(3), per_byte.show(4), *(e.show(3) for e in each.values()), f"{share.mean:.2f}"]
        cells += [f"{max(runs)}", f"{max(spent):,}", f"{sum(fits) / len(fits):.2f}" if fits else "", f"{seconds:.0f}"]
        lines.append([method, *cells, str(loss.n)])
    if lines:
        head = ["", "nats a token", "nats a byte", *plan.targets, "target's share", "proxies", "proxy tokens", "Spearman"]
        title = f"LOSS on held-out pieces after {plan.tokens:,} tokens of each mixture; mean [95% interval over seeds]"
        print("\n" + table(title, [*head, "search s", "seeds"], lines), end="\n\n")
    return rows


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Goals: CLIMB's loss is at most RegMix's, and both are below uniform and natural by more than the seeds differ."""
    loss = {row["method"]: row["loss"] for row in rows}
    found = []
    if "climb" in loss and "regmix" in loss:
        behind = loss["climb"]["mean"] - loss["regmix"]["mean"]
        found.append({"bar": "climb's loss less regmix's, at most 0", "value": behind, "met": behind <= 0})
    for method in ("climb", "regmix"):
        for plain in ("uniform", "natural"):
            if method in loss and plain in loss:
                gain = loss[plain]["mean"] - loss[method]["mean"]
                apart = loss[method]["n"] < 2 or loss[method]["high"] < loss[plain]["low"]
                found.append({"bar": f"{method} below {plain}, intervals apart", "value": gain, "met": gain > 0 and apart})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = os.environ.get("CURATE_DATA", HERE.parents[1] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with domains/ (or CURATE_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="where results go, and where a run goes on")
    parser.add_argument("--quick", action="store_true", help="n-gram models for everything, one seed")
    parser.add_argument("--target", nargs="+", dest="targets", help="domains that are the target")
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--runs", type=int, help="proxies of each search")
    parser.add_argument("--proxy-tokens", type=int, help="that each proxy is trained on")
    parser.add_argument("--tokens", type=int, help="that the final models are trained on")
    parser.add_argument("--models", choices=["1m", "ngram"], help="what proxies are")
    parser.add_argument("--learner", choices=["1m", "ngram"], help="what the final models are")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="by default what the processor does best")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 1)), help="jobs beside each other, a core each"
    )
    parser.add_argument("--show", action="store_true", help="only the table of what is there")
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    args = parser.parse_args()
    names = ("targets", "methods", "seeds", "runs", "proxy_tokens", "tokens", "models", "learner", "dtype")
    given = {name: getattr(args, name) for name in names if getattr(args, name)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    held = args.out / "plan.json"
    known = json.loads(held.read_text()) if held.is_file() else {}
    plan = replace(QUICK if args.quick else Plan(), **{"dtype": known.get("dtype") or halves(), **given})
    fixed = {k: v for k, v in asdict(plan).items() if k not in ("methods", "seeds")}
    if known and known != json.loads(json.dumps(fixed)):
        raise SystemExit(f"{args.out} holds results of another plan ({held}); give another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    write(held, fixed)
    if not args.show:
        print(told_before(plan, args.workers), file=sys.stderr, flush=True)
        work(plan, args.data.resolve(), args.out.resolve(), args.workers)
    result = gathered(plan, args.out)
    result["rows"] = show(plan, result)
    result["bars"] = bars(result["rows"])
    write(args.out / "results.json", result)
    for bar in result["bars"]:
        print(f"{'met   ' if bar['met'] else 'MISSED'}  {bar['bar']}: {bar['value']:.3f}")
    return int(args.check and not all(bar["met"] for bar in result["bars"]))


if __name__ == "__main__":
    sys.exit(main())
