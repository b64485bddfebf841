"""A disk that is full, under a whole gate: writes are refused by name, reads go on, and it recovers by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).with_name("full_disk.py")
# A name space of our own, in which anybody may mount; the mount goes with the process.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]


def on_a_small_disk(folder, *command, size="3m"):
    mount = f"mount -t tmpfs -o size={size},mode=700 none {folder}"
    words = [*NAMESPACE, "sh", "-c", f'{mount} && exec "$@"', "sh", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def small_disk(tmp_path):
    if shutil.which("unshare") is None or on_a_small_disk(tmp_path, "true").returncode:
        pytest.skip("no file system may be mounted here, not even in a name space of our own")
    return tmp_path


def test_no_acknowledged_intent_is_lost_and_no_effect_happens_twice(small_disk):
    done = on_a_small_disk(small_disk, sys.executable, SCRIPT, small_disk)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Refused while the disk was full, by name, and not executed; a new request too. Reads went on.
    assert found["refused"] == ["store_unavailable"], found
    assert found["refused_that_happened"] == 0
    assert found["new_while_full"] == "store_unavailable"
    assert found["reads_while_full"] > 0
    # Once there was room, every run went on and ended, and so did the new request, without a person.
    assert found["reasons"] == ["success"]
    # Each effect once, each with its claim, each closed.
    assert found["most_of_one"] == 1
    assert found["answered_without_effect"] == 0
    assert found["claims"] == {"done": found["effects"]}
    assert found["answered"] == found["effects"]
