"""Starts keyrelay for a test suite in Python (pytest), on free ports, and waits until it is ready."""

import os
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.request

import pytest

CONFIG = pathlib.Path(__file__).with_name("keyrelay.toml")


def is_ready(admin):
    try:
        return urllib.request.urlopen(f"{admin}/readyz", timeout=5).status == 200
    except urllib.error.HTTPError:
        return False


@pytest.fixture(scope="session")
def keyrelay():
    """The URL of keyrelay."""
    env = {**os.environ, "KEYRELAY_PORT": "0", "KEYRELAY_ADMIN_PORT": "0", "KEYRELAY_LOG": "warn"}
    command = [os.environ.get("KEYRELAY", "keyrelay"), "run", str(CONFIG)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = {}
            for line in process.stdout:
                if match := re.match(r"(admin|listening) (\S+)", line):
                    found[match[1]] = match[2]
                if "listening" in found:
                    break
            assert "listening" in found, "keyrelay has ended; its last lines say why"
            deadline = time.monotonic() + 10
            while not is_ready(found["admin"]):
                assert time.monotonic() < deadline, "keyrelay is not ready after 10 s"
                time.sleep(0.05)
            yield found["listening"]
        finally:
            process.terminate()
