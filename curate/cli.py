"""The command line: each command is a few lines around the Python function of the same name.

Data goes to stdout, everything for the eye to stderr. Exit 0 fine, 1 a run failed, 2 the user's mistake. Nothing heavy is
imported before it is needed, since `curate --help` should not make anyone wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from curate import __version__


class _Group(click.Group):
    """Turns errors into one line and an exit code; a traceback only with CURATE_DEBUG=1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from curate.errors import did_you_mean

            raise click.UsageError(f"no command {args[0]!r}{did_you_mean(args[0], self.commands)}") from error

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if os.environ.get("CURATE_DEBUG"):
            return super().main(*args, **kwargs)
        try:
            return super().main(*args, **kwargs)
        except (BrokenPipeError, click.exceptions.Exit):
            sys.exit(0)
        except Exception as error:
            from curate.errors import CurateError

            click.echo(f"error: {_one_line(error)}", err=True)
            sys.exit(error.exit_code if isinstance(error, CurateError) else 1)


def _one_line(error: Exception) -> str:
    from curate.errors import CurateError

    if isinstance(error, CurateError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    else:
        text = f"{type(error).__name__}: {error} (CURATE_DEBUG=1 shows where)"
    return " ".join(text.split())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="curate")
def main() -> None:
    """Raw crawl in, training-ready shards and a manifest out."""
    if "" not in sys.path:  # `module:Class` stages of the folder one works in
        sys.path.insert(0, "")


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
_input = click.option(
    "-i", "--input", "inputs", multiple=True, metavar="PATH", help="File, folder, glob or URL; may be repeated."
)
_set = click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a value of the recipe.")
_workers = click.option("-w", "--workers", type=click.IntRange(0), help="Worker processes (default: cores; 0: inline).")
_executor = click.option("--executor", type=click.Choice(["local", "inline"]), default="local", show_default=True)
_limit = click.option("--limit", type=click.IntRange(1), help="Only the first N documents in input order.")
_memory = click.option("--memory-limit", metavar="SIZE", help="Memory for the buffers of a task, such as 4GB.")
_accept = click.option("--accept", multiple=True, metavar="STAGE", help="Go on past the blast radius of this stage.")


def _emit(value: Any) -> None:
    import orjson

    click.echo(orjson.dumps(value, default=str))  # no NaN, which is not JSON


def _bytes(text: str | None) -> int | None:
    """Bytes out of `4GB`, `512MiB` or a number."""
    if text is None:
        return None
    import re

    from curate.errors import RecipeError

    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", text, re.I)
    if not match or not float(match[1]):
        raise RecipeError(f"--memory-limit {text}: write a size such as 8GB or 512MiB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))


@main.command()
@click.argument("recipe")
@_input
@click.option("-o", "--out", required=True, metavar="RUN", help="The run folder.")
@_set
@_executor
@_workers
@_limit
@_memory
@_accept
@click.option("--until", metavar="STAGE", help="Stop after this stage, before the export; without it the run goes on.")
@_json
def run(
    recipe: str,
    inputs: tuple[str, ...],
    out: str,
    overrides: tuple[str, ...],
    executor: str,
    workers: int | None,
    limit: int | None,
    memory_limit: str | None,
    accept: tuple[str, ...],
    until: str | None,
    as_json: bool,
) -> None:
    """Run RECIPE (a file, or the name of a shipped pipeline). Running the same command again resumes."""

    def load() -> Any:
        from curate.recipe import Recipe

        return Recipe.load(recipe, overrides).with_inputs(inputs)

    _run(load, out, as_json, executor, workers, limit, memory_limit, accept, until)


def _run(
    load: Callable[[], Any],
    out: str,
    as_json: bool,
    executor: str,
    workers: int | None,
    limit: int | None,
    memory_limit: str | None,
    accept: tuple[str, ...],
    until: str | None = None,
) -> None:
    from curate import executors

    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them reads every installed package's metadata
    pool = executors.make(executor, workers)  # first: workers load their libraries while this process loads its own
    try:
        executors.without_pandas()
        recipe = load()
        from curate import show
        from curate.run import run as run_recipe

        with show.Progress() as progress:
            finished = run_recipe(
                recipe,
                out,
                executor=pool,
                limit=limit,
                memory_limit=_bytes(memory_limit),
                accept=accept,
                until=until,
                observer=progress,
            )
    finally:
        pool.close()
    summary = {"run": str(finished.root), **finished.summary}
    if until is None:
        summary["manifest"] = str(finished.root / "output" / "manifest.json")
    if as_json:
        _emit(summary)
    else:
        show.funnel(summary)


@main.command()
@click.argument("recipe")
@_input
@_set
@_limit
@_json
def plan(recipe: str, inputs: tuple[str, ...], overrides: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """Print the phases and columns of RECIPE over these inputs, without doing any work."""
    from curate import show
    from curate.recipe import Recipe
    from curate.run import plan as plan_recipe

    found = plan_recipe(Recipe.load(recipe, overrides).with_inputs(inputs), limit)
    if as_json:
        _emit(found)
    else:
        show.plan(found)


@main.command()
@click.argument("run")
@_json
def status(run: str, as_json: bool) -> None:
    """Per phase of RUN: tasks done, documents per second, failures with their logs."""
    from curate import show
    from curate.run import Run

    opened = Run(run)
    found = opened.status()
    if as_json:
        _emit(found)
    else:
        show.status(found, opened.until)


@main.command()
@click.argument("run")
@click.argument("doc")
@_json
def why(run: str, doc: str, as_json: bool) -> None:
    """The life of one document of RUN, by id or URL: scores, rule, duplicate of what, where it went."""
    from curate import show
    from curate.run import Run

    found = Run(run).why(doc)
    if as_json:
        _emit(found)
    else:
        show.lives(found)


@main.command()
@click.argument("run")
@click.option("--stage", help="Id of a stage (default: what the run kept; `ingest` with --dropped for rejected records).")
@click.option("--dropped", is_flag=True, help="What was dropped rather than kept.")
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many documents.")
@_json
def inspect(run: str, stage: str | None, dropped: bool, count: int, as_json: bool) -> None:
    """Documents of RUN to read, spread evenly."""
    from curate import explain, show
    from curate.run import Run

    found = explain.inspect(Run(run), stage, dropped, count)
    if as_json:
        _emit(found)
    else:
        show.documents(found)


@main.command()
@click.argument("stage")
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option("-o", "--out", metavar="OUT", help="The run folder; needed without --compare.")
@click.option("--param", "parameters", multiple=True, metavar="K=V", help="A parameter of the stage.")
@_executor
@_workers
@_limit
@_memory
@_accept
@click.option("--compare", "compared", is_flag=True, help="Show how extractors differ, and run nothing (stage extract).")
@click.option("--page", metavar="N|URL", help="With --compare: the page to show side by side, in full.")
@_json
def apply(
    stage: str,
    inputs: tuple[str, ...],
    out: str | None,
    parameters: tuple[str, ...],
    executor: str,
    workers: int | None,
    limit: int | None,
    memory_limit: str | None,
    accept: tuple[str, ...],
    compared: bool,
    page: str | None,
    as_json: bool,
) -> None:
    """Run one STAGE over IN; writes a normal run folder, and resumes.

    `curate apply extract IN --compare` runs no stage and writes nothing: it shows what several extractors make of the first 200
    pages (or --limit) of web archives and HTML files, how far they agree, and the page on which they differ most, side by side.
    `--param engine=A,B` names the extractors; one alone is compared with curate, and without any, all that are installed are.
    `--param keep=…` and `--param format=…` go to each of them.
    """
    if compared or page:
        others = {"-o": out, "-w": workers, "--memory-limit": memory_limit, "--accept": accept or None}
        _compare(
            stage, inputs, parameters, [name for name in others if others[name] is not None], limit, compared, page, as_json
        )
        return
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'.")

    def load() -> Any:
        from curate.recipe import for_stage

        return for_stage(stage, parameters).with_inputs(inputs)

    _run(load, out, as_json, executor, workers, limit, memory_limit, accept)


def _compare(
    stage: str,
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    others: list[str],
    limit: int | None,
    compared: bool,
    page: str | None,
    as_json: bool,
) -> None:
    from curate import show
    from curate.compare import LIMIT, compare, options_of
    from curate.errors import RecipeError

    if not compared:
        raise RecipeError(f"--page {page}: only with --compare")
    if stage != "extract":
        raise RecipeError(f"--compare: only for the stage 'extract', not {stage!r}")
    if others:
        raise RecipeError(f"--compare runs in this process and writes nothing: leave out {', '.join(others)}")
    options = {**options_of(parameters), "limit": limit or LIMIT, "page": page}
    if sys.stderr.isatty():
        with click.progressbar(length=limit or LIMIT, label="pages", file=sys.stderr) as bar:
            found = compare(inputs, **options, progress=lambda done: bar.update(done - bar.pos))
    else:
        found = compare(inputs, **options)
    if as_json:
        _emit(found)
    else:
        show.comparison(found, page is not None)


@main.command()
@click.argument("name", required=False)
@_json
def stages(name: str | None, as_json: bool) -> None:
    """List the stages; with NAME its description, parameters and columns."""
    from curate import show
    from curate.stages import describe

    found = describe(name)
    if as_json:
        _emit(found)
    else:
        show.stages(found, name is not None)


@main.command()
@click.argument("run")
@_json
def report(run: str, as_json: bool) -> None:
    """Write RUN/report.html, one self-contained page, and print its path."""
    from curate import report as pages
    from curate.run import Run

    path = pages.write(Run(run).root)
    if as_json:
        _emit({"report": str(path)})
    else:
        click.echo(str(path))


@main.command()
@click.argument("run")
@_json
def verify(run: str, as_json: bool) -> None:
    """Check every byte of RUN: output, documents, scores, drops, ledger (or of an output folder alone)."""
    from curate.manifest import verify as verify_path

    found = verify_path(run)
    if as_json:
        _emit(found)
    else:
        click.echo(f"ok: {found['documents']:,} documents, digest {found['digest']}")


@main.command()
@click.argument("run")
@_set
@_workers
@_json
def export(run: str, overrides: tuple[str, ...], workers: int | None, as_json: bool) -> None:
    """Export RUN again, after `--set output.…=…`; finished stages are reused."""
    from curate.recipe import with_overrides
    from curate.run import Run

    opened = Run(run)
    recipe = with_overrides(opened.recipe, overrides, only="output")
    _run(lambda: recipe, run, as_json, "local", workers, opened.info["limit"], None, ())


@main.group(cls=_Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the models that stages know by name, or fetch one: `curate models get NAME`."""
    if context.invoked_subcommand is None:
        _models(as_json)


@models.command("list")
@_json
def models_list(as_json: bool) -> None:
    """List the named models, and where those are that have been fetched."""
    _models(as_json)


def _models(as_json: bool) -> None:
    from curate import models as named

    found = named.listed()
    if as_json:
        _emit(found)
        return
    for model in found:
        click.echo(f"{model['name']:<12} {model['mb']:>8,.1f} MB  {model['licence']:<13} {model['about']}")
        click.echo(f"{'':<12} {model['path'] or 'not fetched'}")


@models.command("get")
@click.argument("name")
@_json
def models_get(name: str, as_json: bool) -> None:
    """Fetch the model NAME into the cache unless it is there, and print its path."""
    from curate import models as named

    model = named.known(name)
    with click.progressbar(length=round(model.mb * 1e6), label=model.file, file=sys.stderr) as bar:

        def progress(done: int, size: int | None) -> None:
            bar.length = size or bar.length
            bar.update(done - bar.pos)

        path = named.get(name, progress)
    if as_json:
        _emit({"name": name, "path": str(path), "sha256": model.sha256})
    else:
        click.echo(str(path))


@main.command()
@click.argument("kind", metavar="fasttext|linear|lm")
@click.argument("data", nargs=-1, metavar="DATA...")
@click.option("-o", "--out", required=True, metavar="DIR", help="The folder of the classifier or model.")
@click.option("--positive", multiple=True, metavar="PATH", help="Documents that are all positive; may be repeated.")
@click.option("--negative", multiple=True, metavar="PATH", help="Documents that are all negative; may be repeated.")
@click.option("--recipe", metavar="FILE", help="Parameters in YAML, as a training writes them; --param goes over them.")
@click.option("--param", "parameters", multiple=True, metavar="K=V", help="A parameter of the training.")
@_json
def train(
    kind: str,
    data: tuple[str, ...],
    out: str,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    recipe: str | None,
    parameters: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a classifier on DATA with the columns `text` and `label`, and write it to DIR with its card.

    DATA: Parquet, JSONL, folders or run folders. `fasttext` learns from words; `linear` is a head on vectors, of a column of
    embeddings (`--param vectors=embedding`) or made from the texts (`--param embedding=lsa`).

    `lm` is a small language model, which needs no labels: `--param size=10m`, `--param start=DIR` to fine-tune. Killed, it goes
    on when it is called again.
    """
    from curate.training import train as train_classifier
    from curate.training.classifiers import read_recipe

    asked = {key: value for key, value in (read_recipe(recipe) if recipe else {}).items() if key != "kind"}
    if kind == "lm":
        _train_lm(data, out, {**asked, **_values(parameters)}, bool(positive or negative), as_json)
        return
    found = train_classifier(kind, data, out, {**asked, **_values(parameters)}, positive=positive, negative=negative)
    if as_json:
        _emit(found)
    else:
        _figures(found)


def _train_lm(data: tuple[str, ...], out: str, parameters: dict[str, Any], labelled: bool, as_json: bool) -> None:
    import dataclasses

    from curate.errors import RecipeError
    from curate.lm.train import train_files

    if labelled:
        raise RecipeError("train lm: --positive and --negative are for classifiers; name all files as DATA")
    made, left_out = train_files(data, out, parameters)
    for what, n in left_out.items():
        click.echo(f"left out: {n:,} {what}", err=True)
    if as_json:
        _emit({**dataclasses.asdict(made), "folder": str(made.folder), "left_out": left_out})
        return
    speed = f", {made.tokens_per_second:,.0f} a second" if made.seconds else ", made before"
    click.echo(f"{made.parameters + made.embedding:,} parameters, {made.embedding:,} of them the embedding")
    click.echo(f"{made.tokens:,} tokens in {made.steps:,} steps{speed}; {made.loss:.4f} nats per token in the end")


def _values(parameters: tuple[str, ...]) -> dict[str, Any]:
    """`K=V` options as a mapping."""
    from curate.errors import RecipeError
    from curate.recipe import yaml_value

    found: dict[str, Any] = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise RecipeError(f"--param {text}: write it as name=value")
        found[name] = yaml_value(value)
    return found


@main.command("eval")
@click.argument("model")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("--param", "parameters", multiple=True, metavar="K=V", help="label, text, vectors: columns; positive, threshold.")
@_json
def evaluate(model: str, data: tuple[str, ...], parameters: tuple[str, ...], as_json: bool) -> None:
    """Judge MODEL on DATA with the columns `text` and `label`: areas, accuracy, and each class.

    MODEL: the name of a classifier that comes with Curate, a folder, a fastText file, a URL or a Hugging Face id.
    """
    from curate.training import judge

    found = judge(model, data, **_judging(parameters))
    if as_json:
        _emit(found)
    else:
        _figures(found)


def _figures(found: dict[str, Any]) -> None:
    """The figures of a classifier, for people."""
    for key in ("auc", "average_precision", "accuracy"):
        value = found.get(key)
        click.echo(f"{key.replace('_', ' '):<20} {'none' if value is None else format(value, '.4f')}")
    for label, row in (found.get("per_class") or {}).items():
        shown = [f"{key} {row[key]:.3f}" for key in ("precision", "recall", "f1") if row.get(key) is not None]
        click.echo(f"{label:<20} {', '.join([*shown, str(row['documents']) + ' documents'])}")
    for what, n in {**found.get("left_out", {}), "documents of which the model knows nothing": found.get("unscored")}.items():
        if n:
            click.echo(f"left out: {n:,} {what}", err=True)
    if "out" in found:
        click.echo(f"{found['documents']:,} test documents, {found['trained_on']:,} trained on; see {found['out']}/card.md")
    else:
        click.echo(f"{found['documents']:,} documents")


def _judging(parameters: tuple[str, ...]) -> dict[str, Any]:
    from curate.errors import RecipeError, did_you_mean

    found = _values(parameters)
    for name, value in found.items():
        known = ("label", "text", "vectors", "positive", "threshold")
        if name not in known:
            raise RecipeError(f"eval: there is no parameter {name!r}{did_you_mean(name, known)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "threshold" and not number:
            raise RecipeError(f"eval: threshold is {value!r}; it is a number")
        found[name] = value if name == "threshold" else str(value)
    return found


@main.command()
@click.argument("out")
@click.option("--pages", type=click.IntRange(100), default=3000, show_default=True)
@click.option("--files", type=click.IntRange(1), default=6, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@_json
def sample(out: str, pages: int, files: int, seed: int, as_json: bool) -> None:
    """Write a sample crawl to try things on: WARC files in OUT/crawl and what was planted in OUT/labels.jsonl."""
    from pathlib import Path

    from curate.sample import write_sample

    try:
        counts = write_sample(Path(out), pages, files, seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        _emit(counts)
    else:
        click.echo(f"{sum(counts.values()):,} records in {out}/crawl: " + ", ".join(f"{k} {v}" for k, v in counts.items()))


if __name__ == "__main__":
    main()
