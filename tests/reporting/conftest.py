"""For all tests of reports."""

import pytest

from verdicts import ship


@pytest.fixture(autouse=True)
def _calibration(monkeypatch) -> None:
    """The numbers that come with the package play no part here."""
    ship(monkeypatch)
