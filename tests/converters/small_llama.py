"""The recipe of a small Llama that has really learnt something, for tests that random weights cannot serve.

Random weights say nothing about what a quantization loses, and rows that do not divide by 256 have no K-quants. This
model has 2.9 M parameters, rows of 256 and 512, and reads its data for some minutes on two cores. It writes
chats in which the end of turn, ``<|end|>``, is plain text of several tokens.

``small_llama(data)`` is its Hugging Face folder. It is made once: the cache is keyed by this file's text.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VOCAB, WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, CONTEXT = 2048, 256, 4, 4, 2, 512, 1024
SEED, NUM_STEPS, BATCH, LENGTH, NUM_THREADS = 5, 900, 4, 256, 2
RATE, WARM_UP_STEPS, DECAY = 4e-3, 50, 0.1
NUM_PROGRAMS, MATHS_PER_PROGRAM = 240, 4
EOS, ROLES = "<|endoftext|>", ("<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content }}"
    "{% if message.role == 'assistant' %}{{ '<|end|>' + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

Chat = list[dict[str, str]]


def small_llama(data: Path) -> Path:
    """The model's folder, trained now if it has not been. ``data`` is the folder of shared data."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapster-tests"
    folder = cache / f"small-llama-{key}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            # a process of its own: the number of threads decides the last bits, and pytest's process keeps its own
            environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
            subprocess.run([sys.executable, __file__, str(data), f"{made}/model"], check=True, env=environment)
            if not folder.is_dir():
                Path(made, "model").rename(folder)
    return folder


def chats(data: Path) -> list[Chat]:
    """Questions with worked answers, and tasks with programs; always in the same order.

    So few that each is read four times: what is known well is predicted with confidence, as by a real model.
    """
    maths = [(row["question"], row["answer"]) for row in _rows(data / "gsm8k" / "train.jsonl.gz")]
    programs = [(row["text"], row["code"]) for row in _rows(data / "mbpp" / "mbpp.jsonl")]
    num_maths = MATHS_PER_PROGRAM
    pairs = [
        pair
        for idx, program in enumerate(programs[:NUM_PROGRAMS])
        for pair in (*maths[num_maths * idx : num_maths * (idx + 1)], program)
    ]
    return [[{"role": "user", "content": ask}, {"role": "assistant", "content": answer}] for ask, answer in pairs]


def rendered(chat: Chat) -> str:
    """What the model's template writes for a chat."""
    texts = [f"<|{part['role']}|>\n{part['content']}" for part in chat]
    return f"{texts[0]}\n{texts[1]}<|end|>{EOS}\n"


def main(data: Path, folder: Path) -> None:
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(NUM_THREADS)
    texts = [rendered(chat) for chat in chats(data)]
    tokenizer = _tokenizer(texts)
    order = torch.randperm(len(texts)).tolist()
    ids = torch.tensor([token for idx in order for token in tokenizer(texts[idx])["input_ids"]])
    model = _trained(ids)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(texts: list[str]) -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    learner = ByteLevelBPETokenizer()
    # without the end of turn, or it would become one token
    plain = (text.replace("<|end|>", "") for text in texts)
    learner.train_from_iterator(plain, vocab_size=VOCAB, special_tokens=[EOS, *ROLES], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learner._tokenizer, eos_token=EOS, bos_token=EOS)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _trained(ids: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        intermediate_size=FEED_FORWARD,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.stop_strings = ["<|end|>"]
    rates = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(rates, _rate)
    for step in range(NUM_STEPS):
        starts = torch.randint(len(ids) - LENGTH, (BATCH,))
        batch = torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rates.step()
        rates.zero_grad()
        schedule.step()
        if step % 20 == 0 or step == NUM_STEPS - 1:
            sys.stderr.write(f"small Llama: step {step} of {NUM_STEPS}, loss {loss.item():.3f}\n")
    return model


def _rate(step: int) -> float:
    """Up within the first steps, then down in a straight line to a fiftieth."""
    return min((step + 1) / WARM_UP_STEPS, max(1 - step / NUM_STEPS, 0.02))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _text(path).splitlines()]


def _text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
