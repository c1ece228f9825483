"""Which documents stretches of tapes take, by unrolling the tapes (see `curate.proportions`)."""

import bisect
import itertools

import xxhash


def order(row, seed=42):
    """The hash of a document without a file, by its record."""
    return xxhash.xxh3_64_intdigest(row.to_bytes(8, "little"), xxhash.xxh3_64_intdigest(b"", seed))


class Unrolled:
    """The tape of a group."""

    def __init__(self, rows, tokens):
        self.rows = rows
        self.ends = list(itertools.accumulate(tokens[row] for row in rows))
        self.settled = {}  # number of a document on the tape: [(position, whether the document is before it)]

    def length(self, documents):
        """Tokens of so many documents of the tape."""
        rounds, more = divmod(documents, len(self.rows))
        return rounds * self.ends[-1] + (self.ends[more - 1] if more else 0)

    def place(self, position):
        """(documents that end before a position; whether it is still to be decided if the next is before it)."""
        rounds, rest = divmod(position, self.ends[-1])
        if not rest:
            return rounds * len(self.rows), False
        documents = rounds * len(self.rows) + bisect.bisect_right(self.ends, rest)
        settled = self.settled.setdefault(documents, [])
        if any(before and other <= position for other, before in settled):
            return documents + 1, False
        if any(not before and other >= position for other, before in settled):
            return documents, False
        return documents, self.length(documents) < position


def turned(turn, own, taken):
    """How many tokens less are taken where documents are left that were taken, and the other way round."""
    return sum(own[group] if taken[group] else -own[group] for group in turn)


def drawn(groups, tokens, stretches, budgets, seed=42):
    """How often each stretch takes each document: lists. stretches: of each the beginning and the end by group; each begins at
    0 or where one before it ends. budgets: of each, of all groups together."""
    tapes = {}
    for group in sorted(set(groups)):
        rows = sorted((r for r, g in enumerate(groups) if g == group), key=lambda r: order(r, seed))
        if sum(tokens[r] for r in rows):
            tapes[group] = Unrolled(rows, tokens)
    found = []
    for stretch, budget in zip(stretches, budgets, strict=True):
        begins = {group: tapes[group].place(stretch[group][0])[0] for group in stretch}
        ends, own, missing = {}, {}, budget  # own: of the document in which the end lies
        for group, (_, end) in sorted(stretch.items()):
            tape = tapes[group]
            ends[group], undecided = tape.place(end)
            if undecided:
                own[group] = tape.length(ends[group] + 1) - tape.length(ends[group])
                ends[group] += 2 * (end - tape.length(ends[group])) >= own[group]
            missing -= tape.length(ends[group]) - tape.length(begins[group])
        taken = {group: tapes[group].length(ends[group]) > stretch[group][1] for group in own}
        inside = {g: stretch[g][1] - tapes[g].length(ends[g] - taken[g]) for g in own}
        at = {g: order(tapes[g].rows[(ends[g] - taken[g]) % len(tapes[g].rows)], seed) for g in own}
        nearest = sorted(own, key=lambda g: (round(8 * abs(2 * inside[g] - own[g]) / own[g]), at[g]))
        walk = [(g,) for g in nearest]
        while abs(missing) > 0.0025 * budget:
            if walk:
                best = walk.pop(0)
                if abs(missing + turned(best, own, taken)) >= abs(missing):
                    continue
            else:
                turns = [turn for n in (1, 2, 3) for turn in itertools.combinations(nearest, n)]
                best = min(turns, key=lambda turn: abs(missing + turned(turn, own, taken)), default=())
                if abs(missing + turned(best, own, taken)) >= abs(missing):
                    break
            missing += turned(best, own, taken)
            for g in best:
                ends[g] += -1 if taken[g] else 1
                taken[g] = not taken[g]
        for group in own:
            tapes[group].settled[ends[group] - taken[group]].append((stretch[group][1], taken[group]))
        counts = [0] * len(groups)
        for group in stretch:
            rows = tapes[group].rows
            for document in range(begins[group], ends[group]):
                counts[rows[document % len(rows)]] += 1
        found.append(counts)
    return found
