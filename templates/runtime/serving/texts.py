"""The texts of one request: token ids made in threads, runs of the model in turn, values in the order of the texts."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from loading.arrays import Arrays
from loading.errors import InputError
from loading.interface import Tensor
from numpy.typing import NDArray

from serving.errors import RefusedError, bad
from serving.memory import Hold, Memory
from serving.scheduler import Job
from serving.text_sizes import MOST_CHARACTERS, characters, check_size, is_ascii, unfolded
from serving.threads import in_thread

if TYPE_CHECKING:
    from processing.answers import Processing
    from processing.padding import Row

    from serving.models import Served

MOST_VALUES = 2**23  # of the answer to one request
SEVERAL_ROWS = ("span", "zero-shot")  # kinds of answers that may take many rows
WINDOW = 64  # texts whose token ids are held at once, or those of two runs
MOST_WINDOW = 512
TOKEN_BYTES = 256  # of memory for each token of a row
CHARACTER_BYTES = 640  # for each character of a text while it becomes token ids: each may be a word
LARGE = 2**15  # characters of a text beyond which a model makes token ids of one at a time
INLINE_TOKENS_SECONDS = 0.001  # a thread that has to wait for the spinning threads of a run takes that to begin
INLINE = 4096  # characters whose longest form is looked at without a thread
ENTRY = 64  # characters that take as long as what is done once for each text
SLOWER = 0.1  # how fast a slow text is forgotten

R = TypeVar("R")


@dataclass(frozen=True)
class Asked:
    """Texts, pairs or token ids to answer by outputs of the model; `prompt` is one of its prompts.

    `shaped` is whether answers are wanted, as `Model.answer` gives them, or the values of the outputs.
    """

    entries: Sequence[object]
    names: Sequence[str]
    prompt: str | None = None
    shaped: bool = False


@dataclass(frozen=True)
class Answered:
    """For each text its answer, or the values of every output without padding; and the tokens of all texts."""

    values: list[Any]
    tokens: int


@dataclass(frozen=True)
class _Window:
    """Some texts as rows, the inputs of the runs that answer them with the places of their rows, and of each text how
    many rows it has."""

    rows: list[Row]
    counts: list[int]
    runs: list[tuple[list[int], Arrays]]


class TextModel:
    """Makes inputs of texts for one model. Belongs to one event loop; at most `threads` make token ids at once."""

    inputs: tuple[str, ...] = ("text", "text_pair")
    """Names of the inputs that texts are sent in as tensors of bytes."""
    takes = "text"
    example: Any = ""
    """A file in base64, of a model that takes images or sounds; a row of one that takes rows."""

    def __init__(self, processing: Processing, model: Any, threads: int, most_tokens: int | None = None) -> None:
        self.processing, self._model, self._most_tokens = processing, model, most_tokens
        self._turns = asyncio.Semaphore(threads)
        self._large = threading.Lock()
        self._pace = math.inf  # seconds of processor time for each character, at most lately
        self._batch, self._width = self._axes()
        self._per_token = {tensor.name for tensor in self.outputs() if self.is_per_token(tensor)}
        self.window = self._window()

    def _axes(self) -> tuple[object, object]:
        """The axes of texts and of tokens."""
        batch, width = next(tensor.shape for tensor in self._model.inputs if tensor.name == "input_ids")
        return batch, width

    def _window(self) -> int:
        if self.processing.kind in SEVERAL_ROWS:
            return 1
        return min(max(WINDOW, 2 * self.processing.texts.most_rows), MOST_WINDOW)

    @property
    def join(self) -> Callable[..., Arrays] | None:
        """Makes the inputs of one run of those of several; None where runs are not joined."""
        return self.processing.texts.padding.joined

    def entries(self, given: Sequence[object]) -> Sequence[object]:
        """What a request in JSON stands for, as the processing takes it.

        Raises:
            RefusedError: 400, an entry is a row of values.
        """
        for index, entry in enumerate(given):
            if isinstance(entry, list):
                message = f'inputs[{index}] is neither a string nor an object, such as {{"text", "text_pair"}}'
                raise RefusedError(400, "request", message, parameter="inputs")
        return [self.processing.entry(entry) for entry in given]

    def check_size(self, entries: Sequence[object]) -> int:
        """The size of the largest entry; see the function of this name."""
        return check_size(entries)

    async def memory(self, entries: Sequence[object], longest: int, *, shaped: bool) -> int:
        """The bytes that making inputs of some entries takes.

        Raises:
            RefusedError: 400, an entry cannot be read; 413, a text is too long once it is normalized.
        """
        plain = all(map(is_ascii, entries))
        if not plain:
            look = partial(max, map(unfolded, entries))
            longest = look() if sum(map(characters, entries)) <= INLINE else await self.in_turn(look)
        if longest > MOST_CHARACTERS:
            raise RefusedError(
                413,
                "too-large",
                f"a text has {longest} characters in its longest form, Unicode's NFKD, at most {MOST_CHARACTERS} are "
                "taken; send it in parts",
            )
        # One text at a time becomes tokens of any number; of each row, as many are kept as the model takes.
        rows = sum(map(self.processing.form.most_rows, entries)) if shaped else len(entries)
        made = max(CHARACTER_BYTES * min(longest, LARGE), TOKEN_BYTES * longest)
        return made + TOKEN_BYTES * rows * min(longest, self.processing.texts.limit)

    def kept(self, rows: Sequence[Any]) -> int:
        """The bytes that rows take until their runs have ended."""
        return TOKEN_BYTES * self.tokens(rows)

    def tokens(self, rows: Sequence[Any]) -> int:
        """The tokens of some rows."""
        return sum(len(row.ids) for row in rows)

    @property
    def takes_tensors(self) -> bool:
        """Whether a text is one row, so that the outputs for it can be answered as tensors."""
        return bool(self.processing.form.of_one_row)

    def outputs(self) -> list[Tensor]:
        """The outputs that have something for each text."""
        return [tensor for tensor in self._model.outputs if tensor.shape and tensor.shape[0] == self._batch]

    def is_per_token(self, tensor: Tensor) -> bool:
        """Whether an output has something for each token of a text."""
        return len(tensor.shape) > 1 and tensor.shape[1] == self._width

    def of_row(self, outputs: Arrays, index: int, row: Row) -> Arrays:
        """What the outputs of a run have for one of its rows, copied, without the places of padding."""
        found = Arrays()
        for name, array in outputs.items():
            values = array[index]
            if name in self._per_token:
                values = values[self.processing.texts.padding.positions(row, len(values))]
            found[name] = np.array(values)
        return found

    def values(self, outputs: Arrays, index: int, row: Row, *, shaped: bool) -> Any:
        """What an answer needs of one row of a run, or what the outputs have for it."""
        if shaped:
            return self.processing.form.values(outputs, index, row)
        return self.of_row(outputs, index, row)

    def answers(self, entries: Sequence[Any], window: _Window, values: list[Any]) -> list[Any]:
        """The answers to the texts of a window, by the values of its rows."""
        rows, left = iter(window.rows), iter(values)
        return [
            self.processing.form.answer(entry, list(islice(rows, count)), list(islice(left, count)))
            for entry, count in zip(entries, window.counts, strict=True)
        ]

    async def prepared(self, entries: Sequence[object], prompt: str | None, *, shaped: bool) -> _Window:
        """Token ids and inputs, made by a thread.

        Raises:
            RefusedError: 400, a text cannot be encoded.
        """
        left = threading.Event()

        def work() -> _Window:
            rows: list[Row] = []
            counts: list[int] = []
            for entry in entries:
                with self._large if characters(entry) > LARGE else nullcontext():
                    if left.is_set():
                        break  # nobody waits for it
                    made = self._rows_of(entry, prompt, shaped=shaped)
                rows += made
                counts.append(len(made))
            runs = []
            for places in self._runs(rows) if len(counts) == len(entries) else ():
                inputs = self.processing.inputs([rows[place] for place in places])
                self._model.check(inputs)
                runs.append((places, inputs))
            return _Window(rows, counts, runs)

        size = sum(map(characters, entries)) + ENTRY * len(entries)
        try:
            # A thread takes longer to wake up, and to wake the loop up again, than a short text to become tokens.
            if self._is_quick(size):
                return self._timed(work, size)
            return await self.in_turn(lambda: self._timed(work, size))
        except InputError as error:
            raise RefusedError(400, "input", str(error)) from error
        finally:
            left.set()

    def _runs(self, rows: Sequence[Any]) -> Iterable[list[int]]:
        """Places of rows that share a run."""
        return self.processing.runs(rows, self._most_tokens)

    def _is_quick(self, size: int) -> bool:
        """Whether token ids of so many characters are made before a thread would have begun."""
        return self.processing.kind not in SEVERAL_ROWS and size * self._pace < INLINE_TOKENS_SECONDS

    def _timed(self, work: Callable[[], R], size: int) -> R:
        """What is made of so many characters; the time that it took decides where the next ones are made."""
        began = time.thread_time()  # others that run meanwhile do not count
        made = work()
        pace = (time.thread_time() - began) / size
        known = pace if math.isinf(self._pace) else self._pace
        self._pace = max(pace, known + SLOWER * (pace - known))
        return made

    async def in_turn(self, work: Callable[[], R]) -> R:
        """What a thread makes, once it is its turn; it keeps it until it has ended, whoever still waits."""
        await self._turns.acquire()
        made = asyncio.ensure_future(in_thread(work))
        made.add_done_callback(self._ended)
        return await asyncio.shield(made)

    def _rows_of(self, entry: object, prompt: str | None, *, shaped: bool) -> list[Row]:
        if not shaped:
            return [self.processing.row(entry, prompt)]
        found = self.processing.form.rows(entry, prompt)
        self.processing.form.check(found)
        return found

    def _ended(self, made: asyncio.Future[Any]) -> None:
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
        raise bad(f"{served.model.name} takes tensors alone")
    longest, processing = texts.check_size(asked.entries), texts.processing
    values: list[Any] = []
    tokens, room = 0, _Room(memory, held)
    with served.scheduler.place():
        for start in range(0, len(asked.entries), texts.window):
            entries = asked.entries[start : start + texts.window]
            size = await texts.memory(entries, longest, shaped=asked.shaped)
            memory.take(held, size)
            try:
                window = await texts.prepared(entries, asked.prompt, shaped=asked.shaped)
            finally:
                memory.give_back(held, size)
            tokens += texts.tokens(window.rows)
            size = texts.kept(window.rows)
            memory.take(held, size)
            try:
                found = await _Runs(served, texts, window, asked, room).all()
            finally:
                memory.give_back(held, size)
            if asked.shaped:
                kept = processing.form.of_one_row
                found = await _answers(texts, entries, window, found, room, kept=kept)
            values += found
    return Answered(values, tokens)


async def _answers(
    texts: TextModel, entries: Sequence[Any], window: _Window, values: list[Any], room: _Room, *, kept: bool
) -> list[Any]:
    """The answers of a window; `kept` is whether they are the values themselves."""
    if kept:
        return texts.answers(entries, window, values)
    try:
        return await in_thread(lambda: texts.answers(entries, window, values))
    finally:
        room.give_back(values)


class _Room:
    """The memory that the values of an answer take."""

    def __init__(self, memory: Memory, held: Hold) -> None:
        self._memory, self._held, self._values = memory, held, 0

    def take(self, values: Any) -> None:
        """Count the values of one more row; raises RefusedError where they are too many, or there is no memory."""
        self._values += sum(array.size for array in _arrays(values))
        if self._values > MOST_VALUES:
            raise RefusedError(413, "too-large", f"the answer has more than {MOST_VALUES} values; send fewer texts")
        self._memory.take(self._held, sum(array.nbytes for array in _arrays(values)))

    def give_back(self, rows: Sequence[Any]) -> None:
        """The values of these rows are kept no more."""
        arrays = [array for values in rows for array in _arrays(values)]
        self._values -= sum(array.size for array in arrays)
        self._memory.give_back(self._held, sum(array.nbytes for array in arrays))


class _Runs:
    """The runs of a window, as many at once as the model has threads."""

    def __init__(self, served: Served, texts: TextModel, window: _Window, asked: Asked, room: _Room) -> None:
        self._served, self._texts, self._window, self._asked, self._room = served, texts, window, asked, room
        self._found: list[Any] = [None] * len(window.rows)
        self._flying: dict[asyncio.Future[Arrays], tuple[Job, list[int]]] = {}

    async def all(self) -> list[Any]:
        """Run them all; returns the values of each row.

        A run that has not ended when another fails, or when nobody waits any more, is ended.
        """
        waiting = deque(self._window.runs)
        scheduler = self._served.scheduler
        try:
            while waiting or self._flying:
                while waiting and len(self._flying) < scheduler.workers:
                    places, inputs = waiting.popleft()
                    job = scheduler.submit(inputs, list(self._asked.names), placed=True, join=self._texts.join)
                    self._flying[job.answer] = job, places
                done, _ = await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    self._take(future)
            return self._found
        finally:
            for future, (job, _) in self._flying.items():
                future.cancel()
                scheduler.abandon(job)

    def _take(self, future: asyncio.Future[Arrays]) -> None:
        _, places = self._flying.pop(future)
        outputs = future.result()
        for index, place in enumerate(places):
            row = self._window.rows[place]
            self._found[place] = self._texts.values(outputs, index, row, shaped=self._asked.shaped)
            self._room.take(self._found[place])


def _arrays(values: Any) -> Iterable[NDArray[Any]]:
    """The arrays of the values of a row, which are an array, or several by their names or in a list."""
    if isinstance(values, np.ndarray):
        return (values,)
    if isinstance(values, dict):
        return values.values()
    return chain.from_iterable(map(_arrays, values)) if isinstance(values, list | tuple) else ()
