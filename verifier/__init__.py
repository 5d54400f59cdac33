"""What argos.py is made of, in reading order.

    texts.py        texts that mean the same
    numbers.py      texts that are one number
    answers.py      is an answer right? (the outcome score)
    foils.py        an answer that also means another truth means neither
    claims.py       what a response says: its answer, points and times
    extraction.py   the same in free prose, listed by a judge (may be skipped)
    samples.py      the questions, read from JSONL
    coordinates.py  pixels as the policy saw them, as a teacher sees them, and the original's
    media.py        opening a picture or a clip; video.py opens more formats
    points.py       points against masks
    coverage.py     does the reasoning point at what the question names? (off by default)
    cards.py        a verdict in one picture
"""
