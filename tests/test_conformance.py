"""Every stage that comes with Curate keeps the promises that the engine builds on."""

import pytest

from curate.testing import CHECKS, all_examples, check_elsewhere, documents

STAGES = dict(all_examples())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", STAGES)
def test_conformance(name, check):
    check(STAGES[name], documents(STAGES[name]))


def test_conformance_in_another_process():
    check_elsewhere(list(STAGES.values()))
