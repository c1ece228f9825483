"""Scoring with a fastText classifier: the stage `fasttext` and whole runs beside the fastText library.

    python benchmarks/_classifiers_speed.py [--mb 480] [--repeats 3] [--documents 8000] [--model M.bin] [--json] [--check]

The model is a large one, trained on the spot on quality/ (rows of 100 numbers, pairs of words, 2 million places for them: 0.9
GB), and the same quantised, with 200,000 rows left. Everything runs on one core and is told in documents per CPU second; sides
take turns, and the order alternates.

    in one process, texts in memory, the model loaded and warm:
      library, predict(list)     its batch call, two labels, newlines replaced before
      library, f.predict         its compiled call for one text, without the Python around it
      Classifier.scores          Arrow strings to scores of all labels, in batches of 1,024
      stage fasttext             the same as the engine calls it

    a process of its own from start to end, nothing subtracted (start-up, imports, loading and hashing the model, reading,
    storing, the ledger):
      datatrove                  ParquetReader, FastTextClassifierFilter with all scores as metadata, ParquetWriter
      library, a script          reads the Parquet files, predicts by its faster call, writes ids and scores as Parquet, and
                                 nothing of the documents
      curate run                 ingest, score, store, until the stage is done: documents, columns and ledger of the run folder
      curate run, with export    to the end: shards and manifest as well

Bars: probabilities within 1e-5 of the library's, which adds 1e-5 to each (taken off before they are compared); `curate run` at
least 6 times the library in datatrove's pipeline, which does the same: it reads, scores and stores the documents.

A rate is documents by all CPU seconds, so start-up weighs the less the larger a corpus is. In
the processes the documents are repeated, each copy under other ids, up to --mb: numbers of a corpus that large with fewer
different words. In memory each repeat has documents of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _measure import Spread, run, table

BARS = {"ratio": 6.0, "difference": 1e-5}
ROWS = 1024  # of a batch, as the engine has them
LABEL = "hq"
PEER = "datatrove"
QUANTISE = """
import sys, fasttext
model = fasttext.load_model(sys.argv[1])
model.quantize(cutoff=200_000, qnorm=True, thread=1, verbose=0)
model.save_model(sys.argv[2])
"""
SCRIPT = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq, fasttext
from pathlib import Path
fasttext.FastText.eprint = lambda *_: None
predict = fasttext.load_model(sys.argv[1]).f.predict
for path in sorted(Path(sys.argv[2]).glob("*.parquet")):
    with pq.ParquetFile(path) as file, pq.ParquetWriter(Path(sys.argv[3]) / path.name, pa.schema(
        [("id", pa.string()), ("quality", pa.float32())])) as out:
        for batch in file.iter_batches(1024, columns=["id", "text"]):
            scores = []
            for text in batch["text"].to_pylist():
                said = predict(text.replace("\\n", " ") + "\\n", 2, 0.0, "strict")
                scores.append(next(p for p, label in said if label == "__label__hq"))
            out.write_batch(pa.record_batch({"id": batch["id"], "quality": pa.array(scores, pa.float32())}))
"""

DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import FastTextClassifierFilter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter

def in_order(writer, document):  # labels come best first, and a Parquet file wants one order of its fields
    return {"text": document.text, "id": document.id, "metadata": dict(sorted(document.metadata.items()))}

if __name__ == "__main__":
    LocalPipelineExecutor([
        ParquetReader(sys.argv[2]),
        FastTextClassifierFilter(sys.argv[1], keep_labels=("hq", 0.0), newline_replacement=" "),
        ParquetWriter(sys.argv[3] + "/data", adapter=in_order),
    ], logging_dir=sys.argv[3] + "/logs").run()
"""


def train(data: Path, folder: Path) -> Path:
    """A large model of the labels hq and lq, from all of quality/."""
    import pyarrow.parquet as pq

    from curate.training.fit import fit_fasttext

    rows = pq.read_table(data / "quality" / "quality.parquet", columns=["text", "label"])
    path = folder / "large.bin"
    fit_fasttext(
        rows["text"].combine_chunks(),
        rows["label"].to_pylist(),
        path=path,
        dim=100,
        ngrams=2,
        bucket=2_000_000,
        epoch=3,
        lr=0.5,
    )
    return path


def quantised(path: Path) -> Path:
    """The same model with rows in code, as `.ftz`."""
    small = path.with_suffix(".ftz")
    environment = {**os.environ, "MALLOC_PERTURB_": "255"}  # the library reads memory before it writes it
    subprocess.run([sys.executable, "-c", QUANTISE, str(path), str(small)], env=environment, check=True)
    return small


def documents(data: Path, n: int) -> list[str]:
    """Texts of domains and quality in a fixed random order."""
    import pyarrow.parquet as pq

    texts: list[str] = []
    for name in ("domains", "quality"):
        texts += pq.read_table(data / name / f"{name}.parquet", columns=["text"])["text"].to_pylist()
    random.Random(0).shuffle(texts)
    return texts[:n]


def in_memory(path: Path, texts: Sequence[str], repeats: int) -> dict[str, Any]:
    """Documents per CPU second of each side over texts in memory, the memory that loading takes, and the largest difference."""
    import fasttext
    import numpy as np
    import pyarrow as pa

    from curate import classify
    from curate.fasttext import OFFSET
    from curate.stage import Task
    from curate.stages.fasttext import Fasttext

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    classifier = classify.load(path)
    loading = time.process_time() - started
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    place = classifier.labels.index(LABEL)
    stage = Fasttext(model=str(path), label=LABEL).open(Task(phase="benchmark", rank=0))
    fasttext.FastText.eprint = lambda *_: None
    library = fasttext.load_model(str(path))

    def batches(texts: Sequence[str]) -> list[pa.RecordBatch]:
        column, numbers = pa.array(texts, pa.string()), pa.array(range(len(texts)), pa.uint32())
        return [
            pa.record_batch({"_row": numbers[a : a + ROWS], "text": column[a : a + ROWS]}) for a in range(0, len(texts), ROWS)
        ]

    def whole(texts: Sequence[str], _: Any) -> list[float]:
        labels, scores = library.predict([text.replace("\n", " ") for text in texts], k=2)
        return [float(p[names.index(f"__label__{LABEL}")]) for names, p in zip(labels, scores, strict=True)]

    def one_by_one(texts: Sequence[str], _: Any) -> list[float]:
        predict = library.f.predict
        said = (predict(text.replace("\n", " ") + "\n", 2, 0.0, "strict") for text in texts)
        return [next(p for p, label in pairs if label == f"__label__{LABEL}") for pairs in said]

    def ours(_: Any, given: list[pa.RecordBatch]) -> Any:
        return np.concatenate([classifier.scores(batch["text"])[:, place] for batch in given])

    def staged(_: Any, given: list[pa.RecordBatch]) -> Any:
        return np.concatenate([stage(batch)["quality"].to_numpy(zero_copy_only=False) for batch in given])

    sides: dict[str, Callable[..., Any]] = {
        "library, predict(list)": whole, "library, f.predict": one_by_one, "Classifier.scores": ours, "stage fasttext": staged
    }  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in sides}
    worst = 0.0
    for side in sides.values():
        side(texts[:50], batches(texts[:50]))
    for turn in range(repeats):
        part = texts[turn::repeats]
        given, said = batches(part), {}
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            started = time.process_time()
            said[name] = sides[name](part, given)
            rates[name].append(len(part) / (time.process_time() - started))
        theirs = np.array(said["library, f.predict"]) - OFFSET
        known = ~np.isnan(said["stage fasttext"])
        worst = max(worst, float(np.abs(said["stage fasttext"] - theirs)[known].max()))
    size = sum(len(text.encode()) for text in texts)
    return {
        "model": path.name, "model_mb": path.stat().st_size / 1e6, "load_cpu_s": loading, "load_peak_mb": more, "rates": rates,
        "documents": len(texts), "bytes": size, "difference": worst,
    }  # fmt: skip


def processes(path: Path, data: Path, mb: float, repeats: int, folder: Path) -> dict[str, Any]:
    """Documents per CPU second of whole processes over Parquet files, and their peak memory in MB."""
    made = folder / "in"
    code = "import sys; from pathlib import Path; import json, _ours; print(json.dumps(_ours.build_parquet("
    code += "Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))))"
    here = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])}
    shutil.rmtree(made, ignore_errors=True)
    command = [sys.executable, "-c", code, str(data), str(made), str(mb)]
    built = subprocess.run(command, env={**os.environ, **here}, capture_output=True, check=True)
    facts: dict[str, Any] = json.loads(built.stdout)
    pipeline = folder / "pipeline.py"
    pipeline.write_text(DATATROVE)
    recipe = folder / "score.yaml"
    recipe.write_text(f"name: score\nstages:\n  - fasttext: {{model: {json.dumps(str(path))}, label: {LABEL}}}\n")
    out = folder / "out"
    ours = [sys.executable, "-m", "curate.cli", "run", recipe, "-i", made, "-o", out, "-w", "0"]
    commands: dict[str, list[Any]] = {
        PEER: [sys.executable, pipeline, path, made, out],
        "library, a script": [sys.executable, "-c", SCRIPT, path, made, out],
        "curate run": [*ours, "--until", "fasttext"],
        "curate run, with export": ours,
    }
    rates: dict[str, list[float]] = {name: [] for name in commands}
    peaks: dict[str, float] = dict.fromkeys(commands, 0)
    for turn in range(repeats):
        for name in list(commands)[:: 1 if turn % 2 == 0 else -1]:
            shutil.rmtree(out, ignore_errors=True)
            if not name.startswith("curate"):
                out.mkdir()
            done = run(commands[name], env=here, log=folder / "log")
            if done.code:
                raise SystemExit(f"{name} ended with {done.code}:\n{done.stderr[-2000:]}")
            rates[name].append(facts["documents"] / done.cpu)
            peaks[name] = max(peaks[name], done.peak / 1e6)
            print(f"  {path.name}, {name}: {done.cpu:.1f} CPU s, {done.wall:.1f} s", file=sys.stderr, flush=True)
    return {"model": path.name, "rates": rates, "peak_mb": peaks, **facts}


def measure(
    data: Path, repeats: int = 3, *, mb: float = 480, n: int = 8000, model: Path | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Everything, as one JSON object. folder: for models, inputs and runs; else a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="curate-speed-") as made:
            return measure(data, repeats, mb=mb, n=n, model=model, folder=Path(made))
    path = model or train(data, folder)
    small = quantised(path) if path.suffix == ".bin" else path
    found: dict[str, Any] = {"load": os.getloadavg()[0], "memory": [], "processes": []}
    for each in dict.fromkeys((path, small)):
        child = [
            sys.executable,
            __file__,
            "--data",
            data,
            "--model",
            each,
            "--only-memory",
            "--documents",
            n,
            "--repeats",
            repeats,
        ]
        done = subprocess.run([str(part) for part in child], capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr.decode()[-2000:])
        found["memory"].append(json.loads(done.stdout))
    for each in dict.fromkeys((path, small)):
        found["processes"].append(processes(each, data, mb, repeats, folder))
    found["bars"] = []
    for of in found["memory"]:
        found["bars"].append(
            {"bar": f"{of['model']}: largest difference of a probability", "value": of["difference"],
             "limit": f"at most {BARS['difference']:g}", "met": of["difference"] <= BARS["difference"]}
        )  # fmt: skip
    for of in found["processes"]:
        ratio = Spread.ratio(of["rates"]["curate run"], of["rates"][PEER])
        found["bars"].append(
            {"bar": f"{of['model']}: curate run, times the library in datatrove's pipeline", "value": ratio.mid,
             "limit": f"at least {BARS['ratio']:g}", "met": ratio.mid >= BARS["ratio"]}
        )  # fmt: skip
    return found


def show(found: dict[str, Any]) -> None:
    """Tables for people."""
    for of in found["memory"]:
        peer = max((of["rates"][name] for name in of["rates"] if name.startswith("library")), key=lambda x: Spread.of(x).mid)
        rows = [[n, Spread.of(v).show(0), f"{Spread.ratio(v, peer).show()}x"] for n, v in of["rates"].items()]
        title = (
            f"IN MEMORY  {of['model']}, {of['model_mb']:,.0f} MB; {of['documents']:,} documents, {of['bytes'] / 1e6:,.1f} MB"
        )
        print(table(title, ["", "documents per CPU s", "the faster library call = 1"], rows))
        print(f"loaded by us in {of['load_cpu_s']:.2f} CPU s with at most {of['load_peak_mb']:,.0f} MB more memory;")
        print(f"largest difference to the library {of['difference']:.1e}\n")
    for of in found["processes"]:
        peer = of["rates"][PEER]
        rows = [
            [n, Spread.of(v).show(0), f"{Spread.ratio(v, peer).show()}x", f"{of['peak_mb'][n]:,.0f}"]
            for n, v in of["rates"].items()
        ]
        title = f"WHOLE PROCESSES  {of['model']}; {of['documents']:,} documents, {of['text_bytes'] / 1e6:,.0f} MB"
        print(table(title, ["", "documents per CPU s", "datatrove = 1", "peak MB"], rows) + "\n")
    for bar in found["bars"]:
        print(f"{'met   ' if bar['met'] else 'MISSED'}  {bar['bar']}: {bar['value']:.3g} (bar: {bar['limit']})")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CURATE_DATA") or Path(__file__).parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with domains/ and quality/")
    parser.add_argument("--mb", type=float, default=480, help="megabytes of text for the whole processes")
    parser.add_argument("--documents", type=int, default=8000, help="texts in memory, over all repeats")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a fastText model with the label hq; default: one trained on the spot")
    parser.add_argument("--only-memory", action="store_true", help="the sides in one process, as JSON")
    parser.add_argument("--json", action="store_true", help="one JSON object with every repeat on stdout")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    args = parser.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if args.only_memory:
        print(json.dumps(in_memory(args.model, documents(args.data, args.documents), args.repeats)))
        return 0
    found = measure(args.data, args.repeats, mb=args.mb, n=args.documents, model=args.model)
    print(json.dumps(found)) if args.json else show(found)
    return 1 if args.check and not all(bar["met"] for bar in found["bars"]) else 0


if __name__ == "__main__":
    sys.exit(main())
