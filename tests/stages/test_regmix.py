"""regmix: proxies all at once, and the mean of the mixtures that are predicted best."""

import pytest
from test_proxies import documents, wanted

from curate.errors import RecipeError
from curate.stages.regmix import Regmix
from curate.testing import run_over

SEARCH = {
    "by": "kind",
    "models": "ngram",
    "target_tokens": 2000,
    "predictor": "linear",
    "simulated": 500,
    "average": 16,
    "weak": "keep",
}


def test_it_finds_the_groups_of_the_target():
    table = documents({"sea": 30, "law": 40, "bio": 20})
    found = run_over(Regmix(**SEARCH, runs=16, texts=wanted({"sea": 0.7, "law": 0.3}, n=20)), table).rows
    rates = dict(zip(table["kind"].to_pylist(), found["sampling"].to_pylist(), strict=True))
    assert rates["sea"] > 1.3 and rates["bio"] < 0.5


@pytest.mark.parametrize(
    "wrong, said", [({"runs": 3}, "runs is 3; give at least 4"), ({"average": 0}, "average is 0; give 1 to 500")]
)
def test_wrong_parameters_are_said(wrong, said):
    with pytest.raises(RecipeError, match=f"regmix: {said}"):
        Regmix(**{**SEARCH, **wrong}, texts=("x",))
