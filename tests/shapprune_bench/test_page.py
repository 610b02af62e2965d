"""Pages of tables and figures."""

import re
from xml.etree import ElementTree

from shapprune.reporting import charts
from shapprune_bench.page import Figure, Table, pages


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
    figure = Figure("spans", "Spans", "", [("", chart)], {"mad": "MAD"})
    ElementTree.fromstring(pages([figure], "t")["spans.svg"])


def test_a_long_curve_is_labelled_at_every_other_point():
    removed = list(range(100, 120))
    chart = charts.curve_chart(removed, {"asr": [0.5] * 20}, chosen=103)
    labels = [int(n) for n in re.findall(r">(1\d\d)</text>", chart)]
    assert labels == sorted([*range(100, 120, 2), 103])
    assert chart.count("pruned: ASR 50.0%") == 20


def test_tables_are_in_markdown_and_in_html():
    tables = [Table("A", "Of <b>.", ["x", "y"], [["1|2", "<3>"]]), Table("B", "", ["x"], [], True)]
    made = pages(tables, "Title")
    assert made["report.md"].decode() == (
        "# Title\n\n## A\n\nOf <b>.\n\n| x | y |\n| --- | --- |\n| 1/2 | <3> |\n\n"
        "## B\n\nNothing measured yet.\n"
    )
    page = made["report.html"].decode()
    assert "<td>1|2</td><td>&lt;3&gt;</td>" in page
    assert "<summary>B</summary>" in page
