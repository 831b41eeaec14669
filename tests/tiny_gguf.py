"""Models of random weights whose tokenizer cuts `<|end|>` into five pieces and merges it with its neighbours."""

from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 4, 128, 512
MERGES = ["e n", "en d", "H e", "l l", "He ll", "Hell o", ". <", "> Ċ", "t h", "Ġ th", "Ġth e"]
SPECIAL = ["<s>", "</s>", "<|mark|>"]
STATE, STATE_RANK, CONVOLUTION = 16, 4, 4
"""A Mamba's state per channel, the rank of its step size, the tokens that its convolution sees."""


def write_tiny_gguf(path: Path, *, seed: int = 0, context: int = CONTEXT) -> Path:
    """Write a Llama. Every byte is a token, so any text can be written; `.<` and `>\\n` are tokens too."""
    writer = gguf.GGUFWriter(path, "llama")
    vocab = _add_common(writer, context)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    _add_tensors(writer, vocab, np.random.default_rng(seed))
    return _write(writer, path)


def write_tiny_mamba_gguf(path: Path, *, seed: int = 0, context: int = CONTEXT) -> Path:
    """Write a Mamba (arXiv 2312.00752), a recurrent model, with the same tokenizer."""
    writer = gguf.GGUFWriter(path, "mamba")
    vocab = _add_common(writer, context)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(CONVOLUTION)
    writer.add_ssm_inner_size(2 * WIDTH)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(STATE_RANK)
    _add_mamba_tensors(writer, vocab, np.random.default_rng(seed))
    return _write(writer, path)


def _add_common(writer: gguf.GGUFWriter, context: int) -> int:
    """What both have in their metadata. Returns the size of the vocabulary."""
    tokens = [*SPECIAL, *_byte_letters(), *(merge.replace(" ", "") for merge in MERGES)]
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    return len(tokens)


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tensors(writer: gguf.GGUFWriter, vocab: int, rng: np.random.Generator) -> None:
    def add(name: str, *shape: int) -> None:
        ones = name.endswith("norm.weight")
        data = np.ones(shape) if ones else rng.normal(0, shape[-1] ** -0.5, shape)
        writer.add_tensor(name, data.astype(np.float32))

    add("token_embd.weight", vocab, WIDTH)
    add("output_norm.weight", WIDTH)
    add("output.weight", vocab, WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}.weight", WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)


def _add_mamba_tensors(writer: gguf.GGUFWriter, vocab: int, rng: np.random.Generator) -> None:
    def add(name: str, data: np.ndarray) -> None:
        writer.add_tensor(name, data.astype(np.float32))

    def random(*shape: int) -> np.ndarray:
        return rng.normal(0, shape[-1] ** -0.5, shape)

    inner = 2 * WIDTH
    add("token_embd.weight", random(vocab, WIDTH))
    add("output_norm.weight", np.ones(WIDTH))
    add("output.weight", random(vocab, WIDTH))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", np.ones(WIDTH))
        add(f"{block}.ssm_in.weight", random(2 * inner, WIDTH))
        add(f"{block}.ssm_conv1d.weight", random(inner, CONVOLUTION))
        add(f"{block}.ssm_conv1d.bias", np.zeros(inner))
        add(f"{block}.ssm_x.weight", random(STATE_RANK + 2 * STATE, inner))
        add(f"{block}.ssm_dt.weight", random(inner, STATE_RANK))
        add(f"{block}.ssm_dt.bias", np.full(inner, -2.0))
        add(f"{block}.ssm_a", -np.tile(np.arange(1, STATE + 1), (inner, 1)))
        add(f"{block}.ssm_d", np.ones(inner))
        add(f"{block}.ssm_out.weight", random(WIDTH, inner))


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the rest are moved past U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(moved)) for byte in range(256)]
