"""The theorem of section 3.3 and appendix E: simulated, broken and repaired. README.md tells the story.

    bounds.py      what the paper promises, and what it should have promised, in closed form
    exact.py       the truth for Gaussian noise, by integrals and finite sums
    simulate.py    the truth for any noise, by simulation; the plain one first
    landscapes.py  small worlds in which the theorem holds, and one for each way in which it breaks
    audit.py       thousands of random worlds: how often the paper's bound is violated; whether ours ever is
    figures.py     seven pictures for a lecture
    noise.py       teachers that are wrong on purpose
    dial.py        the noise of a real verifier, and the group size that it asks for

Names: n draws per batch, m rewards, K actions, p the policy's mass on good ones, e the chance that one pair
is misordered.
"""
