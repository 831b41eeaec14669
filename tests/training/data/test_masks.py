"""What the loss sees of a conversation: printed, for every built-in template, and for random conversations."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tokenizer import small_tokenizer

from tapster.runtime.chat.builtin import BUILTIN_NAMES
from tapster.training.data.encode import IGNORED, Encoder, learnt_tokens, shown
from tapster.training.data.examples import Conversation, Document, Message, Unusable

TALK: list[Message] = [
    {"role": "user", "content": "What is two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And three and three?"},
    {"role": "assistant", "content": "Six."},
]
WORKED: list[Message] = [
    {"role": "user", "content": "What is 2 * 3?"},
    {"role": "assistant", "content": "6", "reasoning_content": "Two threes are six."},
]
MASKS = {
    "chatml": (
        "<|im_start|>user\nWhat is two and two?<|im_end|>\n<|im_start|>assistant\n⟦Four.<|im_end|>⟧\n"
        "<|im_start|>user\nAnd three and three?<|im_end|>\n<|im_start|>assistant\n⟦Six.<|im_end|>⟧"
    ),
    "kodalite": (
        "<|user|>\nWhat is two and two?\n<|assistant|>\n⟦Four.\n<|end|>⟧\n"
        "<|user|>\nAnd three and three?\n<|assistant|>\n⟦Six.\n<|end|>⟧"
    ),
    "memphis": (
        "### User:\nWhat is two and two?\n### Assistant:\n⟦Four.\n### User:⟧\nAnd three and three?\n### Assistant:\n"
        "⟦Six.\n<|endoftext|>⟧"
    ),
}


def mask(messages: list[Message], template: str | None, **options) -> str:
    tokenizer = small_tokenizer(template)
    row = Encoder(tokenizer, **{"max_length": 512, **options}).conversation(messages)
    text = shown(tokenizer, row.input_ids, row.labels)
    print(text)  # noqa: T201  to be read with pytest -s
    return text


@pytest.mark.parametrize("template", MASKS)
def test_answers_are_learnt_with_what_ends_them(template: str) -> None:
    assert mask(TALK, template) == MASKS[template]


def test_a_rationale_is_learnt_with_the_header_of_the_answer() -> None:
    expected = "### User:\nWhat is 2 * 3?\n### Rationale:\n⟦Two threes are six.\n### Answer:\n6\n<|endoftext|>⟧"
    assert mask(WORKED, "memphis-rationale") == expected
    assert mask(WORKED, "memphis") == expected, "one student, two forms: each conversation has its own"


def test_a_rationale_opens_the_answer_where_the_template_shows_none() -> None:
    assert mask(WORKED, "kodalite").endswith("<|assistant|>\n⟦Two threes are six.\n6\n<|end|>⟧")


def test_without_a_template_texts_follow_each_other() -> None:
    assert mask([*WORKED[:1], {"role": "assistant", "content": " 6"}], None) == "What is 2 * 3?⟦ 6<|endoftext|>⟧"


def test_all_of_it_on_request() -> None:
    text = mask(TALK, "kodalite", loss_on="all")
    assert text.startswith("⟦<|user|>")
    assert text.count("⟦") == 1


def test_generation_marks_are_taken_at_their_word() -> None:
    marked = (
        "{% for m in messages %}{% if m.role == 'assistant' %}[A]{% generation %}{{ m.content }}</s>{% endgeneration %}"
        "{% else %}[U]{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[A]{% endif %}"
    )
    assert mask(TALK, None, chat_template=marked) == (
        "[U]What is two and two?[A]⟦Four.</s>⟧[U]And three and three?[A]⟦Six.</s>⟧"
    )


def test_a_template_that_drops_old_reasoning_keeps_its_answers() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<a>{% if loop.last and m.reasoning_content %}<think>"
        "{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}</a>{% else %}<u>{{ m.content }}</u>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    text = mask([*WORKED, *WORKED], None, chat_template=template)
    assert text.startswith("<u>What is 2 * 3?</u><a>⟦6</a>⟧<u>")
    assert text.endswith("<a>⟦<think>Two threes are six.</think>6</a>⟧")


def test_nothing_to_learn_after_cutting_is_said() -> None:
    with pytest.raises(Unusable, match="nothing to learn is left of them in 8 tokens"):
        Encoder(small_tokenizer(), max_length=8).conversation(TALK)


def test_a_cut_row_is_marked_and_as_long_as_allowed() -> None:
    whole = Encoder(small_tokenizer(), max_length=512).conversation(TALK)
    size = len(whole.input_ids) - 3
    cut = Encoder(small_tokenizer(), max_length=size).conversation(TALK)
    assert (cut.is_cut, whole.is_cut) == (True, False)
    assert cut.input_ids == whole.input_ids[:size]
    assert cut.labels == whole.labels[:size]


def test_a_document_is_learnt_whole_and_loses_nothing() -> None:
    tokenizer = small_tokenizer(None)
    text = "The bridge was oak on one side and pine on the other.\n" * 20
    rows = Encoder(tokenizer, max_length=50).rows(Document(text))
    ids = [token for row in rows for token in row.input_ids]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == text
    assert all(row.input_ids == row.labels for row in rows)
    assert [len(row.input_ids) for row in rows[:-1]] == [50] * (len(rows) - 1)


def test_a_tokenizer_that_begins_texts_begins_rows_once() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = small_tokenizer("chatml")
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    encoder = Encoder(tokenizer, max_length=512)
    assert encoder.conversation(TALK).input_ids[:2].count(bos) == 1
    assert encoder.document("Bread")[0].input_ids[0] == bos
    writes_it = Encoder(tokenizer, max_length=512, chat_template="{{ bos_token }}" + tokenizer.chat_template)
    assert writes_it.conversation(TALK).input_ids[:2].count(bos) == 1


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.sampled_from(["chatml", "kodalite", "zephyr", "llama3"])
)
def test_labels_are_the_answers_of_any_conversation(turns: list[tuple[str, str]], template: str) -> None:
    messages: list[Message] = [
        {"role": role, "content": text.strip()}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    tokenizer = small_tokenizer(template)
    row = Encoder(tokenizer, max_length=4096).conversation(messages)
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))
    runs, inside = [], False
    for token, label in zip(row.input_ids, row.labels, strict=True):
        if label != IGNORED:
            runs = [*runs, [token]] if not inside else [*runs[:-1], [*runs[-1], token]]
        inside = label != IGNORED
    answers = [turn[1].strip() for turn in turns]
    assert len(runs) == len(answers)
    for run, answer in zip(runs, answers, strict=True):
        text = tokenizer.decode(run)
        # A token that begins in the header may take the first characters of an answer along.
        assert text.startswith(answer) or template != "chatml"
        assert answer[3:] in text


def test_tokens_belong_to_a_span_when_they_begin_in_it() -> None:
    offsets = [(0, 2), (2, 5), (5, 5), (5, 9), (9, 12)]
    assert learnt_tokens(offsets, [(3, 9)]) == [False, False, False, True, False]
    assert learnt_tokens(offsets, [(0, 1), (9, 12)]) == [True, False, False, False, True]


@pytest.mark.parametrize("template", BUILTIN_NAMES)
def test_every_built_in_template_says_what_is_learnt(template: str) -> None:
    text = mask(TALK, template)
    assert text.count("⟦") == 2
    assert text.index("⟦") < text.index("Four.") < text.index("⟧")


def test_rows_of_both_kinds() -> None:
    encoder = Encoder(small_tokenizer(), max_length=64)
    assert len(encoder.rows(Conversation(TALK))) == 1
