"""Every example in a docstring of verifier/ is true.

Run: pytest tests/test_docstrings.py
"""
import doctest
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


MODULES = sorted(path.stem for path in (ROOT / "verifier").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"verifier.{name}"))
    assert found.failed == 0
    assert found.attempted or name not in ("answers", "claims", "extraction")  # these have examples
