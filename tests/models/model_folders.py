"""Small models that are folders: a checkpoint with a byte-level tokenizer, and ONNX graphs with external data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from raw_checkpoint import safetensors_bytes
from tiny_tokenizer import save_tokenizer

CONFIG = {"model_type": "llama", "max_position_embeddings": 512, "eos_token_id": 2, "vocab_size": 320}
TENSORS = {
    "model.embed_tokens.weight": ("BF16", np.zeros((320, 4), np.uint16)),
    "model.norm.weight": ("F32", np.ones(4, np.float32)),
}


def write_folder(folder: Path, tensors: dict[str, Any] = TENSORS, **files: Any) -> Path:
    """A checkpoint in order, but for what ``files`` change: an object for JSON, text or bytes as they are, None for
    no such file. Dots in names are written as two underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(folder)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    defaults = {"config__json": CONFIG, "generation_config__json": {"eos_token_id": [2]}}
    for key, content in {**defaults, **files}.items():
        path = folder / key.replace("__", ".")
        if content is None:
            path.unlink(missing_ok=True)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return folder


QUANTIZATION = {"group_size": 32, "bits": 4, "mode": "affine", "model.layers.0.q": {"group_size": 64, "bits": 8}}
MLX_TENSORS: dict[str, Any] = {
    "model.embed_tokens.weight": ("U32", np.zeros((320, 8), np.uint32)),
    "model.embed_tokens.scales": ("BF16", np.zeros((320, 2), np.uint16)),
    "model.embed_tokens.biases": ("BF16", np.zeros((320, 2), np.uint16)),
    "model.layers.0.q.weight": ("U32", np.zeros((64, 16), np.uint32)),
    "model.layers.0.q.scales": ("F16", np.zeros((64, 1), np.float16)),
    "model.layers.0.q.biases": ("F16", np.zeros((64, 1), np.float16)),
    "model.norm.weight": ("BF16", np.zeros(64, np.uint16)),
}


def write_mlx(folder: Path, **config: Any) -> Path:
    """A checkpoint as mlx-lm quantizes it, one of its layers otherwise than the rest."""
    return write_folder(folder, MLX_TENSORS, config__json={**CONFIG, "quantization": QUANTIZATION, **config})


def edit(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None takes one away."""
    found = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def write_onnx(folder: Path, name: str = "model.onnx") -> Path:
    """A graph with tensors in it, one beside it that has two names, and a weight in blocks of four bits."""
    import onnx
    from onnx import TensorProto, external_data_helper, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    outside = numpy_helper.from_array(np.ones((300, 16), np.float16), "embed")
    tied = numpy_helper.from_array(np.ones((300, 16), np.float16), "lm_head")
    packed = numpy_helper.from_array(np.zeros((8, 2, 16), np.uint8), "w_quant")
    scales = numpy_helper.from_array(np.ones((8, 2), np.float32), "w_scales")
    inside = numpy_helper.from_array(np.ones(16, np.float32), "norm")
    table = numpy_helper.from_array(np.ones((32, 4), np.float32), "cos_cache")
    shape = numpy_helper.from_array(np.array([1, 16]), "shape")
    node = helper.make_node(
        "MatMulNBits", ["x", "w_quant", "w_scales"], ["y"], domain="com.microsoft", K=64, N=8, bits=4, block_size=32
    )
    rotary = helper.make_node("RotaryEmbedding", ["x", "p", "cos_cache"], ["z"], domain="com.microsoft")
    graph = helper.make_graph(
        [node, rotary],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [outside, tied, packed, scales, inside, table, shape],
    )
    for tensor in graph.initializer:
        if tensor.name in ("embed", "w_quant"):
            external_data_helper.set_external_data(tensor, name + ".data")
    model = helper.make_model(graph)
    onnx.save_model(model, folder / name)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors["lm_head"].ClearField("raw_data")
    tensors["lm_head"].data_location = TensorProto.EXTERNAL
    tensors["lm_head"].external_data.extend(tensors["embed"].external_data)
    (folder / name).write_bytes(model.SerializeToString())
    return folder


def write_onnx_folder(folder: Path, **files: Any) -> Path:
    """A model whose weights are ONNX, with the settings of onnxruntime-genai."""
    model = {"type": "llama", "context_length": 256, "eos_token_id": [2, 0], "decoder": {"filename": "model.onnx"}}
    write_folder(folder, **{"genai_config__json": {"model": model}, **files})
    (folder / "model.safetensors").unlink()
    return write_onnx(folder)
