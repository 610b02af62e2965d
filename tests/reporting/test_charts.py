"""Charts as SVG."""

import re
from xml.etree import ElementTree

from shapprune.reporting import charts


def test_a_chart_of_spans_takes_any_number():
    spans = [
        charts.Span("<a>", (1.0, 9.0), {"target": 0.0}),
        charts.Span("b", None, {"mad": 1e999}),
    ]
    chart = charts.span_chart(spans, title="t", bound=2.0)
    assert "nan" not in chart
    assert chart.count('x="0.000%"') == 1  # at the ends of the axis
    assert chart.count('x="100.000%"') == 1
    assert "&lt;a&gt;" in chart
    ElementTree.fromstring(charts.sheet([("", chart)], {"mad": "MAD"}))


def test_a_long_curve_is_labelled_at_every_other_point():
    removed = list(range(100, 120))
    chart = charts.curve_chart(removed, {"asr": [0.5] * 20}, chosen=103)
    labels = [int(n) for n in re.findall(r">(1\d\d)</text>", chart)]
    assert labels == sorted([*range(100, 120, 2), 103])
    assert chart.count("pruned: ASR 50.0%") == 20
