"""Bells that are heard on every machine of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from celery import Celery

from dicom_node.bells import Bells
from dicom_node.config import Config
from dicom_node.dispatch.application import SEND, WORK, application, send_queue, work_queue
from dicom_node.dispatch.doorbells import Doorbell
from dicom_node.dispatch.hearer import Hearer
from dicom_node.dispatch.ringer import Ring, Ringer

#: seconds after which a message is given back its acknowledgement though the work that it set off goes on;
#: far below the half hour after which RabbitMQ closes the channel of who keeps one
HOLD_S = 60.0


class Carillon(Bells):
    """In place of `Bells`, with the same methods; made once, and taken along to spawned processes.

    Parameters
    ----------
    config : with a cluster and its broker
    """

    def __init__(self, config: Config) -> None:
        assert config.cluster is not None
        self.config, self._cluster = config, config.cluster
        self._lost: Callable[[int], object] = lambda _count: None
        self._open()

    def __getstate__(self) -> Config:
        return self.config

    def __setstate__(self, config: Config) -> None:
        self.__init__(config)  # type: ignore[misc]

    def _open(self) -> None:
        self._work_bell = Doorbell(patient=True)
        self._send_bells = {name: Doorbell(patient=False) for name in self.config.destinations}
        self._ringer = Ringer(lambda: self._application(publishes=True), lambda count: self._lost(count))
        self._hearer: Hearer | None = None

    def tell_lost(self, lost: Callable[[int], object]) -> None:
        """Have `lost` told how many rings the broker did not take."""
        self._lost = lost

    @property
    def connected(self) -> bool | None:
        """Whether the broker took the last message, and who hears from it reaches it."""
        heard = self._hearer is None or self._hearer.connected
        return heard and self._ringer.connected

    def ring_work(self, instance_id: int | None = None) -> None:
        """Wake a worker that rests, on whichever machine."""
        self._ringer.ring(Ring(WORK, work_queue(self._cluster.name), instance_id))

    def ring_sends(self, destination: str, delivery_id: int | None = None) -> None:
        """Wake a lane of a destination that rests, on whichever machine; one not configured has none."""
        if destination in self._send_bells:
            self._ringer.ring(Ring(SEND, send_queue(self._cluster.name, destination), delivery_id))

    def hear_work(self) -> None:
        """Have this process, a worker, woken by `ring_work`, until `close`."""
        self._hear({work_queue(self._cluster.name): self._work_bell}, 1)

    def hear_sends(self) -> None:
        """Have this process, a forwarder, woken by `ring_sends`, until `close`."""
        bells = {send_queue(self._cluster.name, name): bell for name, bell in self._send_bells.items()}
        lanes = sum(each.associations for each in self.config.destinations.values())
        if bells:  # a lane holds one thread at most, so that one is left for every destination
            self._hear(bells, lanes + len(bells))

    def _hear(self, bells: Mapping[str, Doorbell], threads: int) -> None:
        assert self._hearer is None, "a process either works or sends"
        self._hearer = Hearer(
            lambda: self._application(*bells), lambda name: bells[name].ring(HOLD_S), threads
        )
        self._hearer.start()

    def rest_work(self, seconds: float) -> None:
        """Wait until somebody rings for work, at most `seconds`."""
        self._work_bell.rest(seconds)

    def rest_sends(self, destination: str, seconds: float) -> bool:
        """Wait until somebody rings for a destination, at most `seconds`; he may have done so elsewhere."""
        self._send_bells[destination].rest(seconds)
        return True

    def rung_sends(self, destination: str) -> bool:  # noqa: ARG002 - a ring may have gone to another machine
        """Whether there may be something to send; whoever asks the ledger knows."""
        return True

    def rouse_work(self) -> None:
        """End the rest of this process's worker: it is to stop."""
        self._work_bell.rouse()

    def rouse_sends(self, destination: str) -> None:
        """End the rest of this process's lanes of a destination: they are to stop."""
        self._send_bells[destination].rouse()

    def rouse_all(self, workers: int, lanes: Mapping[str, int]) -> None:
        """Nothing to do: here nobody rests by a clock that can be set."""

    def close(self) -> None:
        """Hear nothing more, and send what waits if that is quick."""
        for bell in (self._work_bell, *self._send_bells.values()):
            bell.close()
        if self._hearer is not None:
            self._hearer.stop()
        self._ringer.stop()

    def _application(self, *names: str, publishes: bool = False) -> Celery:
        broker = self._cluster.broker
        assert broker is not None
        return application(broker, names, publishes=publishes)
