"""Every error hpsearch raises on purpose.

HpsearchError              something went wrong; the message says what, which value and what to do
├── UsageError             bad input: nothing was created or changed (exit code 2)
│   └── StudyFileError     the user's study file is wrong; the message carries its line
├── StorageUnavailable     the database did not answer for longer than we wait
├── CannotContinue         the run ended for a reason that no trial is to blame for
│   ├── DataDiffer         a worker's data set is not the one that the study was stored with
│   └── FilesUnavailable   a file could not be written or read: the disk is full, or permission is missing
├── TooManyFailures        trial after trial fails, so the run stopped
├── TrialLost              a trial belongs to another supervisor by now
└── CheckpointError        a checkpoint file is damaged, truncated, or another trial's
"""


class HpsearchError(Exception):
    """Base of all; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(HpsearchError):
    """Bad input: one line that names the thing, the value and the remedy."""

    exit_code = 2


class StudyFileError(UsageError):
    """A study file that cannot be found, run or understood."""


class StorageUnavailable(HpsearchError):
    """The database could not be reached, or refused to write, for longer than the patience given."""


class CannotContinue(HpsearchError):
    """No trial could be trained any further, whatever its configuration; those concerned wait in the queue."""


class DataDiffer(CannotContinue):
    """A worker loaded other data than the command did."""


class FilesUnavailable(CannotContinue):
    """A file of ours could not be written or read: no space left, no permission, a read-only file system."""


class TooManyFailures(HpsearchError):
    """The first trials all failed, or too many in a row; the message ends with the last traceback."""


class TrialLost(HpsearchError):
    """A trial is no longer this process's: whatever was to be written of it must not be."""

    def __init__(self, message: str, trial_id: int | None = None) -> None:
        super().__init__(message)
        self.trial_id = trial_id


class CheckpointError(HpsearchError):
    """A checkpoint that must not be used: damaged, truncated, or written by another trial."""


def last_line(error: str | None) -> str:
    """Return the last line of a traceback: the error itself."""
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else "unknown error"
