"""What the paper trains on and is measured with, read from local folders; nothing here is downloaded.

Training data   sources.py, prepare.py: Video-R1 and PixMo-Count -> JSONL for curate.py and train_grpo.py
Tables 1 and 2  tasks.py (the benchmarks as data), score.py (what was answered; averages), run.py and report.py: evaluate.py --benchmark
Tables 3 and 4  embodied.py (EmbodiedBench's planner loop), plans.py; household.py and chores.py, a small world of the same interface
Table 5         libero.py: the policy as a robot's controller
"""
