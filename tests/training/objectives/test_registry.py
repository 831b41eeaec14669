"""Terms by name: errors that name the near one, without torch."""

import subprocess
import sys
from typing import Any

import pytest

from tapster.runtime.errors import ConfigError
from tapster.training.objectives.registry import TERMS, check_objective, labels_of, make_term, needs_of
from tapster.training.recipe.schema import Objective


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"term": "croos_entropy"}, "did you mean 'cross_entropy'"),
        ({"term": "zzz"}, "there are cross_entropy, cwce"),
        ({"term": "forward_kl", "temperatur": 2}, "no option 'temperatur': did you mean 'temperature'"),
        ({"term": "forward_kl", "temperature": 0}, "temperature = 0 of the term forward_kl"),
        ({"term": "forward_kl", "missing": "uniform"}, "missing = 'uniform' of the term forward_kl"),
        ({"term": "jsd", "beta": 1.5}, "beta = 1.5 of the term jsd"),
        ({"term": "reverse_kl", "missing": "zero"}, "has no option 'missing'"),
        ({"term": "hidden_mse", "layers": []}, "layers"),
        ({"term": "mixce", "eta": "much"}, "eta = 'much'"),
        ({"term": "tea", "weight": [[0, 1.0], [200, 0.1]]}, "the weight of the term tea: .* step 200 lies past"),
    ],
)
def test_what_makes_no_sense_is_refused(objective: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_objective(Objective(**objective), 100)


@pytest.mark.parametrize("name", TERMS)
def test_every_term_can_be_made(name: str) -> None:
    term = make_term(Objective(term=name), name, 100)
    kinds = [kind for kind in ("per_prediction", "from_log_probs", "value") if hasattr(term, kind)]
    assert term.label == name
    assert len(kinds) == 1


def test_needs_follow_from_options() -> None:
    assert needs_of(Objective(term="forward_kl")).targets
    assert needs_of(Objective(term="hidden_cosine")).states
    assert needs_of(Objective(term="pro")).columns == ("group", "rank")
    assert needs_of(Objective(term="cwce")).columns == ("output_entropy",)
    assert needs_of(Objective.model_validate({"term": "cwce", "column": "mine"})).columns == ("mine",)
    assert needs_of(Objective(term="ads")).targets
    assert not needs_of(Objective.model_validate({"term": "ads", "reference": "self"})).targets
    assert not needs_of(Objective(term="cross_entropy")).tells_rows_apart


def test_labels_are_numbered_from_the_second_on() -> None:
    names = ["forward_kl", "tea", "forward_kl", "forward_kl"]
    assert labels_of([Objective(term=name) for name in names]) == ["forward_kl", "tea", "forward_kl-2", "forward_kl-3"]


def test_checking_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from tapster.training.objectives import schedules, dual\n"
        "from tapster.training.objectives.registry import TERMS, check_objective\n"
        "from tapster.training.recipe.schema import Objective\n"
        "[check_objective(Objective(term=name), 10) for name in TERMS]\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
