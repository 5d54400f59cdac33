"""What argos.py is made of, in reading order.

    answers.py      is an answer right? (the outcome score)
    claims.py       what a response says: its answer, points and times
    extraction.py   the same in free prose, listed by a judge (may be skipped)
    samples.py      the questions, read from JSONL
    coordinates.py  pixels as the policy saw them, as a teacher sees them, and the original's
    media.py        opening a picture or a clip; video.py opens more formats
    cards.py        a verdict in one picture
"""
