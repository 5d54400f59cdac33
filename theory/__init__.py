"""The theorem of section 3.3 and appendix E: simulated, broken and repaired. A chapter, to be read in this order.

    bounds.py      what the paper promises, what it should have promised, in closed form
    exact.py       the truth for Gaussian noise, by quadrature and finite sums
    simulate.py    the truth for any noise, by dice
    landscapes.py  small worlds in which the theorem holds, and one for each way in which it breaks
    audit.py       thousands of random worlds: how often the paper's bound is violated; whether the corrected one ever is
    figures.py     seven pictures for a lecture
    dial.py        the noise of a real verifier, and the group size that it asks for
    inputs.py      what every function asks of its arguments

`python -m theory` prints the table and the audit and draws the figures (results.md and figures/ here are its output);
`python tests/benchmark_theory.py` times it all against a plain loop.
Names: n draws a batch, m rewards, K actions, p the policy's mass on good ones, e the chance that one pair is misordered.
"""
