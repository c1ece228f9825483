"""Scores of classifiers that are more than words: transformers, and linear heads on embeddings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import classify, encoders, models
from curate.encoders import DEVICES, MAX_TOKENS
from curate.errors import RecipeError, SourceError, StageError, did_you_mean
from curate.stage import Annotator, BatchFn, Stage, Task, with_columns

if TYPE_CHECKING:
    from curate.encoders import Encoder

HEADS = "heads.json"
TASKS = ("classes", "labels", "regression")
_UNSCORED = "documents without a score: nothing in them that the model knows, or a number that is none"


@dataclass(frozen=True, kw_only=True)
class Classifier(Annotator):
    """Scores texts with a transformer, or embeddings with a linear head.

    model: a folder, or a repository of the Hugging Face hub as `org/repo` (`@revision` behind it), that
    `AutoModelForSequenceClassification` of transformers reads, as HuggingFaceFW/fineweb-edu-classifier (the extra `lm`); an
    encoder with several heads (below); or a classifier that `curate train` has made, by path, name or URL, as `curate train
    linear` makes them.

    into: the column, or with several heads the beginning of each, as `into_HEAD`. What follows holds for each head. A
    regression of one output is written as it is, float32, and, with `int_` before the name, cut to `scale` and rounded (half to
    even, as FineWeb-Edu does; int32). A choice of one among labels is the probability of `label`; without one, of the
    classifier's positive label; where there is none either, the best label (string), and its probability with `_score` behind
    the name. Independent labels and regressions of several outputs are a column `into_LABEL` each. label: the label whose
    probability is wanted, where one head is written. all_labels: write `into_LABEL` in any case. heads: those to be written, of
    several; empty for all. embedding: the column of embeddings that a linear classifier is to score, made by the model that it
    has learnt from; empty where the classifier brings or names that model: then texts are embedded here.

    max_tokens: what a transformer reads of a text, from its beginning on; its own limit if that is lower. device: `auto` (a GPU
    if there is one, in bfloat16), `cpu`, `cuda`, `mps`. scale: lowest and highest whole number of a regression. calibrated:
    whether the scores of a classifier of `curate train` are corrected as it says.

    Columns written: as said above. All are null, and the document is counted, for a text that is empty or white space, a
    missing embedding, and a score that is not a number. Reasons: none: `quantile`, `where` and `bins` decide.

    Texts are sorted by length and go through a transformer in blocks whose shapes follow from their length alone, so that a
    score does not depend on the texts beside it, on shards or on workers; see `curate.encoders` for what may change last bits.

    Several heads: a folder with an encoder as transformers saves it, `heads.safetensors` with `NAME.weight` (outputs x hidden)
    and `NAME.bias` (outputs) for each, and `heads.json`: {"format": 1, "pooling": "cls" or "mean", "heads": {NAME: {"task":
    "classes", "labels" or "regression", "labels": [...]}}}. Weights are read as safetensors only, and no code of a folder runs.

    Source: FineWeb-Edu (Penedo et al. 2024, arXiv:2406.17557, regression on top of an encoder, whole scores from 0 to 5);
    several heads over one encoder as in Biomed-Enriched (Touchent et al. 2025, arXiv:2506.20331).

    >>> docs = ["The theorem follows from the lemma by induction on the number of vertices of the graph.",
    ...         "FREE ringtone!!! Text WIN to 80082 now to claim your cash prize"]
    >>> scores = Classifier(model="quality-en")(docs).kept["score"].to_pylist()
    >>> scores[0] > scores[1]
    True
    """

    example: ClassVar[dict[str, Any]] = {"model": "quality-en", "all_labels": True}

    model: str
    into: str = "score"
    label: str = ""
    all_labels: bool = False
    heads: tuple[str, ...] = ()
    embedding: str = ""
    max_tokens: int = MAX_TOKENS
    device: str = "auto"
    scale: tuple[float, float] = (0, 5)
    calibrated: bool = True

    def __post_init__(self) -> None:
        if not self.model:
            raise RecipeError("classifier: model is empty; name a folder, a repository of the hub, or a classifier")
        if not self.into or self.into.startswith("_") or self.into == "text":
            raise RecipeError(f"classifier: into is {self.into!r}; name a column to be written, such as score")
        if self.max_tokens < 1:
            raise RecipeError(f"classifier: max_tokens is {self.max_tokens}; at least 1")
        if self.device not in DEVICES:
            raise RecipeError(f"classifier: device is {self.device!r}; it is one of {', '.join(DEVICES)}")
        if len(self.scale) != 2 or not self.scale[0] < self.scale[1]:
            raise RecipeError(f"classifier: scale is {self.scale}; write the lowest and the highest score, such as [0, 5]")

    def bound(self, columns: Collection[str]) -> Stage:
        found = self._known()
        if found.kind == "transformer":
            encoders.require(("torch", "transformers"), "lm", "stage 'classifier'")
        elif found.kind == "linear" and not self.embedding and not found.embeds:
            raise RecipeError(f"classifier: {self.model} scores vectors: name their column, as `embedding: embedding`")
        if self.embedding and found.kind != "linear":
            raise RecipeError(
                f"classifier: {self.model} scores texts, not the column {self.embedding!r}: leave `embedding` out"
            )
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.embedding or "text",)

    def writes(self) -> pa.Schema:
        fields = [column for head in self._heads() for column in self._columns(head)]
        names = [name for name, _ in fields]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise RecipeError(f"classifier: {twice!r} would be written twice, since a label is called so; name another `into`")
        return pa.schema(fields)

    def files(self) -> tuple[str, ...]:
        found = self._known()
        if found.kind == "transformer":
            return encoders.files(found.path)
        try:
            return classify.files(found.path)
        except SourceError as error:
            raise RecipeError(f"classifier: {error}") from error

    def open(self, task: Task) -> BatchFn:
        states = tuple((path, Path(path).stat().st_mtime_ns) for path in self.files())
        key = ("classifier", states, self.device, self.max_tokens, self.calibrated)
        return functools.partial(self._process, task.cached(key, self._load), task)

    def _load(self) -> Callable[[pa.Array], np.ndarray]:
        found = self._known()
        if found.kind == "transformer":
            return _Transformer(found.path, found.heads, self.device, self.max_tokens).scores
        return functools.partial(classify.load(found.path).scores, calibrated=self.calibrated)

    def _process(self, score: Callable[[pa.Array], np.ndarray], task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        column = batch[self.embedding or "text"]
        try:
            scores = score(column)
        except SourceError as error:
            raise StageError(f"classifier: column {self.embedding or 'text'!r}: {error}") from error
        empty = np.zeros(len(column), np.bool_)
        if not self.embedding:
            empty = np.asarray(pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column, "")), ""))
        columns: dict[str, pa.Array] = {}
        unknown = empty.copy()
        wanted = {head.name for head in self._heads()}
        first = 0
        for head in self._known().heads:
            values = scores[:, first : first + len(head.labels)]
            first += len(head.labels)
            if head.name in wanted:
                none = empty | ~np.isfinite(values).all(1)
                unknown |= none
                columns |= self._values(head, values, none)
        if unknown.any():
            task.count(_UNSCORED, int(unknown.sum()))
        return with_columns(batch, columns)

    # ----------------------------------------------------------------------------------------- columns

    def _heads(self) -> tuple[Head, ...]:
        """The heads that are written."""
        found = self._known()
        names = [head.name for head in found.heads]
        for name in self.heads:
            if name not in names or not name:
                raise RecipeError(f"classifier: {self.model} has no head {name!r}{did_you_mean(name, filter(None, names))}")
        heads = tuple(head for head in found.heads if not self.heads or head.name in self.heads)
        if self.label:
            if len(heads) > 1:
                raise RecipeError(
                    f"classifier: label is {self.label!r}, and {self.model} has several heads: name one, `heads: [NAME]`"
                )
            classify.number_of(heads[0].labels, self.label, f"classifier: {self.model}")
        return heads

    def _columns(self, head: Head) -> list[tuple[str, pa.DataType]]:
        base = f"{self.into}_{head.name}" if head.name else self.into
        each = [(f"{base}_{label}", pa.float32()) for label in head.labels]
        if head.task == "regression" and len(head.labels) == 1:
            return [(base, pa.float32()), (f"int_{base}", pa.int32())]
        if self.label or head.positive:
            found = [(base, pa.float32())]
        elif head.task == "classes":
            found = [(base, pa.string()), (f"{base}_score", pa.float32())]
        else:
            return each
        return [*found, *(each if self.all_labels else ())]

    def _values(self, head: Head, scores: np.ndarray, none: np.ndarray) -> dict[str, pa.Array]:
        """The columns of a head, out of its scores (float32, texts x labels); null where `none`."""
        names = [name for name, _ in self._columns(head)]
        label = self.label or head.positive
        each = [pa.array(np.ascontiguousarray(column), mask=none) for column in scores.T]
        if head.task == "regression" and len(head.labels) == 1:
            whole = np.rint(np.clip(np.where(none, 0, scores[:, 0]), *self.scale)).astype(np.int32)
            return dict(zip(names, [each[0], pa.array(whole, mask=none)], strict=True))
        if label:
            found = [each[head.labels.index(label)]]
        elif head.task == "classes":
            best = np.where(none, 0, np.where(np.isnan(scores), -np.inf, scores).argmax(1))
            top = np.ascontiguousarray(scores[np.arange(len(best)), best])
            found = [pa.array(head.labels, pa.string()).take(pa.array(best, mask=none)), pa.array(top, mask=none)]
        else:
            return dict(zip(names, each, strict=True))
        return dict(zip(names, [*found, *(each if self.all_labels else ())], strict=True))

    def _known(self) -> _Known:
        try:
            path = _folder(self.model)
            return _looked_at(str(path), *_stamps(path))
        except SourceError as error:
            raise RecipeError(f"classifier: {error}") from error


# --------------------------------------------------------------------------------------------- what a model is


@dataclass(frozen=True)
class Head:
    """One question that a model answers. name: empty where it is the only one. task: `classes` (one of the labels), `labels`
    (each for itself), `regression` (a number for each). positive: the label that is the score, or empty."""

    name: str
    task: str
    labels: tuple[str, ...]
    positive: str = ""


@dataclass(frozen=True)
class _Known:
    """kind: `transformer`, `linear` or `fasttext`. embeds: of a linear one, whether it can make vectors of texts."""

    path: Path
    kind: str
    heads: tuple[Head, ...]
    embeds: bool = False


def _folder(model: str) -> Path:
    """Where a model is. Raises RecipeError."""
    local = Path(model).exists() or model in classify.shipped() or model in models.NAMED
    if local or ("://" in model and not model.startswith("hf://")) or "/" not in model:
        return Path(classify.resolve(model))
    if model.removeprefix("hf://").partition("@")[0].count("/") > 1:  # a file in a repository
        return Path(classify.resolve(model))
    return encoders.folder_of(model, "classifier")


def _stamps(path: Path) -> tuple[int, ...]:
    return tuple(
        file.stat().st_mtime_ns if (file := path / name).is_file() else 0 for name in ("config.json", HEADS, classify.JSON)
    )


@functools.lru_cache(maxsize=64)
def _looked_at(name: str, *_: int) -> _Known:
    path = Path(name)
    if path.is_file() or (path / classify.JSON).is_file():
        about = classify.about(path)
        task = "regression" if about.task == "regression" else "classes"
        model = (about.features or {}).get("model")
        embeds = (path / "lsa.npz").is_file() or bool(model and model != "lsa")
        return _Known(path, about.kind, (Head("", task, about.labels, about.positive or ""),), embeds)
    if not (path / "config.json").is_file():
        raise RecipeError(f"classifier: {path} is no classifier: it has neither {classify.JSON} nor config.json")
    config = encoders.read_json(path / "config.json", "classifier")
    if (path / HEADS).is_file():
        return _Known(path, "transformer", _several(path))
    made = config.get("architectures") or []
    if made and not any("SequenceClassification" in str(kind) for kind in made):
        raise RecipeError(
            f"classifier: {path} is a {made[0]}, which has no head that classifies: train one with `curate train linear`"
        )
    return _Known(path, "transformer", (_only(path, config),))


def _only(path: Path, config: dict[str, Any]) -> Head:
    """The head of a model for sequence classification, as its configuration describes it."""
    named = config.get("id2label")
    if isinstance(named, dict) and named:
        try:
            labels = tuple(str(named[key]) for key in sorted(named, key=int))
        except ValueError:
            raise RecipeError(f"classifier: {path}/config.json: the keys of id2label are no numbers") from None
    else:
        labels = tuple(f"LABEL_{i}" for i in range(int(config.get("num_labels") or 2)))
    if len(set(labels)) != len(labels):
        raise RecipeError(f"classifier: {path}/config.json: a label stands there twice")
    said = config.get("problem_type")
    if said == "regression" or (said != "multi_label_classification" and len(labels) == 1):
        return Head("", "regression", labels)
    return Head("", "labels" if said == "multi_label_classification" else "classes", labels)


def _several(path: Path) -> tuple[Head, ...]:
    """The heads that stand in heads.json. Raises RecipeError."""
    held = encoders.read_json(path / HEADS, "classifier")
    where = f"classifier: {path / HEADS}"
    if held.get("format") != 1 or held.get("pooling") not in ("cls", "mean") or not isinstance(held.get("heads"), dict):
        raise RecipeError(f'{where}: it needs "format": 1, "pooling": "cls" or "mean", and "heads"')
    heads = []
    for name, what in held["heads"].items():
        labels = what.get("labels") if isinstance(what, dict) else None
        if not name or not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise RecipeError(f"{where}: the head {name!r} has no list of labels")
        if what.get("task") not in TASKS or len(set(labels)) != len(labels):
            raise RecipeError(
                f"{where}: the head {name!r} has the task {what.get('task')!r}, or a label twice; tasks: {', '.join(TASKS)}"
            )
        heads.append(Head(name, what["task"], tuple(labels)))
    if not heads:
        raise RecipeError(f"{where}: there is no head")
    return tuple(heads)


# --------------------------------------------------------------------------------------------- scoring


class _Transformer:
    """A transformer with heads. `scores`: probabilities, or numbers of a regression, float32 (texts, labels of all heads)."""

    def __init__(self, path: Path, heads: tuple[Head, ...], device: str, max_tokens: int):
        encoders.require(("torch", "transformers"), "lm", "stage 'classifier'")
        self._heads = heads
        where = encoders.device_of(device)
        tokenizer = encoders.tokenizer_of(path, "classifier")
        outputs = sum(len(head.labels) for head in heads)
        forward = _pooled(path, heads, where) if (path / HEADS).is_file() else _whole(path, outputs, where, tokenizer)
        config = encoders.read_json(path / "config.json", "classifier")
        positions = config.get("max_position_embeddings")
        if positions and config.get("model_type") in _OFFSET:
            positions -= (config.get("pad_token_id") or 0) + 1
        limit = encoders.longest(max_tokens, tokenizer.model_max_length, positions)
        self._encoder: Encoder = encoders.Encoder(
            lambda texts: tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="np"),
            forward,
            outputs=outputs,
            device=where,
            max_tokens=limit,
            padding=encoders.pads(tokenizer),
            left=tokenizer.padding_side == "left",
        )

    def scores(self, texts: pa.Array) -> np.ndarray:
        found = self._encoder(texts).astype(np.float64)
        first = 0
        with np.errstate(all="ignore"):  # what is not a number becomes null
            for head in self._heads:
                part = found[:, first : first + len(head.labels)]
                first += len(head.labels)
                if head.task == "classes":
                    part[:] = np.exp(part - part.max(1, keepdims=True))
                    part /= part.sum(1, keepdims=True)
                elif head.task == "labels":
                    part[:] = 1 / (1 + np.exp(-part))
            return found.astype(np.float32)


_OFFSET = ("roberta", "xlm-roberta", "camembert", "longformer", "xlm-roberta-xl", "mpnet")  # positions begin behind the padding


def _whole(path: Path, outputs: int, device: str, tokenizer: Any) -> encoders.Forward:
    """A model for sequence classification: tensors to logits."""
    model = encoders.transformer(path, "AutoModelForSequenceClassification", "classifier", dtype=encoders.dtype_of(device)).to(
        device
    )
    if model.config.num_labels != outputs:
        raise SourceError(f"classifier: {path} has {model.config.num_labels} outputs and {outputs} labels")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return lambda tensors: model(**tensors).logits


def _pooled(path: Path, heads: tuple[Head, ...], device: str) -> encoders.Forward:
    """An encoder and linear heads on its output, which are computed in single precision: tensors to logits."""
    import torch

    held = encoders.tensors(path / "heads.safetensors")
    mean = encoders.read_json(path / HEADS, "classifier")["pooling"] == "mean"
    model = encoders.transformer(path, "AutoModel", "classifier", dtype=encoders.dtype_of(device)).to(device)
    size = model.config.hidden_size
    parts = []
    for head in heads:
        weight, bias = held.get(f"{head.name}.weight"), held.get(f"{head.name}.bias")
        if weight is None or bias is None:
            raise SourceError(f"classifier: {path / 'heads.safetensors'} lacks the weights of the head {head.name!r}")
        if weight.shape != (len(head.labels), size) or bias.shape != (len(head.labels),):
            raise SourceError(
                f"classifier: {path / 'heads.safetensors'}: the head {head.name!r} has weights {weight.shape}, for "
                f"{len(head.labels)} labels on {size} numbers"
            )
        parts.append((weight, bias))
    weights, biases = (torch.from_numpy(np.concatenate(p).astype(np.float32)).to(device) for p in zip(*parts, strict=True))

    def forward(tensors: dict[str, Any]) -> Any:
        hidden = model(**tensors).last_hidden_state.float()
        if mean:
            mask = tensors["attention_mask"][:, :, None].float()
            hidden = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        else:
            hidden = hidden[:, 0]
        return torch.nn.functional.linear(hidden, weights, biases)

    return forward
