"""Encoding on Ray beside encoding here: the same vectors."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from caliber_pipeline.encoders.ray_encoder import WORTH_SENDING

_PROCESS = """
import json, sys
import numpy as np
from caliber_pipeline.encoders import ray_encoder
from caliber_pipeline.resources import Project
from caliber_pipeline.settings import Settings

texts = [f"note {number} says " + "that it is too long " * (number % 7) for number in range(1100)]
found = {}
ray_encoder.WORTH_SENDING = 1000
for backend in ("local", "ray"):
    seen = []
    project = Project.from_settings(Settings(output=f"{sys.argv[1]}/{backend}", backend=backend))
    found[backend] = project.build_encoder(lambda done, n: seen.append(done)).encode(texts)
difference = float(np.abs(found["local"] - found["ray"]).max())
print(json.dumps({"difference": difference, "shape": found["ray"].shape, "seen": sorted(seen)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_vectors_from_ray_are_those_of_this_machine(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _PROCESS, str(tmp_path)], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["shape"] == [1100, 384]
    # equal up to the order in which threads add up: unit vectors of single precision
    assert seen["difference"] < 1e-6
    assert seen["seen"][-1] == 1100
    assert WORTH_SENDING > 1000
