"""Charts of odd, many and few values."""

import re

import pytest

from shapprune.reporting.charts import Bar, map_chart, score_chart
from verdicts import next_class


@pytest.mark.parametrize(
    "scores", [[3.0, 3.0, 3.0], [-1e4, 2.0, 2.0, 1e5], [0.0], [1.0, float("-inf")]]
)
def test_charts_of_odd_scores(scores):
    bars = [Bar(str(c), f"class {c}", score) for c, score in enumerate(scores)]
    chart = score_chart(bars, bounds={"low": 1.0, "high": 1.0})
    assert chart.count("<rect") == len(scores)
    assert "nan" not in chart
    assert "inf" not in chart


def test_charts_of_scores_keep_the_highest():
    bars = [Bar(str(c), f"class {c}", float(-c), "target" * (c == 0)) for c in range(200)]
    chart = score_chart(bars, bounds={"suspicious": -2.5, "backdoored": -1.5}, clean=[-3.0] * 7)
    assert re.findall(r"<title>class (\d+): ", chart) == [str(c) for c in range(30)]
    assert "170 others" in chart
    assert chart.count('class="stroke"') == 7
    assert "class 0: 0.00, target" in chart
    ends = [float(end) for end in re.findall(r'<rect x="0" width="([\d.]+)%"', chart)]
    bounds = [float(x) for x in re.findall(r'<line class="bound" x1="([\d.]+)%"', chart)]
    assert ends == sorted(ends, reverse=True)
    assert ends[3] < bounds[0] < ends[2] < bounds[1] < ends[1]


def test_maps_of_few_and_many_classes():
    answers = [[0, 3, 1], [0, 0, 0], [4, 0, 0]]
    chart = map_chart(answers)
    assert re.findall(r"<title>(.*?)</title>", chart) == ["0 → 1: 75%", "0 → 2: 25%", "2 → 0: 100%"]
    assert chart.count('class="cell own"') == 0
    assert map_chart(next_class(43).tolist()).count("<title>") == 86
