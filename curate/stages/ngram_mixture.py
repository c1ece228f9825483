"""The mixture of groups whose n-gram models lose least on a target: no proxy is trained, and seconds are enough."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from curate import mixtures
from curate.errors import RecipeError
from curate.mixtures import FILE, Mixture
from curate.searching import METRICS, Targets, write_state
from curate.stage import BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import read_table

if TYPE_CHECKING:
    from curate.proxies import Config, Pool, Target

RESAMPLES = 20
ROUGH = 1e-6  # nats per token: what an iteration may still gain where weights are found again for resampled targets
_NO_GROUP = "documents without a group, which are in no mixture"


@dataclass(frozen=True, kw_only=True)
class NgramMixture(GlobalStage):
    """Finds the mixture of groups that gives a target the highest likelihood, by n-gram models and expectation maximisation.

    A mixture of the n-gram models of all groups is an n-gram model, and its loss on the target a convex function of the
    weights: so its minimum is found in seconds. It says which groups a target is like; what several groups teach together, and
    what is gained by reading a small group again and again, it does not know: for that there are `climb` and `regmix`, which
    may begin with it.

    by: the column (string, integer or boolean) whose values are the groups; a document without a value belongs to none. target:
    files of texts like those that are wanted, or of questions, as `color_filter` reads them; or a mapping from names to files,
    whose losses are averaged. texts: such texts themselves. column: of the texts in files. target_tokens: of each target that
    are looked at. need: tokens of each group that its model learns from, from the documents of the lowest hash of (seed, file,
    record). max_usage: a group gets at most that many times its natural share; 0: no limit. seed: of hashes and of what is
    resampled. into: the column that says how many copies of a document are wanted for each that natural proportions have.

    Columns written: `sampling` (or `into`; float32), null without a group. Reasons: none. Output: `mixture.json`, with the loss
    and the perplexity of natural, uniform and these proportions, and how far each weight moves when the texts of the target
    are drawn anew (20 times).

    A group of which there is little has a model that knows little, and gets less than it deserves: look at `need` and at the
    tokens that groups have. Documents that are word for word in a target are left out of the models.

    Source: expectation maximisation for the weights of a mixture (Dempster et al. 1977, Maximum likelihood from incomplete
    data via the EM algorithm); as weights of data, own.

    >>> docs = [f"the cell divides, cell {i}" for i in range(9)] + [f"buy phone {i} now" for i in range(9)]
    >>> table = pa.table({"text": docs, "kind": ["lab"] * 9 + ["shop"] * 9})
    >>> kept = NgramMixture(by="kind", texts=("cells divide, and the cell divides again",))(table).kept
    >>> kept["sampling"][0].as_py() > 1 > kept["sampling"][17].as_py()
    True
    """

    code: ClassVar[str] = "ngram_mixture"
    outputs: ClassVar[tuple[str, ...]] = (FILE,)
    example: ClassVar[dict[str, Any]] = {
        "by": "corpus",
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
    }

    by: str
    target: Targets = ()
    texts: tuple[str, ...] = ()
    column: str = "text"
    target_tokens: int = 100_000
    need: int = 1_000_000
    max_usage: float = 0
    into: str = "sampling"
    seed: int = 42

    def __post_init__(self) -> None:
        if not self.by or self.by.startswith("_"):
            raise RecipeError(f"ngram_mixture: by is {self.by!r}; it is the name of a column whose values are groups")
        if not self.into or self.into.startswith("_") or self.into == self.by:
            raise RecipeError(f"ngram_mixture: into is {self.into!r}; give the name of a new column, not beginning with _")
        if not 1 <= self.need <= 1 << 40:
            raise RecipeError(f"ngram_mixture: need is {self.need!r}; give the tokens of a group to learn from, at least 1")
        if self.max_usage and not 1 <= self.max_usage < math.inf:
            raise RecipeError(
                f"ngram_mixture: max_usage is {self.max_usage:g}; a group may have that many times its natural share, at least "
                "1, or 0 for no limit"
            )
        self.config.check("ngram_mixture")
        self.wanted.check("ngram_mixture")

    @property
    def config(self) -> Config:
        """What models there are."""
        from curate.proxies import NGRAM, Config

        return Config(models=NGRAM, target_tokens=self.target_tokens, seed=self.seed)

    @property
    def wanted(self) -> Target:
        """What the mixture is to be good at."""
        from curate.proxies import Target

        return Target.of(self.target, self.texts, self.column)

    def bound(self, columns: Collection[str]) -> Stage:
        self.wanted.asked("ngram_mixture")  # only now, so that a recipe can leave it to those who run it
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.by,)

    def fit_reads(self) -> tuple[str, ...]:
        return self.by, "tokens", "file", "record", "id", "text"

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.float32())])

    def files(self) -> tuple[str, ...]:
        return self.wanted.paths("ngram_mixture")

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        from curate.proxies import pool_steps

        pool = pool_steps(
            self, what="ngram_mixture", by=self.by, config=self.config, need=self.need, target=self.wanted
        )  # fmt: skip
        return [*pool, Step("weigh", partial(_weigh, self))]

    def open(self, task: Task) -> BatchFn:
        text = read_table(task.folder(self) / "state.parquet")["mixture"][0].as_py()
        mixture = Mixture.from_json(orjson.loads(text), "ngram_mixture")
        if not task.shard:  # once for the run, since the notes of shards are added up
            for note, n in (*mixture.evidence["notes"].items(), *((warning, 1) for warning in mixture.warnings)):
                task.count(note, n)
        rates = {group: mixture.weights[group] / share for group, share in mixture.natural.items()}
        return partial(self._process, task, rates)

    def _process(self, task: Task, rates: Mapping[str, float], batch: pa.RecordBatch) -> pa.RecordBatch:
        at, groups = mixtures.groups_of(batch[self.by], f"ngram_mixture: column {self.by!r}")
        found = np.array([*(rates.get(group, np.nan) for group in groups), np.nan])[at]
        if without := int((at < 0).sum()):
            task.count(_NO_GROUP, without)
        return with_columns(batch, {self.into: pa.array(found, pa.float32(), mask=np.isnan(found))})


def _weigh(stage: NgramMixture, task: Task) -> None:
    """The weights, with what speaks for them."""
    from curate.proxies import Pool, em, measure_ngram, pool_folder, resampled

    pool = Pool.open(pool_folder(stage, task))
    caps = np.minimum(stage.max_usage * pool.natural, 1.0) if stage.max_usage else None
    weights = em(pool, caps=caps)
    near = 0.9 * weights + 0.1 * pool.natural  # with no weight of 0, which would stay 0
    rng = np.random.Generator(np.random.PCG64(stage.seed))
    again = np.stack([em(pool, near, caps=caps, counts=resampled(pool, rng), gain=ROUGH) for _ in range(RESAMPLES)])
    tried = {"natural": pool.natural, "uniform": np.full(len(weights), 1 / len(weights)), "ngram": weights}
    measured = {origin: measure_ngram(pool, values) for origin, values in tried.items()}
    unit, lower = METRICS["loss"]
    best = measured["ngram"]
    runs = [
        {
            "round": 1,
            "origin": origin,
            "weights": _named(pool, tried[origin]),
            "measured": found.targets,
            "metric": found.metric("loss"),
            "predicted": None,
            "repeats": 0,
            "seed": stage.seed,
        }
        for origin, found in measured.items()
    ]
    evidence = {
        "method": "ngram_mixture",
        "proxy": {"models": "ngram", "need": stage.need, "target_tokens": stage.target_tokens, "seed": stage.seed},
        "proxy_tokens": 0,
        "perplexity": {
            target: {origin: math.exp(found.targets[target]["loss"]) for origin, found in measured.items()}
            for target in pool.targets
        },
        "resampled": {
            "times": RESAMPLES,
            "spread": _named(pool, again.std(0)),
            "low": _named(pool, again.min(0)),
            "high": _named(pool, again.max(0)),
        },
        "max_usage": stage.max_usage or None,
        "notes": pool.notes,
        "runs": runs,
    }
    mixture = Mixture(
        weights=_named(pool, weights),
        by=stage.by,
        natural=_named(pool, pool.natural),
        metric={
            "name": "loss",
            "lower_is_better": lower,
            "unit": unit,
            "targets": {name: {key: found[key] for key in ("tokens", "bytes")} for name, found in best.targets.items()},
        },
        measured={"metric": best.metric("loss"), "targets": best.targets},
        evidence=evidence,
        warnings=() if len(weights) > 1 else (f"there is only one group, {pool.groups[0]!r}: nothing was searched",),
    )
    if task.root is not None:
        mixture.save(task.kept(stage) / FILE)
    write_state(task, stage, mixture)


def _named(pool: Pool, values: np.ndarray) -> dict[str, float]:
    return dict(zip(pool.groups, values.tolist(), strict=True))
