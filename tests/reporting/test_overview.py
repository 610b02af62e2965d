"""The page of many models."""

from shapprune.reporting.overview import Line, render_overview, tally, worst_first

LINES = [
    Line("never"),
    Line("good", "clean", "(highest score -1)", excess=-2.0),
    Line("better", "clean", excess=-3.0),
    Line("odd", "suspicious", excess=0.5),
    Line("broken", "failed", "is cut short"),
    Line("zz", "failed", "is malicious", malicious=True),
    Line("bad", "backdoored", "target class 3", excess=2.0, report="models/bad/report.html"),
    Line("worse", "backdoored", excess=9.0, accuracy=0.5, images=10, seconds=12.0, notes=("n",)),
]


def test_worst_first():
    order = ["worse", "bad", "zz", "broken", "odd", "good", "better", "never"]
    assert [line.name for line in worst_first(LINES)] == order


def test_the_page_holds_a_line_a_model_and_the_exit_code():
    page = render_overview(worst_first(LINES), about=[("command", "shapprune scan-all x")])
    assert page.count("<tr class=") == len(LINES)
    assert '<a href="models/bad/report.html">bad</a>' in page
    assert page.count("<a ") == 1
    assert "2 backdoored, 2 failed, 1 suspicious, 2 clean, 1 not scanned yet" in page
    assert "Exit code 1:" in page
    assert "50% <small>of 10</small>" in page
    assert "1 note<" in page


def test_what_strangers_wrote_is_escaped():
    evil = "<script>alert('x')</script>\x1b[31m\n"
    line = Line(evil, "failed", evil, notes=(evil,))
    page = render_overview([line], about=[("command", evil)])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4
    assert "\x1b" not in page


def test_one_model():
    assert tally([Line("a", "clean")]) == "1 model: 1 clean"
