"""The one process that owns the device and evaluates the networks for all workers.

    workers --images--> waiting --batches--> the device --logits--> workers

Rules that bind here:
1. How many images go through a network together, and whose, shows in no logit.
2. An image waits for others no longer than `networks.batch_wait_ms`.
3. Whoever asked is told, or finds the connection closed; then it helps itself (`batched`). Nothing is kept
   here that could be lost.
4. It ends with its node, as a worker does: it listens at a pipe that closes with it.
5. A batch that takes too long ends the process (`watchdog`), whatever the device's driver does; whoever
   waited finds the connection closed, as at any other death, and the supervisor starts another.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from blessmark.segment.integer import Images, Runtime, load
from blessmark.types import IntArray
from dicom_node import log
from dicom_node.batches import Bounds, Waiting, address_of, choose
from dicom_node.config import Config
from dicom_node.errors import NodeError
from dicom_node.segmenters import Engines, Tell
from dicom_node.shared_arrays import is_ours, receive, send
from dicom_node.watchdog import Watchdog

_LOG = logging.getLogger(__name__)

#: connections that may wait to be taken
_BACKLOG = 64
#: longest that a batch may take, loading the libraries for the first one included, seconds; whoever waits is
#: to see it end, so it is shorter than the patience of workers (`batched`)
LONGEST_BATCH_S = 240.0
#: seconds until the next try when the machine has no room for a connection
_RECOVER_S = 0.5


def listen(address: str) -> socket.socket:
    """The socket where workers connect. Raises NodeError where the name is taken."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise NodeError(
            f"the batcher cannot listen: {error.strerror}; another one runs for this storage folder"
        ) from error
    return listener


@dataclass(slots=True, eq=False)
class _Asked:
    """Images of a worker, and what came of them."""

    waiting: Waiting
    images: Images = field(repr=False)
    done: threading.Event = field(default_factory=threading.Event)
    logits: IntArray | None = field(default=None, repr=False)
    error: str = ""
    #: frames that went through the network with it, and for how many seconds it waited for that
    frames: int = 0
    waited_s: float = 0.0


class Batcher:
    """Evaluates what workers ask for, as many frames together as the bounds allow.

    Parameters
    ----------
    runtime_of : what evaluates the network of an id; KeyError for one that is not here
    bounds : of a batch
    watched : gives what is entered around the evaluation of one
    """

    def __init__(
        self,
        runtime_of: Callable[[str], Runtime],
        bounds: Bounds,
        *,
        watched: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._runtime_of, self._bounds, self._watched = runtime_of, bounds, watched
        self._changed = threading.Condition()
        self._asked: list[_Asked] = []
        self._guests = 0
        self._stopping = False

    def admit(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed, each in a thread of its own."""
        while listener.fileno() >= 0:
            try:
                self._welcome(listener.accept()[0])
            except (OSError, RuntimeError) as error:  # closed, or no descriptor or thread to be had for now
                if listener.fileno() >= 0:
                    log.event(_LOG, "supervisor-fault", level=logging.ERROR, error=error)
                    time.sleep(_RECOVER_S)

    def _welcome(self, guest: socket.socket) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(guest.close)
            if is_ours(guest):
                threading.Thread(target=self._attend, args=(guest,), daemon=True).start()
                undo.pop_all()

    def stop(self) -> None:
        """Let `work` end; who still waits finds the connection closed when the process ends."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def work(self) -> None:
        """Evaluate one batch after the other until told to stop."""
        while (batch := self._next()) is not None:
            self._evaluate(batch)

    def _next(self) -> list[_Asked] | None:
        with self._changed:
            while not self._stopping:
                everybody = len(self._asked) >= self._guests
                waiting = [each.waiting for each in self._asked]
                choice = choose(waiting, self._bounds, time.monotonic(), everybody=everybody)
                if choice.places:
                    batch = [self._asked[place] for place in choice.places]
                    self._asked = [each for each in self._asked if each not in batch]
                    return batch
                self._changed.wait(choice.rest_s)
        return None

    def _evaluate(self, batch: list[_Asked]) -> None:
        began = time.monotonic()
        try:
            images = np.concatenate([each.images for each in batch])
            with self._watched():
                logits = self._runtime_of(batch[0].waiting.network).logits(images)
            ends = np.cumsum([len(each.images) for each in batch])
            for each, own in zip(batch, np.split(logits, ends[:-1]), strict=True):
                each.logits = own
        except Exception as error:  # whoever asked helps itself
            log.event(_LOG, "batch-failed", level=logging.ERROR, error=error, count=len(batch))
            for each in batch:
                each.error = type(error).__name__
        for each in batch:
            each.frames = sum(len(other.images) for other in batch)
            each.waited_s = began - each.waiting.since
            each.done.set()

    def _attend(self, guest: socket.socket) -> None:
        with self._changed:
            self._guests += 1
        try:
            with guest, contextlib.suppress(EOFError, OSError, ValueError, KeyError, TypeError):
                while True:
                    self._answer(guest)
        finally:
            with self._changed:
                self._guests -= 1
                self._changed.notify_all()

    def _answer(self, guest: socket.socket) -> None:
        words, images = receive(guest)
        if images is None or images.ndim != 4 or not len(images):
            raise ValueError("no images")
        waiting = Waiting(str(words["network"]), images.shape[1:], len(images), time.monotonic())
        asked = _Asked(waiting, images)
        with self._changed:
            self._asked.append(asked)
            self._changed.notify_all()
        asked.done.wait()
        if asked.logits is None:
            send(guest, {"error": asked.error})
        else:
            told = {"frames": asked.frames, "waited_s": asked.waited_s}
            send(guest, told, np.ascontiguousarray(asked.logits, "<i4"))


def serve(config: Config, tell: Tell, lifeline: Connection, ready: Callable[[], None]) -> None:
    """The batcher of a node until its lifeline closes; `ready` is called once workers may ask."""
    networks = config.networks
    engines = Engines(networks, tell)
    runtimes: dict[str, Runtime] = {}

    def runtime_of(identity: str) -> Runtime:
        if identity not in runtimes:
            network = load(identity.partition("/")[0])
            if network.id != identity:
                raise KeyError(identity)
            runtimes[identity] = engines.runtime(network)
        return runtimes[identity]

    bounds = Bounds(networks.batch_frames, networks.batch_wait_ms / 1000)
    dog = Watchdog()
    batcher = Batcher(runtime_of, bounds, watched=lambda: dog.over(LONGEST_BATCH_S))
    with listen(address_of(config)) as listener:
        threading.Thread(target=batcher.admit, args=(listener,), name="admit", daemon=True).start()
        threading.Thread(target=_until_closed, args=(lifeline, batcher), name="lifeline", daemon=True).start()
        ready()
        batcher.work()


def _until_closed(lifeline: Connection, batcher: Batcher) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    batcher.stop()
