"""Chat templates: prompts written out by hand, the forms of messages, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.runtime.chat.builtin import BUILTIN_NAMES, builtin_source
from tapster.runtime.chat.template import ChatTemplate
from tapster.runtime.errors import ConfigError, ModelError, RequestError

FOLDER = Path(__file__).parent / "templates"
OWN_NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
Messages = list[dict[str, Any]]


def template(name: str, bos: str | None = "<s>", eos: str | None = "</s>") -> ChatTemplate:
    path = FOLDER / f"{name}.jinja"
    source = path.read_text("utf-8") if path.exists() else builtin_source(name)
    return ChatTemplate(source, bos_token=bos, eos_token=eos)


def inline(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


CHAT = [system("Be brief."), user("Hi"), assistant("Hello."), user("Bye")]

BUILTIN_PROMPTS = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "kodalite": "<|user|>\nBe brief.\n\nHi\n<|assistant|>\nHello.\n<|end|>\n<|user|>\nBye\n<|assistant|>\n",
    "memphis": "### User:\nBe brief.\n\nHi\n### Assistant:\nHello.\n### User:\nBye\n### Assistant:\n",
    "memphis-rationale": "### User:\nBe brief.\n\nHi\n### Answer:\nHello.\n### User:\nBye\n### Rationale:\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nBye</s>\n"
    "<|assistant|>\n",
    "alpaca": "Be brief.\n\n### Instruction:\nHi\n\n### Response:Hello.\n\n### Instruction:\nBye\n\n### Response:",
}


class TestBuiltin:
    def test_every_template_has_its_prompt_here(self):
        assert set(BUILTIN_PROMPTS) == set(BUILTIN_NAMES)

    @pytest.mark.parametrize("name", BUILTIN_NAMES)
    def test_conversation(self, name: str):
        assert template(name, bos=None, eos=None).render(CHAT) == BUILTIN_PROMPTS[name]

    def test_alpaca_has_its_preamble_without_a_system_message(self):
        assert template("alpaca").render([user("Add 1 and 2.")]) == (
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nAdd 1 and 2.\n\n### Response:"
        )

    def test_rationale_precedes_the_answer(self):
        messages = [user("2+2?"), assistant("4", reasoning_content="Count."), user("3+3?")]
        assert template("memphis-rationale").render(messages) == (
            "### User:\n2+2?\n### Rationale:\nCount.\n### Answer:\n4\n### User:\n3+3?\n### Rationale:\n"
        )

    def test_tokens_of_the_model_are_used(self):
        assert template("llama3", bos="<bos>").render([user(" Hi ")]).startswith("<bos><|start_header_id|>user")
        assert template("zephyr", eos="<|endoftext|>").render([user("Hi")]).startswith("<|user|>\nHi<|endoftext|>\n")

    @pytest.mark.parametrize("name", ["kodalite", "memphis", "memphis-rationale"])
    def test_a_system_message_alone_is_not_lost(self, name: str):
        header = template(name).render([user("Be brief.")])
        assert template(name).render([system("Be brief.")]) == header

    def test_unknown_name_lists_the_known_ones_and_the_near_one(self):
        with pytest.raises(ConfigError, match=r"'chatlm', did you mean chatml\? Known: alpaca, chatml, kodalite"):
            builtin_source("chatlm")

    def test_a_name_is_no_path(self):
        with pytest.raises(ConfigError, match="no built-in chat template"):
            builtin_source("../builtin/chatml")


class TestModelTemplates:
    def test_gemma(self):
        messages = [user(" Hi "), assistant("Hello."), user("Bye")]
        assert template("gemma", bos="<bos>").render(messages) == (
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
        )

    def test_mistral(self):
        assert template("mistral").render(CHAT) == "<s>[INST] Hi [/INST] Hello.</s>[INST] Be brief.\n\nBye [/INST]"

    def test_phi3_with_and_without_a_generation_prompt(self):
        assert template("phi3").render([user("Hi")]) == "<|user|>\nHi<|end|>\n<|assistant|>\n"
        assert template("phi3").render([user("Hi")], add_generation_prompt=False) == "<|user|>\nHi<|end|>\n</s>"

    @pytest.mark.parametrize(
        ("kwargs", "tail"),
        [
            ({}, "<|im_start|>assistant\n"),
            ({"enable_thinking": True}, "<|im_start|>assistant\n"),
            ({"enable_thinking": False}, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ],
    )
    def test_qwen3_thinking(self, kwargs: dict[str, Any], tail: str):
        prompt = template("qwen3").render([user("Hi")], **kwargs)
        assert prompt == "<|im_start|>user\nHi<|im_end|>\n" + tail

    def test_qwen3_tools_and_calls(self):
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": "add", "arguments": '{"a": 1, "b": "ü<b>"}'},
        }
        tool = {"type": "function", "function": {"name": "add", "description": "a & b"}}
        result = {"role": "tool", "tool_call_id": "c1", "content": "3"}
        messages = [user("Add."), assistant(None, tool_calls=[call]), result]
        assert template("qwen3").render(messages, tools=[tool]) == (
            "<|im_start|>system\n# Tools\n"
            '{"type": "function", "function": {"name": "add", "description": "a & b"}}\n'
            "Call them within <tool_call></tool_call>.<|im_end|>\n<|im_start|>user\nAdd.<|im_end|>\n"
            "<|im_start|>assistant\n\n<tool_call>\n"
            '{"name": "add", "arguments": {"a": 1, "b": "ü<b>"}}\n</tool_call>'
            "<|im_end|>\n<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        )

    def test_uses(self):
        assert template("qwen3").uses("tools")
        assert template("qwen3").uses("enable_thinking")
        assert not template("qwen3").uses("documents")
        assert not template("phi3").uses("message")


class TestVariables:
    def test_absent_tokens_are_undefined(self):
        bare = ChatTemplate("[{{ bos_token }}{{ eos_token }}]", bos_token=None, eos_token=None)
        assert bare.render([user("Hi")]) == "[]"

    def test_a_request_cannot_set_what_the_runtime_sets(self):
        with pytest.raises(RequestError, match="'messages'") as caught:
            inline("x").render([user("Hi")], messages=[])
        assert caught.value.param == "chat_template_kwargs"

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (
                "a\n{% for m in messages %}",
                "chat template 'tool_use' is no valid Jinja at line 2: Unexpected end",
            ),
            ("{{ 1 | nofilter }}", "No filter named 'nofilter'"),
            ("{% if %}", "line 1"),
            ("(" * 9 + "{{ " + "(" * 5000, "no valid Jinja"),
        ],
    )
    def test_bad_source(self, source: str, message: str):
        with pytest.raises(ModelError, match=message) as caught:
            ChatTemplate(source, bos_token=None, eos_token=None, name="tool_use")
        assert "\n" not in str(caught.value)


PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]


class TestContent:
    def test_parts_are_joined_for_a_template_that_reads_text(self):
        assert template("chatml").render([user(PARTS)]) == template("chatml").render([user("one\ntwo")])

    def test_parts_stay_parts_for_a_template_that_reads_them(self):
        assert template("parts").render([user(PARTS)]) == "<user>one|two|<assistant>"

    def test_text_becomes_a_part_for_a_template_that_reads_nothing_else(self):
        assert template("parts").render([user("one")]) == "<user>one|<assistant>"

    def test_each_role_is_looked_at_by_itself(self):
        source = (
            "{% for m in messages %}{% if m.role == 'user' %}"
            "{% for p in m.content %}{{ p.text }};{% endfor %}"
            "{% else %}{{ m.content }};{% endif %}{% endfor %}"
        )
        assert inline(source).render([system(PARTS), user("x")]) == "one\ntwo;x;"

    @pytest.mark.parametrize("dump", ["m.content", "m.content | tojson", "m.content | string"])
    def test_a_list_that_is_merely_printed_does_not_count_as_read(self, dump: str):
        prompt = inline(f"{{% for m in messages %}}{{{{ {dump} }}}}{{% endfor %}}").render([user(PARTS)])
        assert prompt in ("one\ntwo", '"one\\ntwo"')

    def test_a_refusal_is_text(self):
        parts = [{"type": "refusal", "refusal": "No."}]
        assert "\nNo.<|im_end|>" in template("chatml").render([user("Hi"), assistant(parts), user("Why?")])

    def test_developer_is_system_where_the_template_knows_none(self):
        message = {"role": "developer", "content": "Be brief."}
        assert template("chatml").render([message]) == template("chatml").render([system("Be brief.")])
        assert template("parts").render([message]) == "<dev>Be brief.|<assistant>"

    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
    def test_reasoning_goes_by_all_its_names(self, field: str):
        source = "{% for m in messages %}{{ m.reasoning_content }}{{ m.thinking }}{{ m.reasoning }}{% endfor %}"
        assert inline(source).render([user("Hi"), assistant("x", **{field: "R", "tool_calls": None})]) == "RRR"

    def test_messages_are_not_changed(self):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        messages = [user(PARTS), assistant(None, tool_calls=[call], reasoning="r")]
        before = repr(messages)
        template("qwen3").render(messages)
        assert repr(messages) == before


class TestToolCallForms:
    """Templates disagree on how the arguments of a call and an absent content look."""

    def prompt(self, body: str, arguments: Any = '{"a": 1}') -> str:
        source = "{% for m in messages %}{% for c in m.tool_calls or [] %}@{% endfor %}{% endfor %}"
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return inline(source.replace("@", body)).render([user("Hi"), assistant(None, tool_calls=[call])])

    def test_arguments_are_an_object(self):
        assert self.prompt("{{ c.function.arguments.a }}") == "1"

    def test_arguments_are_text_where_an_object_fails(self):
        assert self.prompt("{{ 'args: ' + c.function.arguments }}") == 'args: {"a": 1}'

    def test_an_object_in_the_request_becomes_text_where_an_object_fails(self):
        assert self.prompt("{{ 'args: ' + c.function.arguments }}", {"a": "ü"}) == 'args: {"a": "ü"}'

    def test_arguments_that_are_no_json_stay_text(self):
        assert self.prompt("{{ c.function.arguments }}", '{"a": ') == '{"a": '

    @pytest.mark.parametrize(
        ("body", "prompt"),
        [
            ("{{ m.content is defined }}", "False"),
            ("{{ m.content is none }}{{ 'a' + m.content if m.content is not none }}", "True"),
            ("{{ 'a' + m.content + 'b' }}", "ab"),
            ("{{ m.content | tojson }}", '""'),
        ],
    )
    def test_null_content_takes_the_form_the_template_can_use(self, body: str, prompt: str):
        assert self.prompt(body.replace("m.", "messages[1].")) == prompt


class TestContinue:
    def render(self, name: str, text: Any) -> str:
        messages = [user("Hi"), assistant(text)]
        return template(name).render(messages, add_generation_prompt=False, continue_final_message=True)

    def test_the_last_message_is_left_open(self):
        opening = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        assert self.render("chatml", "Once upon ") == opening + "Once upon "
        assert self.render("chatml", [{"type": "text", "text": "Once"}]) == opening + "Once"
        assert self.render("chatml", "<|im_end|>") == opening + "<|im_end|>"

    def test_a_template_that_trims_leaves_no_space(self):
        assert self.render("gemma", "Once upon ").endswith("<start_of_turn>model\nOnce upon")

    def test_parts(self):
        assert self.render("parts", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]).endswith("a|b")

    @pytest.mark.parametrize(
        ("messages", "add_generation_prompt", "message"),
        [
            ([user("Hi"), assistant("Once")], True, "set add_generation_prompt to false"),
            ([user("Hi"), assistant("")], False, "no text to continue"),
            ([user("Hi"), assistant(None)], False, "no text to continue"),
            ([user("Hi"), assistant("a</think>b<think>c</think>")], False, "leaves out text"),
        ],
    )
    def test_what_cannot_be_continued(self, messages: Messages, add_generation_prompt: bool, message: str):
        with pytest.raises(RequestError, match=message) as caught:
            template("r1").render(messages, add_generation_prompt=add_generation_prompt, continue_final_message=True)
        assert caught.value.param == "continue_final_message"


class TestRefusals:
    @pytest.mark.parametrize(
        ("messages", "param", "message"),
        [
            ([], "messages", "at least one message"),
            ("Hi", "messages", "must be a list"),
            (["Hi"], "messages[0]", r"messages\[0\] must be an object, not str"),
            ([{"content": "Hi"}], "messages[0].role", "must be a text, not None"),
            ([user("Hi"), user(3)], "messages[1].content", "must be a text or a list of parts, not int"),
            ([user(["Hi"])], "messages[0].content[0]", "must be an object, not str"),
            (
                [user([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}])],
                "messages[0].content[1]",
                r"messages\[0\]\.content\[1\] is of type 'image_url': this model reads text only",
            ),
            ([user([{"type": "text"}])], "messages[0].content[0]", "text must be a text, not NoneType"),
            ([user("a\ud800b")], "messages", "half of a surrogate pair"),
        ],
    )
    def test_shape(self, messages: Any, param: str, message: str):
        with pytest.raises(RequestError, match=message) as caught:
            template("chatml").render(messages)
        assert caught.value.param == param

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("{{ raise_exception('Only\n one  user') }}", "refuses these messages: Only one user$"),
            ("{{ messages[0].nothing.more }}", "fails on these messages: .* has no attribute 'nothing'"),
            ("{{ 'a' + 1 }}", "fails on these messages: can only concatenate"),
            ("{{ 1 // 0 }}", "fails on these messages: .*zero"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails on these messages: maximum recursion"),
            ("{{ messages.append(1) }}", "unsafe"),
            ("{{ ''.__class__.__mro__ }}", "unsafe"),
            ("{{ namespace(__class__=1) }}", "takes no attribute '__class__'"),
            ("{{ strftime_now(3) }}", "fails on these messages"),
            ("{{ lipsum() }}", "'lipsum' is undefined"),
            ("{% include 'secret' %}", "fails on these messages: no loader"),
        ],
    )
    def test_template(self, source: str, message: str):
        with pytest.raises(RequestError, match=message) as caught:
            inline(source).render([user("Hi")])
        assert caught.value.param == "messages"
        assert "\n" not in str(caught.value)

    def test_the_gemma_template_speaks_for_itself(self):
        with pytest.raises(RequestError, match="refuses these messages: System role not supported"):
            template("gemma").render(CHAT)

    def test_deep_nesting(self):
        deep: Any = "x"
        for _ in range(3000):
            deep = [deep]
        call = {"type": "function", "function": {"name": "f", "arguments": deep}}
        with pytest.raises(RequestError, match=r"recursion|nested"):
            template("qwen3").render([user("Hi"), assistant(None, tool_calls=[call])])


TEXT = st.text(st.characters(), max_size=12)  # half surrogate pairs too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PART = st.one_of(st.fixed_dictionaries({"type": st.sampled_from(["text", "refusal", "image_url"]), "text": TEXT}), JSON)
CALL = st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": JSON, "arguments": JSON})})
ROLE = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {"role": ROLE | JSON, "content": st.one_of(TEXT, st.none(), st.lists(PART, max_size=3), JSON)},
        optional={"tool_calls": st.lists(CALL | JSON, max_size=2) | JSON, "reasoning_content": JSON},
    ),
    JSON,
)
NAMES = st.sampled_from([*BUILTIN_NAMES, *OWN_NAMES])
TEMPLATES = {name: template(name) for name in [*BUILTIN_NAMES, *OWN_NAMES]}


def outcome(name: str, messages: Any, **options: Any) -> tuple[str, RequestError | None]:
    try:
        return TEMPLATES[name].render(messages, **options), None
    except RequestError as error:
        return "", error


class TestProperties:
    @settings(max_examples=400, deadline=None)
    @given(NAMES, st.lists(MESSAGE, max_size=4) | JSON, st.booleans(), st.booleans(), JSON)
    def test_nothing_but_request_errors_comes_out(
        self, name: str, messages: Any, opens: bool, continues: bool, tools: Any
    ):
        settings = {"add_generation_prompt": opens, "continue_final_message": continues, "tools": tools}
        prompt, error = outcome(name, messages, **settings)
        if error is None:
            assert prompt.encode("utf-8").decode("utf-8") == prompt
        else:
            assert error.param
            assert len(str(error).splitlines()) == 1

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(["chatml", "kodalite", "memphis", "zephyr", "phi3"]), st.text(min_size=1))
    def test_a_continued_message_ends_as_it_was_written(self, name: str, text: str):
        messages = [user("Hi"), assistant(text)]
        prompt, error = outcome(name, messages, add_generation_prompt=False, continue_final_message=True)
        assert prompt.endswith(text)
        assert error is None

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text(), min_size=1, max_size=5))
    def test_texts_come_through_unchanged(self, texts: list[str]):
        roles = ["user", "assistant"]
        messages = [{"role": roles[idx % 2], "content": text} for idx, text in enumerate(texts)]
        turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
        assert TEMPLATES["chatml"].render(messages, add_generation_prompt=False) == "".join(turns)
