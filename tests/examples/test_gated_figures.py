"""The figures of the gated study are those of its results."""

import json
import re
import runpy
from pathlib import Path

GATED = Path(__file__).parents[2] / "examples" / "gated"
MAX_BYTES = 100_000
TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")
MARK = re.compile(r"<use ")


def test_the_figures_show_every_student_of_the_results(tmp_path):
    script = runpy.run_path(str(GATED / "figures.py"))
    script["main"](tmp_path)
    rows = json.loads((GATED / "results-figures.json").read_text())["rows"]
    assert len(script["FIGURES"]) == 3
    for name, (step, key, measure, *_) in script["FIGURES"].items():
        drawn, kept = (path.read_text() for path in (tmp_path / name, GATED / name))
        assert TEXT.findall(drawn) == TEXT.findall(kept)
        assert len(MARK.findall(drawn)) == len(MARK.findall(kept))
        chart = script["chart"](rows, *script["FIGURES"][name])
        points = {(x.x, x.y) for line in chart.panels[0].lines.values() for x in line}
        assert {(row["values"][key], row[measure]) for row in rows if row["step"] == step} <= points
    # kl_0 = 0 is the search for the smallest KL.
    of_kl = script["chart"](rows, *script["FIGURES"]["error-against-kl.svg"]).panels[0].lines
    assert [line[0].x for line in of_kl.values()] == [0, 0, 0]


def test_every_picture_is_small():
    pictures = sorted(GATED.glob("*.svg"))
    assert len(pictures) == 5
    assert all(picture.stat().st_size < MAX_BYTES for picture in pictures)
