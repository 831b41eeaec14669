"""The page as a user sees it, in one browser tab."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

ARTIFACTS = Path(os.environ.get("TAPSTER_ARTIFACTS", Path(__file__).parents[2] / "artifacts"))

_NEW_STATUS = "#status [aria-busy]:not([data-is-old])"


class ChatPage:
    """What a user can do there and see."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("console", lambda message: self._see(message.type == "error", message.text))
        page.on("pageerror", lambda error: self._see(True, str(error)))
        page.on("request", lambda request: self._see(not _is_local(request.url, url), f"asks {request.url}"))
        page.goto(url)
        page.wait_for_selector("#message textarea")

    def set(self, **fields: str) -> None:
        """Fill in fields beside the chat."""
        for name, value in fields.items():
            self.page.locator(f"#{name}").locator("input, textarea").fill(value)

    def send(self, text: str) -> None:
        """Type a message and press Enter."""
        self._mark_status_as_old()
        self.page.fill("#message textarea", text)
        self.page.press("#message textarea", "Enter")

    def press(self, label: str) -> None:
        """Press a button of the chat; the last one, of several."""
        self._mark_status_as_old()
        self.page.locator(f"#chat button[aria-label='{label}']").last.click()

    def stop(self) -> None:
        """Press the stop button."""
        self.page.click("#message .stop-button")

    def wait_for_text(self, num_characters: int = 1) -> None:
        """Wait until so much of the answer is there."""
        self.page.wait_for_function(
            "number => (document.querySelector('#chat .bot')?.innerText ?? '').length >= number", arg=num_characters
        )

    def wait_for_begin(self, timeout_s: float = 60.0) -> None:
        """Wait until an answer has begun since the last message or button.

        Its status line tells that and stays, while the stop button of a short answer may come and go unseen.
        """
        try:
            self.page.wait_for_selector(_NEW_STATUS, state="attached", timeout=1000 * timeout_s)
        except Exception as error:
            shown = f"status {self.status()!r}, box {self.box()!r}, messages {self.questions()}, {self.problems}"
            raise AssertionError(f"no answer began: {shown}") from error

    def wait_for_end(self) -> str:
        """The last answer, when it is over; the page may draw the last piece of it after the button, and the button
        may still be there when an answer has begun."""
        self.page.wait_for_selector(f"{_NEW_STATUS}[aria-busy=false]", state="attached")
        self.page.wait_for_selector("#message .submit-button")
        before, now = None, self.answers()
        while now != before:
            self.page.wait_for_timeout(250)
            before, now = now, self.answers()
        return now[-1] if now else ""

    def ask(self, text: str) -> str:
        """Send a message; the whole answer."""
        self.send(text)
        try:
            self.wait_for_begin(timeout_s=15.0)
        except AssertionError:
            if self.box() != text:
                raise
            self.send(text)  # a page that has only just been drawn may not hear the key yet
            self.wait_for_begin()
        return self.wait_for_end()

    def answers(self) -> list[str]:
        """The answers that are shown."""
        return [" ".join(text.split()) for text in self.page.locator("#chat .bot .message-content").all_inner_texts()]

    def questions(self) -> list[str]:
        """The user's messages that are shown."""
        return self.page.locator("#chat .user .message-content").all_inner_texts()

    def box(self) -> str:
        """What stands in the message box."""
        return self.page.input_value("#message textarea")

    def status(self) -> str:
        """The line under the chat."""
        return self.page.inner_text("#status")

    def keep_screenshot(self, name: str) -> None:
        """Save what is seen among the artefacts."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")

    def _mark_status_as_old(self) -> None:
        """Tell the present status line from the next one, which is a new element."""
        mark = "lines => lines.map(line => line.dataset.isOld = true)"
        self.page.eval_on_selector_all("#status .tapster-status", mark)

    def _see(self, is_problem: bool, text: str) -> None:
        if is_problem:
            self.problems.append(text)


OpenTab = Callable[..., ChatPage]


def _is_local(address: str, url: str) -> bool:
    return address.startswith((f"{url}/", "data:", "blob:"))
