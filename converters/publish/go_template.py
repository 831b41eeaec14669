"""A chat template in Go's template language, which Ollama reads, where that can say the same.

The Jinja source is not translated. What stands before and after each role's text is found by rendering unmistakable
words; the parts found are put together again, and only if they give what the template gives are they used. Ollama has
no function to trim a text, so white space around a message stays where a template would trim it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import RequestError

_SYSTEM, _USER, _ANSWER, _NEXT = "Zq4systemKd", "Zq4userKd", "Zq4answerKd", "Zq4nextKd"
_CHANGING = ("strftime_now", "date_string")
"""What a template reads to write today's date, which must not be fixed in a file."""

_FOLLOWS_SYSTEM = '(and (eq $i 1) (eq (index $.Messages 0).Role "system"))'


@dataclass(frozen=True, slots=True)
class TemplateParts:
    """``opening`` begins a conversation without a system message, ``prompt`` the answer that is wanted. Roles have
    what stands before and after their text. ``opens_user``: the system message is the beginning of the first user's
    turn, which then has nothing before its text."""

    opening: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    prompt: str
    opens_user: bool = False

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """What the parts give, with the prompt for an answer."""
        around = {"system": self.system or ("", ""), "user": self.user, "assistant": self.assistant}
        has_system = messages[0]["role"] == "system"
        opening = "" if has_system else self.opening
        turns = [around[message["role"]] for message in messages]
        if self.opens_user and has_system and messages[1:] and messages[1]["role"] == "user":
            turns[1] = "", self.user[1]
        texts = (before + message["content"] + after for message, (before, after) in zip(messages, turns, strict=True))
        return opening + "".join(texts) + self.prompt

    def to_go(self) -> str:
        """The Go template. An answer that ends the conversation is left open, to be continued."""
        roles = {"system": self.system, "user": self.user, "assistant": self.assistant}
        cases = [
            f'if eq .Role "{role}" }}}}{self._before(role, around[0])}{{{{ .Content }}}}{_closing(role, around[1])}'
            for role, around in roles.items()
            if around
        ]
        opening = ""
        if self.opening:
            condition = '{{ if and .Messages (ne (index .Messages 0).Role "system") }}'
            opening = f"{condition}{_literal(self.opening)}{{{{ end }}}}"
        return (
            f"{opening}{{{{ range $i, $_ := .Messages }}}}"
            f"{{{{ $last := eq (len (slice $.Messages $i)) 1 }}}}"
            f"{{{{ {'{{ else '.join(cases)}{{{{ end }}}}"
            f'{{{{ if and $last (ne .Role "assistant") }}}}{_literal(self.prompt)}{{{{ end }}}}{{{{ end }}}}'
        )

    def _before(self, role: str, before: str) -> str:
        if role != "user" or not self.opens_user:
            return _literal(before)
        return f"{{{{ if not {_FOLLOWS_SYSTEM} }}}}{_literal(before)}{{{{ end }}}}"


def template_parts(template: ChatTemplate, *, without_bos: str | None = None) -> TemplateParts | None:
    """The parts of a template, or None where it is more than parts. ``without_bos`` is a token at the very beginning
    that the tokenizer adds anyway."""
    if any(name in template.source for name in _CHANGING):
        return None
    try:
        parts = _find(template)
        if parts is None or not all(_agrees(parts, template, chat) for chat in _conversations(parts)):
            return None
    except RequestError:
        return None
    return _without_bos(parts, without_bos) if without_bos else parts


def _find(template: ChatTemplate) -> TemplateParts | None:
    user, answer, following = _message("user", _USER), _message("assistant", _ANSWER), _message("user", _NEXT)
    asked = _plain(template, [user])
    head, _, after_user = asked.partition(_USER)
    _, _, rest = _plain(template, [user, answer, following]).partition(_USER)
    until_answer, _, rest = rest.partition(_ANSWER)
    until_next, found, _ = rest.partition(_NEXT)
    _, _, after_answer = _plain(template, [user, answer]).partition(_ANSWER)
    prompted = template.render([user])
    if not (found and until_answer.startswith(after_user) and prompted.startswith(asked)):
        return None
    if not until_next.startswith(after_answer) or not head.endswith(until_next[len(after_answer) :]):
        return None
    before_user = until_next[len(after_answer) :]
    try:
        system, opens_user = _find_system(template, user, before_user)
    except ValueError:
        return None
    return TemplateParts(
        opening=head[: len(head) - len(before_user)],
        system=system,
        user=(before_user, after_user),
        assistant=(until_answer[len(after_user) :], after_answer),
        prompt=prompted[len(asked) :],
        opens_user=opens_user,
    )


def _find_system(template: ChatTemplate, user: dict[str, str], before_user: str) -> tuple[tuple[str, str] | None, bool]:
    """What stands around a system message (None where the template refuses or ignores it), and whether it opens the
    user's turn. ValueError where it does neither that nor has a turn of its own."""
    try:
        prompt = _plain(template, [_message("system", _SYSTEM), user])
    except RequestError:
        return None, False
    before, is_shown, rest = prompt.partition(_SYSTEM)
    if not is_shown:
        return None, False
    between = rest.partition(_USER)[0]
    if between.endswith(before_user):
        return (before, between[: len(between) - len(before_user)]), False
    if before.endswith(before_user):
        return (before, between), True
    raise ValueError(between)


def _conversations(parts: TemplateParts) -> list[list[dict[str, str]]]:
    """Conversations that the parts have to write as the template does."""
    question, answer = _message("user", "Is 2 + 2 = 4?\nSay why."), _message("assistant", "Yes: count.")
    chats = [[question], [question, answer, _message("user", "Sure?")], [question, answer] * 2 + [question]]
    if parts.system:
        chats += [[_message("system", "Be brief."), *chat] for chat in chats]
    return chats


def _agrees(parts: TemplateParts, template: ChatTemplate, chat: list[dict[str, str]]) -> bool:
    return parts.render(chat) == template.render(chat)


def _without_bos(parts: TemplateParts, bos: str) -> TemplateParts:
    system = (parts.system[0].removeprefix(bos), parts.system[1]) if parts.system else None
    return replace(parts, opening=parts.opening.removeprefix(bos), system=system)


def _plain(template: ChatTemplate, messages: list[dict[str, str]]) -> str:
    return template.render(messages, add_generation_prompt=False)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _closing(role: str, after: str) -> str:
    text = _literal(after)
    return f"{{{{ if not $last }}}}{text}{{{{ end }}}}" if role == "assistant" and text else text


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')
