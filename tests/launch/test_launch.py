"""Launch scripts with recorded stand-ins for the clients of clouds: calls, quoting, failures."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
CLIENTS = "gcloud", "sbatch", "srun", "sky", "xpk"
STAND_IN = f"""#!{sys.executable}
import json, os, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
task = [open(word).read() for word in words if word.endswith("task.yaml")]
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps({{"argv": words, "task": task}}) + "\\n")
if "describe" in words:
    states = os.environ["STATES"].split()
    seen = sum("describe" in json.loads(line)["argv"] for line in open(os.environ["RECORD"]))
    if states[seen - 1] == "NONE":
        sys.exit(1)
    print(states[seen - 1])
failing = os.environ.get("FAIL", "")
if failing and failing in " ".join(words):
    sys.exit(int(os.environ["CODE"]))
"""
SETTINGS = {
    "PROJECT": "project",
    "CLUSTER": "cluster",
    "CONFIG": "configs/a b.py",
    "WORKDIR": "gs://bucket/it's",
    "ARGUMENTS": "--config.seed=1",
    "STATES": "NONE WAITING_FOR_RESOURCES ACTIVE",
    "POLL": "0",
}


class Ended:
    """Result of a script: its exit code, its errors, and the calls that it made."""

    def __init__(self, done, record):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        lines = record.read_text().splitlines() if record.exists() else []
        self.recorded = [json.loads(line) for line in lines]

    @property
    def calls(self):
        return [call["argv"] for call in self.recorded]


@pytest.fixture
def launch(tmp_path):
    """Runs a script with stand-ins first on PATH."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in CLIENTS:
        (bin_ / name).write_text(STAND_IN)
        (bin_ / name).chmod(0o755)

    def run(script, *arguments, **settings):
        record = tmp_path / "record.jsonl"
        record.unlink(missing_ok=True)
        path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(tmp_path), "RECORD": str(record)}
        environment |= {"OUT": str(tmp_path / "out"), **SETTINGS, **settings}
        environment = {name: value for name, value in environment.items() if value is not None}
        done = subprocess.run(
            [LAUNCH / script, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ended(done, record)

    return run


def remote(call):
    """Returns the words of the last command of a remote shell, as that shell reads them."""
    (line,) = [word for word in call if word.startswith("--command=")]
    return shlex.split(line.removeprefix("--command=").rpartition(" && ")[2])


def verbs(ended):
    """Returns the names of the steps of a slice."""
    known = "create", "describe", "scp", "ssh", "cp", "rsync", "delete"
    return [next(word for word in call if word in known) for call in ended.calls]


def test_slice_from_the_queue_to_its_deletion(launch):
    ended = launch("tpu_vm", "all")
    assert ended.code == 0, ended.err
    asked = ["describe", "create", "describe", "describe", "scp", "ssh", "ssh", "cp", "rsync"]
    assert verbs(ended) == [*asked, "delete"]
    create, run, delete = ended.calls[1], ended.calls[6], ended.calls[-1]
    where = ["--project=project", "--zone=us-west4-a"]
    assert create == [
        *("gcloud", "compute", "tpus", "queued-resources", "create", "jaxcurate"),
        *("--node-id=jaxcurate", "--accelerator-type=v5litepod-8"),
        *("--runtime-version=v2-alpha-tpuv5-lite", *where),
    ]
    assert run[:5] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh"]
    assert "--worker=all" in run
    assert remote(run) == [
        *("exec", ".venv/bin/jaxcurate", "run", "--config=configs/a b.py"),
        *("--workdir=gs://bucket/it's", "--config.platform=tpu", "--config.seed=1"),
    ]
    assert delete[3:] == ["queued-resources", "delete", "jaxcurate", *where, "--force", "--quiet"]


@pytest.mark.parametrize("delete", ["always", "success", "never"])
def test_a_worker_that_fails_ends_the_script_with_its_code(launch, delete):
    deleted = delete == "always"
    ended = launch("tpu_vm", "all", FAIL="exec .venv/bin/jaxcurate", CODE="7", DELETE=delete)
    assert ended.code == 7
    assert ("delete" in verbs(ended)) == deleted
    assert "cp" not in verbs(ended)  # nothing is fetched
    assert ("cost money" in ended.err) == (not deleted)


def test_set_up_that_fails_does_not_run(launch):
    ended = launch("tpu_vm", "all", FAIL="scp", CODE="3", DELETE="never")
    assert ended.code == 3
    assert verbs(ended)[-1] == "scp"


def test_the_same_command_goes_on_with_a_slice_that_is_there(launch):
    ended = launch("tpu_vm", "all", STATES="ACTIVE ACTIVE")
    assert ended.code == 0
    assert "create" not in verbs(ended)


def test_a_slice_that_was_taken_away_is_told(launch):
    ended = launch("tpu_vm", "create", STATES="NONE PROVISIONING FAILED")
    assert ended.code == 2
    assert "jaxcurate is FAILED" in ended.err


def test_a_job_that_cannot_be_deleted_is_told(launch):
    ended = launch("tpu_vm", "all", FAIL="queued-resources delete", CODE="1")
    assert ended.code == 0
    assert "still cost money" in ended.err


@pytest.mark.parametrize("script", ["tpu_vm", "slurm", "skypilot", "xpk"])
def test_dry_run_calls_nothing(launch, script):
    ended = launch(script, "--dry-run", *(["all"] if script == "tpu_vm" else []))
    assert ended.code == 0, ended.err
    assert ended.calls == []
    assert ended.err.count("\n+") + ended.err.startswith("+") >= 1


@pytest.mark.parametrize("script", ["tpu_vm", "skypilot", "xpk"])
def test_settings_that_were_not_edited_are_refused(launch, script):
    ended = launch(script, *(["all"] if script == "tpu_vm" else []), WORKDIR=None)
    assert ended.code == 2
    assert "WORKDIR is gs://my-bucket/weblike" in ended.err
    assert ended.calls == []


def test_slurm_submits_itself(launch):
    ended = launch("slurm", WAIT="yes", PARTITION="gpu", NODES="3", GPUS="4")
    assert ended.code == 0, ended.err
    (call,) = ended.calls
    assert call[-1] == str(LAUNCH / "slurm")
    assert {"--nodes=3", "--ntasks-per-node=4", "--gpus-per-node=4"} < set(call)
    assert {"--partition=gpu", "--wait", "--requeue"} < set(call)


def test_slurm_job_runs_on_all_tasks_and_ends_with_their_code(launch):
    ended = launch("slurm", SLURM_JOB_ID="1", FAIL="run", CODE="9")
    assert ended.code == 9
    assert ended.calls == [
        [
            *("srun", "--kill-on-bad-exit=1", "--label", ".venv/bin/jaxcurate", "run"),
            *("--config=configs/a b.py", "--workdir=gs://bucket/it's", "--config.platform=gpu"),
            "--config.seed=1",
        ]
    ]
    on_cpus = launch("slurm", SLURM_JOB_ID="1", GPUS="0")
    assert "--config.platform=cpu" in on_cpus.calls[0]


def test_skypilot_launches_a_task_and_removes_its_machines(launch):
    ended = launch("skypilot", NODES="2")
    assert ended.code == 0, ended.err
    assert [call[:2] for call in ended.calls] == [["sky", "launch"], ["sky", "down"]]
    (task,) = ended.recorded[0]["task"]
    line = task.rpartition("run: |\n")[2].strip()
    # The shell of the node joins the words, and fills in the addresses.
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {line}"],
        env={"PATH": os.environ["PATH"], "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
        | {"SKYPILOT_NODE_RANK": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert words == [
        *(".venv/bin/jaxcurate", "run", "--config=configs/a b.py", "--workdir=gs://bucket/it's"),
        *("--config.platform=gpu", "--config.seed=1", "--coordinator=10.0.0.1:8476"),
        *("--n_processes=2", "--process_id=1"),
    ]
    assert "num_nodes: 2\n" in task


def test_skypilot_task_that_fails(launch):
    ended = launch("skypilot", FAIL="launch", CODE="100", DELETE="success")
    assert ended.code == 100
    assert len(ended.calls) == 1


def test_xpk_workload(launch):
    ended = launch("xpk", TYPE="v5litepod-256")
    assert ended.code == 0, ended.err
    create, wait, delete = ended.calls
    assert create[:4] == ["xpk", "workload", "create", "--workload=jaxcurate"]
    assert "--tpu-type=v5litepod-256" in create
    assert "--config=configs/a b.py" in remote(create)
    assert "--wait-for-job-completion=jaxcurate" in wait
    assert delete[:3] == ["xpk", "workload", "delete"]


def test_xpk_workload_that_fails(launch):
    ended = launch("xpk", FAIL="--wait-for-job-completion", CODE="125", DELETE="never")
    assert ended.code == 125
    assert [call[2] for call in ended.calls] == ["create", "list"]


def test_scripts_are_clean():
    beside = Path(sys.executable).parent / "shellcheck"
    shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("no shellcheck: it is in requirements/*-test.txt")
    scripts = [LAUNCH / name for name in ("tpu_vm", "slurm", "skypilot", "xpk", "common.sh")]
    done = subprocess.run(
        [shellcheck, "-x", *scripts], cwd=LAUNCH.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
