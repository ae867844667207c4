"""`make serve`: a page at once, outputs behind, edits rebuilt, faults told."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from docs._tools.problems import ROOT, Stop
from docs._tools.serve import _port_is_free
from tests.tools.conftest import KEY

START = (
    "import sys; from pathlib import Path; from docs._tools.guide import Guide; "
    "from docs._tools.serve import serve; serve(Guide(Path(sys.argv[1])), int(sys.argv[2]))"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(guide):
    """Serve a guide in a process of its own; give its port and what it prints."""
    port, said = free_port(), []
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", START, str(guide.root), str(port)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ),
    )
    threading.Thread(target=lambda: said.extend(process.stdout), daemon=True).start()
    try:
        yield port, said
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def get(port, path):
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/{path}", timeout=20
    ) as answer:
        return answer.read().decode()


def until(check, what, said, seconds=240):
    """Wait until check() is true; no assertion depends on how long it took."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if check():
                return
        time.sleep(0.2)
    pytest.fail(f"{what}; it said:\n{''.join(said)}")


def test_pages_come_first_outputs_follow_and_edits_are_rebuilt(site_fixture):
    fixture = site_fixture
    with serving(fixture.guide) as (port, said):
        until(lambda: get(port, f"{KEY}/"), "no page came", said)
        until(
            lambda: "mean 2.0" in get(port, f"{KEY}/"), "the outputs never came", said
        )
        assert "mean 2.0" in get(port, f"en/{KEY}/")
        assert re.search(rf"\[ *1/1\] {KEY}: ran in \d+ s", "".join(said))
        fixture.edit(fixture.snippet, "[3.0]", "[5.0]")
        until(lambda: "mean 3.0" in get(port, f"{KEY}/"), "the edit never came", said)
        fixture.edit_both("tags: [basics]", "tags: [basic]")
        until(lambda: "unknown tag" in "".join(said), "the fault was not told", said)
        assert "mean 3.0" in get(port, f"{KEY}/")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "nowhere/")


def test_a_cell_that_fails_is_told_once_and_the_page_stays(site_fixture):
    fixture = site_fixture
    fixture.edit(
        fixture.snippet, 'print("mean", mean', 'raise KeyError("lost") if 1 else (mean'
    )
    with serving(fixture.guide) as (port, said):
        until(
            lambda: "KeyError: 'lost'" in "".join(said),
            "the failure was not told",
            said,
        )
        assert "还没有" in get(port, f"{KEY}/")
        time.sleep(3)
        assert "".join(said).count("KeyError: 'lost'") == 1


def test_a_second_start_runs_nothing(site_fixture):
    fixture = site_fixture
    from docs._tools.execute import Runner

    assert Runner(fixture.guide).run() == []
    with serving(fixture.guide) as (port, said):
        until(
            lambda: "mean 2.0" in get(port, f"{KEY}/"), "no outputs at the start", said
        )
        assert "running" not in "".join(said)


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Stop, match=rf"Port {port} is taken.*PORT={port + 1}"):
            _port_is_free(port)


def test_sources_with_faults_are_served_and_told(site_fixture):
    fixture = site_fixture
    fixture.edit_both("tags: [basics]", "tags: [basic]")
    with serving(fixture.guide) as (port, said):
        until(lambda: get(port, f"{KEY}/"), "no page came", said)
        assert "unknown tag 'basic'" in "".join(said)
