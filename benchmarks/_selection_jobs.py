"""The work of `selection.py`, one function for each kind of job; each returns what its file is to hold."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

if TYPE_CHECKING:
    from selection import Plan

SPARE = 1.02  # of the candidates of a seed over what is drawn from them


class Work:
    """What a job needs to know: the plan, the data, and where everything lies."""

    def __init__(self, plan: Plan, data: Path, out: Path):
        self.plan, self.data, self.out = plan, data, out
        self.corpus, self.tokenizer, self.models = out / "corpus", out / "tokenizer", out / "models"

    def do(self, kind: str, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        torch.set_num_threads(1)  # as many jobs as cores run beside each other
        started = time.perf_counter(), time.process_time()
        found = getattr(self, f"_{kind}")(name, **args)
        return {**found, "wall_s": time.perf_counter() - started[0], "cpu_s": time.process_time() - started[1]}

    # ----------------------------------------------------------------------------------------- data

    def _prepare(self, name: str) -> dict[str, Any]:
        from _selection_data import prepare

        from curate.lm.tokenizer import read, train_tokenizer

        plan = self.plan
        sizes = prepare(self.data, self.corpus, plan.targets, plan.target_bytes, plan.test_bytes)
        pool = pq.read_table(self.corpus / "pool.parquet")
        train_tokenizer(pool["text"].chunks, self.tokenizer, vocabulary=plan.vocabulary)
        tokenizer = read(self.tokenizer)
        each = np.concatenate([np.diff(tokenizer.ids(chunk)[1]) for chunk in pool["text"].chunks])
        pq.write_table(pool.append_column("tokens", pa.array(each, pa.uint32())), self.corpus / "counted.parquet")
        counts = {"pool": int(each.sum())}
        for side in ("target", "test"):
            counts |= {
                f"{side}/{t}": self._count(tokenizer, pq.read_table(self.corpus / f"{side}-{t}.parquet")) for t in plan.targets
            }
        most = max(max(plan.taus) * SPARE, max(plan.curve)) * plan.tokens
        if counts["pool"] < most:
            raise SystemExit(f"the pool holds {counts['pool']:,} tokens, and {most:,.0f} are wanted: lower --tokens")
        if plan.learner == "ngram":
            from curate.lm import ngram

            ngram.train(pool["text"].chunks).save(self.out / "units")
        return {"sizes": sizes, "tokens": counts}

    def _count(self, tokenizer: Any, documents: pa.Table) -> int:
        return sum(len(tokenizer.ids(chunk)[0]) for chunk in documents["text"].chunks)

    def _drawn(self, tokens: int, seed: int) -> pa.Table:
        """So many random tokens of the pool."""
        from curate.stages.random import Random

        counted = pq.read_table(self.corpus / "counted.parquet")
        return Random(tokens=tokens, seed=seed)(counted).kept.select(["id", "text", "domain"])

    def _pool(self, name: str, seed: int) -> dict[str, Any]:
        """The candidates of a seed: as many random tokens as the largest tau needs, so that no more are scored."""
        chosen = self._drawn(int(self.plan.tokens * max(self.plan.taus) * SPARE), 1000 + seed)
        pq.write_table(chosen, self.corpus / f"pool-{seed}.parquet")
        return {"pieces": len(chosen), "share": _shares(chosen, self.plan.targets)}

    def _run(
        self, stage: str, parameters: Mapping[str, Any], source: Path, folder: Path, extra: Sequence[str] = ()
    ) -> pa.Table:
        """What a run of one stage keeps."""
        from curate import Recipe

        recipe = {
            "name": "selection",
            "source": {"parquet": {"paths": [str(source)]}},
            "tokenizer": str(self.tokenizer / "tokenizer.json"),
            "stages": [{stage: dict(parameters), "max_drop": None}],
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(recipe))
        run = Recipe.load(path).run(folder, executor="inline", workers=1)
        self.last = run
        return pa.concat_tables(pq.read_table(p) for p in sorted((folder / "output" / "data").glob("*.parquet")))

    # ----------------------------------------------------------------------------------------- the learner

    def _learn_from(self, texts: pa.ChunkedArray, name: str, tokens: int, seed: int, keep: bool = False) -> dict[str, Any]:
        """Train the learner on so many tokens of texts, and judge it on every target."""
        from curate import lm

        plan, folder = self.plan, self.models / name
        if plan.learner == "ngram":
            return self._learn_ngram(texts, tokens)
        from curate.lm.train import train

        order = np.random.default_rng(seed).permutation(len(texts))
        done = train(
            texts.take(pa.array(order)).chunks,
            folder,
            size="1m",
            tokenizer=self.tokenizer,
            tokens=tokens,
            batch_tokens=plan.batch_tokens,
            lr=plan.lr,
            window=plan.window,
            seed=seed,
            device="cpu",
            dtype=plan.dtype,
            threads=1,
            progress=False,
        )
        model = lm.load(str(folder), device="cpu", what="selection")
        if not keep:
            shutil.rmtree(folder)
        return {**self._judged(model), "tokens": tokens, "training": _plain(done)}

    def _learn_ngram(self, texts: pa.ChunkedArray, tokens: int) -> dict[str, Any]:
        """The same with an n-gram model, whose own tokens are those of one of the whole pool."""
        from curate.lm import ngram

        return {**self._judged(ngram.train(texts.chunks, units=ngram.load(self.out / "units"))), "tokens": tokens}

    def _judged(self, model: Any) -> dict[str, Any]:
        losses, size = {}, {}
        for target in self.plan.targets:
            judged = pq.read_table(self.corpus / f"test-{target}.parquet")["text"].combine_chunks()
            found = model.losses(judged, self.plan.window)
            losses[target] = float(found.nll.sum() / found.tokens.sum())
            size[target] = int(found.tokens.sum())
        return {"loss": losses, "judged_tokens": size}

    def _random(self, name: str, seed: int, times: float) -> dict[str, Any]:
        tokens = int(self.plan.tokens * times)
        chosen = self._drawn(tokens + 2 * self.plan.window, seed)
        return self._learn_from(chosen["text"], name, tokens, seed)

    def _learn(self, name: str, seed: int, target: str, method: str, tau: int) -> dict[str, Any]:
        chosen = pq.read_table(self._chosen(seed, target, method, tau))
        return self._learn_from(chosen["text"], name, self.plan.tokens, seed)

    # ----------------------------------------------------------------------------------------- selection

    def _chosen(self, seed: int, target: str, method: str, tau: int) -> Path:
        return self.out / "chosen" / f"{seed}-{target}-{method}-{tau}.parquet"

    def _prior(self, name: str, seed: int) -> dict[str, Any]:
        """The prior of the neural pair: the learner's size, on random tokens of the whole pool."""
        tokens = int(self.plan.tokens * self.plan.prior_tokens)
        chosen = self._drawn(tokens, 2000 + seed)
        return self._learn_from(chosen["text"], name, tokens, 2000 + seed, keep=True)

    def _stage(self, seed: int, target: str, method: str) -> tuple[str, dict[str, Any]]:
        """(stage, its parameters but for tau) of a method."""
        wanted = str(self.corpus / f"target-{target}.parquet")
        common = {"tokens": self.plan.tokens, "seed": seed}
        if method == "dsir":
            return "dsir", {"targets": wanted, **common}
        common |= {"target": wanted, "training_seed": seed, "window": self.plan.window}
        if method.endswith("-1m"):
            common |= {"prior": str(self.models / f"prior-{seed}"), "device": "cpu"}
        kind, _, models = method.partition("-")
        if kind == "rho":
            return "rho", {
                "mode": "down",
                "rounds": self.plan.rounds,
                **({"start": "prior"} if models == "prior" else {}),
                **common,
            }
        return {"conditional": "conditional_only", "color": "color_filter"}[kind], common

    def _select(self, name: str, seed: int, target: str, method: str) -> dict[str, Any]:
        """What a method keeps for each tau, one after the other in one run folder."""
        stage, parameters = self._stage(seed, target, method)
        pool, folder = self.corpus / f"pool-{seed}.parquet", self.out / "runs" / name
        found: dict[str, Any] = {"tau": {}}
        for tau in sorted(self.plan.taus):
            started = time.perf_counter()
            kept = self._run(stage, {**parameters, "tau": tau}, pool, folder)
            path = self._chosen(seed, target, method, tau)
            path.parent.mkdir(exist_ok=True)
            pq.write_table(kept.select(["id", "text", "domain"]), path)
            found["tau"][str(tau)] = {
                "pieces": len(kept),
                "tokens": int(pc.sum(kept["tokens"]).as_py() or 0),
                "share": _shares(kept, [target])[target],
                "domains": _domains(kept),
                "wall_s": time.perf_counter() - started,
            }
        from curate.training.evaluate import auc

        dropped = self.last.drops(stage)
        of = pq.read_table(pool, columns=["id", "domain"])
        scores = dict(zip(dropped["id"].to_pylist(), dropped["_value"].to_pylist(), strict=True))
        scores |= dict(zip(kept["id"].to_pylist(), _scores(stage, kept).tolist(), strict=True))
        pairs = zip(of["id"].to_pylist(), of["domain"].to_pylist(), strict=True)
        known = [(d == target, scores[i]) for i, d in pairs if scores.get(i) is not None and not math.isnan(scores[i])]
        truth, values = (np.array(v) for v in zip(*known, strict=True))
        found["auc"] = auc(truth.astype(bool), values.astype(np.float64))
        found["scored"] = len(known)
        found["pool_share"] = _shares(of, [target])[target]
        shutil.rmtree(folder)
        return found


def _shares(chosen: pa.Table, targets: Sequence[str]) -> dict[str, float]:
    return {t: float(pc.mean(pc.equal(chosen["domain"], t).cast(pa.float64())).as_py() or 0) for t in targets}


def _plain(training: Any) -> dict[str, Any]:
    import dataclasses

    found = dataclasses.asdict(training) if dataclasses.is_dataclass(training) else dict(vars(training))
    return {key: value for key, value in found.items() if isinstance(value, int | float | str)}


def _domains(chosen: pa.Table) -> dict[str, int]:
    counts = chosen["domain"].value_counts().to_pylist()
    return {c["values"]: c["counts"] for c in sorted(counts, key=lambda c: -c["counts"])}


def _scores(stage: str, kept: pa.Table) -> np.ndarray:
    """What a stage has ordered by the documents that it kept (float64), out of its columns."""
    if stage == "conditional_only":
        return -kept["nll_conditional"].to_numpy() / kept["loss_tokens"].to_numpy()
    return kept[{"dsir": "log_importance_weight", "rho": "rho", "color_filter": "color_score"}[stage]].to_numpy()
