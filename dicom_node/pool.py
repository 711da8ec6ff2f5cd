"""Many tasks over a few processes: answers in the order of the tasks, a bounded number under way.

    tasks -> ahead (pulled, not given yet) -> under way, one a process -> answered -> handed out in order

Processes are spawned as tasks ask for them, load what they need once, and hear of nothing but their pipe. One
that dies costs nobody else anything: its task is tried once more, with no other beside it, and then given up.
One of whose task a step takes longer than it may is ended, and the task given up: a decoder that hangs hangs
again. Steps are the stages that are measured (`measuring`), such as the work on each frame.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, TypeVar

from blessmark.errors import WatermarkError
from dicom_node.errors import NodeError
from dicom_node.measuring import measured

Task = TypeVar("Task")
Answer = TypeVar("Answer")

#: answers that may wait for an earlier one, for each process
_WAITING = 16
#: a process is one core's: libraries that start threads for every core would only be in each other's way, and
#: an arena of the allocator for every thread keeps memory that nobody uses
_ENVIRONMENT: Mapping[str, str] = {
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
#: a task that takes longer is worth another process for those behind it
_LONG_S = 1.0
#: a process that writes a file takes it back before it ends; one that hangs is not waited for
_LAST_WORDS_S = 2.0
_READY, _FAILED, _DONE, _ON = "ready", "failed", "done", "on"
#: how often a process tells at most that its task goes on, seconds
_TOLD_S = 5.0


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Pool(Generic[Task, Answer]):
    """Processes that answer tasks; a context manager, which ends them at once when it is left.

    Parameters
    ----------
    prepare : picklable; called once in each process, gives what answers a task there. A NodeError or
        WatermarkError that it raises is raised here as a NodeError
    lost : the answer to a task that ended two processes, and is given the exit code of the second; or to one
        that took too long, and is given None
    processes : most processes, at least 1
    limit_s : how long a step of a task may take, seconds
    """

    def __init__(
        self,
        prepare: Callable[[], Callable[[Task], Answer]],
        lost: Callable[[Task, int | None], Answer],
        processes: int,
        limit_s: Callable[[Task], float] = lambda _task: math.inf,
    ) -> None:
        self._prepare, self._lost, self._most = prepare, lost, max(1, processes)
        self._limit_s = limit_s
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> Pool[Task, Answer]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers, self._workers = [each for each in self._workers if each.process.pid is not None], []
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.pipe.close()
            worker.process.join(_LAST_WORDS_S)
            worker.process.kill()
            worker.process.join()

    def answers(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        """Each task with its answer, in order; tasks are pulled a few at a time, as processes want them.

        Raises
        ------
        NodeError : the processes cannot be started
        """
        run = _Run[Task, Answer](enumerate(tasks))
        while True:
            self._feed(run)
            if run.next_out in run.answered:
                yield run.hand_out()
            elif run.under_way or run.suspects or run.ahead:
                self._listen(run)
            else:
                return

    def _feed(self, run: _Run[Task, Answer]) -> None:
        """Give tasks to idle processes, and start processes for tasks that find none."""
        run.look_ahead(self._most)
        if run.suspects and not run.under_way:
            self._start_to(1)
            self._give(run, run.suspects)
        if run.suspects or run.under_way & run.tried or len(run.answered) >= _WAITING * self._most:
            return
        while run.ahead and self._give(run, run.ahead):
            pass
        self._start_to(min(self._most, self._worth_starting(run), len(run.under_way) + len(run.ahead)))

    def _worth_starting(self, run: _Run[Task, Answer]) -> int:
        """How many processes the tasks deserve: loading takes as long as a dozen small tasks.

        One at first; twice as many whenever all are at work and tasks queue up, or one takes long.
        """
        if not self._workers or not all(worker.ready for worker in self._workers):
            return max(1, len(self._workers))
        return len(self._workers) * (2 if len(run.ahead) == self._most or run.slow else 1)

    def _give(self, run: _Run[Task, Answer], queue: deque[int]) -> bool:
        """Hand the first of a queue to an idle process; whether there is one."""
        idle = next((each for each in self._workers if each.ready and each.place is None), None)
        if idle is None:
            return False
        place = queue.popleft()
        idle.place, idle.left_s = place, self._limit_s(run.tasks[place])
        run.under_way.add(place)
        with contextlib.suppress(OSError):  # it has died: listening to it will tell
            idle.pipe.send(run.tasks[place])
        return True

    def _listen(self, run: _Run[Task, Answer]) -> None:
        """Wait for a word of a process, or for its end; then end those that are late.

        What counts is how long they were listened to: all of a command may be stopped for a night (Ctrl-Z).
        """
        began = time.monotonic()
        spoke = wait([worker.pipe for worker in self._workers], _LONG_S)
        listened_s = min(2 * _LONG_S, time.monotonic() - began)
        run.slow = not spoke
        for worker in [each for each in self._workers if each.pipe in spoke]:
            try:
                kind, content = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker, run)
                continue
            if kind == _FAILED:
                raise NodeError(content)
            worker.ready = True
            if worker.place is not None and kind == _ON:
                worker.left_s = self._limit_s(run.tasks[worker.place])
            if worker.place is not None and kind == _DONE:
                run.note(worker.place, content)
                worker.place = None
        for worker in [each for each in self._workers if each.place is not None]:
            worker.left_s -= listened_s
            if worker.left_s <= 0:
                self._end(worker, run)

    def _end(self, worker: _Worker, run: _Run[Task, Answer]) -> None:
        """Give up a task that takes too long, and its process."""
        assert worker.place is not None
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join(_LAST_WORDS_S)  # who hangs in the kernel, on a file server that is gone, stays
        worker.pipe.close()
        run.note(worker.place, self._lost(run.tasks[worker.place], None))

    def _bury(self, worker: _Worker, run: _Run[Task, Answer]) -> None:
        """A process is gone: its task is tried once more, or given up; raises NodeError if it never began."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        if not worker.ready:
            raise NodeError(
                f"a process that was to do the work ended as it started (exit code {code}); "
                "see whether there is memory left, or try fewer jobs"
            )
        place = worker.place
        if place is None:
            return
        if place in run.tried:
            run.note(place, self._lost(run.tasks[place], code))
            return
        run.under_way.discard(place)
        run.tried.add(place)
        run.suspects.append(place)

    def _start_to(self, count: int) -> None:
        while len(self._workers) < count:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs, self._prepare), daemon=True)
            # known before it lives: where other threads run, a signal gets past the mask
            self._workers.append(_Worker(process, ours))
            with _as_a_child_wants_it():
                process.start()
            theirs.close()


@dataclass(slots=True)
class _Worker:
    """A process, the place of the task that it works on, and how much longer a step of that may take."""

    process: BaseProcess
    pipe: Connection
    ready: bool = False
    place: int | None = None
    left_s: float = math.inf


@dataclass(slots=True)
class _Run(Generic[Task, Answer]):
    """How far the tasks of one call have come; a place is a task's number in their order."""

    coming: Iterator[tuple[int, Task]]
    tasks: dict[int, Task] = field(default_factory=dict)
    ahead: deque[int] = field(default_factory=deque)
    suspects: deque[int] = field(default_factory=deque)
    tried: set[int] = field(default_factory=set)
    under_way: set[int] = field(default_factory=set)
    answered: dict[int, Answer] = field(default_factory=dict)
    next_out: int = 0
    slow: bool = False

    def look_ahead(self, count: int) -> None:
        """Pull tasks until `count` of them wait."""
        while len(self.ahead) < count and (following := next(self.coming, None)) is not None:
            place, task = following
            self.tasks[place] = task
            self.ahead.append(place)

    def note(self, place: int, answer: Answer) -> None:
        """The answer to the task at `place`."""
        self.under_way.discard(place)
        self.answered[place] = answer

    def hand_out(self) -> tuple[Task, Answer]:
        """The next task in order, and its answer."""
        place = self.next_out
        self.next_out += 1
        self.tried.discard(place)
        return self.tasks.pop(place), self.answered.pop(place)


@contextlib.contextmanager
def _as_a_child_wants_it() -> Iterator[None]:
    """A child takes environment and blocked signals over from its first moment.

    Ctrl-C in a terminal reaches every process of the command; only the first may answer it. Nor may it be
    interrupted between starting a child and knowing it: nobody would end that child.
    """
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(pipe: Connection, prepare: Callable[[], Callable[[Task], Answer]]) -> None:
    """A process's whole life: prepare, answer, end when nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # until it is ready it has nothing to take back, and an import that is interrupted may print a traceback
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")  # those of pydicom quote values, which may be a patient's
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            answer = prepare()
        except (NodeError, WatermarkError) as error:
            pipe.send((_FAILED, str(error)))
            return
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        pipe.send((_READY, None))
        while True:
            task = pipe.recv()
            with measured() as seen:
                seen.step = _telling(pipe)
                pipe.send((_DONE, answer(task)))


def _telling(pipe: Connection) -> Callable[[], None]:
    """Tells now and then, when it is called, that the task goes on."""
    told = time.monotonic()

    def step() -> None:
        nonlocal told
        if time.monotonic() - told >= _TOLD_S:
            told = time.monotonic()
            pipe.send((_ON, None))

    return step
