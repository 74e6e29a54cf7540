"""Commands, options and exit codes. What a command does is in a module of its own, imported when the command is called.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted with the work saved.
"""

import atexit
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from hpsearch import defaults
from hpsearch.errors import HpsearchError
from hpsearch.study_files import list_studies
from hpsearch.text import brief

F = TypeVar("F", bound=Callable[..., Any])
THREADS_SECONDS = 3.0


def main() -> None:
    """Run the command line and exit."""
    code = 1
    try:
        code = run_command(sys.argv[1:])
    finally:
        _end_in_time(code)
    sys.exit(code)


def run_command(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code, after one line on stderr for what the user can mend."""
    try:
        code = cli.main(list(arguments), standalone_mode=False)
    except click.exceptions.Abort:
        # What click makes of a Ctrl-C that no command has handled.
        return _fail("interrupted; run the same command again to continue", 130)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except HpsearchError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has closed the pipe; nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if (line := _database_away(error)) is None:
            raise
        return _fail(line, 1)
    return code if isinstance(code, int) else 0


def _database_away(error: Exception) -> str | None:
    """Return a message if the error is that the database does not answer, otherwise None."""
    from hpsearch.search.database import is_outage, reason

    if not is_outage(error):
        return None
    return f"the database does not answer ({reason(error, 'sqlite://')}): run the same command again when it does"


def _end_in_time(code: int) -> None:
    """End the process even if a thread of the user's code does not end, for which Python would wait forever."""

    def cut_off() -> None:
        left = [thread for thread in threading.enumerate() if not thread.daemon and thread != threading.main_thread()]
        if not left:
            return
        print(f"hpsearch: a thread of your code, {left[0].name}, did not end; it was stopped", file=sys.stderr)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(THREADS_SECONDS, cut_off)
    timer.daemon = True
    timer.start()


def _fail(message: str, code: int) -> int:
    print(f"hpsearch: {message}", file=sys.stderr)
    return code


class Count(click.types.IntParamType):
    """A whole number from `low` to `high`."""

    name = "number"

    def __init__(self, low: int = 1, high: int | None = None) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Fails with the allowed range."""
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or number < self._low or (self._high is not None and number > self._high):
            allowed = f"of at least {self._low}" if self._high is None else f"from {self._low} to {self._high}"
            self.fail(f"give a whole number {allowed}, not {brief(value)}", param, ctx)
        return number


class Seconds(click.types.FloatParamType):
    """A time span: a positive number, or zero if allowed."""

    name = "seconds"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Fails with the allowed range."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and (seconds > 0 or (self._zero and seconds == 0))):
            allowed = "of at least 0" if self._zero else "greater than 0"
            self.fail(f"give a number of seconds {allowed}, not {brief(value)}", param, ctx)
        return seconds


def _file_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a study file, or a path."""
    names = [CompletionItem(name, help=doc) for name, doc in list_studies().items() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def _stored_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a study in the storage."""
    from hpsearch.search.overview import stored_names

    storage = ctx.params.get("storage") or defaults.default_storage()
    try:
        return [CompletionItem(name) for name in stored_names(storage) if name.startswith(incomplete)]
    except HpsearchError:
        return []


study_option = click.option(
    "--study",
    required=True,
    metavar="NAME",
    help="A study in studies/ by name, or a path to a study file.",
    shell_complete=_file_names,
)
name_option = click.option(
    "--name", help="The study's name in the storage.  [default: the study file's]", shell_complete=_stored_names
)


runs_option = click.option(
    "--runs",
    envvar=defaults.RUNS_VARIABLE,
    default=defaults.RUNS,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for weights, histories and resume points ($HPSEARCH_RUNS).",
)


def storage_options(function: F) -> F:
    """Add the options `--storage` and `--runs`."""
    storage = click.option(
        "--storage",
        envvar=defaults.STORAGE_VARIABLE,
        default=defaults.STORAGE,
        show_default=True,
        metavar="URL",
        help="The database: sqlite:///FILE, postgresql://… or mysql://… ($HPSEARCH_STORAGE).",
    )
    return storage(runs_option(function))


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder with the data sets ($HPSEARCH_DATA); what is missing is downloaded to it.",
)


def out_option(default: str) -> Callable[[F], F]:
    """Return the option `--out`."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help=f"The folder to write to.  [default: {default}]",
    )


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, invoke_without_command=True
)
@click.version_option(package_name="hpsearch")
@click.pass_context
def cli(context: click.Context) -> None:
    """Hyperparameter search for PyTorch models.

    Write a study file, try it with `hpsearch check`, run it with `hpsearch run`.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


@cli.command()
@study_option
@click.option(
    "--n-trials", type=Count(), help="Finished trials in the study, all runs together.  [default: the study's]"
)
@name_option
@storage_options
@data_option
@click.option(
    "--sampler",
    metavar="NAME[:OPTION=VALUE,…]",
    help="tpe, random, grid, sobol, gp, cmaes, nsga2 or manual (enqueued trials only).  [default: the study's]",
)
@click.option(
    "--pruner",
    metavar="NAME[:OPTION=VALUE,…]",
    help="median, percentile, asha, hyperband, patient, threshold or none.  [default: the study's]",
)
@click.option("--workers", type=Count(0), help="Processes; 0 trains in this one.  [default: one per core, or GPU]")
@click.option("--seed", type=Count(0), help="Same seed and one worker: the same study.  [default: the study's]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, mps or auto.")
@click.option("--fresh", is_flag=True, help="Start a new study beside the old one (NAME.2, …).")
@click.option("--timeout", type=Seconds(), metavar="SECONDS", help="End the run after this time.")
@click.option("--trial-timeout", type=Seconds(), metavar="SECONDS", help="Restart a trial's worker after this time.")
@click.option(
    "--max-retries", type=Count(0), default=2, show_default=True, help="New workers for a trial whose worker dies."
)
@click.option(
    "--outage",
    type=Seconds(zero=True),
    default=90.0,
    show_default=True,
    metavar="SECONDS",
    help="End the run when the database is unreachable for longer. Other runs of the study take over its trials only "
    "after this time.",
)
@click.option("--keep-best", type=Count(), metavar="K", help="Keep the weights of the K best trials only.")
def run(**options: Any) -> int:
    """Run a study until N trials are finished.

    The same command again continues where it stopped, or says that nothing is left.
    """
    from hpsearch.cli.run import RunOptions, run_study

    return run_study(RunOptions(**options))


@cli.command()
@click.option(
    "--study", metavar="NAME", help="One study in detail.  [default: all in short]", shell_complete=_stored_names
)
@storage_options
def status(**options: Any) -> None:
    """Show the studies' trials and best results so far."""
    from hpsearch.cli.status import show_status

    show_status(**options)


@cli.command()
def studies() -> None:
    """List the study files."""
    from hpsearch.cli.studies import show_studies

    show_studies()


@cli.command()
@click.argument("params", nargs=-1, required=True, metavar="NAME=VALUE…")
@study_option
@name_option
@storage_options
@data_option
@click.option("--seed", type=Count(0), help="For a study that does not exist yet.  [default: the study's]")
def enqueue(**options: Any) -> None:
    """Put a trial of your own into the queue.

    The next run takes it first, and samples what is not given: hpsearch enqueue --study lenet lr=0.01 optimizer=adam
    """
    from hpsearch.cli.enqueue import enqueue_trial

    enqueue_trial(**options)


@cli.command()
@study_option
@data_option
@click.option("--workers", type=Count(), help="For the time estimate.  [default: one per core]")
def check(**options: Any) -> None:
    """Check a study: space, grid, data, model, time."""
    from hpsearch.cli.check import check_study

    check_study(**options)


@cli.command()
@study_option
@name_option
@storage_options
@data_option
@out_option("reports/NAME")
def report(**options: Any) -> int:
    """Write a study's report: a page, tables, plots.

    summary.md, trials.csv (one row per trial), history.csv (one row per epoch, or other interval) and plots/.
    """
    from hpsearch.cli.report import report_study

    return report_study(**options)


@cli.command()
@study_option
@click.option(
    "--strategies",
    required=True,
    metavar="S,S,…",
    help="SAMPLER[:OPTION=VALUE,…][+PRUNER[:OPTION=VALUE,…]] each, such as random,tpe,gp+asha; no pruner means none.",
)
@click.option("--repeats", type=Count(), default=5, show_default=True, help="Seeds for each strategy.")
@click.option("--epoch-budget", type=Count(), required=True, help="Epochs each strategy trains under each seed.")
@click.option("--name", help="The prefix of the pairs' names, NAME@STRATEGY#REPEAT.  [default: the study file's]")
@storage_options
@data_option
@click.option("--workers", type=Count(), help="Processes, each with one pair and one thread.  [default: one per core]")
@click.option("--seed", type=Count(0), help="The first repeat's seed; each next one adds 1.  [default: the study's]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N, mps or auto.")
@out_option("reports/NAME")
def compare(**options: Any) -> int:
    """Compare search strategies at an equal number of epochs.

    The same command again continues where it stopped, or only writes the comparison again.
    """
    from hpsearch.cli.compare import CompareOptions, compare_strategies

    return compare_strategies(CompareOptions(**options))


@cli.command()
@study_option
@click.option("--top", type=Count(), default=1, show_default=True, help="How many configurations, the best first.")
@click.option(
    "--where",
    metavar="CONDITION",
    help="Only trials for which it holds, such as 'parameters < 50000 and lr >= 0.01'; the columns of trials.csv.",
)
@name_option
@storage_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="best",
    show_default=True,
    help="The folder to write to.",
)
def export(**options: Any) -> None:
    """Write a study's best configurations as JSON files."""
    from hpsearch.cli.export import export_best

    export_best(**options)


@cli.command()
@click.argument("configurations", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="JSON…")
@click.option("--seeds", type=Count(), default=5, show_default=True, help="New seeds to confirm each candidate with.")
@click.option(
    "--study",
    metavar="NAME",
    help="The study, by name or path.  [default: the file in studies/ that the JSON was exported from]",
    shell_complete=_file_names,
)
@runs_option
@data_option
@click.option("--workers", type=Count(0), help="Processes; 0 trains in this one.  [default: one per core, or GPU]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, mps or auto.")
@out_option("reports/STUDY/retrain")
@click.option("--onnx", is_flag=True, help="Write model.onnx as well, checked by onnxruntime.")
def retrain(**options: Any) -> int:
    """Turn an exported configuration into a final model.

    Confirms it on validation data under new seeds (several JSONs: picks the best mean), trains it from scratch on
    training and validation data, tests it once, and writes weights, a torch.export program and a model card.
    """
    from hpsearch.cli.retrain import RetrainOptions
    from hpsearch.cli.retrain import retrain as retrain_best

    return retrain_best(RetrainOptions(**options))


@cli.command()
@storage_options
@click.option("--port", type=Count(0, 65535), default=8080, show_default=True, help="0 takes any free one.")
def dashboard(storage: str, runs: Path, port: int) -> None:
    """Serve the Optuna dashboard, read only."""
    from hpsearch.dashboard import make_server

    server = make_server(storage, port, runs)
    print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C stops it)", file=sys.stderr)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
