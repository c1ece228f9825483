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


def drawn(groups, tokens, stretches, seed=42):
    """How often each stretch takes each document: lists. stretches: of each the beginning and the end by group; each begins at
    0 or where one before it ends."""
    tapes = {}
    for group in sorted(set(groups)):
        rows = sorted((r for r, g in enumerate(groups) if g == group), key=lambda r: order(r, seed))
        if sum(tokens[r] for r in rows):
            tapes[group] = Unrolled(rows, tokens)
    found = []
    for stretch in stretches:
        begins = {group: tapes[group].place(stretch[group][0])[0] for group in stretch}
        ends, own, missing = {}, {}, 0  # own: of the document in which the end lies
        for group, (start, end) in sorted(stretch.items()):
            tape = tapes[group]
            ends[group], undecided = tape.place(end)
            if undecided:
                own[group] = tape.length(ends[group] + 1) - tape.length(ends[group])
                ends[group] += 2 * (end - tape.length(ends[group])) >= own[group]
            missing += end - start - tape.length(ends[group]) + tape.length(begins[group])
        budget = sum(end - start for start, end in stretch.values())
        taken = {group: tapes[group].length(ends[group]) > stretch[group][1] for group in own}
        while abs(missing) > 0.0025 * budget:
            options = [(g,) for g in own] + list(itertools.combinations(own, 2))
            sign = {g: 1 if taken[g] else -1 for g in own}
            after = {o: missing + sum(sign[g] * own[g] for g in o) for o in options}
            cost = {g: abs(tapes[g].length(ends[g] - sign[g]) - stretch[g][1]) for g in own}
            ranked = sorted(options, key=lambda o: (max(abs(after[o]), 0.0025 * budget), sum(cost[g] for g in o)))
            if not ranked or abs(after[ranked[0]]) >= abs(missing):
                break
            missing = after[ranked[0]]
            for g in ranked[0]:
                ends[g] -= sign[g]
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
