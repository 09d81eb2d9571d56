"""Exports, in a process of their own.

After ONNX Runtime and OpenVINO have run in a process, a signal that Python handles ends it with a
segmentation fault (seen in `test_resume.py`, onnxruntime 1.31 and openvino 2026.4).
"""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_exports_agree_with_their_original() -> None:
    checks = Path(__file__).with_name("exports.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checks)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
