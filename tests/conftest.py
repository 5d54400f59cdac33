"""For all tests: no network, one thread per process, a way to insist that nothing is skipped, and stripped exercises.

They run in several processes (pytest-xdist; pyproject.toml has the flags). `pytest -n 0` runs them in one, for a debugger.
"""
import os
import re

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"             # a checkpoint that is not there is told at once, not after retries
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the small models gain nothing from a second thread

import pytest  # noqa: E402

MAY_SKIP = ("gpu", "simulator", "browser")  # what no package can bring: a GPU, a library to draw with, a browser


def pytest_addoption(parser):
    parser.addoption("--skip_nothing", action="store_true",
                     help="a test that is skipped because a package is missing fails")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    needed = needed_exercise(item, report)
    if needed and not item.config.getoption("--skip_nothing"):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"needs exercise {needed}")
        return report
    excused = any(item.get_closest_marker(name) for name in MAY_SKIP)
    if report.skipped and item.config.getoption("--skip_nothing") and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped: {call.excinfo.value}"
    return report


STRIPPED = re.compile(r"NotImplementedError(?:: |\(['\"])exercise (\d+): ")


def needed_exercise(item, report):
    """The number of the exercise whose stripped body made this test fail, or None (exercises/README.md).

    The tests that grade it are to fail; all others are skipped, so that a student sees them alone. The text may also
    stand in what a process that the test started has printed.
    """
    if not report.failed or item.path.name == "test_classroom.py":  # which speaks of these errors
        return None
    found = STRIPPED.search("\n".join([report.longreprtext, *[text for _, text in report.sections]]))
    if found and not item.get_closest_marker(f"ex{found[1]}"):
        return found[1]
    return None
