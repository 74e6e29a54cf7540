"""Databases as the tests need them: a PostgreSQL server that can be stopped, and a study read by plain SQL."""

import contextlib
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy


class PostgresServer:
    """A PostgreSQL server that can be stopped, started, and made to fall silent."""

    def __init__(self) -> None:
        # Not below pytest's folder, which every start of pytest closes to the server's own user.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
            import pgserver

            self._server: Any = pgserver.get_server(self._folder, cleanup_mode="stop")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        self._silent: list[psutil.Process] = []

    def stop(self) -> None:
        """Stop the server at once, its clients' connections cut."""
        import pgserver

        pgserver.pg_ctl(["-m", "immediate", "stop"], pgdata=self._folder, user=self._server.system_user)

    def start(self) -> None:
        """Start it again, on the same socket."""
        self._server.ensure_postgres_running()

    def fall_silent(self) -> None:
        """Freeze the server: it neither answers nor closes a connection."""
        first = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
        # The first one, which makes new ones, first.
        self._silent = [first]
        first.suspend()
        for process in first.children(recursive=True):
            self._silent.append(process)
            process.suspend()

    def speak(self) -> None:
        """Let it go on."""
        for process in self._silent:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def close(self) -> None:
        """Stop it for good."""
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


def study_rows(url: str) -> list[dict[str, Any]]:
    """Return every trial's number, state, value, params and reports, by plain SQL."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:

        def pairs(query: str, trial_id: int) -> dict[Any, Any]:
            return dict(connection.execute(sqlalchemy.text(query), {"id": trial_id}).all())

        trials = connection.execute(sqlalchemy.text("SELECT trial_id, number, state FROM trials ORDER BY number"))
        rows = [
            {
                "number": number,
                "state": str(state),
                "value": pairs("SELECT objective, value FROM trial_values WHERE trial_id = :id", trial_id).get(0),
                "params": pairs(
                    "SELECT param_name, param_value FROM trial_params WHERE trial_id = :id ORDER BY 1", trial_id
                ),
                "reports": pairs(
                    "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = :id ORDER BY 1",
                    trial_id,
                ),
                "intervals": int(
                    pairs(
                        "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = :id AND key = 'intervals'",
                        trial_id,
                    ).get("intervals", -1)
                ),
            }
            for trial_id, number, state in trials.all()
        ]
    engine.dispose()
    return rows
