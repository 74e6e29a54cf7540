"""Who runs a trial: a supervisor process, named so that another one can tell whether it is still alive."""

import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process: its host, which boot and process-id namespace of that host, its id and start time."""

    host: str
    boot: str
    pid: int
    started: float
    token: str

    @classmethod
    def this_process(cls) -> "Owner":
        """Return an owner for this process, distinct from any other made here or elsewhere."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            boot=_boot(),
            pid=pid,
            started=psutil.Process(pid).create_time(),
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
            process = psutil.Process(self.pid)
            return bool(abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def _boot() -> str:
    """Return what differs between boots of a host and between containers on it, as far as the system says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"{psutil.boot_time():.0f}"
