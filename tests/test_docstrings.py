"""Every example in a docstring of argos.py and verifier/ is true.

Run: pytest tests/test_docstrings.py
"""
import doctest
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


MODULES = ["argos"]
MODULES += sorted(f"verifier.{path.stem}" for path in (ROOT / "verifier").glob("*.py") if path.stem != "__init__")
WITH_EXAMPLES = ("argos", "verifier.answers", "verifier.claims", "verifier.extraction")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0
    assert found.attempted or name not in WITH_EXAMPLES
