"""What TensorBoard's own HParams plugin reads from the trials' events."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from hpsearch.study import load_study
from support import STUDIES
from support.course import run

POINTS = [
    {"lr": 0.1, "optimizer": "adam", "hidden": 8, "dropout": 0.2},
    {"lr": 0.1, "optimizer": "sgd", "momentum": 0.9, "hidden": 32, "dropout": 0.2},
]


def ask(folder: Path, path: str, **request: Any) -> dict[str, Any]:
    """Return the plugin's answer over the events below `folder`."""
    with warnings.catch_warnings():
        # Of what TensorBoard bundles.
        warnings.simplefilter("ignore", DeprecationWarning)
        from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
    events = EventMultiplexer()
    events.AddRunsFromDirectory(str(folder))
    events.Reload()
    context = TBContext(data_provider=MultiplexerDataProvider(events, str(folder)), logdir=str(folder))
    application = HParamsPlugin(context).get_plugin_apps()[path]
    answer = Client(application).post(f"/experiment/0{path}", data=json.dumps(request))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.text)
    return found


def test_the_hparams_tab_shows_every_parameter_and_the_final_value(tmp_path: Path) -> None:
    results = run(load_study(str(STUDIES / "tiny.py")), POINTS, tmp_path)
    runs = tmp_path / "runs"
    experiment = ask(runs, "/experiment")
    assert {found["name"] for found in experiment["hparamInfos"]} == {*POINTS[0], *POINTS[1]}
    wanted = {"name": {"tag": "accuracy/best_validation", "group": ""}}
    assert wanted["name"] in [found["name"] for found in experiment["metricInfos"]]
    statuses = ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_FAILURE"]
    query = {"allowedStatuses": statuses, "colParams": [], "startIndex": 0, "sliceSize": 10}
    groups = ask(runs, "/session_groups", **query)["sessionGroups"]
    for number, point in enumerate(POINTS):
        (group,) = [group for group in groups if group["sessions"][0]["name"] == f"tiny/{number}"]
        assert group["hparams"] == pytest.approx(point)
        (value,) = [value for value in group["metricValues"] if value["name"] == wanted["name"]]
        assert value["value"] == pytest.approx(results.trials.loc[number, "best_value"])
        assert group["sessions"][0]["status"] == "STATUS_SUCCESS"


def test_there_is_no_folder_below_a_trials(tmp_path: Path) -> None:
    run(load_study(str(STUDIES / "tiny.py")), POINTS[:1], tmp_path)
    assert not [path for path in (tmp_path / "runs" / "tiny" / "0").iterdir() if path.is_dir()]
