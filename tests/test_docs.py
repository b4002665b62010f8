"""The documentation runs: every Python block of README.md and docs/*.md, page by page; and names every quantity."""

import inspect
import re
from pathlib import Path

import pytest

from rnn_dynamics import dynamics

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUANTITIES = ROOT / "docs" / "quantities.md"


def code_of(page):
    """Return all Python blocks of a page as one program, each line where it stands in the page."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            line = "```"
        lines.append(line if inside and line != "```" else "")
    return "\n".join(lines)


@pytest.mark.usefixtures("allow_rank_promotion")  # as for a reader, who has not forbidden it
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page):
    """What they say about their numbers is asserted in them."""
    code = code_of(page)
    assert code.strip()
    exec(compile(code, page, "exec"), {"__name__": page.stem})


def test_every_quantity_is_on_the_page():
    named = set(re.findall(r"`(\w+)", QUANTITIES.read_text(encoding="utf-8")))
    functions = {name for name in dynamics.__all__ if inspect.isfunction(getattr(dynamics, name))}
    assert len(functions) > 15
    assert functions <= named
