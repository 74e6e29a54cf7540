"""Who runs a trial: a supervisor process, named so that another one can tell whether it is still alive."""

import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process: its host, which boot and process-id namespace of that host, its id and start time.

    It goes on by itself while the database is away for up to `outage` seconds.
    """

    host: str
    boot: str
    pid: int
    started: float
    token: str
    outage: float = 90.0

    @property
    def heartbeat(self) -> float:
        """Seconds between two of its heartbeats."""
        return min(10.0, max(1.0, self.outage / 9))

    @property
    def grace(self) -> float:
        """Seconds without a heartbeat after which it may be taken for dead: longer than any outage it survives."""
        return self.outage + 3 * self.heartbeat

    @classmethod
    def this_process(cls) -> "Owner":
        """Return an owner for this process, distinct from any other made here or elsewhere."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            boot=_boot(),
            pid=pid,
            started=_started(pid),
            token=uuid.uuid4().hex,
        )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Owner":
        """Return the owner `as_dict` described."""
        return cls(**fields)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON scalars that `from_dict` understands."""
        return asdict(self)

    def is_known_dead(self) -> bool:
        """Whether the process certainly has ended. False where that cannot be told from here."""
        if self.host != socket.gethostname() or self.boot != _boot():
            return False
        try:
            if abs(_started(self.pid) - self.started) > 1:
                return True
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


class Watch:
    """Repeated looks at the heartbeats of others: which of them stand still while the database answers us."""

    def __init__(self, gap: float) -> None:
        """Two looks more than `gap` seconds apart say nothing of the time between them: we may have been away."""
        self._gap = gap
        self._looked = float("-inf")
        self._since: dict[int, tuple[object, float]] = {}

    def look(self, heartbeats: Mapping[int, object]) -> None:
        """Take the last heartbeat of each trial that another supervisor runs."""
        now = time.monotonic()
        before = self._since if now - self._looked <= self._gap else {}
        since = {}
        for trial_id, heartbeat in heartbeats.items():
            seen, first = before.get(trial_id, (None, now))
            since[trial_id] = (heartbeat, first if seen == heartbeat else now)
        self._since, self._looked = since, now

    def still(self, trial_id: int) -> float:
        """Return for how many seconds up to the last look the trial's heartbeat was seen not to change."""
        seen = self._since.get(trial_id)
        return 0.0 if seen is None else self._looked - seen[1]


def _started(pid: int) -> float:
    """Return when a process was started; on Linux in seconds since boot, which setting the clock does not change."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return float(psutil.Process(pid).create_time())


def _boot() -> str:
    """Return what differs between boots of a host and between containers on it, as far as the system says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"{psutil.boot_time():.0f}"
