"""Numba kernels: pure functions over Arrow buffers, without I/O.

They are compiled at their first call (the largest in 15 to 30 seconds), and what was compiled is kept for the next process.
numba looks at the file of a function alone when it asks whether that still holds, and would run on what it compiled from an
older version of a kernel, or of a number, in another file. So it is kept by the state of all that kernels are made of: in
`$CURATE_CACHE/kernels/<digest>`, else below `~/.cache/curate` (`NUMBA_CACHE_DIR` goes before both).
"""

from __future__ import annotations

import os
from pathlib import Path

import numba
import xxhash


def _folder() -> Path:
    state = xxhash.xxh3_64()
    here = Path(__file__).parent
    for source in (*sorted(here.glob("*.py")), here.parent / "signals.py", here.parent / "lexicon.py"):
        state.update(source.read_bytes())
    own = os.environ.get("CURATE_CACHE")
    cache = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "curate"
    return cache / "kernels" / state.hexdigest()


if not numba.config.CACHE_DIR:  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(_folder())  # type: ignore[attr-defined]
