"""The Optuna dashboard of a storage, read only.

The dashboard has no login, and can delete and rename studies. So it listens on the loopback interface only, answers
only requests that name this machine (another site's page cannot reach it by DNS rebinding), and only those that read.

The notes it shows are generated on request, from what the database already has.
"""

import json
import re
import shlex
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna_dashboard
from optuna.storages import _CachedStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from hpsearch.defaults import RUNS, STORAGE
from hpsearch.errors import UsageError
from hpsearch.executors.trial_files import BEST_WEIGHTS, trial_folder
from hpsearch.measure import Measure
from hpsearch.search.database import mask_passwords
from hpsearch.search.overview import open_storage
from hpsearch.search.storage import Storage
from hpsearch.search.stored_study import open_to_read
from hpsearch.search.study_attrs import STUDY_ID, measure_from, unit_of
from hpsearch.search.trial_record import ranked

HOSTS = ("localhost", "127.0.0.1", "[::1]")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def read_only(application: Application) -> Application:
    """Return a WSGI application that passes on GET and HEAD requests for this machine; others get status 421 or 405."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rsplit(":", 1)[0] if environ.get("HTTP_HOST") else ""
        refused = None
        if host not in HOSTS:
            refused = "421 Misdirected Request"
        elif environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            refused = "405 Method Not Allowed"
        if refused is None:
            return application(environ, start_response)
        start_response(refused, [("Content-Type", "application/json"), ("Allow", "GET, HEAD")])
        # The dashboard's page shows the `reason` of an answer.
        return [json.dumps({"reason": f"{refused}: this dashboard is read-only"}).encode()]

    return guarded


class _Annotated(_CachedStorage):
    """A storage for the dashboard that adds a note to each study of hpsearch and to its trials."""

    def __init__(self, storage: Storage, url: str, runs: Path) -> None:
        super().__init__(storage)
        self._url = url
        self._runs = runs
        self._folders: dict[str, Path] = {}

    def get_all_studies(self) -> list[FrozenStudy]:
        studies = super().get_all_studies()
        for study in studies:
            if STUDY_ID in study.user_attrs:
                study.system_attrs |= self._notes(study)
        return studies

    def _notes(self, study: FrozenStudy) -> dict[str, Any]:
        """Return the system attributes in which the dashboard looks for notes, in Markdown."""
        folder = self._folder(study)
        options, unit = self._options(study.study_name), unit_of(study.user_attrs)
        trials = self.get_all_trials(study._study_id, deepcopy=False)
        measure = measure_from(study.user_attrs, maximize=study.directions[0] == StudyDirection.MAXIMIZE)
        best = next(iter(ranked(trials, measure)), None)
        if best is None:
            text = f"No trial is complete yet.\n\nNext: `hpsearch run {options}`"
        else:
            text = (
                f"Best trial: {best.number}, {_best_value(best, measure, unit)}\n\n{_weights(folder, best)}\n\n"
                f"Next: `hpsearch report {options}`, `hpsearch export {options} --top 3`"
            )
        notes: dict[str, Any] = {"dashboard:note_ver": 1, "dashboard:note_str:0": text}
        for trial in trials:
            if (note := _trial_note(trial, measure, folder, options, unit)) is not None:
                notes[f"dashboard:{trial._trial_id}:note_ver"] = 1
                notes[f"dashboard:{trial._trial_id}:note_str:0"] = note
        return notes

    def _folder(self, study: FrozenStudy) -> Path:
        uid = study.user_attrs[STUDY_ID]
        if uid not in self._folders:
            stored = open_to_read(self._url, study.study_name, self._runs)
            stored.storage.engine.dispose()
            self._folders[uid] = stored.folder
        return self._folders[uid]

    def _options(self, name: str) -> str:
        """Return the options that select a study, quoted for a shell; `lenet.2` is a fresh one of the file `lenet`."""
        file = re.sub(r"\.\d+$", "", name)
        words = ["--study", file, *([] if file == name else ["--name", name])]
        if self._url != STORAGE:
            words += ["--storage", mask_passwords(self._url)]
        if self._runs != Path(RUNS):
            words += ["--runs", str(self._runs)]
        return shlex.join(words)


def _trial_note(trial: FrozenTrial, measure: Measure, folder: Path, options: str, unit: str) -> str | None:
    attrs = trial.user_attrs
    if trial.state == TrialState.WAITING:
        return f"Waiting in the queue.\n\nNext: `hpsearch run {options}`"
    if "reason" not in attrs:
        return None
    lines = [f"Ended by: {attrs['reason']}"]
    if trial.state == TrialState.FAIL:
        lines += [f"`{line}`" for line in str(attrs.get("error", "")).rstrip().splitlines()[-1:]]
    elif attrs.get("best_value") is not None:
        lines = [f"{_capitalised(_best_value(trial, measure, unit))}; {lines[0].lower()}", _weights(folder, trial)]
    lines.append(f"Next: `tensorboard --logdir {shlex.quote(str(trial_folder(folder, trial.number)))}`")
    return "\n\n".join(lines)


def _best_value(trial: FrozenTrial, measure: Measure, unit: str) -> str:
    value = trial.user_attrs.get("best_value", trial.value)
    interval = trial.user_attrs.get("best_interval", "unknown")
    return f"{measure.label} {'-' if value is None else measure.format(value)} after {unit} {interval}"


def _capitalised(text: str) -> str:
    # `str.capitalize` would write the rest in lower case.
    return text[:1].upper() + text[1:]


def _weights(folder: Path, trial: FrozenTrial) -> str:
    weights = trial_folder(folder, trial.number) / BEST_WEIGHTS
    return f"Weights: `{weights}`" if weights.exists() else f"Weights: `{weights}`, no longer there"


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def make_server(url: str, port: int, runs: Path = Path(RUNS)) -> wsgiref.simple_server.WSGIServer:
    """Return a server of the dashboard on 127.0.0.1:`port` (0: any free one); the trials' files are below `runs`.

    Raises UsageError if the storage cannot be read or the port is taken.
    """
    storage = open_storage(url)
    application = read_only(optuna_dashboard.wsgi(_Annotated(storage, url, runs)))
    try:
        return wsgiref.simple_server.make_server("127.0.0.1", port, application, _Server, _Quiet)
    except OSError as error:
        raise UsageError(f"port {port} cannot be used ({error.strerror}): give another --port, or --port 0") from error


def serve_in_background(server: wsgiref.simple_server.WSGIServer) -> threading.Thread:
    """Serve until `server.shutdown()`; return the thread that does."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread
