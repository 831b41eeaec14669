"""Graphs as slot models: in place where the graph can, by copying where it cannot, and what is wrong with others."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoints import TinyCheckpoint

from tapster.runtime.engines.slots.model import SlotModel
from tapster.runtime.errors import ModelError

RECIPES = ["llama", "llama-biases", "smollm3", "stablelm", "stablelm-12b", "arcee", "qwen2", "qwen3", "mistral"]


def open_folder(folder: Path) -> SlotModel:
    from tapster.runtime.engines.onnx.open_model import open_model

    return open_model(folder, context_length=128, parallel=4, threads=1)


def assert_close(rows: np.ndarray, expected: np.ndarray, tolerance: float = 3e-4) -> None:
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=tolerance * np.abs(expected).max())


def check_ragged_batches(model: SlotModel, tokens: list[int], logits: np.ndarray) -> None:
    lengths = {0: 5, 1: 60, 2: 21, 3: 60}
    for slot, length in lengths.items():
        assert_close(model.prefill(slot, tokens[:length], 0), logits[length - 1 : length])
    model.copy(2, 4, 10)
    lengths[4] = 10
    for slots in ([0, 1, 2, 3], [3, 1], [2, 4, 3], [1, 3], [0], [3, 2, 1, 0], [1, 2], [4]):
        positions = [lengths[slot] for slot in slots]
        assert_close(model.decode(slots, [tokens[at] for at in positions], positions), logits[positions])
        for slot in slots:
            lengths[slot] += 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_our_folders_advance_together(
    recipe: str, onnx_folder: Callable[..., Path], tiny_checkpoint: Callable[[str], TinyCheckpoint]
) -> None:
    model, tiny = open_folder(onnx_folder(recipe)), tiny_checkpoint(recipe)
    assert type(model).__name__ == "TableModel"
    for bounds in ([0, 100], [0, 37, 38, 90, 100]):
        for start, end in pairwise(bounds):
            rows = model.prefill(1, tiny.tokens[start:end], start, all_rows=True)
            assert_close(rows, tiny.logits[start:end])
    check_ragged_batches(model, tiny.tokens, tiny.logits)


@pytest.mark.parametrize("type_name", ["fp16", "int8", "int4"])
def test_smaller_types_agree_with_themselves(type_name: str, onnx_folder: Callable[..., Path]) -> None:
    model = open_folder(onnx_folder("llama", type_name))
    tokens = np.random.default_rng(3).integers(0, 250, 40).tolist()
    whole = model.prefill(0, tokens, 0, all_rows=True).copy()
    model.prefill(1, tokens[:9], 0)
    model.prefill(2, tokens[:30], 0)
    rows = model.decode([2, 1], [tokens[30], tokens[9]], [30, 9])
    assert_close(rows, whole[[30, 9]], 0.02)


def test_a_graph_that_copies_its_cache(
    tmp_path: Path, onnx_folder: Callable[..., Path], tiny_checkpoint: Callable[[str], TinyCheckpoint]
) -> None:
    """The operator appends to a past of exact length as well: a graph that allows no other way is one that only
    allows this."""
    from tapster.runtime.engines.onnx.graph import read_graph
    from tapster.runtime.engines.onnx.growing_model import GrowingModel
    from tapster.runtime.engines.onnx.session import declared_cache, open_session

    folder, tiny = onnx_folder("llama"), tiny_checkpoint("llama")
    session = open_session(folder, 1)
    model = GrowingModel(session, read_graph(session, declared_cache(folder)), num_slots=5)
    rows = [model.prefill(1, tiny.tokens[a:b], a, all_rows=True) for a, b in ((0, 70), (70, 100))]
    assert_close(np.concatenate(rows), tiny.logits)
    model.prefill(1, [9, 9, 9], 20)
    check_ragged_batches(model, tiny.tokens, tiny.logits)


def test_a_graph_that_cannot_be_updated_in_place_is_recognised(tmp_path: Path) -> None:
    save_graph(
        tmp_path, [("past_key_values.0.key", 1, [1, 2, "past", 4]), ("past_key_values.0.value", 1, [1, 2, "past", 4])]
    )
    model = open_folder(tmp_path)
    assert type(model).__name__ == "GrowingModel"
    # the toy's logits are the sum of the ids in its cache and its own
    assert model.prefill(0, [3, 4], 0)[0].tolist() == [7.0] * 10
    assert model.prefill(0, [5, 6], 2)[0].tolist() == [18.0] * 10
    model.copy(0, 1, 2)
    assert model.decode([0, 1], [1, 2], [4, 2]).tolist() == [[19.0] * 10, [9.0] * 10]


def save_graph(folder: Path, cache: list[tuple[str, int, list[Any]]], extra: tuple[str, ...] = ()) -> None:
    """A graph whose cache are the ids themselves, which it appends and adds up."""
    import onnx
    from onnx import TensorProto, helper

    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    inputs = [helper.make_tensor_value_info("input_ids", int64, ["batch", "tokens"])]
    inputs += [helper.make_tensor_value_info(name, int64, ["batch"]) for name in extra]
    inputs += [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in cache]
    nodes, outputs = [], []
    shapes = {"cell": [1, 1, -1, 1], "whole": [1, 2, 1, 4], "out": [1, 1, 1], "wide": [1, 1, 10], "head": [0, 3]}
    constants = [helper.make_tensor(name, int64, [len(value)], value) for name, value in shapes.items()]
    nodes.append(helper.make_node("Cast", ["input_ids"], ["ids"], to=float32))
    nodes.append(helper.make_node("Reshape", ["ids", "cell"], ["cells"]))
    nodes.append(helper.make_node("Tile", ["cells", "whole"], ["new"]))
    for name, kind, shape in cache:
        present = name.replace("past_key_values", "present")
        nodes.append(helper.make_node("Concat", [name, "new"], [present], axis=2))
        outputs.append(helper.make_tensor_value_info(present, kind, [*shape[:2], "total", shape[3]]))
    last = cache[0][0].replace("past_key_values", "present") if cache else "new"
    nodes.append(helper.make_node("ReduceMean", [last], ["mean"], axes=[1, 3], keepdims=0))
    nodes.append(helper.make_node("ReduceSum", ["mean"], ["sum"], keepdims=0))
    nodes.append(helper.make_node("Reshape", ["sum", "out"], ["one"]))
    nodes.append(helper.make_node("Tile", ["one", "wide"], ["logits"]))
    outputs.insert(0, helper.make_tensor_value_info("logits", float32, [1, 1, 10]))
    graph = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    (folder / "config.json").write_text("{}")


_KEY = ("past_key_values.0.key", 1, [1, 2, "past", 4])


@pytest.mark.parametrize(
    ("cache", "extra", "message"),
    [
        ([_KEY], ("pixel_values",), "input pixel_values"),
        ([], (), "no input past_key_values.0.key"),
        ([("past_key_values.0.key", 1, [1, "heads", "past", "width"])], (), "leaves its size open"),
    ],
)
def test_graphs_that_are_no_decoders(tmp_path: Path, cache: Any, extra: tuple[str, ...], message: str) -> None:
    save_graph(tmp_path, cache, extra)
    with pytest.raises(ModelError, match=message):
        open_folder(tmp_path)


def test_missing_and_damaged_files(tmp_path: Path, onnx_folder: Callable[..., Path]) -> None:
    source = onnx_folder("llama")
    with pytest.raises(ModelError, match="no ONNX file"):
        open_folder(tmp_path)
    (tmp_path / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match=r"no weights beside it.*model\.onnx\.data") as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "model.onnx.data").write_bytes((source / "model.onnx.data").read_bytes()[:5000])
    with pytest.raises(ModelError) as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "model.onnx").write_bytes(b"this is no graph")
    with pytest.raises(ModelError, match="cannot load"):
        open_folder(tmp_path)


def test_a_context_longer_than_the_table_of_angles(onnx_folder: Callable[..., Path]) -> None:
    from tapster.runtime.engines.onnx.open_model import open_model

    with pytest.raises(ModelError, match=r"cannot compute 100000 tokens .*lower --context"):
        open_model(onnx_folder("llama"), context_length=100_000, parallel=1, threads=1)
