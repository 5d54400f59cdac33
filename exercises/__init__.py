"""Twelve exercises in the code itself. `python -m exercises` lists them; README.md says how to work with them."""
