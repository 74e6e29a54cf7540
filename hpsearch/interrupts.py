"""Handlers for the signals that ask a process to end."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Windows does not have SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def handling(on_interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `on_interrupt` on each of `SIGNALS`, and raise KeyboardInterrupt from the second one on.

    Only the main thread can handle signals; in any other thread, the present handlers stay in place.
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
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)
