"""What every test of a question gets: the evidence, run once a file."""

import pytest

from tests.running import RunResult, run_main


@pytest.fixture(scope="module")
def evidence(request: pytest.FixtureRequest) -> RunResult:
    """Run the snippet that the test file mirrors.

    Its names are shared by the tests of the file: look at them, do not change them.
    """
    room, stem = request.path.parent.name, request.path.stem.removeprefix("test_")
    return run_main(f"snippets.questions.{room}.{stem}")
