"""Published data, read from local folders: what the paper trains on (sources.py, prepare.py)."""
