"""The owner of a trial: a supervisor process, described so that others can check whether it is still alive."""

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
    """A supervisor process: its host, the boot and process-id namespace of that host, its id and start time.

    It continues without the database for up to `outage` seconds.
    """

    host: str
    boot: str
    pid: int
    started: float
    token: str
    outage: float = 90.0

    @property
    def heartbeat(self) -> float:
        """Seconds between two heartbeats."""
        return min(10.0, max(1.0, self.outage / 9))

    @property
    def grace(self) -> float:
        """Seconds without a heartbeat after which it counts as dead: longer than any outage that it survives."""
        return self.outage + 3 * self.heartbeat

    @classmethod
    def this_process(cls) -> "Owner":
        """Return an owner for this process, different from all others made here or elsewhere."""
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
        """Return the owner that `as_dict` described."""
        return cls(**fields)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON scalars, for `from_dict`."""
        return asdict(self)

    def is_known_dead(self) -> bool:
        """Whether the process has certainly ended. False if this cannot be checked from this host."""
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
    """Observes the heartbeats of other supervisors, to detect those that stop while the database is available."""

    def __init__(self, gap: float) -> None:
        """Discard earlier observations after a gap of more than `gap` seconds: an outage, or a suspension."""
        self._gap = gap
        self._looked = float("-inf")
        self._since: dict[int, tuple[object, float]] = {}

    def observe(self, heartbeats: Mapping[int, object]) -> None:
        """Record the last heartbeat of each trial that another supervisor runs."""
        now = time.monotonic()
        before = self._since if now - self._looked <= self._gap else {}
        since = {}
        for trial_id, heartbeat in heartbeats.items():
            last_heartbeat, first = before.get(trial_id, (None, now))
            since[trial_id] = (heartbeat, first if last_heartbeat == heartbeat else now)
        self._since, self._looked = since, now

    def unchanged_seconds(self, trial_id: int) -> float:
        """Return for how many seconds, up to the last call of `observe`, the heartbeat of a trial has not changed."""
        entry = self._since.get(trial_id)
        return 0.0 if entry is None else self._looked - entry[1]


def _started(pid: int) -> float:
    """Return the start time of a process; on Linux in seconds since boot, which setting the clock does not affect."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return float(psutil.Process(pid).create_time())


def _boot() -> str:
    """Return an identifier of the boot of this host and, on Linux, of the process-id namespace."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"{psutil.boot_time():.0f}"
