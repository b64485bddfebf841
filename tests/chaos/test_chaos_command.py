"""`interlock chaos run`: the matrix, the files, the exit code, and agents that misbehave; nothing is left running."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
HERE = Path(__file__).parent


def chaos(*words, cwd=HERE, **environment):
    return subprocess.run(
        [str(Path(sys.executable).with_name("interlock")), "chaos", *map(str, words)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def suite(tmp_path, agent, **words):
    file = tmp_path / "suite.yaml"
    task = {"name": "task", "expect": "success", **words.pop("task", {})}
    file.write_text(json.dumps({"tasks": [task], **words}))
    return [file, "--agent", f"subject_agents:{agent}", "--json"]


def outcome(done):
    (task,) = json.loads(done.stdout)["tasks"]
    return task


def test_the_golden_tasks_pass_and_are_written_down(tmp_path):
    done = chaos("run", "--junit", tmp_path / "j.xml", "--html", tmp_path / "h.html", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert [task["verdict"] for task in report["tasks"]] == ["passed"] * 6
    assert report["measures"]["faults_injected"] > 20
    assert "[6/6]" in done.stderr
    assert ET.parse(tmp_path / "j.xml").getroot().attrib["tests"] == "6"
    page = (tmp_path / "h.html").read_text()
    assert "flaky_tool" in page
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".db"] == []


def test_the_golden_tasks_of_the_examples_pass():
    examples = HERE.parents[1] / "examples"
    done = chaos("run", "golden_tasks.yaml", "--agent", "triage:triage", "--json", cwd=examples)
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = {task["name"]: task for task in json.loads(done.stdout)["tasks"]}
    assert tasks["deploy_kills_the_worker"]["repetitions"][0]["injected"] == {"worker_killed": 1}
    assert [each["effects"]["invoice.send"] for each in tasks["invoice_answer_is_lost"]["repetitions"]] == [1, 1, 1]


def test_what_production_has_and_the_suite_lacks_is_printed(tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text(
        json.dumps({"run_id": "r", "stop_reason": "abandoned", "steps": 1, "tool_calls": 0, "trace": []})
    )
    done = chaos("run", "--task", "simple_search", "--cover-production", records)
    assert done.returncode == 0, done.stderr
    assert "in production, not here: 1 runs with abandoned" in " ".join(done.stdout.split())
    assert "stop reasons exercised: 1 of 26" in done.stdout
    records.write_text("{}")
    assert (
        "no file holds recorded runs" in chaos("run", "--task", "simple_search", "--cover-production", records).stderr
    )
    assert "no such file" in chaos("run", "--cover-production", tmp_path / "nowhere").stderr


def test_a_failure_says_how_to_repeat_it(tmp_path):
    words = suite(tmp_path, "reads", task={"expect": "budget_stop", "faults": [{"kind": "reset"}]})
    done = chaos("run", *words[:-1], "--junit", tmp_path / "j.xml")
    assert done.returncode == 1
    assert "not by a budget" in done.stdout
    again = f"interlock chaos run {words[0]} --agent subject_agents:reads --task task"
    assert again in done.stdout
    (case,) = ET.parse(tmp_path / "j.xml").getroot()
    assert case[0].tag == "failure"
    assert case[0].text == again
    assert chaos(*again.split()[2:]).returncode == 1


def test_the_name_of_a_suite_may_stand_alone(tmp_path):
    words = suite(tmp_path, "reads", task={"faults": [{"kind": "latency"}]})
    done = chaos(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_suite_that_injects_nothing_is_warned_of(tmp_path):
    done = chaos("run", *suite(tmp_path, "reads"))
    assert done.returncode == 0
    assert "warning: this suite injects nothing" in done.stderr


def gone(pid):
    """Whether a process is no more, or only waits for init to take note of its end."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not found.strip() or found.strip().startswith("Z")


def alive(mark):
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(mark) in line and "ps -eo" not in line]


def test_an_agent_that_hangs_is_ended_with_what_it_started(tmp_path):
    mark = tmp_path / "started"
    done = chaos("run", *suite(tmp_path, "hangs", task={"input": str(mark)}, limit_s=8.0))
    assert done.returncode == 1
    assert outcome(done)["verdict"] == "error"
    assert "limit_s = 8" in outcome(done)["error"]
    assert mark.exists()
    assert alive(mark) == []


KILLED = [{"kind": "worker_killed", "tool": "note.send"}]


def test_a_worker_that_hangs_is_ended_with_what_it_started(tmp_path):
    mark = tmp_path / "started"
    task = {"input": str(mark), "faults": KILLED}
    (tmp_path / "tmp").mkdir()
    words = suite(tmp_path, "hangs_in_its_worker", task=task, limit_s=12.0)
    done = chaos("run", *words, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 1
    assert "limit_s = 12" in outcome(done)["error"]
    assert mark.exists()
    assert alive(mark) == []
    assert [line for line in alive("interlock-workers-") if "trial_worker" in line] == []
    assert list(tmp_path.glob("*/interlock-*")) == []


def test_a_worker_that_fails_by_itself_is_an_error_with_what_it_said(tmp_path):
    done = chaos("run", *suite(tmp_path, "exits_in_its_worker", task={"faults": KILLED}))
    assert done.returncode == 1
    assert "worker 0 ended with 3 and no result: the worker says why" in outcome(done)["error"]


def test_what_an_agent_forks_is_ended(tmp_path):
    done = chaos("run", *suite(tmp_path, "forks", task={"input": str(tmp_path / "forked")}))
    assert done.returncode == 0, done.stdout
    assert gone(int((tmp_path / "forked").read_text()))


def test_an_agent_that_ends_its_process_is_an_error_with_what_it_said(tmp_path):
    done = chaos("run", *suite(tmp_path, "exits"))
    assert done.returncode == 1
    assert "ended with 3" in outcome(done)["error"]


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("subject_agents:nobody", "nobody"),
        ("no_such_module:agent", "no_such_module"),
        ("subject_agents", "say MODULE:NAME"),
        ("subject_agents:SENT", "not a function"),
        ("json:loads", "0 gates"),
    ],
)
def test_an_agent_that_cannot_be_used_is_said(tmp_path, agent, said):
    file, *_ = suite(tmp_path, "reads")
    done = chaos("run", file, "--agent", agent, "--json")
    assert done.returncode == 1
    assert said in outcome(done)["error"]


def test_a_probe_that_fails_is_said(tmp_path):
    done = chaos("run", *suite(tmp_path, "sends", probe="subject_agents:broken_probe"))
    assert done.returncode == 1
    assert "the probe failed: RuntimeError: the backend is away" in outcome(done)["error"]


def test_a_task_that_is_not_there_and_a_file_that_is_not_there(tmp_path):
    file, *_ = suite(tmp_path, "reads")
    assert "has no task nobody" in chaos("run", file, "--task", "nobody").stderr
    assert "no such file" in chaos("run", tmp_path / "none.yaml").stderr
