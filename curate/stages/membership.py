"""Whether a language model was trained on a document: what it says about the tokens, as scores for an audit."""

from __future__ import annotations

import functools
import itertools
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate import audit, encoders, lm, reference
from curate.errors import RecipeError, StageError
from curate.stage import Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.stages.loss import NGRAM, cached, check_how, check_model, nothing, train
from curate.storage import read_table, write_table

METHODS = ("min_k", "min_k_plus_plus", "dc_pdd", "perplexity", "zlib", "lowercase", "reference")
MAX_TOKENS = 1024
CHARACTERS = 64  # of a text that are looked at for each token that may be wanted
AT_ONCE = 256  # texts of which the tokens are held
_SHORT = "documents without scores: fewer than {} tokens that the model predicts"
_ODD = "documents with a score that is no finite number, and so is null"

Encode = Callable[[pa.Array], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Membership(GlobalStage):
    """Scores how unlikely it is that a language model was trained on each document: Min-K%, Min-K%++, DC-PDD and baselines.

    All scores have one sign: the higher, the less likely the model has seen the text. They are evidence for an audit of a
    model, not proof about a document: docs/audits.md says what they can and cannot tell, and `curate.audit.evaluate` how well
    they do on documents of which it is known.

    model: the audited one: a folder, a repository of the Hugging Face hub as `org/repo`, of a causal language model that
    transformers reads (the extra `lm`), or the folder of an n-gram model; `ngram` is a small one that is trained here on
    `texts`, to try the audit out. methods: which scores, all that the model allows by default:

    `min_k`: minus the mean of the lowest ln p, of so large a part of the tokens as each of `ratios` says, rounded down, but at
    least one token. `min_k_plus_plus`: the same of (ln p - mean) / standard deviation over all tokens that could stand there,
    by `plus_ratios`; n-gram models do not say these. `dc_pdd`: minus the mean of min(p ln(1 / f), `clip`) over the first
    occurrence of each token, where f is the share of the token in a reference corpus, smoothed: (count + 1) / (all tokens +
    vocabulary). `perplexity`. `zlib`: ln perplexity by the bytes of the text as zlib compresses it. `lowercase`: ln perplexity
    by that of the text in lower case. `reference`: ln perplexity minus that under `reference_model`, a smaller or older one.

    reference: files of the corpus for `dc_pdd` (Parquet, JSONL, folders, globs, run folders); without any, the corpus at hand.
    Of each document the first `reference_tokens` count, by the tokenizer of the audited model.
    words: what is read of a text: its first words, runs of what is no white space; in scripts without spaces a character is
    one. max_tokens: tokens that are read at most, as one window; 0 for 1,024, or what a model can read if that is less.
    min_tokens: a text with fewer that are predicted has no scores. The first token is predicted where the model has one that
    begins texts. device, dtype: as of the stage `loss`. prefix: before the names of the columns.

    Columns written, all float64 but for the last, with `membership_` for the prefix: `membership_min_k_20` and so on (the ratio
    in percent), `membership_min_k_plus_plus_20`, `membership_dc_pdd`, `membership_perplexity`, `membership_zlib`,
    `membership_lowercase`, `membership_reference`; `membership_tokens` (int32: the tokens that were predicted). Scores are null
    for a text of fewer than `min_tokens`, which is counted. Reasons: none.

    A text has the same scores in every batch, shard and number of workers on one machine; see `curate.encoders`.

    Source: Min-K% Prob (Shi et al. 2024, arXiv:2310.16789; ratios and baselines of swj0419/detect-pretrain-code), Min-K%++
    (Zhang et al. 2025, arXiv:2404.02936), DC-PDD (Zhang et al. 2024, arXiv:2409.14781; zhang-wei-chao/DC-PDD: clip, 512 words,
    1,024 tokens of the reference).

    >>> seen = "It was a bright cold day in April, and the clocks were striking thirteen."
    >>> stage = Membership(model="ngram", texts=(seen,), methods=("min_k",), ratios=(0.2,), min_tokens=8)
    >>> kept = stage([seen, "Whoever wants a rare vase must go north before the winter frost begins."]).kept
    >>> one, other = kept["membership_min_k_20"].to_pylist()
    >>> one < other
    True
    """

    example: ClassVar[dict[str, Any]] = {"model": "ngram", "texts": ("It was a bright cold day in April.",)}

    model: str
    texts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    ratios: tuple[float, ...] = audit.RATIOS
    plus_ratios: tuple[float, ...] = (0.2,)
    clip: float = audit.CLIP
    reference: str | tuple[str, ...] = ()
    reference_tokens: int = 1024
    reference_model: str = ""
    words: int = 512
    max_tokens: int = 0
    min_tokens: int = 32
    prefix: str = audit.PREFIX
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if not self.model:
            raise RecipeError("membership: model is empty; name the model that is to be audited")
        if self.texts and self.model != NGRAM:
            raise RecipeError("membership: `texts` are what `model: ngram` is trained on; remove them, or name it")
        for name in self.methods:
            if name not in METHODS:
                raise RecipeError(f"membership: methods holds {name!r}; known: {', '.join(METHODS)}")
        if len(set(self.methods)) != len(self.methods):
            raise RecipeError("membership: methods names one twice")
        if "reference" in self.methods and not self.reference_model:
            raise RecipeError("membership: the method `reference` needs `reference_model`, a smaller or older model")
        if self.reference_model and self.methods and "reference" not in self.methods:
            raise RecipeError("membership: `reference_model` is for the method `reference`, which methods does not name")
        for name, ratios in (("ratios", self.ratios), ("plus_ratios", self.plus_ratios)):
            if not ratios or len(set(ratios)) != len(ratios) or not all(0 < ratio <= 1 for ratio in ratios):
                raise RecipeError(f"membership: {name} is {list(ratios)}; give different shares above 0 and up to 1")
        if not self.clip > 0:
            raise RecipeError(f"membership: clip is {self.clip}; it is above 0, such as 0.01")
        if not all(self.paths):
            raise RecipeError("membership: reference is the name of a file or folder, and must not be empty")
        if min(self.reference_tokens, self.words, self.min_tokens) < 1 or self.max_tokens < 0:
            raise RecipeError("membership: reference_tokens, words and min_tokens are at least 1, and max_tokens is 0 or more")
        check_how("membership", self.device, self.dtype)
        if self.prefix.startswith("_"):
            raise RecipeError(f"membership: prefix is {self.prefix!r}; names of columns do not begin with an underscore")

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the reference corpus is."""
        return (self.reference,) if isinstance(self.reference, str) else tuple(self.reference)

    def bound(self, columns: Collection[str]) -> Stage:
        if self.model == NGRAM and not self.texts:
            raise RecipeError("membership: give `texts` that `model: ngram` is trained on, or the model to be audited")
        if self.reference_model == NGRAM:
            raise RecipeError("membership: reference_model is a model that is there already: name its folder")
        for model in filter(None, (self.model, self.reference_model)):
            check_model("membership", model, self.max_tokens)
        if "min_k_plus_plus" in self.methods and not _distributions(self.model):
            raise RecipeError(
                "membership: an n-gram model says nothing of tokens that do not stand there: no `min_k_plus_plus`"
            )
        if self.paths and "dc_pdd" not in self.chosen:
            raise RecipeError("membership: `reference` is for the method `dc_pdd`, which methods does not name")
        return self

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods that are written."""
        if self.methods:
            return tuple(name for name in METHODS if name in self.methods)
        without = {"" if _distributions(self.model) else "min_k_plus_plus", "" if self.reference_model else "reference"}
        return tuple(name for name in METHODS if name not in without)

    def names(self, method: str) -> list[str]:
        """The columns of a method."""
        ratios = {"min_k": self.ratios, "min_k_plus_plus": self.plus_ratios}.get(method)
        if ratios is None:
            return [f"{self.prefix}{method}"]
        return [f"{self.prefix}{method}_{percent(ratio)}" for ratio in ratios]

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def fit_reads(self) -> tuple[str, ...]:
        return ("text",) if "dc_pdd" in self.chosen and not self.paths else ()

    def writes(self) -> pa.Schema:
        names = [name for method in self.chosen for name in self.names(method)]
        return pa.schema([*((name, pa.float64()) for name in names), (f"{self.prefix}tokens", pa.int32())])

    def files(self) -> tuple[str, ...]:
        models = [model for model in (self.model, self.reference_model) if model and model != NGRAM]
        found = [file for model in models for file in lm.files(model, "membership")]
        return (*reference.files(self.paths, "membership"), *found)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        steps = [Step("train", partial(train, self, (), self.texts, "membership"))] if self.model == NGRAM else []
        if "dc_pdd" in self.chosen:
            if not self.paths:
                steps.append(Step("counts", partial(_counts, self), reads=("text",)))
            steps.append(Step("frequencies", partial(_frequencies, self)))
        return steps or [Step("nothing", nothing)]

    def open(self, task: Task) -> BatchFn:
        model = self._model(self.model, task)
        frequency = None
        if "dc_pdd" in self.chosen:
            known = _read_counts(task.folder(self) / "state.parquet")
            frequency = audit.frequencies(_added(known, np.zeros(model.vocabulary, np.int64)))
        other = self._model(self.reference_model, task) if self.reference_model else None
        return partial(self._process, model, other, frequency, task)

    def _model(self, model: str, task: Task) -> lm.LanguageModel:
        name = str(task.folder(self) / NGRAM) if model == NGRAM else model
        return cached(task, name, self.device, self.dtype, "membership")

    def _process(
        self,
        model: lm.LanguageModel,
        other: lm.LanguageModel | None,
        frequency: np.ndarray | None,
        task: Task,
        batch: pa.RecordBatch,
    ) -> pa.RecordBatch:
        names = [name for method in self.chosen for name in self.names(method)]
        scores = np.full((batch.num_rows, len(names)), np.nan)
        tokens = np.zeros(batch.num_rows, np.int32)
        for at in range(0, batch.num_rows, AT_ONCE):
            texts = [first_words(text or "", self.words) for text in batch["text"].slice(at, AT_ONCE).to_pylist()]
            found = self._ask(model, self.model, texts)
            tokens[at : at + len(texts)] = np.diff(found.bounds)
            rows = np.flatnonzero(np.diff(found.bounds) >= self.min_tokens)
            if len(rows):
                scores[at + rows] = self._scores(_of(found, rows), [texts[i] for i in rows.tolist()], model, other, frequency)
        short = tokens < self.min_tokens
        if short.any():
            task.count(_SHORT.format(self.min_tokens), int(short.sum()))
        odd = ~np.isfinite(scores)
        if (odd.any(1) & ~short).any():
            task.count(_ODD, int((odd.any(1) & ~short).sum()))
        columns = {name: pa.array(np.where(odd[:, i], 0, scores[:, i]), mask=odd[:, i]) for i, name in enumerate(names)}
        return with_columns(batch, {**columns, f"{self.prefix}tokens": pa.array(tokens)})

    def _ask(self, model: lm.LanguageModel, name: str, texts: list[str]) -> lm.TokenLosses:
        most = self.max_tokens or most_tokens(name)
        return model.token_losses(pa.array([text[: most * CHARACTERS] for text in texts], pa.string()), most)

    def _scores(
        self,
        found: lm.TokenLosses,
        texts: list[str],
        model: lm.LanguageModel,
        other: lm.LanguageModel | None,
        frequency: np.ndarray | None,
    ) -> np.ndarray:
        """float64 (texts, columns)."""
        log_perplexity = audit.log_perplexity(found)
        columns = []
        with np.errstate(all="ignore"):  # what is no number becomes null
            for method in self.chosen:
                if method == "min_k":
                    columns.append(audit.min_k(found, self.ratios))
                elif method == "min_k_plus_plus":
                    columns.append(audit.min_k_plus_plus(found, self.plus_ratios))
                elif method == "dc_pdd":
                    assert frequency is not None
                    columns.append(audit.dc_pdd(found, frequency, self.clip)[:, None])
                elif method == "perplexity":
                    columns.append(audit.perplexity(found)[:, None])
                elif method == "zlib":
                    sizes = np.array([len(zlib.compress(text.encode("utf-8"))) for text in texts])
                    columns.append((log_perplexity / sizes)[:, None])
                elif method == "lowercase":
                    lower = self._ask(model, self.model, [text.lower() for text in texts])
                    columns.append((log_perplexity / audit.log_perplexity(lower))[:, None])
                else:
                    assert other is not None
                    theirs = audit.log_perplexity(self._ask(other, self.reference_model, texts))
                    columns.append((log_perplexity - theirs)[:, None])
        return np.concatenate(columns, axis=1)


def percent(ratio: float) -> str:
    """A share as it stands in the name of a column: 5 for 0.05, 12_5 for 0.125."""
    return f"{100 * ratio:.6g}".replace(".", "_")


def most_tokens(model: str) -> int:
    """How many tokens of a text a model is given where nobody says."""
    if model == NGRAM or lm.kind(model) == NGRAM:
        return MAX_TOKENS
    from curate.lm import neural

    return min(MAX_TOKENS, neural.limit(model, "membership") or MAX_TOKENS)


def _distributions(model: str) -> bool:
    """Whether a model says what all tokens have for a probability that could stand in a place."""
    return model != NGRAM and lm.kind(model) != NGRAM


@functools.cache
def _word() -> re.Pattern[str]:
    from curate.lexicon import UNSPACED_SCRIPTS

    alone = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED_SCRIPTS)
    return re.compile(rf"[{alone}]|[^\s{alone}]+")


def first_words(text: str, words: int) -> str:
    """A text up to the end of so many words."""
    if len(text) <= words:
        return text
    last = next(itertools.islice(_word().finditer(text), words - 1, None), None)
    return text if last is None else text[: last.end()]


def _of(found: lm.TokenLosses, rows: np.ndarray) -> lm.TokenLosses:
    """What is said about some of the texts."""
    sizes = np.diff(found.bounds)
    chosen = np.zeros(len(sizes), bool)
    chosen[rows] = True
    at = np.repeat(chosen, sizes)
    mean, variance = (None if values is None else values[at] for values in (found.mean, found.variance))
    return lm.TokenLosses(np.append(0, np.cumsum(sizes[rows])), found.ids[at], found.logprobs[at], mean, variance)


# --------------------------------------------------------------------------------------------- the fit


def _encoder(stage: Membership, task: Task) -> Encode:
    """The tokens of the audited model, by its tokenizer alone where that is enough."""
    if _distributions(stage.model):
        from curate.lm import tokenizer

        folder = encoders.folder_of(stage.model, "membership")
        file = folder / tokenizer.FILE
        if file.is_file():
            key = ("membership", str(file), file.stat().st_mtime_ns)
            return task.cached(key, partial(tokenizer.read, folder, "membership")).ids
    return stage._model(stage.model, task).encode


def _counted(stage: Membership, task: Task, texts: Iterator[pa.Array]) -> np.ndarray:
    """How often each token occurs: int64, as long as the highest that does."""
    encode = _encoder(stage, task)
    counts = np.zeros(0, np.int64)
    for part in texts:
        for at in range(0, len(part), AT_ONCE):
            heads = [(text or "")[: stage.reference_tokens * CHARACTERS] for text in part.slice(at, AT_ONCE).to_pylist()]
            ids, bounds = encode(pa.array(heads, pa.string()))
            place = np.arange(len(ids)) - np.repeat(bounds[:-1], np.diff(bounds))
            counts = _added(counts, np.bincount(ids[place < stage.reference_tokens]))
    return counts


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of counts of which one may know fewer tokens."""
    total = np.zeros(max(len(one), len(other)), np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def _write_counts(path: Path, counts: np.ndarray) -> None:
    tokens = np.flatnonzero(counts)
    write_table(path, pa.table({"token": tokens, "count": counts[tokens]}))


def _read_counts(path: Path) -> np.ndarray:
    table = read_table(path)
    tokens = table["token"].to_numpy()
    counts = np.zeros(int(tokens.max(initial=-1)) + 1, np.int64)
    counts[tokens] = table["count"].to_numpy()
    return counts


def _counts(stage: Membership, task: Task, batches: Batches) -> None:
    """Tokens of the documents of one shard."""
    shard = task.shards[task.shard or 0]
    _write_counts(task.folder(stage) / "counts" / shard, _counted(stage, task, (batch["text"] for batch in batches)))


def _frequencies(stage: Membership, task: Task) -> None:
    """Tokens of all shards, or of the reference corpus."""
    counts = np.zeros(0, np.int64)
    if stage.paths:
        found = reference.batches(stage.paths, ("text",), "membership", task)
        counts = _counted(stage, task, (batch["text"] for batch in found))
        if not counts.any():
            raise StageError(f"membership: the reference holds no tokens ({', '.join(stage.paths)[:200]}); give other texts")
    else:
        for name in task.shards:
            counts = _added(counts, _read_counts(task.folder(stage) / "counts" / name))
    _write_counts(task.folder(stage) / "state.parquet", counts)
