"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# one machine, one answer: no time limits on shared cores, and the same examples in every run
settings.register_profile("curate", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("curate")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: environment variable CURATE_DATA, by default beside the checkout."""
    folder = Path(os.environ.get("CURATE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "MANIFEST.json").is_file():
        pytest.skip(f"no data in {folder}: set CURATE_DATA")
    return folder


@pytest.fixture
def gathered(monkeypatch):
    """How many rows each task of a cut by rank held, as a list that fills while a stage runs."""
    from curate import ranks

    held = []
    real = ranks.read_partition

    def read_partition(path, *rest):
        table = real(path, *rest)
        if path.parent.name == "gather":
            held.append(len(table))
        return table

    monkeypatch.setattr(ranks, "read_partition", read_partition)
    return held
