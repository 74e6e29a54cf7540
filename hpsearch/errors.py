"""The errors that hpsearch raises.

HpsearchError              something went wrong; the message says what, which value and what to do
├── UsageError             bad input: nothing was created or changed (exit code 2)
│   ├── StudyFileError     the user's study file is wrong; the message carries its line
│   └── RequirementNotMet  a configuration does not meet a requirement of its recipe (`Space.require`)
├── StorageUnavailable     the database did not answer within the time limit
├── CannotContinue         the run ended for a reason outside its trials
│   ├── DataDiffer         a worker loaded another data set than the command did
│   └── FilesUnavailable   a file cannot be written or read: the disk is full, or permission is missing
├── WorkerDied             a process that reads examples ended before it had read them
├── TooManyFailures        too many trials failed, so the run stopped
├── NoneFeasible           too many configurations did not meet the requirements, so the run stopped
├── TrialLost              another supervisor has taken over the trial
└── CheckpointError        a checkpoint file is damaged, truncated or of another trial
"""


class HpsearchError(Exception):
    """Base class of all errors; `exit_code` is the exit code of the command line."""

    exit_code = 1


class UsageError(HpsearchError):
    """Bad input: one line that names the thing, the value and the remedy."""

    exit_code = 2


class StudyFileError(UsageError):
    """A study file that cannot be found or run, or that defines no valid study."""


class RequirementNotMet(UsageError):
    """A configuration that does not meet a requirement of its recipe; `requirement` is the recipe's message."""

    def __init__(self, requirement: str) -> None:
        super().__init__(f"the configuration does not meet the requirement {requirement!r}")
        self.requirement = requirement


class StorageUnavailable(HpsearchError):
    """The database could not be reached or written to for longer than the time limit."""


class CannotContinue(HpsearchError):
    """No trial can be trained further, whatever its configuration; unfinished trials go back into the queue."""


class DataDiffer(CannotContinue):
    """A worker loaded another data set than the command did."""


class FilesUnavailable(CannotContinue):
    """A file of hpsearch cannot be written or read: no space left, no permission, a read-only file system."""


class WorkerDied(HpsearchError):
    """A process that reads examples for a trial ended early; the trial can go on from its last resume point."""


class TooManyFailures(HpsearchError):
    """The first trials all failed, or too many failed in a row; the message ends with the last traceback."""


class NoneFeasible(HpsearchError):
    """Many configurations in a row did not meet the requirements of the recipe; the message counts them."""


class TrialLost(HpsearchError):
    """A trial belongs to another supervisor now; this process must not write to it any more."""

    def __init__(self, message: str, trial_id: int | None = None) -> None:
        super().__init__(message)
        self.trial_id = trial_id


class CheckpointError(HpsearchError):
    """A checkpoint that cannot be used: damaged, truncated or written by another trial."""


def last_line(error: str | None) -> str:
    """Return the last line of a traceback: the error itself."""
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else "unknown error"
