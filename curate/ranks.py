"""Where a corpus is cut when it is put in order: exactly, by groups, in memory that follows the groups and not the documents.

A key is (group, bits, hash, address): documents are ordered within their group by `bits`, which are in the order of some score,
then by `hash`, then by `address`, so that no two are equal. Each key has a weight. A *target* of a group is a weight, and its
*cut* is the first key with which the weights so far exceed it; a target that is the weight of the whole group has none.

    write_keys   per shard: its keys in order, and of every group some evenly spaced ones with the weight before each
    bracket      per part of the groups: two samples between which each cut lies, from the samples of all shards
    gather       per group of shards: the few keys between these, and the weight of those before them
    cut          per part and block of targets: the cuts
    merge        one table of them

Two passes over narrow keys and one over their samples, whatever the distribution: radix histograms may need more passes, and
cannot divide a score that half of the corpus shares. Groups are divided into parts by their hash, and the targets of a group
into blocks, so that a task holds the keys around a few cuts.

Source: own; selection by regular sampling (Shi and Schaeffer 1992, doi:10.1016/0743-7315(92)90075-X).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.errors import StageError
from curate.fit import SHARDS_PER_GROUP, shard_groups
from curate.stage import GlobalStage, Step, Task
from curate.storage import read_partition, read_table, write_partitioned, write_table

SAMPLES = 512  # of a shard, by rank and again by weight, divided among its groups by their size; at least two of each
DOCS_PER_PART = 1 << 21  # where there are groups: a part of them may be held as a whole
TARGETS_PER_BLOCK = 8  # at least; as many as there are where the whole corpus may be held
KEY = ("group", "bits", "hash", "address")

Names = Mapping[int, tuple[str | None, ...]]  # of groups, by their number
# (part of the folder of the stage, numbers of groups (uint64), total weights (int64)) -> (index of a group, number of the
# target, weight) of each target, sorted by the first two
Targets = Callable[[Task, np.ndarray, np.ndarray, Names], tuple[np.ndarray, np.ndarray, np.ndarray]]

_KEYS = {name: pa.array([], pa.uint64()) for name in KEY}
_SAMPLE = pa.table({**_KEYS, "before": pa.array([], pa.int64()), "after": pa.array([], pa.int64())})
_WEIGHTED = pa.table({**_KEYS, "weight": pa.array([], pa.int64())})
_TOTALS = pa.table({"group": pa.array([], pa.uint64()), "weight": pa.array([], pa.int64()), "name": pa.array([], pa.string())})
_BEFORE = pa.table({"row": pa.array([], pa.int64()), "before": pa.array([], pa.int64())})
CUTS = pa.table({"group": _KEYS["group"], "target": pa.array([], pa.int32()), **{c: _KEYS[c] for c in KEY[1:]}})


def parts_of(n_docs: int, grouped: bool) -> int:
    """Into how many parts groups are divided: a fixed function of the number of documents."""
    return max(1, -(-n_docs // DOCS_PER_PART)) if grouped else 1


def steps(
    stage: GlobalStage, keys: Step, targets: Targets, n_shards: int, n_keys: int, parts: int, n_targets: int = 1
) -> list[Step]:
    """The steps of a fit after and with `keys`, the step whose function calls `write_keys` with the same `parts`.

    targets: a picklable function. n_keys: how many keys there are at most, from the number of documents. n_targets: the most
    that a group has. The last step leaves `state.parquet`, a table like `CUTS`.
    """
    width = max(TARGETS_PER_BLOCK, n_targets * DOCS_PER_PART // max(n_keys, 1))
    blocks = -(-n_targets // width)
    return [
        keys,
        Step("bracket", partial(bracket, stage, targets), tasks=parts),
        Step("gather", partial(gather, stage, parts, blocks, width), tasks=shard_groups(n_shards)),
        Step("cut", partial(cut, stage, blocks, width), tasks=parts * blocks),
        Step("merge", partial(merge, stage, parts * blocks)),
    ]


# --------------------------------------------------------------------------------------------- groups

_NULL = xxhash.xxh3_64_intdigest(b"null", 2)
_SPREAD, _M1, _M2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def group_numbers(batch: pa.RecordBatch, columns: Sequence[str], stage: str) -> np.ndarray:
    """uint64 per row: a hash of what it has in `columns`; zeros if there are none. Null is a value of its own.

    Raises StageError for a column of lists, of binary values, or of floating-point numbers.
    """
    found = np.zeros(batch.num_rows, np.uint64)
    for number, name in enumerate(columns):
        values = _words(batch[name], name, stage).dictionary_encode()
        hashes = [xxhash.xxh3_64_intdigest(word.encode(), 1) for word in values.dictionary.to_pylist()]
        indices = pc.fill_null(values.indices, len(hashes)).to_numpy(zero_copy_only=False)
        own = np.array([*hashes, _NULL], np.uint64)[indices]
        found = own if number == 0 else _mixed(found * _SPREAD + own)
    return found


def add_names(
    names: dict[int, tuple[str | None, ...]], batch: pa.RecordBatch, columns: Sequence[str], stage: str, numbers: np.ndarray
) -> None:
    """Add the groups of a batch that are not known yet: their values, as strings."""
    if columns:
        new, rows = np.unique(numbers, return_index=True)
        unknown = [i for i, number in enumerate(new.tolist()) if number not in names]
        at = pa.array(rows[unknown])
        values = zip(*(_words(batch[name], name, stage).take(at).to_pylist() for name in columns), strict=True)
        names.update(zip(new[unknown].tolist(), values, strict=True))


def _words(values: pa.Array, name: str, stage: str) -> pa.Array:
    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_floating(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise StageError(f"{stage}: column {name!r} is {kind}, which makes no groups; give a string, an integer, a date or so")
    return pc.cast(values, pa.string())


def _mixed(h: np.ndarray) -> np.ndarray:
    """splitmix64's last step (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    h = (h ^ (h >> np.uint64(30))) * _M1
    h = (h ^ (h >> np.uint64(27))) * _M2
    return h ^ (h >> np.uint64(31))


# --------------------------------------------------------------------------------------------- keys


def pack(*columns: np.ndarray | Sequence[int] | int) -> np.ndarray:
    """Keys out of the columns of `KEY`; the first may be one number for all."""
    keys = np.empty(len(columns[1]), [(c, np.uint64) for c in KEY])  # type: ignore[arg-type]
    for name, values in zip(KEY, columns, strict=True):
        keys[name] = values
    return keys


def keys_of(table: pa.Table, prefix: str = "") -> np.ndarray:
    """Keys out of the columns of a table; but for the group, their names begin with `prefix`."""
    return pack(*(table[c if c == "group" else prefix + c].to_numpy() for c in KEY))


def order_of(keys: np.ndarray) -> np.ndarray:
    """The order of the keys, as indices."""
    group = keys["group"]
    one = not len(keys) or (group == group[0]).all()
    return np.lexsort([keys[c] for c in reversed(KEY[1:] if one else KEY)])


def before(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which keys come before the other in their place (bool)."""
    less = np.zeros(len(keys), bool)
    same = np.ones(len(keys), bool)
    for c in KEY:
        less |= same & (keys[c] < others[c])
        same &= keys[c] == others[c]
    return less


def _place(keys: np.ndarray, wanted: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How many keys (in order) come before each that is wanted, which are at least `low` and at most `high`."""
    low, high = low.copy(), high.copy()
    while True:
        open_ = np.flatnonzero(low < high)
        if not len(open_):
            return low
        middle = (low[open_] + high[open_]) // 2
        less = before(keys[middle], wanted[open_])
        low[open_[less]] = middle[less] + 1
        high[open_[~less]] = middle[~less]


def _spans(groups: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each wanted group begins and ends among `groups`, which are in order."""
    return np.searchsorted(groups, wanted, side="left"), np.searchsorted(groups, wanted, side="right")


def _bounds(parts: int) -> np.ndarray:
    """The first number of each part but the first (uint64)."""
    return np.array([-(-(p << 64) // parts) for p in range(1, parts)], np.uint64)


def _pieces(table: pa.Table, parts: int) -> Iterator[tuple[int, pa.Table]]:
    """A table that is sorted by group, by parts."""
    at = np.searchsorted(table["group"].to_numpy(), _bounds(parts))
    for part, (first, last) in enumerate(itertools.pairwise([0, *at.tolist(), len(table)])):
        if last > first:
            yield part, table.slice(first, last - first)


# --------------------------------------------------------------------------------------------- the steps of a fit


def write_keys(folder: Path, shard: str, keys: np.ndarray, weight: np.ndarray, parts: int, names: Names) -> None:
    """The keys of one shard in order, and of every group a sample with the weight that comes before each.

    weight: int64, not negative. names: of the groups, where they have some.
    """
    order = order_of(keys)
    keys, weight = keys[order], weight[order].astype(np.int64)
    n = len(keys)
    columns = {c: pa.array(keys[c]) for c in KEY}
    write_table(folder / "keys" / shard, pa.table({**columns, "weight": pa.array(weight)}), codec="lz4")
    groups, first = np.unique(keys["group"], return_index=True)
    last = np.append(first[1:], n)[: len(groups)]
    so_far = np.append(0, np.cumsum(weight))
    at = _sampled(first, last, so_far)
    group = np.searchsorted(groups, keys["group"][at])
    before = so_far[at] - so_far[first[group]]
    ends = np.append(group[1:] != group[:-1], True)[: len(at)]  # of a group: after it comes nothing more
    after = np.where(ends, so_far[last[group]] - so_far[first[group]], np.append(before[1:], 0)[: len(at)])
    sample = pa.table({**{c: pa.array(keys[c][at]) for c in KEY}, "before": pa.array(before), "after": pa.array(after)})
    write_partitioned(folder / "sample" / shard, _SAMPLE.schema, _pieces(sample, parts))
    said = [orjson.dumps(names[g]).decode() if g in names else None for g in groups.tolist()]
    totals = pa.table(
        [pa.array(groups, pa.uint64()), pa.array(so_far[last] - so_far[first], pa.int64()), pa.array(said, pa.string())],
        schema=_TOTALS.schema,
    )
    write_partitioned(folder / "totals" / shard, _TOTALS.schema, _pieces(totals, parts))


def _sampled(first: np.ndarray, last: np.ndarray, so_far: np.ndarray) -> np.ndarray:
    """Indices of keys, of every group evenly spaced by rank, its first and last among them, and again by weight."""
    n = int(last[-1]) if len(last) else 0
    count = np.minimum(last - first, np.maximum(2, SAMPLES * (last - first) // max(n, 1)))
    found = [first, last - 1]
    whole = count == last - first
    found.append(np.flatnonzero(np.repeat(whole, last - first)))
    for i in np.flatnonzero(~whole & (count > 2)).tolist():  # a few hundred at most
        a, b = int(first[i]), int(last[i])
        found.append(np.linspace(a, b - 1, count[i]).astype(np.int64))
        heavy = np.linspace(int(so_far[a]), int(so_far[b]), count[i]).astype(np.int64)
        heavy = np.searchsorted(so_far[a + 1 : b + 1], heavy) + a
        found.append(heavy[heavy < b])
    return np.unique(np.concatenate(found))


def _totals(folder: Path, shards: Sequence[str], part: int) -> tuple[np.ndarray, np.ndarray, Names]:
    """(numbers of the groups of a part, their weights, their names)."""
    table = pa.concat_tables([_TOTALS, *(read_partition(folder / "totals" / name, part) for name in shards)])
    numbers, at = np.unique(table["group"].to_numpy(), return_inverse=True)
    weights = np.zeros(len(numbers), np.int64)
    np.add.at(weights, at, table["weight"].to_numpy())
    named = table.filter(pc.is_valid(table["name"])).group_by(["group", "name"], use_threads=False).aggregate([])
    names: dict[int, tuple[str | None, ...]] = {}
    for number, name in zip(named["group"].to_pylist(), named["name"].to_pylist(), strict=True):
        value = tuple(orjson.loads(name))
        if number in names:
            raise StageError(f"the groups {names[number]} and {value} have one hash; rename one of them")
        names[number] = value
    return numbers, weights, names


def bracket(stage: GlobalStage, targets: Targets, task: Task) -> None:
    """Two keys for each target: all before the first stay, none from the second on does.

    What comes before a key in a shard is at least what comes before its nearest sample at or before the key, and at most
    what comes before the next sample. Summed over shards, that bounds the rank of every sample in its group.
    """
    folder = task.folder(stage)
    groups, totals, names = _totals(folder, task.shards, task.rank)
    index, number, target = targets(task, groups, totals, names)
    samples = [_SAMPLE, *(read_partition(folder / "sample" / name, task.rank) for name in task.shards)]
    table = pa.concat_tables(samples).combine_chunks()
    keys = keys_of(table)
    order = order_of(keys)
    keys = keys[order]
    least, most = (table[c].to_numpy()[order] for c in ("before", "after"))
    most = np.cumsum(most - least)  # a shard's intervals follow one another: so they add up to `after` of its last
    least = _least(keys, least)
    start, end = _spans(keys["group"], groups[index])
    low = np.minimum(np.searchsorted(most, target + _at(most, start - 1), side="right") - 1, end - 1)
    high = np.searchsorted(least, target + _at(least, start - 1), side="right")
    columns = {"group": pa.array(groups[index], pa.uint64()), "target": pa.array(number, pa.int32())}
    columns["weight"] = pa.array(target, pa.int64())
    for name, at, known in (("low", low, low >= start), ("high", high, high < end)):
        columns[f"has_{name}"] = pa.array(known)
        at = np.where(known, at, 0)
        for c in KEY[1:]:
            columns[f"{name}_{c}"] = pa.array(keys[c][at] if len(keys) else np.zeros(len(at), np.uint64))
    write_table(folder / "bracket" / f"{task.rank:05d}.parquet", pa.table(columns), codec="lz4")


def _at(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """values[at], 0 before the first."""
    return np.append(0, values)[at + 1]


def _least(keys: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Sum over groups and shards of `before` at the last sample of each so far: `before` grows within one."""
    shard = keys["address"] >> np.uint64(32)
    by_shard = np.lexsort([shard, keys["group"]])
    step = np.diff(before[by_shard], prepend=0)
    first = np.ones(len(step), bool)
    first[1:] = (np.diff(shard[by_shard]) != 0) | (np.diff(keys["group"][by_shard]) != 0)
    step[first] = before[by_shard][first]
    steps = np.empty_like(step)
    steps[by_shard] = step
    return np.cumsum(steps)


def _brackets(folder: Path, parts: Sequence[int]) -> pa.Table:
    return pa.concat_tables([read_table(folder / "bracket" / f"{part:05d}.parquet") for part in parts]).combine_chunks()


def _ends(brackets: pa.Table, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each bracket among keys in order: where its group begins, where it begins, and where it ends."""
    first, last = _spans(keys["group"], brackets["group"].to_numpy())
    found = []
    for name, other in (("low", first), ("high", last)):
        known = brackets[f"has_{name}"].to_numpy()
        at = _place(keys, keys_of(brackets, f"{name}_"), first, last)
        found.append(np.where(known, at, other))
    return first, found[0], found[1]


def gather(stage: GlobalStage, parts: int, blocks: int, width: int, task: Task) -> None:
    """The keys within the brackets of a group of shards, and the weight of those before each. width: of a block."""
    folder = task.folder(stage)
    brackets = _brackets(folder, range(parts))
    block = brackets["target"].to_numpy() // width
    part = np.searchsorted(_bounds(parts), brackets["group"].to_numpy(), side="right")
    weights = np.zeros(len(brackets), np.int64)
    first = task.rank * SHARDS_PER_GROUP
    limit = task.memory_limit // 16

    def found() -> Iterator[tuple[int, pa.Table]]:
        held: dict[int, list[pa.Table]] = {}
        size = 0
        for name in task.shards[first : first + SHARDS_PER_GROUP]:
            table = read_table(folder / "keys" / name)
            keys = keys_of(table)
            here = np.flatnonzero(np.isin(brackets["group"].to_numpy(), np.unique(keys["group"])))
            start, low, high = _ends(brackets.take(pa.array(here)), keys)
            so_far = np.append(0, np.cumsum(table["weight"].to_numpy()))
            weights[here] += so_far[low] - so_far[start]
            for b in np.unique(block[here]).tolist():
                inside = np.zeros(len(keys) + 1, np.int64)
                np.add.at(inside, low[block[here] == b], 1)
                np.add.at(inside, high[block[here] == b], -1)
                for p, piece in _pieces(table.take(pa.array(np.flatnonzero(np.cumsum(inside[:-1])))), parts):
                    held.setdefault(p * blocks + b, []).append(piece)
                    size += piece.num_rows * 8 * len(_WEIGHTED.schema)
            if size >= limit:
                yield from ((p, pa.concat_tables(held[p])) for p in sorted(held))
                held, size = {}, 0
        yield from ((p, pa.concat_tables(held[p])) for p in sorted(held))

    write_partitioned(folder / "gather" / f"{task.rank:05d}.parquet", _WEIGHTED.schema, found())
    rows = np.flatnonzero(weights)
    number = np.arange(len(brackets)) - np.searchsorted(part, part)  # of a bracket in its part
    sums = pa.table({"row": pa.array(number[rows]), "before": pa.array(weights[rows])})
    at = np.searchsorted(part[rows], np.arange(parts + 1))
    pieces = ((p, sums.slice(a, b - a)) for p, (a, b) in enumerate(itertools.pairwise(at.tolist())))
    write_partitioned(folder / "before" / f"{task.rank:05d}.parquet", _BEFORE.schema, pieces)


def cut(stage: GlobalStage, blocks: int, width: int, task: Task) -> None:
    """The cuts of one part of the groups and one block of targets."""
    folder = task.folder(stage)
    part, block = divmod(task.rank, blocks)
    shards = range(shard_groups(len(task.shards)))
    brackets = _brackets(folder, [part])
    weights = np.zeros(len(brackets), np.int64)
    for g in shards:
        sums = read_partition(folder / "before" / f"{g:05d}.parquet", part)
        np.add.at(weights, sums["row"].to_numpy(), sums["before"].to_numpy())
    mine = np.flatnonzero(brackets["target"].to_numpy() // width == block)
    brackets, weights = brackets.take(pa.array(mine)), weights[mine]
    gathered = [_WEIGHTED, *(read_partition(folder / "gather" / f"{g:05d}.parquet", task.rank) for g in shards)]
    table = pa.concat_tables(gathered).combine_chunks()
    keys = keys_of(table)
    order = order_of(keys)
    keys = keys[order]
    so_far = np.append(0, np.cumsum(table["weight"].to_numpy()[order]))
    _, low, high = _ends(brackets, keys)
    at = np.searchsorted(so_far[1:], brackets["weight"].to_numpy() - weights + so_far[low], side="right")
    known = np.flatnonzero(at < high)
    at = at[known]
    chosen = {c: pa.array(keys[c][at], pa.uint64()) for c in KEY[1:]}
    cuts = brackets.select(["group", "target"]).take(pa.array(known))
    for c in KEY[1:]:
        cuts = cuts.append_column(c, chosen[c])
    write_table(folder / "cut" / f"{task.rank:05d}.parquet", cuts, codec="lz4")


def merge(stage: GlobalStage, tasks: int, task: Task) -> None:
    """All cuts in one table, `state.parquet`."""
    folder = task.folder(stage)
    write_table(folder / "state.parquet", merged(folder, tasks))


def merged(folder: Path, tasks: int) -> pa.Table:
    """The cuts that `tasks` tasks of `cut` have found, sorted by group and target."""
    table = pa.concat_tables([CUTS, *(read_table(folder / "cut" / f"{rank:05d}.parquet") for rank in range(tasks))])
    return table.sort_by([("group", "ascending"), ("target", "ascending")]).combine_chunks()


def names_of(folder: Path, shards: Sequence[str], parts: int) -> Names:
    """The names of all groups."""
    found: dict[int, tuple[str | None, ...]] = {}
    for part in range(parts):
        found.update(_totals(folder, shards, part)[2])
    return found
