"""Every error Curate raises on purpose, in one tree.

    CurateError
    ├── RecipeError        the recipe or an option is wrong (file:line, did-you-mean)          exit 2
    ├── ColumnError        a stage reads a column that nobody wrote, or a stale one (plan time)  exit 2
    ├── RunConflict        the folder holds another recipe, another input, or a live run         exit 2
    ├── MissingExtra       an optional package is not installed; names the extra                exit 2
    ├── SourceError        an input cannot be found, opened or understood                       exit 2
    ├── StageError         a stage failed: stage, phase, shard, row and cause                   exit 1
    ├── BlastRadiusError   a stage would drop more than its limit allows; carries the evidence  exit 1
    ├── LedgerError        rows are missing or counted twice: the ledger does not close         exit 1
    └── ManifestError      an output or a run folder is incomplete or was changed               exit 1

Each message names the place and the remedy in one line, since the command line prints nothing else.
Exceptions propagate; nothing in Curate catches one to go on silently.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CurateError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line returns."""

    exit_code = 1


class RecipeError(CurateError):
    """The recipe, a `--set` address or a parameter is wrong."""

    exit_code = 2


class ColumnError(CurateError):
    """At plan time: a stage reads a column that is missing or older than the text it goes with."""

    exit_code = 2


class RunConflict(CurateError):
    """The run folder belongs to another recipe or input, or another process is working on it."""

    exit_code = 2


class MissingExtra(CurateError):
    """An optional package is missing. The message gives the command that installs its extra."""

    exit_code = 2

    def __init__(self, package: str, extra: str, needed_by: str):
        super().__init__(f"{needed_by} needs the package {package!r}: pip install 'curate-corpus[{extra}]'")
        self.package, self.extra, self.needed_by = package, extra, needed_by

    def __reduce__(self) -> tuple:
        return type(self), (self.package, self.extra, self.needed_by)


class SourceError(CurateError):
    """An input cannot be found, opened or understood."""

    exit_code = 2


class StageError(CurateError):
    """A stage failed or broke its contract."""


class BlastRadiusError(CurateError):
    """A stage would drop more of a group than `max_drop`, or met a cluster above `max_cluster`."""


class LedgerError(CurateError):
    """Rows in + rows added differ from rows out + rows dropped."""


class ManifestError(CurateError):
    """A manifest is missing, malformed, or does not fit the files that it lists."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest known word, `"; known: …"` for short lists, else `""`."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(choices)}" if 0 < len(choices) <= 40 else ""
