"""Every example in a docstring is true.

Run: pytest tests/test_docstrings.py
"""
import doctest
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def modules():
    """Names of all modules of ours whose text holds an example."""
    paths = [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]
    ours = [path.relative_to(ROOT) for path in paths if path.parent.name not in ("tests", "out")]
    return sorted(".".join(path.with_suffix("").parts) for path in ours if "    >>> " in (ROOT / path).read_text())


WITH_EXAMPLES = {"argos", "runs.errors", "runs.files", "verifier.answers", "verifier.claims", "verifier.extraction"}


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and found.failed == 0


def test_no_module_has_lost_its_examples():
    assert WITH_EXAMPLES <= set(modules())
