"""The work of `mixture.py`, one function for each kind of job; each returns what its file is to hold."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
import yaml
from _selection_jobs import Work as Selection
from mixture import PLAIN

if TYPE_CHECKING:
    from mixture import Plan

AVERAGE = 16  # of so many of the best predicted is CLIMB's mixture the mean, as in its pipeline
SPARE = 1024  # tokens over what the final model reads, for the pieces that are cut off at the end
QUALITY = {"quality": "higher", "gopher_alpha_word_share": "higher", "gopher_dup_5gram_char_share": "lower"}


def _among(made: dict[str, Any]) -> bool:
    """Whether what was found is one of the mixtures of the rounds, so that no other proxy confirmed it."""
    return made["measured"] is None or any(run["measured"] == made["measured"]["targets"] for run in made["evidence"]["runs"])


class Work(Selection):
    """What a job needs to know: the plan, the data, and where everything lies. Models are trained and judged as there."""

    plan: Plan  # type: ignore[assignment]

    def _prepare(self, name: str) -> dict[str, Any]:
        """The corpus, a tokenizer, and the pool with its tokens and quality scores."""
        from _selection_data import prepare

        from curate.lm import ngram
        from curate.lm.tokenizer import read, train_tokenizer

        plan = self.plan
        sizes = prepare(self.data, self.corpus, plan.targets, plan.target_bytes, plan.test_bytes)
        pool = self._part(pq.read_table(self.corpus / "pool.parquet"))
        pq.write_table(pool, self.corpus / "part.parquet")
        train_tokenizer(pool["text"].chunks, self.tokenizer, vocabulary=plan.vocabulary)
        tokenizer = read(self.tokenizer)
        sides = {f"{s}/{t}": pq.read_table(self.corpus / f"{s}-{t}.parquet") for t in plan.targets for s in ("target", "test")}
        counts = {side: self._count(tokenizer, documents) for side, documents in sides.items()}
        if plan.learner == "ngram":
            ngram.train(pool["text"].chunks).save(self.out / "units")
        scores = [
            {"fasttext": {"model": "quality-en", "into": "quality"}},
            {"signals": {"sets": ["gopher", "gopher_repetition"], "language": "en"}},
        ]
        scored = self._recipe(scores, self.corpus / "part.parquet", self.out / "runs" / "scores")
        kept = scored.sort_by("id").select(["id", "text", "domain", *QUALITY])
        pq.write_table(kept, self.corpus / "scored.parquet")
        shutil.rmtree(self.out / "runs" / "scores")
        return {"sizes": sizes, "tokens": counts}

    def _part(self, pool: pa.Table) -> pa.Table:
        """As much of the pool as the plan takes, at random."""
        if not self.plan.pool_bytes:
            return pool
        hashes = np.array([xxhash.xxh3_64_intdigest(i.encode(), 13) for i in pool["id"].to_pylist()], np.uint64)
        order = np.argsort(hashes, kind="stable")
        size = np.cumsum(pc.binary_length(pool["text"]).to_numpy()[order])
        return pool.take(pa.array(np.sort(order[size <= self.plan.pool_bytes])))

    def _recipe(self, stages: list[dict[str, Any]], source: Path, folder: Path) -> pa.Table:
        """What a run with these stages writes."""
        from curate import Recipe

        recipe = {
            "name": "mixture",
            "source": {"parquet": {"paths": [str(source)]}},
            "tokenizer": str(self.tokenizer / "tokenizer.json"),
            "stages": stages,
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        Recipe.load(path).run(folder, executor="inline", workers=1)
        return pa.concat_tables(pq.read_table(p) for p in sorted((folder / "output" / "data").glob("*.parquet")))

    # ----------------------------------------------------------------------------------------- mixtures

    def _stages(self, seed: int, method: str) -> list[dict[str, Any]]:
        """The stages of a method: a search, but for those that know their weights, and `mixture`."""
        plan = self.plan
        drawn = {"tokens": plan.tokens + SPARE, "max_repeats": plan.repeats, "seed": seed}
        if method in ("uniform", "natural"):
            domains = sorted(set(pq.read_table(self.corpus / "scored.parquet", columns=["domain"])["domain"].to_pylist()))
            weights = {"*": 1.0} if method == "natural" else dict.fromkeys(domains, 1.0)
            return [{"mixture": {"by": "domain", "weights": weights, **drawn}, "max_drop": None}]
        common: dict[str, Any] = {
            "by": "domain",
            "target": {t: str(self.corpus / f"target-{t}.parquet") for t in plan.targets},
            "seed": seed,
        }
        if method == "ngram":
            search = {"ngram_mixture": common}
        else:
            common |= {
                "metric": "loss",
                "weak": "keep",
                "models": plan.models,
                "tokens": plan.proxy_tokens,
                "predictor": "stacked",
            }
            if plan.models != "ngram":
                common |= {
                    "batch_tokens": plan.batch_tokens, "lr": plan.lr, "dtype": plan.dtype, "device": "cpu",
                    "window": plan.window, "vocabulary": plan.vocabulary,
                }  # fmt: skip
            if method.startswith("climb"):
                start = "ngram" if method == "climb" else ""
                search = {"climb": {**common, "rounds": plan.sizes(), "average": AVERAGE, "start": start}}
            else:
                more = {"quality": QUALITY, "features": "shares"} if method == "quadmix" else {}
                search = {method: {**common, "runs": plan.runs, "confirm": False, **more}}
        how = {"rate": "sampling"} if method == "quadmix" else {"by": "domain", "weights": "search"}
        return [{**search, "id": "search"}, {"mixture": {**how, **drawn}, "max_drop": None}]

    def _chosen_path(self, seed: int, method: str) -> Path:
        return self.out / "chosen" / f"{seed}-{method}.parquet"

    def _search(self, name: str, seed: int, method: str) -> dict[str, Any]:
        """Find weights and write as many tokens by them as the final model reads."""
        folder = self.out / "runs" / name
        stages = self._stages(seed, method)
        kept = self._recipe(stages, self.corpus / "scored.parquet", folder)
        by_domain = Counter[str]()
        for domain, tokens in zip(kept["domain"].to_pylist(), kept["tokens"].to_pylist(), strict=True):
            by_domain[domain] += tokens
        written = sum(by_domain.values())
        found: dict[str, Any] = {
            "weights": {domain: tokens / written for domain, tokens in by_domain.most_common()},
            "written_tokens": written,
            "documents": len(kept),
            "most_repeats": max(c["counts"] for c in kept["id"].value_counts().to_pylist()),
            "proxies": 0,
            "proxy_tokens": 0,
        }
        path = self._chosen_path(seed, method)
        path.parent.mkdir(exist_ok=True)
        pq.write_table(kept.select(["id", "text", "domain"]), path)
        if len(stages) > 1:
            made = json.loads((folder / "output" / "mixture.json").read_text())
            evidence = made["evidence"]
            correlation = made.get("rank_correlation") or {}
            found |= {
                "proxies": 0 if method in PLAIN else len(evidence["runs"]) + ("best_predicted" in evidence or not _among(made)),
                "proxy_tokens": evidence.get("proxy_tokens") or 0,
                "predicted": made.get("predicted"),
                "uncertainty": made.get("uncertainty"),
                "spearman": correlation.get("spearman"),
                "rank_correlation": correlation,
                "warnings": made.get("warnings"),
                "wanted": made["weights"],
            }
            (self.out / "mixtures").mkdir(exist_ok=True)
            shutil.copyfile(folder / "output" / "mixture.json", self.out / "mixtures" / f"{name}.json")
        shutil.rmtree(folder)
        return found

    # ----------------------------------------------------------------------------------------- the final models

    def _learn(self, name: str, seed: int, method: str) -> dict[str, Any]:
        chosen = pq.read_table(self._chosen_path(seed, method))
        return self._learn_from(chosen["text"], name, self.plan.tokens, seed)

    def _judged(self, model: Any) -> dict[str, Any]:
        found = super()._judged(model)
        per_byte = {}
        for target, loss in found["loss"].items():
            texts = pq.read_table(self.corpus / f"test-{target}.parquet")["text"]
            per_byte[target] = loss * found["judged_tokens"][target] / int(np.asarray(pc.sum(pc.binary_length(texts))))
        return {**found, "loss_per_byte": per_byte}
