"""Numbers that were measured stand in an example's text as its results have them, or with the date they were made.

A table that cog draws cannot differ from its results (``test_tables.py``). Here the text around the tables is read.
"""

import importlib
import itertools
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
READMES = sorted(EXAMPLES.glob("**/README.md"))

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
# With a unit of accuracy or of a ratio, or with decimals; not a part of a name or a version.
MEASURED = re.compile(
    rf"(?<![\w.,-])(?:({NUMBER})(?=\s?(?:%|points?\b|x\b|±))|(\d+\.\d+)(?![\w.]*\w))|(?<=±\s)({NUMBER})"
)
DRAWN = re.compile(r"<!-- \[\[\[cog.*?\]\]\] -->(.*?)<!-- \[\[\[end\]\]\] -->", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]+(?:\n[^`\n]+)?`", re.DOTALL)
CITED = re.compile(r"arXiv|et al\.|Li, Zhang and Li|github\.com")
SENTENCE = re.compile(r"(?<!\bal\.)(?<=[.:])\s+")
MADE = re.compile(r"\b(?:made|run)\b[^.]*?\b20\d\d\b", re.DOTALL)
BELOW = re.compile(r"\bthose\s+below\b|\bthis\s+page\b|\bthe\s+sections\s+below\b")
# What texts say of intervals, and one of the 359 test images of the digits in %.
ALWAYS = {"95", "0.28"}


def sections(text):
    """Return the text of each section, from the beginning of the file on."""
    outside = CODE.sub(lambda code: code[0].replace("#", "-"), text)  # a comment in a shell is no title
    starts = [0, *(match.start() for match in re.finditer(r"^## ", outside, re.MULTILINE)), len(text)]
    return [text[start:stop] for start, stop in itertools.pairwise(starts)]


def measured(section):
    """Yield each measured number of the text of a section, with the paragraph that it stands in.

    What cog printed, code and sentences about other people's numbers do not count.
    """
    text = CODE.sub("", DRAWN.sub("\n\n", section))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*- )", text):
        own = " ".join(sentence for sentence in SENTENCE.split(paragraph) if not CITED.search(sentence))
        for match in MEASURED.finditer(own):
            yield next(number for number in match.groups() if number), paragraph.strip()


def numbers(text):
    return set(re.findall(NUMBER, text))


def known(readme, text):
    """Return the numbers that cog printed in a README, and those of its commands and recipes, as fractions and in %."""
    asked = numbers("".join([*CODE.findall(text), *(path.read_text() for path in readme.parent.glob("*.toml"))]))
    parts = {f"{100 * float(number.replace(',', '')):g}" for number in asked}
    return numbers("".join(DRAWN.findall(text))) | asked | parts | ALWAYS


def wrong(readme, text):
    """Return the measured numbers of a README that neither its results nor the date of their making account for."""
    found, right, dated = [], known(readme, text), False
    for section in sections(text):
        drawn, made = "[[[cog" in section, MADE.search(section)
        for number, paragraph in measured(section):
            if number not in right and (drawn or not (dated or made)) and not MADE.search(paragraph):
                found.append(f"{number}: {paragraph}")
        dated = dated or bool(made and BELOW.search(section))
    return found


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_what_is_said_of_a_table_is_in_the_table(readme):
    assert wrong(readme, readme.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("folder", "true", "false"),
    [
        ("ikd", "image is 0.28", "image is 0.31"),  # beside a table that cog draws
        ("frontier", "[[[end]]] -->\n\n![", "[[[end]]] -->\n\n`kd` loses 1.7 points.\n\n!["),
        ("recipes", "made on 29 November 2026", "made"),  # tables that were typed
    ],
)
def test_a_number_without_results_or_a_date_is_noticed(folder, true, false):
    readme = EXAMPLES / folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert true in text
    assert wrong(readme, text.replace(true, false))


def test_a_number_of_ours_beside_a_citation_is_read():
    text = "Theirs has 95.8 % (Li et al., 2020; arXiv:2006.05525), or 3 %: here it reaches 98.4 %. It is new."
    assert [number for number, _ in measured(text)] == ["98.4"]


def rows_of(number):
    """Return the rows of a table of examples/README.md that cog drew."""
    table = DRAWN.findall((EXAMPLES / "README.md").read_text(encoding="utf-8"))[number]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:2] == "| "][
        1:
    ]


def test_claims_have_the_numbers_of_the_readme_that_they_name():
    claims = [row for row in rows_of(0) if row[4].startswith("[README.md]")]
    assert len(claims) >= 15
    for row in claims:
        text = (EXAMPLES / re.search(r"\((.+)\)", row[4])[1]).read_text(encoding="utf-8")
        assert {number for number in numbers(row[3]) if "." in number} <= numbers(text), row


def test_needs_have_the_numbers_of_the_study_that_they_name():
    needs = [(row, re.findall(rf"{NUMBER} ± {NUMBER}", row[2])) for row in rows_of(1)]
    assert sum(bool(found) for _, found in needs) >= 5
    for row, found in needs:
        text = (EXAMPLES / re.search(r"\((.+)\)", row[3])[1]).read_text(encoding="utf-8")
        assert all(number in text.replace("**", "") for number in found), row


def test_a_conclusion_that_the_results_no_longer_allow_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    claims, tables = importlib.import_module("claims"), importlib.import_module("tables")
    assert claims.Claim("ikd", "It is small", "agree", "1").row()[2] == "**agree**"
    with pytest.raises(ValueError, match="It is small"):
        claims.Claim("ikd", "It is small", "agree", "1", holds=False).row()
    assert tables.fact("It is so.", True) == "It is so."
    with pytest.raises(ValueError, match="no longer so: It is so"):
        tables.fact("It is so.", False)
