"""The texts of one request: token ids made in threads, runs of the model in turn, values in the order of the texts."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from loading.arrays import Arrays
from loading.errors import InputError
from loading.interface import Tensor

from serving.bounds import MOST_TEXTS
from serving.errors import RefusedError, bad
from serving.memory import Hold, Memory
from serving.scheduler import Job
from serving.threads import in_thread

if TYPE_CHECKING:
    from processing.answers import Processing
    from processing.texts import Row

    from serving.models import Served

MOST_CHARACTERS = 2**18  # of one text
MOST_VALUES = 2**23  # of the answer to one request
WINDOW = 64  # texts whose token ids are held at once, or those of two runs
MOST_WINDOW = 512
TOKEN_BYTES = 256  # of memory for each character of a text, while it becomes token ids


@dataclass(frozen=True)
class Asked:
    """Texts, pairs or token ids to answer; `names` are outputs of the model, `prompt` is one of its prompts."""

    entries: Sequence[object]
    names: Sequence[str]
    prompt: str | None = None


@dataclass(frozen=True)
class Answered:
    """For each text the values of every output, without padding, and the tokens of all texts."""

    values: list[Arrays]
    tokens: int


@dataclass(frozen=True)
class _Window:
    """Some texts as rows, and the inputs of the runs that answer them, each with the places of its rows."""

    rows: list[Row]
    runs: list[tuple[list[int], Arrays]]


class TextModel:
    """Makes inputs of texts for one model. Belongs to one event loop; at most `threads` make token ids at once."""

    def __init__(self, processing: Processing, model: Any, threads: int) -> None:
        self.processing, self._model = processing, model
        self._turns = asyncio.Semaphore(threads)
        shape = next(tensor.shape for tensor in model.inputs if tensor.name == "input_ids")
        self._rows, self._width = shape
        self._per_token = {tensor.name for tensor in self.outputs() if self.is_per_token(tensor)}
        self.window = min(max(WINDOW, 2 * processing.texts.most_rows), MOST_WINDOW)

    def outputs(self) -> list[Tensor]:
        """The outputs that have something for each text."""
        return [tensor for tensor in self._model.outputs if tensor.shape and tensor.shape[0] == self._rows]

    def is_per_token(self, tensor: Tensor) -> bool:
        """Whether an output has something for each token of a text."""
        return len(tensor.shape) > 1 and tensor.shape[1] == self._width

    def of_row(self, outputs: Arrays, index: int, row: Row) -> Arrays:
        """What the outputs of a run have for one of its rows, copied, without the places of padding."""
        found = Arrays()
        for name, array in outputs.items():
            values = array[index]
            if name in self._per_token:
                values = values[self.processing.texts.positions(row, len(values))]
            found[name] = np.array(values)
        return found

    async def prepared(self, entries: Sequence[object], prompt: str | None) -> _Window:
        """Token ids and inputs, made by a thread.

        Raises:
            RefusedError: 400, a text cannot be encoded.
        """
        left = threading.Event()

        def work() -> _Window:
            rows: list[Row] = []
            for entry in entries:
                if left.is_set():
                    break  # nobody waits for it
                rows.append(self.processing.row(entry, prompt))
            runs = []
            for places in self.processing.runs(rows) if len(rows) == len(entries) else ():
                inputs = self.processing.texts.inputs([rows[place] for place in places])
                self._model.check(inputs)
                runs.append((places, inputs))
            return _Window(rows, runs)

        await self._turns.acquire()
        made = asyncio.ensure_future(in_thread(work))
        made.add_done_callback(self._ended)
        try:
            return await asyncio.shield(made)
        except InputError as error:
            raise RefusedError(400, "input", str(error)) from error
        finally:
            left.set()

    def _ended(self, made: asyncio.Future[_Window]) -> None:
        self._turns.release()
        if not made.cancelled():
            made.exception()  # it is looked at, also where nobody waits any more


async def answer(served: Served, memory: Memory, held: Hold, asked: Asked) -> Answered:
    """Answer the texts of a request, which takes one place in the queue of the model from now on.

    Raises:
        RefusedError: 400, a text cannot be answered; 413, there are too many, or the answer is too large; 429, the
            queue is full; 503, there is no memory.
        InputError: The model refuses the values.
        NumericsError: An output holds NaN.
    """
    texts = served.texts
    if texts is None:
        raise bad(f"{served.model.name} takes tensors and no texts")
    longest, processing = check_size(asked.entries), texts.processing
    values: list[Arrays] = []
    tokens, room = 0, _Room(memory, held)
    with served.scheduler.place():
        for start in range(0, len(asked.entries), texts.window):
            entries = asked.entries[start : start + texts.window]
            # One text at a time becomes tokens of any number; of each, as many are kept as the model takes.
            size = TOKEN_BYTES * (longest + len(entries) * min(longest, processing.texts.most_tokens))
            memory.take(held, size)
            try:
                window = await texts.prepared(entries, asked.prompt)
            finally:
                memory.give_back(held, size)
            tokens += sum(len(row.ids) for row in window.rows)
            found = [Arrays() for _ in entries]
            await _Runs(served, texts, window, asked.names, room, found).all()
            values += found
    return Answered(values, tokens)


class _Room:
    """The memory that the values of an answer take."""

    def __init__(self, memory: Memory, held: Hold) -> None:
        self._memory, self._held, self._values = memory, held, 0

    def take(self, values: Arrays) -> None:
        """Count the values of one more text; raises RefusedError where they are too many, or there is no memory."""
        self._values += sum(array.size for array in values.values())
        if self._values > MOST_VALUES:
            raise RefusedError(413, "too-large", f"the answer has more than {MOST_VALUES} values; send fewer texts")
        self._memory.take(self._held, sum(array.nbytes for array in values.values()))


class _Runs:
    """The runs of a window, as many at once as the model has threads."""

    def __init__(
        self,
        served: Served,
        texts: TextModel,
        window: _Window,
        names: Sequence[str],
        room: _Room,
        found: list[Arrays],
    ) -> None:
        self._served, self._texts, self._window, self._names = served, texts, window, list(names)
        self._room, self._found = room, found
        self._flying: dict[asyncio.Future[Arrays], tuple[Job, list[int]]] = {}

    async def all(self) -> None:
        """Run them all; what has not ended when one fails, or when nobody waits any more, is ended."""
        waiting = deque(self._window.runs)
        scheduler = self._served.scheduler
        try:
            while waiting or self._flying:
                while waiting and len(self._flying) < scheduler.workers:
                    places, inputs = waiting.popleft()
                    job = scheduler.submit(inputs, self._names, placed=True)
                    self._flying[job.answer] = job, places
                done, _ = await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    self._take(future)
        finally:
            for future, (job, _) in self._flying.items():
                future.cancel()
                scheduler.abandon(job)

    def _take(self, future: asyncio.Future[Arrays]) -> None:
        _, places = self._flying.pop(future)
        outputs = future.result()
        for index, place in enumerate(places):
            self._found[place] = self._texts.of_row(outputs, index, self._window.rows[place])
            self._room.take(self._found[place])


def check_size(entries: Sequence[object]) -> int:
    """The most characters of an entry.

    Raises:
        RefusedError: 400, there are no texts; 413, too many, or one that is too long.
    """
    if not entries:
        raise bad("there is no text; send at least one")
    if len(entries) > MOST_TEXTS:
        raise RefusedError(413, "too-large", f"there are {len(entries)} texts, at most {MOST_TEXTS} are taken at once")
    longest = max(map(characters, entries))
    if longest > MOST_CHARACTERS:
        raise RefusedError(
            413, "too-large", f"a text has {longest} characters, at most {MOST_CHARACTERS} are taken; send it in parts"
        )
    return longest


def characters(entry: object) -> int:
    """The characters of a text, of both texts of a pair, or the number of token ids."""
    if isinstance(entry, dict):
        return sum(len(part) for part in entry.values() if isinstance(part, str))
    return len(entry) if isinstance(entry, str | tuple) else 0
