"""The card of a trained classifier: what it learned from, how good it is on what it had not seen, and where it errs.

Made from the training alone, without dates or places, so that the same training writes the same card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.training import evaluate as measures
from curate.training.data import SIDES, TRAIN

if TYPE_CHECKING:
    from curate.classify import Classifier
    from curate.training.classifiers import Judgement, Prepared, Training

FEATURES = 20
SAMPLES = 10
SOURCES = 40  # that are listed, the largest ones
LOOKED_AT = 50_000  # training documents in which words are counted
CANDIDATES = 20_000  # most words that are asked for their weight
LEAST = 5  # documents that a word must be in to be called a feature
LEAST_SHARE = 0.005
TINY = 1e-38
WORD = 40  # longer ones are addresses or base64


def written(
    *, about: Mapping[str, Any], params: Training, ready: Prepared, classifier: Classifier, judged: Judgement | None,
    across: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], weights: np.ndarray | None = None,
) -> str:  # fmt: skip
    """The text of card.md.

    across: rows of what sources reach that were not trained on. chosen: parameters that the training chose itself. weights:
    of a head on vectors (outputs, dim); without them features are words.
    """
    parts = [
        _head(about, params, ready),
        _use(params),
        _data(ready, params),
        _recipe(about, params, chosen),
    ]
    if judged is None:
        parts.append("## Figures\n\nThere is no test part, so nothing was measured.")
    else:
        parts += [_figures(judged), _per_class(judged), _by_source(judged), _across(across)]
        if about["task"] == "classes":
            parts.append(_confusion(judged, list(about["labels"])))
        parts += [_reliability(judged, about), _thresholds(judged, about)]
    parts.append(_features(classifier, ready, params, about, weights))
    if judged is not None:
        parts.append(_samples(judged, about, params))
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _code(text: str) -> str:
    """Text as code in a table: on one line, without what would end it."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "¦") + "`"


# --------------------------------------------------------------------------------------------- what it is


def _head(about: Mapping[str, Any], params: Training, ready: Prepared) -> str:
    sides = Counter(ready.side.tolist())
    kind = {"fasttext": "fastText model", "linear": "linear head on embeddings"}[about["kind"]]
    rows = [
        ("kind", kind + (", quantised" if params.quantise and about["kind"] == "fasttext" else "")),
        ("labels", ", ".join(f"`{label}`" for label in about["labels"])),
        ("score", f"probability of `{about['positive']}`" if about["positive"] else "best label and its probability"),
        ("licence of the model", params.licence or "not stated"),
        ("documents", ", ".join(f"{sides[side]:,} {side}" for side in SIDES)),
        ("calibration", (about.get("calibration") or {}).get("kind") or "none"),
        ("seed", str(params.seed)),
    ]
    if about["task"] == "regression":
        rows[2] = ("score", f"predicted `{about['labels'][0]}`")
    text = f"# {about['name']}\n\n" + (params.about.strip() + "\n\n" if params.about else "")
    return text + table(("", ""), rows)


def _use(params: Training) -> str:
    if not params.good_for and not params.not_for:
        return (
            "## Use\n\nNobody has written down what this classifier is good for (`good_for`, `not_for`). The figures below "
            "hold for documents from the sources below, and for no others."
        )
    lines = ["## Use", ""]
    for head, items in (("Good for:", params.good_for), ("Not good for:", params.not_for)):
        if items:
            lines += [head, "", *(f"- {item}" for item in items), ""]
    return "\n".join(lines).rstrip()


# --------------------------------------------------------------------------------------------- data


def _data(ready: Prepared, params: Training) -> str:
    documents = ready.documents
    names = ["" if params.task == "regression" else str(label) for label in documents.label.tolist()]
    sizes = [len((text or "").encode("utf-8", "replace")) for text in documents.text.to_pylist()]
    counts: dict[tuple[str, str, str], list[int]] = {}
    keys = zip(names, documents.source.to_pylist(), documents.licence.to_pylist(), strict=True)
    for key, size, side in zip(keys, sizes, ready.side.tolist(), strict=True):
        row = counts.setdefault(key, [0] * (2 + len(SIDES)))
        row[0] += 1
        row[1] += size
        row[2 + SIDES.index(side)] += 1
    listed = set(sorted(counts, key=lambda key: (-counts[key][0], key))[:SOURCES])
    for key in [key for key in counts if key not in listed]:
        rest = counts.setdefault((key[0], "others", "see the data"), [0] * (2 + len(SIDES)))
        rest[:] = [a + b for a, b in zip(rest, counts.pop(key), strict=True)]
    rows = [[*key, row[0], f"{row[1] / 1e6:.2f}", *row[2:]] for key, row in sorted(counts.items())]
    parts = ["## Data", table(("label", "source", "licence", "documents", "MB", *SIDES), rows)]
    if documents.notes:
        left = "; ".join(f"{what}: {n:,}" for what, n in sorted(documents.notes.items()))
        parts.append(f"Left out before the split: {left}.")
    clusters = Counter(ready.cluster.tolist())
    several = sum(n > 1 for n in clusters.values())
    grouped = int(pc.count(documents.group, mode="only_valid").as_py())
    by = f"Documents with the same `{params.group}` are on one side as well ({grouped:,} have one). " if params.group else ""
    parts.append(
        "Split by the hash of the text, together with its near-duplicates (MinHash over runs of five words; "
        f"{several:,} clusters of more than one document, the largest of {max(clusters.values()):,}), so that no "
        f"near-duplicate of a test document was trained on. {by}"
    )
    parts.append(
        "It was not split by anything else, such as host, author or source: documents of one site can be on both sides, unless "
        "they are near-duplicates."
    )
    return "\n\n".join(parts)


def _recipe(about: Mapping[str, Any], params: Training, chosen: Mapping[str, Any]) -> str:
    words = ("about", "good_for", "not_for", "name", "licence", "excerpt")
    shown = {key: value for key, value in params.changed().items() if key not in words}
    rows = [(key, _code(str(value))) for key, value in {"kind": about["kind"], **shown}.items()]
    rows += [
        (key, f"{_code(str(value))}, the best on the validation part") for key, value in chosen.items() if key not in shown
    ]
    return (
        "## Recipe\n\n"
        f"`curate train {about['kind']} DATA -o DIR --recipe recipe.yaml` repeats it: the same data, seed and version of the "
        "library give the same bytes. Parameters that differ from the defaults:\n\n" + table(("parameter", "value"), rows)
    )


# --------------------------------------------------------------------------------------------- figures


def _figures(judged: Judgement) -> str:
    names = {
        "auc": "AUC", "average_precision": "average precision", "accuracy": "accuracy", "macro_f1": "macro F1",
        "quadratic_kappa": "quadratic kappa", "rmse": "root mean squared error", "r2": "R²", "threshold": "positive from",
        "calibration_error": "calibration error (ECE, 10 bins)", "documents": "test documents",
        "unscored": "of which the model knows nothing",
    }  # fmt: skip
    rows = [(names[key], judged.figures[key]) for key in names if judged.figures.get(key) is not None]
    one = judged.positive
    what = f"`{one}` is the positive label." if one else "Areas are means over the labels, each against the rest."
    if "quadratic_kappa" in judged.figures:
        what = "Areas are those of ranking documents from the threshold on above the others; classes are rounded numbers."
    return f"## Figures on the test part\n\n{what}\n\n" + table(("", ""), rows)


def _per_class(judged: Judgement) -> str:
    keys = ("precision", "recall", "f1", "auc", "average_precision", "documents")
    rows = [(f"`{name}`", *(row.get(key) for key in keys)) for name, row in judged.figures["per_class"].items()]
    return "### Per class\n\n" + table(("label", *(key.replace("_", " ") for key in keys)), rows)


def _by_source(judged: Judgement) -> str:
    """Each source against the documents of other labels."""
    one = judged.positive
    source = np.array(judged.documents.source.to_pylist(), object)
    label, named = judged.documents.label, judged.named
    if len(set(source.tolist())) < 2 or "quadratic_kappa" in judged.figures:
        return ""
    rows = []
    for name in sorted(name for name, _ in Counter(source.tolist()).most_common(SOURCES)):
        mine = source == name
        own = sorted(set(label[mine].tolist()))
        row: list[Any] = [name, ", ".join(f"`{x}`" for x in own), int(mine.sum())]
        if one and len(own) == 1:
            row.append(_area(judged, mine | (label != own[0]), one))
        rows.append([*row, *([None] if one and len(own) > 1 else []), measures.accuracy(label[mine], named[mine])])
    head = ("source", "label", "documents", *(("AUC against the other label",) if one else ()), "accuracy")
    return "### By source\n\n" + table(head, rows)


def _area(judged: Judgement, rows: np.ndarray, one: str) -> float | None:
    scores = judged.scores[rows, list(judged.figures["per_class"]).index(one)]
    right = (judged.documents.label[rows] == one)[~np.isnan(scores)]
    if not right.any() or right.all():
        return None
    return measures.auc(right, scores[~np.isnan(scores)])


def _across(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    shown = [
        (
            row["source"], ", ".join(f"`{label}`" for label in row["labels"]), row["documents"],
            "all of its label" if row["accuracy"] is None else row["auc"], row["accuracy"],
        )
        for row in rows
    ]  # fmt: skip
    return (
        "### Sources that were not trained on\n\n"
        "For each source a model was trained in the same way without it, and judged on it, against the test documents of other "
        "labels. This is what to expect of documents from elsewhere.\n\n"
        + table(("source left out", "label", "documents", "AUC", "accuracy on it"), shown)
    )


def _confusion(judged: Judgement, labels: list[str]) -> str:
    known = judged.named != ""
    counts = measures.confusion(judged.documents.label[known].tolist(), judged.named[known].tolist(), labels)
    rows = [(f"`{label}`", *map(int, row)) for label, row in zip(labels, counts, strict=True)]
    return "### Confusion\n\n" + table(("is \\ named", *(f"`{label}`" for label in labels)), rows)


def _reliability(judged: Judgement, about: Mapping[str, Any]) -> str:
    if about["task"] != "classes":
        return ""
    known = ~np.isnan(judged.scores).any(1)
    if not known.any():
        return ""
    labels = list(about["labels"])
    if judged.positive:
        scores, right = judged.scores[known, labels.index(judged.positive)], judged.documents.label[known] == judged.positive
        what = f"Score of `{judged.positive}`, and the share of documents that are."
    else:
        scores, right = judged.scores[known].max(1), judged.documents.label[known] == judged.named[known]
        what = "Score of the best label, and how often it is right."
    rows = [
        (f"{row['low']:.1f} to {row['high']:.1f}", row["documents"], float(row["score"]), float(row["positive"]))
        for row in measures.reliability(right, scores)
    ]
    return f"### Reliability\n\n{what}\n\n" + table(("score", "documents", "mean score", "true"), rows)


def _thresholds(judged: Judgement, about: Mapping[str, Any]) -> str:
    if not judged.thresholds:
        return ""
    rows = [tuple(row[key] for key in ("threshold", "keep_rate", "precision", "recall")) for row in judged.thresholds]
    return (
        "### Thresholds\n\nOf the test documents, whose mix of sources is not that of a crawl: take the keep rate from your "
        "own data.\n\n" + table(("threshold", "kept", "precision", "recall"), rows)
    )


# --------------------------------------------------------------------------------------------- what it goes by


def _features(
    classifier: Classifier, ready: Prepared, params: Training, about: Mapping[str, Any], weights: np.ndarray | None
) -> str:
    title = f"## The {FEATURES} strongest features"
    if weights is not None:
        return f"{title}\n\n{_dimensions(weights, ready, about['labels'])}"
    text = ready.part(TRAIN).text.slice(0, LOOKED_AT)
    least = max(LEAST, round(LEAST_SHARE * len(text)))
    words = _words(text, params, least)
    if not words:
        return f"{title}\n\nNo word is in {least} documents."
    scores = classifier.scores(pa.array(words, pa.string()), calibrated=False).astype(np.float64)
    known = np.isfinite(scores).all(1)
    words, scores = [words[k] for k in np.flatnonzero(known)], scores[known]
    if not words:
        return f"{title}\n\nThe model knows no word alone."
    labels = list(about["labels"])
    if about["task"] == "regression":
        asked = [("high", scores[:, 0]), ("low", -scores[:, 0])]
    else:  # by the others as well, since single words reach 1 in single precision
        logs, others = np.log(np.maximum(scores, TINY)), scores.sum(1, keepdims=True) - scores
        if len(labels) == 2:
            others = scores[:, ::-1]
        margins = logs - np.log(np.maximum(others, TINY))
        asked = [(f"`{label}`", margins[:, i]) for i, label in enumerate(labels)]
    lines = []
    for name, score in asked:
        order = sorted(range(len(words)), key=lambda k: (-score[k], words[k]))
        lines.append((name, " ".join(_code(words[k]) for k in order[:FEATURES])))
    note = f"Words of at least {least} training documents, by the score of a text that consists of nothing else."
    return f"{title}\n\n{note}\n\n" + table(("for", "words"), lines)


def _words(text: pa.Array, params: Training, least: int) -> list[str]:
    """Words as fastText has them that are in so many documents, the most frequent first, then by name."""
    counts: Counter[str] = Counter()
    for value in params.prepare(text).to_pylist():
        counts.update({word for word in (value or "").split() if len(word) <= WORD})
    found = sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word))
    return [word for word in found[:CANDIDATES] if not word.startswith(("__label__", "</s>"))]


def _dimensions(weights: np.ndarray, ready: Prepared, labels: Sequence[str]) -> str:
    """The dimensions of a vector that move the score most: weight times spread over the training documents."""
    vectors = ready.part(TRAIN).vectors
    spread = np.zeros(weights.shape[1]) if vectors is None else vectors.astype(np.float64).std(0)
    rows = []
    for label, row in zip(labels, weights.astype(np.float64) * spread, strict=True):
        order = np.argsort(-np.abs(row), kind="stable")[:FEATURES]
        rows.append((f"`{label}`", ", ".join(f"{int(k)} ({row[k]:+.3f})" for k in order)))
    text = "Dimensions of the vectors, and how far the output moves with one standard deviation of each."
    return f"{text}\n\n" + table(("for", "dimensions"), rows)


def _samples(judged: Judgement, about: Mapping[str, Any], params: Training) -> str:
    scores = judged.scores
    known = np.flatnonzero(~np.isnan(scores).any(1))
    if not len(known):
        return ""
    if about["task"] == "regression":
        at = judged.figures["threshold"] or 0.0
        far, shown, what = np.abs(scores[known, 0] - at), scores[known, 0], f"a prediction of {at:g}"
    elif judged.positive:
        column = scores[known, list(about["labels"]).index(judged.positive)]
        far, shown, what = np.abs(column - 0.5), column, f"a score of 0.5 for `{judged.positive}`"
    else:
        top = np.sort(scores[known], axis=1)
        far, shown, what = top[:, -1] - top[:, -2], top[:, -1], "a tie of two labels"
    ids = judged.documents.id.to_pylist()
    order = sorted(range(len(known)), key=lambda k: (float(far[k]), ids[known[k]] or "", k))[:SAMPLES]
    texts = judged.documents.text
    rows = []
    for k in order:
        i = int(known[k])
        row = [_code(ids[i]) if ids[i] else "", judged.documents.source[i].as_py(), _label(judged.documents.label[i])]
        row += [_label(judged.named[i]), float(shown[k])]
        rows.append([*row, *([_code((texts[i].as_py() or "")[: params.excerpt])] if params.excerpt else [])])
    head = ("id", "source", "is", "named", "score", *(("begins",) if params.excerpt else ()))
    return f"## Test documents nearest to {what}\n\n" + table(head, rows)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"
