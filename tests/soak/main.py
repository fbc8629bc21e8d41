"""One run: the world, its clients and its faults for some time, and then the verdict.

Knows the order of the steps; must not know how any of them is done.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.clients import Clients
from tests.soak.faults import NODES, Fault, draw_faults
from tests.soak.journal import Journal
from tests.soak.resources import Use, log_lines, use_of
from tests.soak.world import NAMES, World

type Finish[T] = Callable[["Run", World], T]

REPORT_EVERY = 10.0
# Seconds: the CA has the certificates of the start after some; then nothing moves, and what is used can be compared.
_FIRST_NAMES = 60.0
_REST = 4.0
_LONGEST_REST = 10.0
_ALL_SERVED_WITHIN = 30.0
# A stream ends in a run, and lives through a renewal where the run is long enough.
_LONGEST_STREAM = 45.0


@dataclass
class Run:
    """What a run leaves for the verdict; ``say`` gets lines for a person as it goes."""

    store: str
    seed: int
    seconds: float
    say: Callable[[str], None]
    journal: Journal = field(default_factory=Journal)
    started: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    before: list[Use] = field(default_factory=list)
    after: list[Use] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    not_served: list[str] = field(default_factory=list)
    ended: float = 0.0
    # Held while a target is struck, until it is up again.
    _free: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def go[T](self, folder: Path, finish: Finish[T]) -> T:
        """Do it all, and return what ``finish`` does while the logs are still there."""
        with World(self.store, folder, self.journal) as world:
            clients = self._clients(world)
            self.faults = draw_faults(self.seed, self.seconds, world.kinds())
            for sentence in world.missing:
                self.say(f"note: {sentence}")
            _serve_all(clients, _FIRST_NAMES)
            time.sleep(_REST)
            self.before = [use_of(node) for node in world.nodes]
            self.started = time.time()
            self._load(world, clients)
            self.ended = time.time()
            self.not_served = _serve_all(clients, _ALL_SERVED_WITHIN)
            self.after = self._use_at_rest(world)
            self.lines = [log_lines(node) for node in world.nodes]
            world.issued.collect()
            return finish(self, world)

    def _use_at_rest(self, world: World) -> list[Use]:
        """Return what the nodes use when they have nothing to do: not while they renew what is due together.

        What is still there after ten seconds has leaked.
        """
        deadline = time.monotonic() + _LONGEST_REST
        while True:
            time.sleep(_REST)
            use = [use_of(node) for node in world.nodes]
            if time.monotonic() > deadline or all(map(Use.is_about, use, self.before)):
                return use

    def _clients(self, world: World) -> Clients:
        ports = [node.https_port for node in world.nodes]
        stream = min(_LONGEST_STREAM, self.seconds / 3)
        return Clients(self.journal, ports, NAMES, world.roots, self.seed, stream)

    def _load(self, world: World, clients: Clients) -> None:
        """Let the clients visit while the faults happen."""
        over = threading.Event()
        clients.start()
        try:
            with ThreadPoolExecutor(len(self.faults) + 1) as pool:
                doing = [pool.submit(self._strike, world, fault, over) for fault in self.faults]
                try:
                    self._watch(world, doing)
                finally:
                    over.set()
        finally:
            clients.stop()

    def _watch(self, world: World, doing: list[Future[None]]) -> None:
        """Report now and then, until the time is over; raises what a fault could not do."""
        reported = REPORT_EVERY
        while (passed := time.time() - self.started) < self.seconds:
            time.sleep(0.5)
            world.issued.collect()
            for fault in doing:
                if fault.done():
                    fault.result()
            if passed >= reported:
                reported += REPORT_EVERY
                self._report(world, passed)

    def _report(self, world: World, passed: float) -> None:
        journal, issued = self.journal, world.issued
        served = " + ".join(str(journal.served[node]) for node in range(NODES))
        self.say(
            f"{passed:6.1f} s  handshakes {served}, not served {len(journal.failures)}, streams "
            f"{len(journal.streams)}; orders {issued.orders}, certificates {issued.certificates}"
        )

    def _strike(self, world: World, fault: Fault, over: threading.Event) -> None:
        if over.wait(max(self.started + fault.at - time.time(), 0.0)):
            return
        # On a busy machine a node may take long to start.
        free = self._free[fault.target]
        if not free.acquire(blocking=False):
            self.say(f"{fault.at:6.1f} s  left out, because the last fault there is not over: {fault}")
            return
        try:
            self.say(f"{fault.at:6.1f} s  {fault}")
            with world.struck_by(fault):
                over.wait(fault.seconds)
        finally:
            free.release()


def _serve_all(clients: Clients, within: float) -> list[str]:
    """Visit every name at every node until each is served; return those that are not in time."""
    deadline = time.monotonic() + within
    left = [(node, name) for name in NAMES for node in range(NODES)]
    with ThreadPoolExecutor(8) as pool:
        while left and time.monotonic() < deadline:
            served = pool.map(lambda visit: clients.visit(*visit), left)
            left = [visit for visit, good in zip(left, list(served), strict=True) if not good]
    return [f"{name} at node {node + 1}" for node, name in left]
