"""`docs/security.md` names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "security.md"


def test_every_hazard_names_tests_that_there_are() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    held = [(row[1].strip(), row[3]) for row in rows[2:]]
    assert len(held) > 20
    for hazard, tests in held:
        named = re.findall(r"`([a-z0-9_]+/test_[a-z0-9_]+\.py)`((?:[:,] `\w+`)*)", tests)
        assert named, hazard
        for file, pieces in named:
            source = (TESTS / file).read_text()
            for piece in re.findall(r"\w+", pieces):
                assert re.search(rf"def test_\w*{piece}", source), piece
