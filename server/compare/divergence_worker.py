"""The process that measures divergences, one a line (see ``bench.json_child``).

A task's ``reference`` and ``candidate`` are pairs of a path and an engine; with them come ``num_tokens`` and
``threads``. The answer is ``Divergence.to_json``, or an object with ``error`` or, when the reference is at fault,
``reference_error``.
"""

from pathlib import Path
from typing import Any

from ...converters.proof.divergence import CONTEXT_TOKENS, measure_divergence
from ...converters.proof.texts import chat_texts, read_conversations, text_source
from ...converters.proof.vocabulary import tokenizer_of
from ...runtime.engines.logits import open_logits
from ...runtime.errors import ProofError, TapsterError
from ...runtime.profile import load_profile
from ..bench.json_child import answers, questions

MOST_CHANGED = 0.01
"""The share of tokens that may stand for something else in the candidate."""


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """The answer to a task."""
    (reference, reference_engine), (candidate, engine) = task["reference"], task["candidate"]
    try:
        _try_out(Path(reference), reference_engine, task["threads"])
        texts = chat_texts(load_profile(reference), read_conversations())
    except TapsterError as error:
        return {"reference_error": str(error)}
    try:
        _require_same_tokens(Path(reference), Path(candidate))
        [found] = measure_divergence(
            Path(reference),
            [Path(candidate)],
            texts,
            num_tokens=task["num_tokens"],
            threads=task["threads"],
            text=text_source(),
            engines=[reference_engine, engine],
        )
    except TapsterError as error:
        return {"error": str(error)}
    return found.to_json()


def _try_out(reference: Path, engine: str, threads: int | None) -> None:
    """Raises what running the reference raises, so that its faults are not laid at the candidate's door."""
    model = open_logits(reference, context_tokens=CONTEXT_TOKENS, step_tokens=32, threads=threads, engine=engine)
    model.close()


def _require_same_tokens(reference: Path, candidate: Path) -> None:
    """Raises ProofError for models whose ids stand for other texts. Few may: unused tokens are often renamed."""
    with tokenizer_of(reference) as one, tokenizer_of(candidate) as other:
        common = min(one.vocab_size, other.vocab_size)
        changed = [token_id for token_id in range(common) if one.piece(token_id) != other.piece(token_id)]
        if len(changed) > MOST_CHANGED * common:
            token_id = changed[0]
            raise ProofError(
                f"its tokens are others than the source's: number {token_id} is {other.piece(token_id)!r} and there "
                f"{one.piece(token_id)!r}"
            )


def main() -> None:
    answer = answers()
    for task in questions():
        answer(measure(task))


if __name__ == "__main__":
    main()
