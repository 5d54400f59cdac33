"""The first command of the READMEs, as typed there, and the figure that is drawn from the same verdict."""
import shlex
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import argos
from tiny import pipeline

ROOT = Path(__file__).resolve().parent.parent
READMES = [name for name in ("README.md", "tiny/README.md") if "tiny/example.png" in (ROOT / name).read_text()]


def typed_command(text):
    """The words of the command that verifies tiny/example.png; it goes on where a line ends in a backslash."""
    lines = text[text.index("python argos.py tiny/example.png"):].splitlines()
    last = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
    return shlex.split(" ".join(line.rstrip("\\") for line in lines[:last + 1]))


def test_a_readme_shows_the_command():
    assert "tiny/README.md" in READMES


@pytest.mark.parametrize("readme", READMES)
def test_the_readmes_command_prints_what_the_readme_shows(readme, monkeypatch, tmp_path, capsys):
    text = (ROOT / readme).read_text()
    words = typed_command(text)
    card = tmp_path / words[words.index("--card") + 1]
    words[words.index("--card") + 1] = str(card)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", words[1:])
    argos.main()
    printed = capsys.readouterr().out.splitlines()
    shown = text.splitlines()
    assert [line for line in printed[:-1] if line not in shown] == []  # the last line names the card's folder
    assert printed[-2].endswith(" = 0.87")
    assert Image.open(card).size == Image.open(ROOT / "tiny/results/card-example.png").size


def run_pipeline(monkeypatch, tmp_path):
    """Draw everything into tmp_path -> all texts of the figure."""
    texts = []
    save = pipeline.save_figure

    def watched(figure, path):
        if isinstance(figure, plt.Figure):
            texts.extend(text.get_text() for text in figure.findobj(matplotlib.text.Text))
        save(figure, path)
    monkeypatch.setattr(pipeline, "save_figure", watched)
    monkeypatch.setattr(sys, "argv", ["pipeline", "--out", str(tmp_path)])
    pipeline.main()
    return texts


def test_the_figure_shows_the_verdict(monkeypatch, tmp_path, capsys):
    texts = run_pipeline(monkeypatch, tmp_path)
    drawn, shipped = Image.open(tmp_path / "example.png"), Image.open(ROOT / "tiny/example.png")
    assert np.array_equal(drawn, shipped)
    width, height = Image.open(tmp_path / "results/pipeline.png").size
    assert width == 1600 and height > 1000
    assert {"gate open", "R = 0.87", "0.50", "R = 0.00", "point 1 in", "point 2 out"} <= set(texts)
    assert pipeline.COMMAND in capsys.readouterr().out


def test_the_figures_numbers_are_computed(monkeypatch, tmp_path):
    better = pipeline.RESPONSE.replace('x1="68" y1="16"', 'x1="68" y1="64"')  # the second point, on the second square
    monkeypatch.setattr(pipeline, "RESPONSE", better)
    texts = run_pipeline(monkeypatch, tmp_path)
    assert {"R = 1.00", "2 points: (16, 44), (68, 64)", "point 2 in"} <= set(texts) and "R = 0.87" not in texts
