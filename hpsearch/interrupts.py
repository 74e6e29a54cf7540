"""The signals that ask a process to end."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has no SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def handling(on_interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `on_interrupt` at each of `SIGNALS`, and raise KeyboardInterrupt from the second one on.

    Elsewhere than in the main thread, which alone may handle signals, the caller's handlers hold.
    """
    count = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        on_interrupt()
        if count > 1:
            raise KeyboardInterrupt

    previous = {}
    try:
        for number in SIGNALS:
            previous[number] = signal.signal(number, handler)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
