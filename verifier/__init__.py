"""What argos.py is made of, in reading order.

    markup.py       Markdown and LaTeX to plain text
    texts.py        texts that mean the same
    amounts.py      texts that are one number
    answers.py      is an answer right? (the outcome score)
    foils.py        an answer that also means another truth means neither
    claims.py       what a response says: its answer, points and times
    extraction.py   the same in free prose, listed by a judge (may be skipped)
    samples.py      the questions, read from JSONL
    coordinates.py  whose pixels is a point in? the file's, the policy's, or percent
    media.py        a file becomes frames; video.py decodes videos in a child process
    moments.py      which frame does a point or a claim mean?
    points.py       points against masks
    coverage.py     does the reasoning point at what the question names? (off by default)
    watch.py        is the reward being hacked? what to measure and to log
    asking.py       teachers are asked in batches, and may fail
    explain.py      a verdict in words; cards.py draws it beside the picture
    prompts.py      what the models are told
    selfcheck.py    a check before any training: are points read in the policy's pixels?
    rollouts.py     rows and responses that came as JSON, for serve.py
"""
