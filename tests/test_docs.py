"""What the documentation promises: links lead somewhere, and nothing public is left out."""

import re
from pathlib import Path

import pytest

import shapprune
from shapprune.method.settings import RULES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link, anchor in LINK.findall(FENCED.sub("", text(page))):
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), f"{link}#{anchor}"


def test_a_broken_link_would_be_seen():
    assert LINK.findall("[a](b.md#c) [d](https://e) ![f](g.svg)") == [("b.md", "c"), ("g.svg", "")]
    assert "the-papers-own-method" in anchors(ROOT / "docs" / "rivals.md")


def test_pages_are_as_short_as_they_promise():
    assert len(text("README.md").splitlines()) <= 100
    assert len(text("docs/how-it-works.md").splitlines()) <= 200
    assert len(text("CONTRIBUTING.md").splitlines()) <= 60


def test_the_readme_begins_with_the_report_and_names_both_commands():
    readme = text("README.md")
    assert readme.index("pictures/report.png") < readme.index("make demo") < readme.index("## ")
    assert "    make test" in readme


def test_every_step_has_a_picture():
    page = text("docs/how-it-works.md")
    steps = re.split(r"^## \d\. ", page, flags=re.MULTILINE)[1:]
    shown = [re.findall(r"!\[.+\]\(pictures/(.+)\)", step) for step in steps]
    assert len(steps) == 9
    assert all(len(pictures) == 1 for pictures in shown)


def test_the_glossary_has_twelve_words():
    rows = re.findall(r"^\| \*\*", text("docs/glossary.md"), re.MULTILINE)
    assert len(rows) == 12


def test_every_public_name_has_its_place_in_the_api():
    named = re.findall(r"^::: shapprune\.(\w+)$", text("docs/api.md"), re.MULTILINE)
    assert sorted(named) == sorted(shapprune.__all__)


def test_every_page_is_in_the_navigation():
    config = text("mkdocs.yml")
    for page in (ROOT / "docs").glob("**/*.md"):
        assert f": {page.relative_to(ROOT / 'docs')}\n" in config


def test_the_changelog_knows_the_rules_and_the_version():
    changes = text("CHANGELOG.md")
    version = re.search(r'^version = "(.+)"$', text("pyproject.toml"), re.MULTILINE)[1]
    assert f"| {RULES} |" in changes
    assert f"\n## {version}\n" in changes
    assert f"\nversion: {version}\n" in text("CITATION.cff")


def test_pre_commit_runs_what_make_check_runs_in_the_versions_of_ci():
    check = re.search(r"^check: setup\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE)[1]
    tools = re.findall(r"\$\(BIN\)/(\S+)", check)
    entries = re.findall(r"entry: \.venv/bin/(\S+)", text(".pre-commit-config.yaml"))
    assert entries == [tool for tool in tools if tool != "pytest"]
    assert "repo: http" not in text(".pre-commit-config.yaml")  # would bring versions of its own
    pinned = re.findall(r"^([\w-]+)==", text("constraints.txt"), re.MULTILINE)
    assert {"ruff", "mypy", "import-linter"} <= set(pinned)
