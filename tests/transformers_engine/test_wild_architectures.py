"""Architectures with other positions, masks and caches: all of them give their own logits, together and in pieces."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from wild_architectures import WILD, make_model

from tapster.runtime.engines.transformers.config import TransformersConfig

_ONE_BY_ONE = {"Mamba", "Mamba2", "Jamba", "Qwen3Next", "Lfm2", "FalconH1"}
_ANEW = {"RecurrentGemma"}


@pytest.mark.parametrize("name", list(WILD))
@pytest.mark.filterwarnings("ignore")  # torch's and transformers' own
def test_it_gives_its_own_logits(name: str, tmp_path: Path) -> None:
    from tapster.runtime.engines.transformers.open_model import open_model

    tokens = np.random.default_rng(1).integers(3, 300, 60).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original, expected = make_model(name, tokens)
        original.save_pretrained(tmp_path)
    model = open_model(tmp_path, TransformersConfig(threads=1), context_length=128, parallel=3)
    kind = "State" if name in _ONE_BY_ONE else "Recomputing" if name in _ANEW else "Table"
    assert type(model).__name__ == f"{kind}Model"
    rows = [model.prefill(0, tokens[a:b], a, all_rows=True).copy() for a, b in ((0, 20), (20, 30), (30, 50))]
    lengths = {0: 50, 1: 9, 2: 20}
    for slot in (1, 2):
        model.prefill(slot, tokens[: lengths[slot]], 0)
    pairs = [(np.concatenate(rows), expected[:50])]
    for slots in ([0, 1, 2], [2, 1], [1, 0]):
        positions = [lengths[slot] for slot in slots]
        pairs.append((model.decode(slots, [tokens[at] for at in positions], positions).copy(), expected[positions]))
        lengths |= {slot: lengths[slot] + 1 for slot in slots}
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(expected).max())
