"""Which form of content a chat template reads: found out by trying.

The syntax tree does not tell. Templates reach the parts of a content through loops, macros, filters and tests
such as ``is string``, in too many ways and often for one role only. So a probe is rendered in either form and
looked for in the prompt. A list that is merely printed shows its keys around the probe, and does not count.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .messages import Message

Render = Callable[..., str]

_PROBE = "Kxq7ProbeVz2"
_PRINTED_LIST = ("'text': '", '"text": "', '"text":"')
_SECONDS = 0.5


def reads_content(render: Render, tokens: Mapping[str, str], role: str) -> tuple[bool, bool]:
    """Whether a text, and whether a list of text parts, shows in the prompt as content of this role."""
    base = {**tokens, "add_generation_prompt": False, "tools": None, "documents": None}
    as_text, as_parts = _PROBE, [{"type": "text", "text": _PROBE}]
    return _shows(render, base, role, as_text), _shows(render, base, role, as_parts)


def _shows(render: Render, base: Mapping[str, Any], role: str, content: Any) -> bool:
    for messages in _conversations(role, content):
        try:
            prompt = render({**base, "messages": messages}, _SECONDS)
        except Exception:  # noqa: BLE001  whatever the template raises, it does not read this
            continue
        head, probe, _ = prompt.partition(_PROBE)
        if probe and not head.endswith(_PRINTED_LIST):
            return True
    return False


def _conversations(role: str, content: Any) -> Iterator[list[Message]]:
    """Conversations around a message of this role, since templates ask for what comes before or after it."""
    probe: Message = {"role": role, "content": content}
    call = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": {}}}
    caller: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
    for filler in ("x", [{"type": "text", "text": "x"}]):
        user: Message = {"role": "user", "content": filler}
        if role == "system":
            yield [probe, user]
        elif role == "assistant":
            yield [user, probe]
        elif role == "tool":
            yield [user, caller, {**probe, "tool_call_id": "call00001", "name": "f"}]
        else:
            yield [probe]
