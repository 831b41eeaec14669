"""A teacher that is a collection of answers: asked once of an OpenAI-compatible server, and kept."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...runtime.errors import TrainingError
from ...runtime.resolve import resolve_model
from .answers import Asking, Question, answer, is_usable, question_of
from .base import Kind, Messages, Reads, Say
from .endpoint import Endpoint, Patience
from .files import claim, claim_source, only_one
from .fingerprint import fingerprint, is_here, vocabulary_size
from .journal import Journal
from .own_server import serve_local
from .progress import Price, Progress
from .taught import COLUMNS, is_document, taught, with_known, without_unknown

if TYPE_CHECKING:
    from datasets import Dataset

    from ..recipe.schema import Teacher as TeacherTable

_API_KEY = "OPENAI_API_KEY"


class TextCache:
    """Answers in ``folder``, of the server at ``endpoint``; of one that is started for ``model`` where that is None.
    ``needs_columns``: what rows cannot do without."""

    kind: ClassVar[Kind] = "text-cache"
    reads: ClassVar[Reads] = "conversations"

    def __init__(
        self,
        table: "TeacherTable",
        folder: Path,
        *,
        needs_columns: Sequence[str] = (),
        say: Say,
        price: Price | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._table = table
        self._needs = [name for name in needs_columns if name in COLUMNS]
        self._say, self._price, self._patience = say, price, patience
        self._source: dict[str, Any] = {}
        """What answers: see ``claim_source``."""
        self._vocab_size: int | None = None
        self._journal = Journal(folder)
        self.folder = folder

    def prepare(self, *parts: Iterable[Messages]) -> None:
        """Ask everything that has no answer yet."""
        if not (self._table.endpoint or self._table.model):  # a cache that was brought along is taken as it is
            self._sum_up(None)
            return
        questions = _different(chain(*parts), self._table.max_rows)
        with only_one(self.folder):
            claim(self.folder, self._declared())
            if healed := self._journal.heal():
                self._say(f"{self.folder}: {healed} unfinished last line(s) removed, which will be asked again")
            known = {record["id"] for record in self._journal.records()}
            missing = [question for question in questions if question.id not in known]
            self._look_at_model(is_needed=bool(missing))
            if missing:
                self._ask(missing, len(questions))
        self._sum_up({question.id for question in questions})

    def rows(self, conversations: "Dataset") -> "Dataset":
        """The conversations with the teacher's last answers, and those of ``taught.COLUMNS`` that all of them have; a
        document, which asks nothing, stays as it is and has none. An answer is left out where a column is not known of
        it that is needed."""
        from datasets import Dataset

        answers = {record["id"]: record for record in self._journal.records() if is_usable(record)}
        rows = [found for row in conversations if (found := taught(row, answers)) is not None]
        num_documents = sum(map(is_document, rows))
        num_asked, num_answered = len(conversations) - num_documents, len(rows) - num_documents
        if not num_answered:
            raise TrainingError(f"{self.folder} has no answer to any of the {num_asked} conversations")
        if lost := num_asked - num_answered:
            self._say(f"{num_answered} of {num_asked} conversations have a whole answer; {lost} are left out")
        known, needed = with_known(self._needs, rows), " or no ".join(self._needs)
        if lost := len(rows) - len(known):
            self._say(f"{lost} of {num_answered} answers are left out, for they have no {needed}")
        if lost == num_answered:
            raise TrainingError(f"each answer in {self.folder} has no {needed}")
        return Dataset.from_list(without_unknown(known))

    def all_rows(self) -> "Dataset":
        """Everything in the cache as conversations: a data set of its own."""
        from datasets import Dataset

        usable = [record for record in self._journal.records() if is_usable(record)]
        ask = [{"messages": [*record["messages"], {"role": "assistant", "content": ""}]} for record in usable]
        if not ask:
            raise TrainingError(f"{self.folder} has no whole answer: is it the folder of a text cache?")
        return self.rows(Dataset.from_list(ask))

    def targets(self, batch: Any, row: Any, position: Any) -> None:
        """It only has text."""

    def states(self, batch: Any) -> None:
        """It only has text."""

    def spans(self, batch: Any, row: Any, position: Any) -> None:
        """It only has text."""

    def identity(self) -> dict[str, Any]:
        return {**self._declared(), **self._source}

    def close(self) -> None:
        """Nothing is open."""

    def _declared(self) -> dict[str, Any]:
        return {"kind": self.kind, **self._asking(self._table.model or "").identity()}

    def _look_at_model(self, *, is_needed: bool) -> None:
        """Where the model is served here: make sure that it is the one that answered before."""
        spec = self._table.model
        if self._table.endpoint or not spec or "://" in spec or not (is_needed or is_here(spec)):
            return
        model = resolve_model(spec)
        self._source = {"sha256": fingerprint(model)}
        self._vocab_size = vocabulary_size(model)
        claim_source(self.folder, self._source)

    def _asking(self, model: str) -> Asking:
        table, more = self._table, self._table.consistency
        samples = {"samples": more.samples, "sample_temperature": more.temperature} if more else {}
        return Asking(model, table.max_tokens, table.temperature, table.top_k, **samples)

    def _ask(self, missing: list[Question], total: int) -> None:
        progress = Progress("teacher", total, total - len(missing), self._say, self._price)
        try:
            with self._address() as url, progress.shown():
                asyncio.run(self._ask_all(url, missing, progress))
        except TrainingError as error:
            kept = sum(1 for _ in self._journal.records())
            raise TrainingError(f"{error}; {kept} answers are kept, and the same command goes on from there") from error

    @contextmanager
    def _address(self) -> Iterator[str]:
        if self._table.endpoint:
            yield self._table.endpoint
            return
        assert self._table.model
        self._say(f"serving the teacher {self._table.model} on this machine")
        with serve_local(self._table.model, options=["--max-waiting", str(4 * self._table.concurrency)]) as url:
            yield url

    async def _ask_all(self, url: str, missing: list[Question], progress: Progress) -> None:
        """Workers ask, one writer keeps what they bring; also what is there when one of them fails."""
        concurrency = self._table.concurrency
        key = os.environ.get(_API_KEY) if self._table.endpoint else None
        records: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        async with Endpoint(url, api_key=key, concurrency=concurrency, patience=self._patience) as endpoint:
            asking = self._asking(await self._model_id(endpoint))
            if self._table.endpoint:
                self._source = {"served_as": asking.model}
                claim_source(self.folder, self._source)
            waiting = iter(missing)

            async def work() -> None:
                for question in waiting:
                    record = await self._answer(endpoint, question, asking)
                    records.put_nowait(record)
                    progress.add(1, record["usage"]["completion_tokens"], record["usage"]["prompt_tokens"])

            async def write() -> None:
                while await self._write_some(records):
                    pass

            writer = asyncio.create_task(write())
            workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(missing)))]
            try:
                await _all_or_first_error([writer, *workers], len(workers))
            finally:
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                records.put_nowait(None)
                await writer

    async def _answer(self, endpoint: Endpoint, question: Question, asking: Asking) -> dict[str, Any]:
        try:
            record = await answer(endpoint, question, asking, self._vocab_size)
            record["teacher"] |= self._source
            return record
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"the teacher at {endpoint.url} answers with something that makes no sense ({error})"
            ) from error

    async def _model_id(self, endpoint: Endpoint) -> str:
        """The name to ask for: the recipe's, or what the server has."""
        if self._table.endpoint and self._table.model:
            return self._table.model
        return str((await endpoint.models())[0]["id"])

    async def _write_some(self, records: "asyncio.Queue[dict[str, Any] | None]") -> bool:
        """Write what is there, in one go; False at the end."""
        some = [await records.get()]
        while not records.empty():
            some.append(records.get_nowait())
        whole = [record for record in some if record is not None]
        if whole:
            await asyncio.to_thread(self._journal.append, whole)
        return None not in some

    def _sum_up(self, asked: set[str] | None) -> None:
        records = [record for record in self._journal.records() if asked is None or record["id"] in asked]
        usable = [record for record in records if is_usable(record)]
        entropies = [record["output_entropy"] for record in usable if record["output_entropy"] is not None]
        cut = sum(record["finish_reason"] == "length" for record in records)
        line = f"{len(usable)} answers in {self.folder}"
        if entropies:
            line += f", mean entropy {sum(entropies) / len(entropies):.3f} nats a token"
        if cut:
            line += f"; {cut} cut off at {self._table.max_tokens} tokens are left out (teacher.max_tokens)"
        if others := len(records) - len(usable) - cut:
            line += f"; {others} empty or too long are left out"
        self._say(line)


def _different(rows: Iterable[Messages], limit: int | None) -> list[Question]:
    """Every question once, in the order in which they come. Of more than ``limit`` those with the smallest hashes: a
    random choice that stays the same when rows come in another order, and only grows when the limit does."""
    questions: dict[str, Question] = {}
    for messages in rows:
        if question := question_of(messages):
            questions.setdefault(question.id, question)
    if not questions:
        raise TrainingError("there is nothing to ask the teacher: no conversation has a user's message to answer")
    chosen = set(sorted(questions)[:limit])
    return [question for key, question in questions.items() if key in chosen]


async def _all_or_first_error(tasks: list["asyncio.Task[None]"], num_workers: int) -> None:
    """Wait for the last ``num_workers`` tasks; raise what any task raises as soon as it does."""
    waiting = set(tasks)
    while any(task in waiting for task in tasks[-num_workers:]):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
