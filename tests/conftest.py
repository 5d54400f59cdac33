"""For all tests: no network, one thread per process, and a way to insist that nothing is skipped.

They run in several processes (pytest-xdist; pyproject.toml has the flags). `pytest -n 0` runs them in one, for a debugger.
"""
import os

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
    excused = any(item.get_closest_marker(name) for name in MAY_SKIP)
    if report.skipped and item.config.getoption("--skip_nothing") and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped: {call.excinfo.value}"
    return report
