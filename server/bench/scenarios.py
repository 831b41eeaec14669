"""What is sent to the server, and when."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median

from .events import Answer
from .prompts import prompt, prompts, prompts_with_prefix
from .target import Target, finish

# The long prompt arrives once the streams are under way, and they outlive a prefill in small pieces by far,
# so that their median gap is that of an undisturbed step.
_MIXED_STREAMS, _MIXED_START_EVENTS, _MIXED_NEW_TOKENS = 4, 16, 192
_LONG_PROMPT_TOKENS = 1000
_LONG_PROMPT_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Load:
    """Prompts that start together and make ``new_tokens`` tokens each: what the raw replay can do as well."""

    prompts: tuple[str, ...]
    new_tokens: int
    has_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of a scenario: the answers its figures are of, and figures of its own (units in their names).

    ``asked_tokens`` is what all answers together should be long; ``new_tokens`` is what they are.
    """

    answers: list[Answer]
    asked_tokens: int
    extra: dict[str, float | None] = field(default_factory=dict)

    @property
    def new_tokens(self) -> int:
        return sum(answer.new_tokens for answer in self.answers)

    @property
    def prompt_tokens(self) -> int | None:
        """Of all prompts together; None when the server does not count them."""
        counts = [answer.prompt_tokens for answer in self.answers if answer.prompt_tokens is not None]
        return sum(counts) if len(counts) == len(self.answers) else None


def single(seed: str) -> Load:
    return Load(prompts(1, 31, seed), 96)


def concurrent(seed: str) -> Load:
    return Load(prompts(8, 50, seed), 96)


def shared(seed: str) -> Load:
    return Load(prompts_with_prefix(8, 712, 22, seed), 32, has_prefix=True)


LOADS: dict[str, Callable[[str], Load]] = {"single": single, "concurrent": concurrent, "shared": shared}


async def run_load(target: Target, load: Load) -> Run:
    """Send every prompt of a load at once."""
    answers = await target.run([target.completion(text, load.new_tokens) for text in load.prompts])
    return Run(answers, len(answers) * load.new_tokens)


async def run_mixed(target: Target, seed: str) -> Run:
    """Let streams run, send a long prompt among them, and see how long it holds them up."""
    texts = prompts(_MIXED_STREAMS, 31, seed)
    requests = [target.completion(text, _MIXED_NEW_TOKENS) for text in texts]
    long_request = target.completion(prompt(_LONG_PROMPT_TOKENS, f"{seed}/long"), _LONG_PROMPT_NEW_TOKENS)
    async with target.open(len(requests) + 1) as (*streams, late):
        for exchange, request in zip(streams, requests, strict=True):
            exchange.send(request)
        for exchange in streams:
            await exchange.until_events(_MIXED_START_EVENTS)
        late.send(long_request)
        *answers, long_answer = await finish([*streams, late])
    ratios = [ratio for answer in answers if (ratio := stall_ratio(answer, long_answer.sent_s)) is not None]
    extra = {
        "largest_gap_over_median": max(ratios, default=None),
        "long_prompt_ttft_ms": _ms(long_answer.ttft_s),
    }
    return Run(answers, len(answers) * _MIXED_NEW_TOKENS, extra)


def stall_ratio(answer: Answer, since_s: float) -> float | None:
    """The largest gap ending after ``since_s`` as a multiple of the stream's median gap; None without one."""
    gaps = answer.gaps_s
    late_gaps = [gap for gap, end_s in zip(gaps, answer.times_s[1:], strict=True) if end_s > since_s]
    typical = median(gaps) if gaps else 0.0
    return max(late_gaps) / typical if late_gaps and typical > 0 else None


async def run_second_turn(target: Target, seed: str) -> Run:
    """A chat's opening, new to the server, and the follow-up with the whole history before it."""
    messages = [{"role": "user", "content": prompt(_LONG_PROMPT_TOKENS, seed)}]
    [cold] = await target.run([target.chat(messages, _LONG_PROMPT_NEW_TOKENS)])
    messages.append({"role": "assistant", "content": cold.text})
    messages.append({"role": "user", "content": prompt(20, f"{seed}/follow-up")})
    [second] = await target.run([target.chat(messages, _LONG_PROMPT_NEW_TOKENS)])
    share = second.ttft_s / cold.ttft_s if second.ttft_s and cold.ttft_s else None
    extra = {"cold_ttft_ms": _ms(cold.ttft_s), "second_turn_ttft_ms": _ms(second.ttft_s), "ttft_share": share}
    return Run([second], _LONG_PROMPT_NEW_TOKENS, extra)


FLOWS: dict[str, Callable[[Target, str], Awaitable[Run]]] = {
    "mixed": run_mixed,
    "second-turn": run_second_turn,
}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
