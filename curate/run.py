"""Running a recipe into a folder, and a finished or half-finished run as an object.

`run` takes one phase after the other: a phase whose tasks are done is passed over, so running again is how one resumes.
What a folder already holds is found by fingerprints in names; nothing is compared by time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curate import __version__, executors, export, extract, ingest, ledger, tokens
from curate.dataset import Dataset, Generation
from curate.errors import BlastRadiusError, ColumnError, ManifestError, RecipeError, RunConflict, StageError, did_you_mean
from curate.memory import FEWEST
from curate.phases import Context, GenerationWork, PassWork, Phase, StepWork, dataset, merge_tallies, notes, view
from curate.plan import Node, Pass, Plan, cut, files_of, plain_params, resolve, with_needs
from curate.recipe import Recipe
from curate.sources import InputFile, document_schema, inventory, splits
from curate.stage import Expand, GlobalStage, Stage, params
from curate.stages import name_of
from curate.storage import (
    TEMPORARY,
    canonical,
    read_json,
    remove_temporaries,
    remove_tree,
    sha256_file,
    write_bytes,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    from curate.manifest import Manifest

FORMAT = "curate-run/1"


class Observer:
    """Told what a run is doing; the command line has one that draws bars."""

    def phase(self, phase: Phase, done: int) -> None:
        """A phase begins; `done` of its tasks are done already."""

    def task(self, phase: Phase, rank: int) -> None:
        """A task has ended."""

    def note(self, text: str) -> None:
        """A line for people."""


@dataclass(frozen=True)
class Inputs:
    """What ingest will read, and the fingerprint of all that decides the documents."""

    files: tuple[InputFile, ...]
    splits: tuple[Any, ...]
    schema: pa.Schema
    fingerprint: str

    @staticmethod
    def of(recipe: Recipe, limit: int | None) -> Inputs:
        """Look at the inputs of a recipe. Raises SourceError."""
        schema, files = document_schema(inventory(recipe.source), recipe.source)
        name = recipe.source.extract
        if name != "none" and (name not in extract.names() or any(f.kind in ("warc", "html") for f in files)):
            extract.load(name)  # a wrong name or a missing package is known now
        source = recipe.resolved()["source"]
        kind, options = next(iter(source.items()))
        decides = {k: v for k, v in options.items() if k != "paths"}
        listed = [[f.corpus, f.name, f.kind, f.size, f.stamp] for f in files]
        value = [ingest.VERSION, kind, decides, recipe.source.corpus, tokens.identity(recipe.tokenizer), limit, listed]
        value += [sha256_file(path) for path in extract.files(name)]
        digest = hashlib.sha256(canonical(value)).hexdigest()
        return Inputs(tuple(files), tuple(splits(files, recipe.source)), schema, digest)


def plan(recipe: Recipe, limit: int | None = None) -> dict[str, Any]:
    """Phases, tasks and columns of a recipe, without doing any work. Raises what `run` would raise before work."""
    inputs = Inputs.of(recipe, limit)
    bound = resolve(recipe.stages, inputs.schema, inputs.fingerprint)
    _output_columns(recipe, bound)
    phases: list[dict[str, Any]] = [{"name": "ingest", "tasks": 1 if limit else len(inputs.splits), "stages": []}]
    generation = 0
    for part in cut(bound.nodes):
        over = "shards" if generation == 0 else f"shards of generation {generation}"
        if isinstance(part, Pass):
            ids = [n.id for n in (*part.nodes, part.fit, part.expand) if n]
            phases.append({"name": part.label, "tasks": over, "stages": ids})
            generation += part.expand is not None
        else:
            assert isinstance(part.stage, GlobalStage)
            for i, step in enumerate(part.stage.steps(1, 1)):
                if i or step.reads is None:
                    count = over if step.reads is not None else "partitions"
                    phases.append({"name": f"{part.id}.{step.name}", "tasks": count, "stages": [part.id]})
    phases += [{"name": n, "tasks": "shards", "stages": []} for n in ("ledger", "export")]
    columns = [{"name": n, "type": str(c.type), "written_by": c.writer or "ingest"} for n, c in bound.columns.items()]
    stages = [
        {"id": n.id, "reads": list(n.stage.reads()), "writes": n.writes.names, "fingerprint": n.fingerprint[:8]}
        for n in bound.nodes
    ]
    files = [{"name": f.name, "kind": f.kind, "bytes": f.size, "corpus": f.corpus} for f in inputs.files]
    return {"recipe": recipe.name, "inputs": files, "phases": phases, "stages": stages, "columns": columns}


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    executor: str | executors.Inline | executors.Local = "local",
    workers: int | None = None,
    limit: int | None = None,
    memory_limit: int | None = None,
    accept: Sequence[str] = (),
    until: str | None = None,
    observer: Observer | None = None,
) -> Run:
    """Run a recipe into a folder, or go on where an earlier run of it stopped.

    executor: "local" (a pool of processes), "inline" (this process), or one made before. workers: default one per core.
    limit: only the first N documents in input order. memory_limit: bytes that a task's buffers may take. accept: ids of
    stages whose blast radius was looked at and accepted. until: stop after the stage of this id ("ingest": before the first)
    and count, without an export; the run goes on when it is called again without it. Returns the finished run; raises a
    CurateError.
    """
    ids = [i.id for i in with_needs(recipe.stages)]
    for stage_id in accept:
        if stage_id not in ids:
            raise RecipeError(f"--accept {stage_id}: no such stage{did_you_mean(stage_id, ids)}")
    if until is not None and until not in ("ingest", *ids):
        raise RecipeError(f"--until {until}: no such stage{did_you_mean(until, ['ingest', *ids])}")
    tokens.counter(recipe.tokenizer)
    inputs = Inputs.of(recipe, limit)
    bound = resolve(recipe.stages, inputs.schema, inputs.fingerprint)
    columns = _output_columns(recipe, bound)
    root = Path(out).absolute()
    with _locked(root):
        engine = _Engine(
            recipe=recipe,
            inputs=inputs,
            plan=_prefix(bound, until, inputs.fingerprint),
            whole=bound,
            columns=columns,
            context=Context(
                root=root,
                tokenizer=recipe.tokenizer,
                memory_limit=memory_limit or 4 << 30,
            ),
            pool=executors.make(executor, workers) if isinstance(executor, str) else executor,
            observer=observer or Observer(),
            limit=limit,
            until=until,
        )
        try:
            engine.run(accept)
        finally:
            engine.pool.close()
    return Run(root)


def _prefix(plan: Plan, until: str | None, upstream: str) -> Plan:
    """The plan up to a stage and with it."""
    if until is None:
        return plan
    n = next((node.index + 1 for node in plan.nodes if node.id == until), 0)
    if n == len(plan.nodes):
        return plan
    after = plan.nodes[n]
    return Plan(
        nodes=plan.nodes[:n],
        columns=after.before,
        drops=after.drops_before,
        generation=after.generation,
        fingerprint=plan.nodes[n - 1].fingerprint if n else upstream,
    )


def _output_columns(recipe: Recipe, bound: Plan) -> tuple[str, ...]:
    transient = {n.id for n in bound.nodes if n.item.transient}
    hidden = {name for name, column in bound.columns.items() if column.writer in transient}
    gone = hidden.intersection(recipe.output.columns)
    if gone:
        name = min(gone)
        raise ColumnError(
            f"output.columns: {name!r} of stage {bound.columns[name].writer!r} is transient; leave out one of both"
        )
    last = dataset(Context(root=Path()), 0, bound.columns, bound.drops)
    return export.columns_of(last, recipe.output, hidden)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One process a folder. The lock is the operating system's, so a killed run leaves none behind."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunConflict(f"cannot write to {root}: {error.strerror}; give another folder with -o") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            raise RunConflict(f"another process ({owner or 'unknown'}) is running in {root}; wait for it or stop it") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@dataclass
class _Engine:
    """One invocation of `run`: goes through the phases and judges what they did.

    plan: what is to be done. whole: what it is a part of, where the run stops early.
    """

    recipe: Recipe
    inputs: Inputs
    plan: Plan
    whole: Plan
    columns: tuple[str, ...]
    context: Context
    pool: Any
    observer: Observer
    limit: int | None
    until: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _number: int = 0
    _phases: list[dict[str, Any]] = field(default_factory=list)
    _peaks: dict[str, int] = field(default_factory=dict)
    _checksums: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.context.root

    def run(self, accept: Sequence[str]) -> None:
        started = time.perf_counter()
        self._claim(accept)
        remove_temporaries(self.root)
        for node in self.plan.nodes:
            if not any((self.root / folder).exists() for folder in (node.state, node.drops)):
                node.stage.ready()
        self._ingest()
        self._stages()
        entries = self._ledger()
        if self.until is None:
            self._export(entries, started)
        else:
            self._stop(entries, started)

    # ------------------------------------------------------------------ the folder

    def _claim(self, accept: Sequence[str]) -> None:
        path = self.root / "run.json"
        known: dict[str, Any] = {"accepted": []}
        if path.exists():
            known = read_json(path)
            if known["recipe"] != self.recipe.name:
                raise RunConflict(
                    f"{self.root} holds a run of {known['recipe']!r}, not of {self.recipe.name!r}; give another folder with -o"
                )
            if known["inputs"] != self.inputs.fingerprint:
                raise RunConflict(
                    f"{self.root} holds documents of another input, source option, tokenizer or --limit; "
                    "only stages may be edited in place: give another folder with -o"
                )
        elif any(p.name != "lock" and not p.name.startswith(TEMPORARY) for p in self.root.iterdir()):
            raise RunConflict(f"{self.root} is neither empty nor a run; give another folder with -o")
        accepted = {*known["accepted"], *(n.key for n in self.plan.nodes if n.id in accept)}
        self._accepted = accepted
        (self.root / CHECKSUMS).unlink(missing_ok=True)
        write_json(
            path,
            {
                "format": FORMAT,
                "recipe": self.recipe.name,
                "inputs": self.inputs.fingerprint,
                "limit": self.limit,
                "until": self.until,
                "accepted": sorted(accepted),
            },
        )
        paths = tuple(p if "://" in p else os.path.abspath(os.path.expanduser(p)) for p in self.recipe.source.paths)
        found = replace(self.recipe, source=replace(self.recipe.source, paths=paths))  # to be found from any folder
        write_bytes(self.root / "recipe.yaml", found.dump().encode())

    # ------------------------------------------------------------------ phases

    def _phase(self, label: str, fingerprint: str, tasks: int, work: Any, stages: Sequence[str] = ()) -> Phase:
        name = f"{self._number:02d}-{label}"[:80] + f"-{fingerprint[:8]}"
        self._number += 1
        return Phase(
            name=name.replace("/", "_"),
            tasks=tasks,
            stages=tuple(stages),
            fingerprint=fingerprint,
            context=self.context,
            work=work,
        )

    def _do(self, phase: Phase) -> Phase:
        """Run what is left of a phase."""
        self._phases.append({"name": phase.name, "tasks": phase.tasks, "stages": list(phase.stages)})
        write_json(self.root / "plan.json", {"format": FORMAT, "phases": self._phases, "complete": False})
        pending = phase.pending()
        self.observer.phase(phase, phase.tasks - len(pending))
        started = time.perf_counter()
        if pending:
            # single tasks as well: the workers have started anyway, and hold the kernels that this process can do without
            self.pool.run(phase, pending, self.observer.task)
        self.seconds[phase.name] = time.perf_counter() - started
        return phase

    def _ingest(self) -> None:
        fingerprint = self.inputs.fingerprint
        work = ingest.IngestWork(
            source=self.recipe.source,
            files=self.inputs.files,
            splits=self.inputs.splits,
            schema=self.inputs.schema,
            drops=f"drops/ingest-{fingerprint[:8]}",
            limit=self.limit,
        )
        self._ingest_work = work
        for file in self.inputs.files:
            if file.no_text:
                self.observer.note(f"passed over, since it goes with the other inputs of its folder: {file.no_text}")
        read = self._do(self._phase("ingest", fingerprint, work.tasks, work))
        done = ingest.DocumentsWork(read, self.inputs.schema, self.inputs.files)
        self._do(self._phase("documents", fingerprint, 1, done))
        record = Generation.load(self.root)
        if not record.documents:
            self.observer.note("no document came out of the input: `curate report` and drops/ say why")

    def _stages(self) -> None:
        state: list[Node] = []
        lost = self._lost()
        for part in cut(self.plan.nodes):
            generation = Generation.load(self.root, self.context.generations[self._generation(part)])
            if isinstance(part, Pass):
                if part.fit:
                    state.append(part.fit)
                self._pass(part, tuple(state), generation, lost)
            else:
                if part not in state:
                    state.append(part)
                self._fit(part, tuple(state), generation, lost)

    def _generation(self, part: Pass | Node) -> int:
        return part.last.generation if isinstance(part, Pass) else part.generation

    def _pass(self, part: Pass, state: tuple[Node, ...], generation: Generation, lost: set[str]) -> None:
        groups: tuple[tuple[int, ...], ...] = ()
        tasks = len(generation.shards)
        if part.expand:
            groups = self._groups(part.expand, generation)
            tasks = len(groups)
        ids = [n.id for n in (*part.nodes, part.fit, part.expand) if n]
        limited = [n.id for n in (*part.nodes, part.expand) if n and n.item.policy.max_drop is not None]
        fingerprint = hashlib.sha256(canonical([part.last.fingerprint, limited])).hexdigest()  # what its records hold
        phase = self._phase(part.label, fingerprint, tasks, PassWork(part, state, groups), ids)
        if any(n.key in lost for n in (*part.nodes, part.fit) if n):
            remove_tree(phase.folder)  # before the drops, by which a lost stage is known
            for node in part.nodes:
                if node.key in lost:
                    remove_tree(self.root / node.drops)
        self._do(phase)
        self._judge(part, phase)
        if part.expand:
            made = GenerationWork(part.expand, phase)
            self._do(self._phase(f"{part.expand.id}.documents", part.expand.fingerprint, 1, made, [part.expand.id]))
            self.context = replace(self.context, generations=(*self.context.generations, part.expand.new_generation))
        for node in part.nodes:
            if isinstance(node.stage, GlobalStage):
                self._sweep(node)
        self._drop_transient(part)

    def _groups(self, node: Node, generation: Generation) -> tuple[tuple[int, ...], ...]:
        assert isinstance(node.stage, Expand)
        if type(node.stage).group is Expand.group:
            return tuple((i,) for i in range(len(generation.shards)))
        before = view(node, self.context)
        sizes = []
        for shard in range(len(generation.shards)):
            rows = size = 0
            for batch in before.read(shard, ["text_bytes"]):
                rows, size = rows + batch.num_rows, size + (pa.compute.sum(batch["text_bytes"]).as_py() or 0)
            sizes.append((rows, size))
        return tuple(tuple(g) for g in node.stage.group(sizes))

    def _fit(self, node: Node, state: tuple[Node, ...], generation: Generation, lost: set[str]) -> None:
        assert isinstance(node.stage, GlobalStage)
        for i, step in enumerate(node.stage.steps(len(generation.shards), generation.documents)):
            if i == 0 and step.reads is not None:
                continue  # ran with the pass before
            tasks = len(generation.shards) if step.reads is not None else step.tasks
            work = StepWork(node, i, state)
            phase = self._phase(f"{node.id}.{step.name}", node.fingerprint, tasks, work, [node.id])
            if node.key in lost:
                remove_tree(phase.folder)
            self._do(phase)
            for record in phase.records():
                peak = record.get("counters", {}).get("cluster", 0)
                self._peaks[node.key] = max(self._peaks.get(node.key, 0), peak)
        for scratch in ("summarize", "reduce"):
            shutil.rmtree(self.root / node.state / scratch, ignore_errors=True)

    def _sweep(self, node: Node) -> None:
        """Scratch of a fit goes once every shard has been through the stage; the small table that it found stays."""
        folder = self.root / node.state
        for path in folder.iterdir() if folder.exists() else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "state.parquet":
                path.unlink()

    def _readers(self, node: Node) -> list[Node]:
        """Stages that read what a stage writes, in order."""
        names = set(node.writes.names)
        readers = []
        for other in self.whole.nodes[node.index + 1 :]:
            reads = {*other.stage.reads(), *(other.stage.fit_reads() if isinstance(other.stage, GlobalStage) else ())}
            if other.item.policy.max_drop is not None:
                reads.add("language")  # by which a blast radius is measured
            if any(n in other.before and other.before[n].layer == node.layer for n in names & reads):
                readers.append(other)
        return readers

    def _drop_transient(self, part: Pass) -> None:
        last = part.expand or (part.nodes[-1] if part.nodes else None)
        done = last.index if last else -1
        for node in self.whole.nodes:
            if node.item.transient and len(node.writes) and ([node, *self._readers(node)])[-1].index <= done:
                remove_tree(self.root / node.layer)

    def _lost(self) -> set[str]:
        """Transient stages whose columns went after their last reader, but that an edit has given another one."""
        lost = set()
        for node in self.plan.nodes:
            gone = node.item.transient and len(node.writes) and not (self.root / node.layer).exists()
            if gone and (self.root / node.drops).exists() and not all(self._complete(r) for r in self._readers(node)):
                lost.add(node.key)
        return lost

    def _complete(self, node: Node) -> bool:
        """Whether a stage has been through all shards of its generation."""
        if isinstance(node.stage, Expand):
            return (self.root / node.new_generation / "manifest.json").exists()
        made_by = [n for n in self.whole.nodes[: node.index] if isinstance(n.stage, Expand)]
        folder = made_by[-1].new_generation if made_by else "documents"
        if not (self.root / folder / "manifest.json").exists():
            return False
        return all((self.root / node.drops / shard.name).exists() for shard in Generation.load(self.root, folder).shards)

    # ------------------------------------------------------------------ judgement

    def _judge(self, part: Pass, phase: Phase) -> None:
        """Blast radius and failed rows, before anything reads what the pass dropped."""
        totals = merge_tallies([record["stages"] for record in phase.records()])
        for node in (*part.nodes, *filter(None, [part.expand])):
            entry = totals.get(node.id)
            if not entry:
                continue
            failed = {r: n for r, n in entry["drops"].items() if r.startswith("error.")}
            share = sum(failed.values()) / max(1, entry["rows_in"])
            if share > node.item.policy.max_errors:
                kinds = ", ".join(f"{r} {n}" for r, n in sorted(failed.items()))
                raise StageError(
                    f"stage {node.id!r} failed on {sum(failed.values())} of {entry['rows_in']} rows ({kinds}), more than "
                    f"max_errors {node.item.policy.max_errors:g}: see `curate inspect {self.root} --stage {node.id} --dropped`"
                )
            if node.key not in self._accepted:
                self._judge_blast(node, entry.get("groups", {}))

    def _judge_blast(self, node: Node, groups: dict[str, list[int]]) -> None:
        policy = node.item.policy
        remedy = (
            f"look at `curate inspect {self.root} --stage {node.id} --dropped`, then change the stage, "
            f"raise the limit beside it, or run again with --accept {node.id}"
        )
        if policy.max_drop is not None:
            wide = sorted(
                ((d / r, g, r, d) for g, (r, d) in groups.items() if r >= FEWEST and d / r > policy.max_drop), reverse=True
            )
            if wide:
                share, group, reached, dropped = wide[0]
                more = f" and {len(wide) - 1} other groups" if len(wide) > 1 else ""
                raise BlastRadiusError(
                    f"stage {node.id!r} would drop {share:.1%} of {group} ({dropped:,} of {reached:,}){more}, more than "
                    f"max_drop {policy.max_drop:g}: {remedy}"
                )
        peak = self._peaks.get(node.key, 0)
        if policy.max_cluster is not None and peak > policy.max_cluster:
            raise BlastRadiusError(
                f"stage {node.id!r} met a cluster of {peak:,} documents, more than max_cluster {policy.max_cluster:,}: {remedy}"
            )

    # ------------------------------------------------------------------ ledger and export

    def _ledger(self) -> list[dict[str, Any]]:
        fingerprint = self.plan.fingerprint
        if self.until is not None:  # the last count of a whole run has the export in it
            fingerprint = hashlib.sha256(canonical([fingerprint, "until"])).hexdigest()
        shards = tuple(
            (g, s)
            for g, folder in enumerate(self.context.generations)
            for s in range(len(Generation.load(self.root, folder).shards))
        )
        folder = f"state/ledger-{fingerprint[:8]}"
        drops, tasks = self._ingest_work.drops, self._ingest_work.tasks
        work = ledger.LedgerWork(self.plan, folder, drops, tasks, shards, exports=self.until is None)
        phase = self._phase("ledger", fingerprint, work.tasks, work)
        if not (self.root / folder).exists():  # its parts went when it was merged: count again, it is cheap
            remove_tree(phase.folder)
        self._do(phase)
        self._checksums = {path: sha256 for record in phase.records() for path, sha256 in record["files"].items()}
        table = ledger.merge(self.root, folder, work.tasks)
        write_table(self.root / "ledger.parquet", table)
        remove_tree(self.root / folder)
        ids = ["ingest", *(n.id for n in self.plan.nodes), *(["export"] if self.until is None else [])]
        entries = ledger.summary(table, ids, [n.id for n in self.plan.nodes if isinstance(n.stage, Expand)])
        noted = {node.id: notes(node, self.context) for node in self.plan.nodes}
        return [{**entry, "notes": noted.get(entry["id"], {})} for entry in entries]

    def _stop(self, entries: list[dict[str, Any]], started: float) -> None:
        """The end of a run that was to stop early. An output that is there stays, as that of an earlier run; its page goes."""
        last = entries[-1]
        write_json(
            self.root / "summary.json",
            {
                "recipe": self.recipe.name,
                "until": self.until,
                "documents": last["rows_out"],
                "tokens": last["tokens"],
                "seconds": round(time.perf_counter() - started, 3),
                "stages": entries,
            },
        )
        (self.root / "report.html").unlink(missing_ok=True)  # who tries a threshold waits for it: `curate report` writes one

    def _export(self, entries: list[dict[str, Any]], started: float) -> None:
        from curate import card, manifest, report

        final = ledger.final(self.plan, self.context)
        decides = [self.plan.fingerprint, self.columns, self.recipe.resolved()["output"]]
        fingerprint = hashlib.sha256(canonical(decides)).hexdigest()
        done = []
        for phase in export.phases(self.context, final, self.recipe.output, fingerprint, self.columns):
            name = f"{self._number:02d}-{phase.name}"
            self._number += 1
            done.append(self._do(replace(phase, name=name)))
        shards = export.collect(self.context, done)
        exported = export.distinct(done)
        if exported != entries[-1]["rows_out"]:
            raise ManifestError(f"export wrote {exported} documents, the ledger has {entries[-1]['rows_out']}")
        published = self._publish()
        record = read_json(self.root / "documents" / "manifest.json")
        made = manifest.build(
            recipe=_portable(self.recipe),
            inputs=record["inputs"],
            columns={n: str(export.plain(final.types.field(n).type)) for n in self.columns},
            tokenizer=tokens.identity(self.recipe.tokenizer),
            shards=shards,
            stages=[{**_described(self.plan, e), **{k: e[k] for k in STAGE_KEYS}} for e in entries],
            deterministic=not record.get("counters", {}).get("timeouts"),
            provenance=_provenance(),
        )
        card.write_card(self.root / "output", made)
        made.write(self.root / "output", published)
        write_json(self.root / "plan.json", {"format": FORMAT, "phases": self._phases, "complete": True})
        write_json(
            self.root / "summary.json",
            {
                "recipe": self.recipe.name,
                "documents": made.totals.documents,
                "tokens": made.totals.tokens,
                "digest": made.digest,
                "seconds": round(time.perf_counter() - started, 3),
                "stages": entries,
            },
        )
        names = ["recipe.yaml", "run.json", "plan.json", "summary.json", "ledger.parquet"]
        names += [f"{folder}/{name}" for folder in self.context.generations for name in ("manifest.json", "schema.parquet")]
        kept = (f"index/{node.key}/{name}" for node in self.plan.nodes for name in ("index.json", *node.stage.outputs))
        names += [name for name in kept if (self.root / name).is_file()]
        checksums = {**self._checksums, **{name: sha256_file(self.root / name) for name in names}}
        write_bytes(self.root / CHECKSUMS, canonical(checksums))
        report.write(self.root)

    def _publish(self) -> list[str]:
        """Put what stages leave for the output there, and name it. Of files of one name the last stage's stays."""
        found = {name: self.root / "index" / node.key / name for node in self.plan.nodes for name in node.stage.outputs}
        for name, path in found.items():
            if not path.is_file():
                raise StageError(f"{path} is missing: a stage was to leave it for the output")
            write_bytes(self.root / "output" / name, path.read_bytes())
        return sorted(found)


CHECKSUMS = "checksums.json"
"""Digests of what a finished run consists of, beside its output and its documents, which have manifests."""


STAGE_KEYS = ("rows_in", "rows_added", "rows_out", "drops")


def _described(plan: Plan, entry: dict[str, Any]) -> dict[str, Any]:
    node = next((n for n in plan.nodes if n.id == entry["id"]), None)
    if node is None:
        return {"id": entry["id"], "name": entry["id"], "params": {}}
    return {"id": node.id, "name": name_of(type(node.stage)), "params": plain_params(params(node.stage), node.stage)}


def _portable(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe without paths of this machine: inputs are listed by content, files by digest."""
    found = recipe.resolved()
    next(iter(found["source"].values())).pop("paths")
    found["tokenizer"] = tokens.identity(recipe.tokenizer)
    for item, entry in zip(recipe.stages, found["stages"], strict=True):
        for key, value in entry.items():
            if isinstance(value, dict):
                entry[key] = {k: _contents(v, item.stage) for k, v in value.items()}
    return found


def _contents(value: Any, stage: Stage) -> Any:
    """The digest of the file that a parameter stands for, else the parameter."""
    files = files_of(value, stage) if isinstance(value, str) else []
    return f"sha256:{sha256_file(files[0])}" if files else value


def _provenance() -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("numpy", "pyarrow", "polars", "numba", "xxhash", "fastwarc", "resiliparse")
    return {
        "curate": __version__,
        "python": platform.python_version(),
        "packages": {p: version(p) for p in packages},
        "host": {"system": platform.system(), "machine": platform.machine()},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


# --------------------------------------------------------------------------------------------- a run as an object


class Run:
    """A run folder. Opening it reads little; everything else is looked up when asked for."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not (self.root / "run.json").is_file():
            raise ManifestError(f"{self.root} is not a run folder: it has no run.json")
        try:
            self.info = read_json(self.root / "run.json")
        except ValueError as error:
            raise ManifestError(f"{self.root / 'run.json'} was changed: {error}") from error

    def __repr__(self) -> str:
        return f"Run({str(self.root)!r}, recipe={self.info['recipe']!r})"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it was run last."""
        from curate.recipe import loads

        return loads((self.root / "recipe.yaml").read_text(), str(self.root / "recipe.yaml"))

    @property
    def until(self) -> str | None:
        """The stage after which the last invocation was to stop; None where it was to go to the end."""
        return self.info.get("until")

    @cached_property
    def plan(self) -> Plan:
        """The bound stages; only those up to `until`."""
        inputs = self.info["inputs"]
        return _prefix(resolve(self.recipe.stages, Generation.load(self.root).schema, inputs), self.until, inputs)

    @cached_property
    def context(self) -> Context:
        """Generations that are there, and the recipe's settings."""
        folders = ["documents"]
        for node in self.plan.nodes:
            if isinstance(node.stage, Expand) and (self.root / node.new_generation / "manifest.json").exists():
                folders.append(node.new_generation)
        return Context(root=self.root, generations=tuple(folders), tokenizer=self.recipe.tokenizer)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the output. Raises ManifestError before the run has finished."""
        from curate.manifest import Manifest

        if self.until is not None:
            raise ManifestError(self._unfinished())
        return Manifest.load(self.root / "output" / "manifest.json")

    @property
    def summary(self) -> dict[str, Any]:
        """What `curate run --json` prints: documents, tokens, digest, seconds, stages. With `until`, there is no digest."""
        path = self.root / "summary.json"
        if not path.exists():
            raise ManifestError(self._unfinished())
        return read_json(path)

    @property
    def exported(self) -> bool:
        """Whether the output is that of the recipe as it was run last."""
        path = self.root / "plan.json"
        return self.until is None and path.exists() and read_json(path)["complete"]

    def _unfinished(self) -> str:
        if self.until is not None:
            return f"the run in {self.root} stopped after {self.until!r}; run the same command without --until"
        return f"the run in {self.root} has not finished; run the same command again"

    @property
    def ingest_drops(self) -> str:
        """Folder of the records that ingest did not pass on."""
        return f"drops/ingest-{self.info['inputs'][:8]}"

    def node(self, stage_id: str) -> Node:
        """A stage of the run by its id."""
        for node in self.plan.nodes:
            if node.id == stage_id:
                return node
        known = [n.id for n in self.plan.nodes]
        if stage_id in {item.id for item in with_needs(self.recipe.stages)}:
            raise ManifestError(f"stage {stage_id!r} has not been run: {self._unfinished()}")
        raise RecipeError(f"no stage {stage_id!r} in {self.root}{did_you_mean(stage_id, known)}")

    def dataset(self, after: str | None = None) -> Dataset:
        """The documents as they stand after a stage (default: the last)."""
        if after is None or (self.plan.nodes and after == self.plan.nodes[-1].id):
            return ledger.final(self.plan, self.context)
        node = self.node(after)
        return view(self.plan.nodes[node.index + 1], self.context)

    def resume(self, observer: Observer | None = None, **options: Any) -> Run:
        """Run again what is not done, to the end unless `until` is given."""
        return run(self.recipe, self.root, limit=self.info["limit"], observer=observer, **options)

    def status(self) -> list[dict[str, Any]]:
        """Per phase: tasks, done, documents per second of task time, and logs of failures."""
        path = self.root / "plan.json"
        entries = []
        for phase in read_json(path)["phases"] if path.exists() else []:
            folder = self.root / "phases" / phase["name"]
            done = len(list((folder / "completions").iterdir())) if (folder / "completions").exists() else 0
            seconds = documents = 0.0
            for record in sorted((folder / "records").glob("*.json")) if (folder / "records").exists() else []:
                found = read_json(record)
                seconds += found["seconds"]
                documents += _documents(found)
            entries.append(
                {
                    "phase": phase["name"],
                    "stages": phase["stages"],
                    "done": done,
                    "tasks": phase["tasks"],
                    "seconds": round(seconds, 3),
                    "documents": int(documents),
                    "docs_per_second": round(documents / seconds, 1) if seconds and documents else None,
                    "failures": [] if done == phase["tasks"] else [str(p) for p in sorted((folder / "logs").glob("*.log"))],
                }
            )
        return entries

    def drops(self, stage: str | None = None) -> pa.Table:
        """Dropped documents: stage, id, url, and why. See `curate.explain.drops`."""
        from curate import explain

        return explain.drops(self, stage)

    def why(self, doc: str) -> list[dict[str, Any]]:
        """The life of every document with this id or URL. See `curate.explain.why`."""
        from curate import explain

        return explain.why(self, doc)

    def verify(self) -> dict[str, Any]:
        """Check every byte of the output, the documents, what stages wrote and dropped, and the ledger.

        Raises ManifestError naming the first file that was changed, or where the run has not finished.
        """
        from curate.manifest import Manifest

        path = self.root / CHECKSUMS
        if not path.exists():
            raise ManifestError(self._unfinished())
        raw = path.read_bytes()
        try:
            listed = read_json(path)
        except ValueError:
            listed = None
        if not isinstance(listed, dict) or canonical(listed) != raw:
            raise ManifestError(f"{path} was changed; the run must be made again")
        for name, sha256 in listed.items():
            self._check(name, sha256)
        for folder in self.context.generations:
            for shard in Generation.load(self.root, folder).shards:
                self._check(f"{folder}/{shard.name}", shard.sha256)
        return Manifest.verify(self.root / "output", deep=True)

    def _check(self, name: str, sha256: str) -> None:
        path = self.root / name
        if not path.exists() or sha256_file(path) != sha256:
            raise ManifestError(f"{path} is missing or was changed; the run must be made again")


def _documents(record: dict[str, Any]) -> int:
    if "shards" in record:
        return sum(s["documents"] for s in record["shards"])
    stages = record.get("stages") or {}
    first: dict[str, Any] = next(iter(stages.values()), {})
    return first.get("rows_in", 0)
