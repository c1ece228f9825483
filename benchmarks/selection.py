"""How much a small language model learns about a target from what each method selects, beside as many random tokens.

    python benchmarks/selection.py --out DIR             # everything, an hour on two idle cores; called again it goes on
    python benchmarks/selection.py --quick --out DIR     # a look: one target, one seed, few tokens; some minutes
    python benchmarks/selection.py --show --out DIR      # the tables of what is there, without any work

The pool, the targets and what judges them are made by `_selection_data.py`: domains/ in pieces of about 512 tokens; for each
target domain a quarter of its documents is the target, a fifth judges, the rest lies in the pool; no near-duplicate of what
judges is anywhere else.

For each seed, target and method: as a user would, a run with a recipe of one stage draws tau * n tokens at random out of the
pool and keeps the best n, for each tau in the same run folder, so that nothing is trained or scored twice. A learner (size 1m,
the same tokenizer, first weights, steps and schedule for everybody) is trained on the n tokens, each read once, and judged by
its loss on the held-out pieces. The same learner is trained on n/4 to 8n random tokens: the *data multiplier* is how many
times n random tokens reach the loss that the n selected ones reach, read off that curve between its points on a logarithmic
scale. It is never extrapolated: beyond the last point it is given as `>` that point.

The seed decides about the candidates, the training samples of the scoring models, their weights and the learner's. Intervals
are t intervals over seeds, at 95%; those of multipliers are of their logarithm.

`--learner ngram` judges by n-gram models of what was chosen instead: in minutes, with a larger n.

Methods:

    random          the curve at n
    dsir            hashed unigrams and bigrams, with the stage's noise
    conditional     the conditional model alone (n-gram)
    rho             RHO-down, n-gram: a learner trained on what was chosen so far, less the conditional model
    rho-prior       the same, but the learner begins as the prior (not by default: --methods)
    color-ngram     CoLoR-Filter, n-gram models trained inside the run
    color-1m        CoLoR-Filter, models of size 1m: a prior of random tokens, a conditional fine-tuned from it in the run
    conditional-1m  the conditional model of that pair alone (not by default: --methods)

Every job writes a file of its own under OUT/jobs; results.json holds all of them.
"""

from __future__ import annotations

import argparse
import json
import math
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
from _selection_fit import estimate, multiplier

HERE = Path(__file__).resolve().parent
METHODS = ("dsir", "conditional", "rho", "color-ngram", "color-1m")


@dataclass(frozen=True)
class Plan:
    """What is compared. tokens: n, of the learner's tokenizer. curve: token counts of random training, as multiples of n."""

    targets: tuple[str, ...] = ("science_abstracts", "reviews")
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (1, 2, 3)
    taus: tuple[int, ...] = (4, 8, 16)
    tokens: int = 1 << 17
    curve: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8)
    vocabulary: int = 4096
    learner: str = "1m"
    batch_tokens: int = 1024
    lr: float = 3e-3
    dtype: str = "bfloat16"
    window: int = 256
    rounds: int = 10
    target_bytes: int = 1 << 18
    test_bytes: int = 1 << 17
    prior_tokens: float = 4  # of the neural pair, as a multiple of n


QUICK = Plan(
    targets=("science_abstracts",), seeds=(1,), taus=(4, 16), tokens=1 << 15, curve=(0.5, 1, 2, 4, 8), test_bytes=1 << 16
)


@dataclass(frozen=True)
class Job:
    """One unit of work, done when its file is there. after: names of jobs that have to be done before."""

    name: str
    kind: str
    args: Mapping[str, Any]
    after: tuple[str, ...] = ()


def jobs(plan: Plan) -> Iterator[Job]:
    """All jobs, a seed after the other."""
    yield Job("prepare", "prepare", {})
    for seed in plan.seeds:
        yield Job(f"pool-{seed}", "pool", {"seed": seed}, ("prepare",))
        for times in plan.curve:
            yield Job(f"random-{seed}-{times:g}", "random", {"seed": seed, "times": times}, ("prepare",))
        neural = [m for m in plan.methods if m.endswith("-1m")]
        if neural:
            yield Job(f"prior-{seed}", "prior", {"seed": seed}, ("prepare",))
        for target in plan.targets:
            for method in plan.methods:
                after = (f"pool-{seed}", *([f"prior-{seed}"] if method in neural else []))
                chosen = f"select-{seed}-{target}-{method}"
                yield Job(chosen, "select", {"seed": seed, "target": target, "method": method}, after)
                for tau in plan.taus:
                    args = {"seed": seed, "target": target, "method": method, "tau": tau}
                    yield Job(f"learn-{seed}-{target}-{method}-{tau}", "learn", args, (chosen,))


# --------------------------------------------------------------------------------------------- running them


def _do(plan: Plan, data: Path, out: Path, job: Job) -> tuple[Job, dict[str, Any]]:
    from _selection_jobs import Work

    return job, Work(plan, data, out).do(job.kind, job.name, job.args)


def work(plan: Plan, data: Path, out: Path, workers: int) -> None:
    """Do every job that has no file yet, as many beside each other as there are workers, in order where they can be."""
    folder = out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs(plan) if not (folder / f"{job.name}.json").is_file()]
    done = {job.name for job in jobs(plan)} - {job.name for job in todo}
    started, total = time.monotonic(), len(todo)
    failed: set[str] = set()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: dict[Future[tuple[Job, dict[str, Any]]], Job] = {}
        while todo or running:
            for job in list(todo):
                if failed.intersection(job.after):
                    failed.add(job.name)
                    todo.remove(job)
                    say(started, total - len(todo) - len(running), total, f"{job.name}: left out, since {', '.join(job.after)}")
                elif len(running) < workers and done.issuperset(job.after):
                    running[pool.submit(_do, plan, data, out, job)] = job
                    todo.remove(job)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                try:
                    _, found = future.result()
                except Exception:  # one method that fails takes nothing from the others
                    failed.add(job.name)
                    (folder / f"{job.name}.failed").write_text(traceback.format_exc())
                    say(started, total - len(todo) - len(running), total, f"{job.name}: FAILED, see {folder / job.name}.failed")
                    continue
                write(folder / f"{job.name}.json", {"job": job.name, "kind": job.kind, **job.args, **found})
                done.add(job.name)
                say(started, total - len(todo) - len(running), total, f"{job.name}: {told(found)}")


def write(path: Path, value: Any) -> None:
    """A JSON file that is there whole or not at all."""
    half = path.with_name(path.name + ".half")
    half.write_text(json.dumps(value, indent=1))
    half.replace(path)


def told(found: Mapping[str, Any]) -> str:
    """One job in a few words."""
    said = [f"{found['wall_s']:.0f} s"]
    if "loss" in found:
        said.append(", ".join(f"{t} {v:.4f}" for t, v in found["loss"].items()))
    if "auc" in found:
        said.append(f"AUC {found['auc']:.3f}, " + ", ".join(f"tau {t}: {v['share']:.2f}" for t, v in found["tau"].items()))
    return "; ".join(said)


def say(started: float, n: int, total: int, text: str) -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - started:6.0f} s  {n:3}/{total}] {text}", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------- what came out


def gathered(plan: Plan, out: Path) -> dict[str, Any]:
    """What all jobs that are done have found, by name."""
    paths = (out / "jobs" / f"{job.name}.json" for job in jobs(plan))
    found = {path.stem: json.loads(path.read_text()) for path in paths if path.is_file()}
    return {"plan": asdict(plan), "jobs": found}


def show(plan: Plan, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Print the tables, and return their rows."""
    found = result["jobs"]
    rows: list[dict[str, Any]] = []
    n = plan.tokens
    for target in plan.targets:
        curves = {
            seed: {
                int(n * times): found[name]["loss"][target]
                for times in plan.curve
                if (name := f"random-{seed}-{times:g}") in found
            }
            for seed in plan.seeds
        }
        curves = {seed: curve for seed, curve in curves.items() if n in curve}
        if not curves:
            continue
        at = {times: [c[int(n * times)] for c in curves.values() if int(n * times) in c] for times in plan.curve}
        points = [[f"{int(n * t):,}", f"{t:g}", estimate(v).show(3), str(len(v))] for t, v in at.items() if v]
        print(
            table(
                f"{target.upper()}  loss on held-out pieces after random tokens",
                ["tokens", "x n", "nats a token", "seeds"],
                points,
            )
        )
        lines = []
        for method in plan.methods:
            for tau in plan.taus:
                names = {seed: f"learn-{seed}-{target}-{method}-{tau}" for seed in curves}
                losses = {seed: found[name]["loss"][target] for seed, name in names.items() if name in found}
                if not losses:
                    continue
                loss = estimate(list(losses.values()))
                gain = estimate([curves[seed][n] - value for seed, value in losses.items()])
                times = multiplier({seed: curves[seed] for seed in losses}, losses, n)
                chosen = [found[f"select-{seed}-{target}-{method}"] for seed in losses]
                share = estimate([c["tau"][str(tau)]["share"] for c in chosen]).mean
                area = estimate([c["auc"] for c in chosen]).mean
                row = {"target": target, "method": method, "tau": tau, "loss": asdict(loss), "gain": asdict(gain)}
                rows.append({**row, "multiplier": asdict(times), "share": share, "auc": area})
                cells = [loss.show(3), gain.show(3), times.show(2), f"{share:.2f}", f"{area:.3f}", str(loss.n)]
                lines.append([f"{method}, tau {tau}", *cells])
        head = ["", "nats a token", "less than random", "data multiplier", "target's share", "AUC", "seeds"]
        print("\n" + table(f"{target.upper()}  {n:,} selected tokens; mean [95% interval over seeds]", head, lines), end="\n\n")
    return rows


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Goals: CoLoR-Filter at the largest tau reaches 4 times its tokens, and is no worse than DSIR within noise."""
    found = []
    most = max((row["tau"] for row in rows), default=0)
    for row in rows:
        if row["tau"] != most or not row["method"].startswith("color"):
            continue
        name = f"{row['target']}, {row['method']}, tau {most}"
        times = row["multiplier"]
        found.append({"bar": f"{name}: 4 times the tokens of random", "value": times["mean"], "met": times["mean"] >= 4})
        others = [r for r in rows if (r["target"], r["method"], r["tau"]) == (row["target"], "dsir", most)]
        for other in others:
            noise = sum((e["high"] - e["low"]) / 2 for e in (row["loss"], other["loss"]) if math.isfinite(e["high"]))
            behind = row["loss"]["mean"] - other["loss"]["mean"]
            found.append({"bar": f"{name}: loss above DSIR's, at most {noise:.3f}", "value": behind, "met": behind <= noise})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = os.environ.get("CURATE_DATA", HERE.parents[1] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with domains/ (or CURATE_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="where results go, and where a run goes on")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, "rho-prior", "conditional-1m"])
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--taus", nargs="+", type=int)
    parser.add_argument("--tokens", type=int, help="n")
    parser.add_argument("--learner", choices=["1m", "ngram"], help="ngram: in minutes, and n can be larger")
    parser.add_argument("--curve", nargs="+", type=float, help="token counts of random training, as multiples of n")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 1)), help="jobs beside each other, a core each"
    )
    parser.add_argument("--show", action="store_true", help="only the tables of what is there")
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    args = parser.parse_args()
    given = {name: getattr(args, name) for name in ("targets", "methods", "seeds", "taus", "tokens", "learner", "curve")}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value}
    plan = replace(QUICK if args.quick else Plan(), **given)
    held = args.out / "plan.json"
    fixed = {k: v for k, v in asdict(plan).items() if k not in ("methods", "seeds", "taus")}
    if held.is_file() and json.loads(held.read_text()) != json.loads(json.dumps(fixed)):
        raise SystemExit(f"{args.out} holds results of another plan ({held}); give another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    write(held, fixed)
    if not args.show:
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
