"""For all tests of reports."""

import pytest

from shapprune.method import detection
from shapprune.method.detection import Calibration
from verdicts import ship

OTHERS = Calibration(
    {}, None, ((-9.0,),) * 8, {"population": "others"}, {"reflection": ((9.0,), (-9.0,)) * 2}
)


@pytest.fixture(autouse=True)
def _calibration(monkeypatch) -> None:
    """The numbers that come with the package play no part here."""
    ship(monkeypatch)
    monkeypatch.setattr(detection, "unseen", lambda: OTHERS)
