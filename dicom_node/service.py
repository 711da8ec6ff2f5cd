"""The composition root: builds every part from the configuration, starts it, stops it.

    storage -> self-test -> audit trail -> workers -> forwarders -> receiver -> http -> commitment, and back

So nothing is accepted that could not be kept, worked on and sent; and what was accepted is finished or safely
on disk before the process ends.

Another configuration (SIGHUP) is taken up while the receiver goes on: the parts behind it finish what they
have in hand and are built anew; who may come in, and which route takes it, changes with the next association.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dicom_node import __version__, housekeeping, log, private, security
from dicom_node.audit.auditor import Auditor
from dicom_node.audit.trail import AuditTrail, auditor_of, refusals
from dicom_node.commitment import Due
from dicom_node.committer import Committer
from dicom_node.config import AuditTransport, ClusterPart, Config, Destination, Requester, Role
from dicom_node.dimse.commit import desk_handlers
from dicom_node.dimse.scp import Receiver
from dicom_node.dimse.secure import client_context, server_context
from dicom_node.errors import EXIT_DONE, ConfigError, KeyFileError, NodeError, ReloadError, SpoolError
from dicom_node.exporter import Exporter, Parts, Standing
from dicom_node.fleet import Receivers, receiver_count
from dicom_node.forwarder import Forwarder, steady_clock
from dicom_node.housekeeping import Housekeeper
from dicom_node.http import HttpServer
from dicom_node.keys import FileKeyRing, fingerprint
from dicom_node.leading import Leadership
from dicom_node.metrics import OCCURRENCES, RINGS_LOST, Reading
from dicom_node.pages.status import StatusPage
from dicom_node.processes import boot_id
from dicom_node.reconciler import Reconciler
from dicom_node.reloading import Reloads, needs_restart
from dicom_node.stores import claim_spool, open_bells, open_ledger, open_spool, runs, under_its_name
from dicom_node.systemd import Watchdog, notify
from dicom_node.users import Users
from dicom_node.worker import Factory, Workers, build_processor

_LOG = logging.getLogger(__name__)
_SALT_BYTES = 32
#: seconds between tries to go on with the old configuration after a new one failed
_PUT_BACK_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: longest that a reload may take before the service manager hears of dead parts, seconds
_CHANGE_S = 300.0
#: asks the service manager for ten minutes more: a start with a million waiting objects takes its time
_PATIENCE = "EXTEND_TIMEOUT_USEC=600000000"


class Service:
    """A whole node in this process and its workers.

    Parameters
    ----------
    config : everything it is to be
    self_test : raises when this machine does not compute what it should; nothing is accepted then
    factory : makes what the workers do
    """

    def __init__(
        self,
        config: Config,
        *,
        self_test: Callable[[], object] = lambda: None,
        factory: Factory = build_processor,
    ) -> None:
        self._config = config
        self._self_test = self_test
        self._factory = factory
        self._undo = contextlib.ExitStack()
        #: what is built anew when the configuration changes: behind the receiver, and before it
        self._behind = contextlib.ExitStack()
        self._before = contextlib.ExitStack()
        #: until when parts may be missing because they are built anew, on the monotonic clock
        self._changing_until = 0.0
        self._trail: AuditTrail | None = None
        #: parts that this node is to have; in a cluster not every node has all
        self.receiver: Receiver | Receivers | None = None
        self.workers: Workers | None = None
        self.forwarder: Forwarder | None = None
        self.housekeeper: Housekeeper | None = None
        self.leadership: Leadership | None = None
        #: how often the configuration was read again, and how the last time ended
        self.reloads = Reloads()

    def start(self) -> None:
        """Start every part; if one fails, stop those before it and raise what it raised."""
        with contextlib.ExitStack() as undo:
            self._start(undo)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Stop every part, last started first; each is given time to finish what it has in hand."""
        self._undo.close()

    def dead_parts(self) -> list[str]:
        """Parts of the node that have ended although nobody stopped them; only a new start mends that.

        A worker is none: whoever dies among them is replaced, as long as there is somebody to replace them.
        """
        changing = time.monotonic() < self._changing_until
        return [] if changing else [name for name, runs in self._vital().items() if not runs]

    @property
    def worker_count(self) -> int:
        """How many workers run here."""
        return 0 if self.workers is None else self.workers.alive

    def problems(self) -> list[str]:
        """What keeps the node from doing its work at this moment, one word each."""
        return [name for name, fine in self.checks().items() if not fine]

    def checks(self) -> dict[str, bool]:
        """Everything that may keep the node from doing its work, and whether it is fine.

        `models`: no worker that runs has loaded what it needs, as in the first seconds.
        """
        found = self._vital()
        if self.receiver is not None:
            found["receiver"] = found["receiver"] and self.receiver.listening
        if self.workers is not None:
            running = self.workers.alive
            found["workers"] = found["workers"] and running > 0
            found["models"] = running == 0 or self.workers.ready > 0
        return found | {"spool": self._has_room(), "ledger": self._answers()}

    def _vital(self) -> dict[str, bool]:
        """The threads that everything hangs on, and whether they run; those of parts that this node has."""
        found: dict[str, bool] = {}
        if self.receiver is not None:
            found["receiver"] = self.receiver.alive
        if self.workers is not None:
            found["workers"] = self.workers.supervised
        if self.forwarder is not None:
            found["forwarder"] = self.forwarder.alive
        if self.leadership is not None:
            found["leadership"] = self.leadership.is_alive()
        housekeeper = self.housekeeper
        if self._leads() and housekeeper is not None:
            found |= {"committer": self.committer.alive, "housekeeper": housekeeper.is_alive()}
        return found

    def _leads(self) -> bool:
        """Whether this node does what one does for all; alone it always does."""
        return self._config.cluster is None or (self.leadership is not None and self.leadership.leads)

    def _does(self, part: ClusterPart) -> bool:
        return self._config.cluster is None or part in self._config.cluster.parts

    def _start(self, undo: contextlib.ExitStack) -> None:
        self._open_storage(undo)
        undo.enter_context(security.listening(self._count_occurrence))
        self._self_test()
        self._salt = self._agreed_salt()
        self._open_trail(self._salt, undo)
        undo.callback(lambda: self._behind.close())
        self._start_behind()
        if self._does(ClusterPart.RECEIVE):
            self.receiver = receiver = self._make_receiver()
            _run(receiver, undo)
        undo.callback(lambda: self._before.close())
        self._serve_http()
        self._start_committer()

    def _make_receiver(self) -> Receiver | Receivers:
        """One in this process, or several in processes of their own."""

        def arrived() -> None:  # the bells of this moment: a reload makes others
            self._bells.ring_work()

        def queued(destination: str) -> None:
            self._bells.ring_sends(destination)

        if receiver_count(self._config) > 1:
            return Receivers(
                self._config,
                self.ledger,
                on_arrival=arrived,
                on_queued=queued,
                auditor=self.auditor,
                log_salt=self._salt,
            )
        return Receiver(
            self._config,
            self.spool,
            self.ledger,
            on_arrival=arrived,
            on_queued=queued,
            auditor=self.auditor,
            services=desk_handlers(lambda: self.committer.desk),
        )

    def _carry(self, due: Due, timeout_s: float) -> int | None:
        """Give an answer over the association of its request, in whichever process that is."""
        receiver = self.receiver
        carry = receiver.carry if isinstance(receiver, Receivers) else self.committer.desk.carry
        return carry(due, timeout_s)

    def _start_behind(self) -> None:
        """Everything that works on, sends and clears away what has been received."""
        config = self._config
        self.workers = self.forwarder = self.housekeeper = self.leadership = None
        self.committer = Committer(config, self.ledger, self._carry)
        with contextlib.ExitStack() as undo:
            self._open_bells(undo)
            if self._does(ClusterPart.WORK):
                self.workers = Workers(
                    config, self.ledger, self._bells, factory=self._factory, log_salt=self._salt
                )
                _run(self.workers, undo)
            if self._does(ClusterPart.FORWARD):
                self._start_forwarder(undo)
            if config.cluster is None:
                self._start_housekeeper(undo)
            self._behind = undo.pop_all()

    def _open_bells(self, undo: contextlib.ExitStack) -> None:
        self._bells = open_bells(self._config)
        self._bells.tell_lost(lambda count: self.ledger.count_soon(Reading(RINGS_LOST, (), count)))
        undo.callback(self._bells.close)

    def _start_forwarder(self, undo: contextlib.ExitStack) -> None:
        self.forwarder = Forwarder(
            self._config,
            self.spool,
            self.ledger,
            rest=self._bells.rest_sends,
            rung=self._bells.rung_sends,
            wake=self._bells.rouse_sends,
            steady=steady_clock(),
        )
        _run(self.forwarder, undo)
        self._bells.hear_sends()

    def _start_housekeeper(self, undo: contextlib.ExitStack) -> None:
        kept_s = housekeeping.history_s(self._config)
        self.housekeeper = Housekeeper(self.spool, self.ledger, kept_s, rouse=self._rouse)
        _run(self.housekeeper, undo)

    def _rouse(self) -> None:
        """End the rests of all workers and lanes here."""
        lanes = {name: each.associations for name, each in self._config.destinations.items()}
        self._bells.rouse_all(self.worker_count, lanes)

    def _start_committer(self) -> None:
        """When all the rest runs: it lets go of what no destination is asked for any more, for good."""
        if self._config.cluster is None:
            _run(self.committer, self._behind)
        elif self._does(ClusterPart.LEAD):
            self.leadership = Leadership(self.ledger, self._config.cluster.name, self._lead)
            _run(self.leadership, self._behind)

    def _lead(self, undo: contextlib.ExitStack) -> None:
        """Start what one node does for all; in the thread of the leadership."""
        assert self._config.cluster is not None
        undo.callback(self._lead_no_more)
        self._start_housekeeper(undo)
        committer = Committer(self._config, self.ledger, self._carry)
        _run(committer, undo)
        self.committer = committer
        _run(Reconciler(self.ledger, self._bells, self._config.cluster.reconcile_s), undo)
        if self._trail is not None:
            self._trail.follow()
            undo.callback(self._trail.follow_no_more)

    def _lead_no_more(self) -> None:
        """What peers say is still written down here; who leads acts on it."""
        self.housekeeper, self.committer = None, Committer(self._config, self.ledger, self._carry)

    def reload(self, config: Config) -> None:
        """Go on with another configuration; no association to this node comes to an end by it.

        What is in hand is finished under the old one, everything else goes on under the new one.

        Raises
        ------
        ReloadError : only a start can take it up, or a part cannot be started; the old one is in force
        NodeError : then the old one could not be put back either; the node is to be stopped
        """
        fixed = needs_restart(self._config, config)
        if fixed:
            raise ReloadError(f"only a restart can change {', '.join(fixed)}; nothing has been changed")
        try:
            _require_usable(config)
            self.ledger.answers()  # without it the parts could be stopped and not started again
        except NodeError as error:
            raise ReloadError(f"{error}; nothing has been changed") from error
        before = self._config
        with self._while_changing():
            try:
                self._adopt(config)
            except (NodeError, OSError, RuntimeError) as error:
                self._put_back(before)
                raise ReloadError(f"the old configuration stays, for with the new one {error}") from error
        if self._trail is not None:
            self._trail.adopt(config)

    def _put_back(self, config: Config) -> None:
        """Go on with what was in force; what stands in the way for a moment must not end the node."""
        for wait_s in _PUT_BACK_S:
            try:
                self._adopt(config)
                return
            except (NodeError, OSError, RuntimeError) as error:
                log.event(_LOG, "reload-held-up", level=logging.ERROR, error=error)
                time.sleep(wait_s)
        self._adopt(config)

    def _adopt(self, config: Config) -> None:
        self._before.close()
        self._behind.close()
        self._config = config
        self.spool.adopt(config.storage.reserve_bytes, config.storage.keep_s)
        self._start_behind()
        self._bells.ring_work()
        if self.receiver is not None:
            self.receiver.adopt(config)
        self._serve_http()
        housekeeping.warn_of_strangers(self.ledger, config)
        self._start_committer()

    @contextlib.contextmanager
    def _while_changing(self) -> Iterator[None]:
        """What is being built anew is not dead, unless it takes for ever."""
        self._changing_until = time.monotonic() + _CHANGE_S
        try:
            yield
        finally:
            self._changing_until = 0.0

    def _serve_http(self) -> None:
        http = self._config.http
        if http.port is None:
            return
        parts = Parts(
            self._config,
            self.ledger,
            self.spool,
            self.workers,
            self.forwarder,
            self.receiver,
            self.checks,
            self.reloads,
            self.auditor,
            self._standing,
        )
        status = StatusPage(self._config, self.ledger, self.spool, self.problems)
        self.http = HttpServer(http.bind, http.port, Exporter(parts), self.problems, self.dead_parts, status)
        with contextlib.ExitStack() as undo:
            _run(self.http, undo)
            self._before = undo.pop_all()

    def _standing(self) -> Standing:
        """What this node is in its cluster, for its metrics."""
        leading = None if self.leadership is None else self.leadership.leads
        return Standing(self.housekeeper, leading, self._leads(), self._bells.connected)

    def _open_storage(self, undo: contextlib.ExitStack) -> None:
        """Spool and ledger, whole and in step, with nothing in anybody's hands."""
        undo.enter_context(runs(self._config))
        notify(_PATIENCE)  # a ledger of an older version is brought up first: seconds for each million rows
        self.ledger = open_ledger(self._config)
        undo.callback(self.ledger.close)
        undo.callback(self._settle)
        self.ledger.check()
        if self._config.cluster is None:
            housekeeping.require_spool(self._config.storage.spool_dir, self.ledger)
        self.spool = open_spool(self._config)
        claim_spool(self.spool, self.ledger)
        undo.enter_context(under_its_name(self._config, self.ledger))
        swept = self.spool.sweep()
        leases = self.ledger.recover()
        found = self._reconciled()
        if self._config.cluster is None:
            undo.callback(self.ledger.end_run)
        log.event(_LOG, "recovered", swept=swept, leases=leases, checked=found.checked, lost=found.lost)
        housekeeping.warn_of_strangers(self.ledger, self._config)

    def _agreed_salt(self) -> bytes:
        """The secret behind the UID hashes of all machines: that of the one that came first, now ours too.

        Raises SpoolError when the folder cannot be written.
        """
        own = log_salt(self._config)
        if self._config.cluster is None:
            return own
        agreed = bytes.fromhex(self.ledger.note_log_salt(own.hex()))
        if agreed != own:
            path = _salt_path(self._config)
            with _failures(path):
                path.unlink()
                _create(path, agreed)
            log.use_salt(agreed)
        return agreed

    def _reconciled(self) -> housekeeping.Found:
        """Rows held against the spool; in a cluster others work on them, and `cluster check` does it."""
        if self._config.cluster is not None:
            return housekeeping.Found(0, 0, 0)
        return housekeeping.reconcile(self.spool, self.ledger, boot_id(), progress=lambda: notify(_PATIENCE))

    def _open_trail(self, salt: bytes, undo: contextlib.ExitStack) -> None:
        """Before anything that it tells about, and so stopped after all of it."""
        self.auditor: Auditor | None = auditor_of(self._config, salt)
        if self.auditor is not None:
            over_tls = self._config.audit.transport is AuditTransport.TLS
            # made for each connection: files that are no good then cost the trail, not the node
            context = partial(client_context, self._config.tls) if over_tls else None
            follows = self._config.cluster is None
            self._trail = AuditTrail(
                self._config, self.auditor, self.ledger, self.spool, context, follows=follows
            )
            _run(self._trail, undo)
            undo.enter_context(security.listening(refusals(self.auditor)))

    def _count_occurrence(self, occurrence: security.Occurrence) -> None:
        self.ledger.count_soon(Reading(OCCURRENCES, (occurrence.event, occurrence.reason)))

    def _settle(self) -> None:
        """Write what was only counted; a ledger that refuses at the end keeps nobody from stopping."""
        with contextlib.suppress(NodeError):
            self.ledger.settle()

    def _has_room(self) -> bool:
        try:
            self.spool.check_room()
        except NodeError:
            return False
        return True

    def _answers(self) -> bool:
        try:
            self.ledger.answers()
        except NodeError:
            return False
        return True


def _require_usable(config: Config) -> None:
    """Raise what a start would raise for the files that a configuration names, before anything is stopped.

    Raises KeyFileError, TlsError.
    """
    if any(route.role is not Role.PASS for route in config.routes):
        FileKeyRing.load(config.keys.ring)
    if config.keys.signing is not None and any(config.signs(route) for route in config.routes):
        from dicom_node import signers  # with the engine, which this process otherwise does without

        signers.load(config.keys.signing)
    if config.access.users is not None:
        Users(config.access.users).load()
    if config.node.tls_port is not None:
        server_context(config.tls, config.node.tls_clients)
    peers: list[Destination | Requester] = [*config.destinations.values(), *config.commitment.requesters]
    if any(peer.tls for peer in peers):
        client_context(config.tls)


def serve(
    config: Config,
    *,
    reread: Callable[[], Config],
    self_test: Callable[[], object] = lambda: None,
    factory: Factory = build_processor,
) -> int:
    """Run a node until SIGTERM or SIGINT; the exit status. SIGHUP has it `reread` its configuration.

    Raises NodeError when a part cannot be started.
    """
    log.setup(config.log.format, config.log.level, salt=log_salt(config))
    log.silence_warnings()
    private.keep_out_of_dumps()
    threading.excepthook = _thread_failed
    tell_security(config)
    service = Service(config, self_test=self_test, factory=factory)
    with _signals() as next_signal:
        service.start()
        gc.freeze()  # what lives as long as the node need not be walked through whenever garbage is collected
        log.event(
            _LOG,
            "ready",
            node=config.node.id,
            port=service.receiver and service.receiver.port,
            tls_port=service.receiver and service.receiver.tls_port,
            called_ae=config.node.ae_title,
            count=service.worker_count,
            version=__version__,
        )
        notify("READY=1")
        watchdog = Watchdog(service.dead_parts)
        watchdog.start()
        try:
            while (number := next_signal()) is signal.SIGHUP:
                take_up(service, reread)
            log.event(_LOG, "stopping", signal=number.name)
        finally:
            notify("STOPPING=1")
            watchdog.stop()
            service.stop()
    log.event(_LOG, "stopped", node=config.node.id)
    return EXIT_DONE


def take_up(service: Service, reread: Callable[[], Config]) -> None:
    """Read the configuration again and go on with it; with a bad one go on as before, and say so."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        config = reread()
        service.reload(config)
    except (ConfigError, ReloadError) as error:
        service.reloads.failed()
        log.event(_LOG, "reload-refused", level=logging.ERROR, error=error)
    else:
        service.reloads.done()
        log.setup(config.log.format, config.log.level, salt=log_salt(config))
        log.event(_LOG, "reloaded", node=config.node.id, count=service.worker_count)
        with contextlib.suppress(KeyFileError):  # no good since it was looked at: a worker says so
            tell_security(config)
    notify("READY=1")


def tell_security(config: Config) -> None:
    """Say with which keys and segmenters this node works, and who may come in; ids and fingerprints only.

    Raises KeyFileError where a route needs keys and the ring is no good.
    """
    if any(route.role is not Role.PASS for route in config.routes):
        _tell_keys(FileKeyRing.load(config.keys.ring))
        _tell_segmenters(config)
    if not config.access.callers:
        log.event(_LOG, "access-open", level=logging.WARNING, reason="access.callers is empty")
    if config.node.port is not None:
        log.event(_LOG, "listening-in-the-clear", port=config.node.port)


def _tell_keys(ring: FileKeyRing) -> None:
    for key in ring.keys:
        state = "revoked" if key.id in ring.revoked else "current" if key == ring.current else "read-only"
        log.event(_LOG, "key", key_id=key.id, fingerprint=fingerprint(key), state=state)


def _tell_segmenters(config: Config) -> None:
    """By their ids, which hold the hash of the weights."""
    from blessmark.errors import SegmenterError
    from blessmark.segment import segmenter

    rules = config.watermark.segmenter_rules
    for name in dict.fromkeys((config.watermark.segmenter, *(rule.use for rule in rules))):
        with contextlib.suppress(SegmenterError):  # a worker says so
            log.event(_LOG, "segmenter", segmenter=segmenter(name).id)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    log.event(_LOG, "thread-failed", level=logging.ERROR, error=failure.exc_value)


def log_salt(config: Config) -> bytes:
    """The secret behind the UID hashes of this node's log; made on first use, the same ever after.

    In a cluster a start takes that of the others in its place.

    Raises SpoolError when the folder cannot be written.
    """
    path = _salt_path(config)
    with _failures(path):
        if not path.exists():  # on a full disk nothing can be made, and nothing need be
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                _create(path, secrets.token_bytes(_SALT_BYTES))
        return path.read_bytes()


def _salt_path(config: Config) -> Path:
    return config.storage.folder / "log-salt"


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(
            f"{path} cannot be written or read: {error.strerror}; check storage.folder"
        ) from error


def _create(path: Path, content: bytes) -> None:
    """Make a file whole or not at all; FileExistsError if it is there."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
        os.link(part, path)
    finally:
        os.close(handle)
        part.unlink()


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], signal.Signals]]:
    """A function that waits for SIGTERM, SIGINT or SIGHUP; what they did before is put back at the end.

    A handler runs between any two steps of the main thread, so it may want no lock that is held there, not
    even an event's or the log's: it writes a byte.
    """
    hear, tell = os.pipe()

    def caught(number: int, _frame: object) -> None:
        os.write(tell, bytes([number]))

    before = {
        number: signal.signal(number, caught) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield lambda: signal.Signals(os.read(hear, 1)[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(hear)
        os.close(tell)


def _run(
    part: AuditTrail
    | Workers
    | Forwarder
    | Housekeeper
    | Committer
    | Leadership
    | Reconciler
    | Receiver
    | Receivers
    | HttpServer,
    undo: contextlib.ExitStack,
) -> None:
    part.start()
    undo.callback(part.stop)
