"""Published data, read from local folders: what the paper trains on (sources.py, prepare.py) and is measured on (tasks.py, score.py)."""
