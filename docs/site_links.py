"""A hook of mkdocs: what pages link to elsewhere in the repository comes along to the site.

README.md is its first page. Whatever files outside docs/ a page links to (reports, pictures, code)
are added to the site under their paths in the repository, pages among them with what they link to;
and links are rewritten from the one tree to the other. A link to what is not there is left as it
is, and fails the strict build.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FRONT = "README.md"
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")  # of the navigation, wherever they are linked from
_LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and all that pages link to."""
    waiting = [FRONT, *PAGES, *(f"docs/{f.src_uri}" for f in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            source = str(ROOT / path)
            files.append(File.generated(config, site_path(path), abs_src_path=source))
        if path.endswith(".md"):
            linked = {target(path, match[1]) for match in _LINK.finditer(_text(path))} - seen
            found = {name for name in linked if (ROOT / name).is_file()}
            found = {name for name in found if not name.startswith("docs/")}
            waiting += sorted(found)
            seen |= found
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the repository as links of the site."""
    here = page.file.src_uri
    inside = (ROOT / "docs" / here).is_file()
    return rewritten(markdown, f"docs/{here}" if inside else FRONT if here == "index.md" else here)


def rewritten(markdown: str, path: str) -> str:
    """The Markdown of a file of the repository with the links that it has on the site.

    >>> rewritten("[a](docs/b.md#c)", "README.md")
    '[a](b.md#c)'
    >>> rewritten("![a](../README.md) [d](https://e)", "docs/b.md")
    '![a](index.md) [d](https://e)'
    """
    start = dirname(site_path(path)) or "."

    def link(match: re.Match[str]) -> str:
        return f"]({relpath(site_path(target(path, match[1])), start)}{match[2] or ''})"

    return _LINK.sub(link, markdown)


def target(path: str, link: str) -> str:
    """What a link in a file is to, from the repository's root."""
    return normpath(join(dirname(path), link))


def site_path(path: str) -> str:
    """Where a file of the repository is on the site."""
    return "index.md" if path == FRONT else path.removeprefix("docs/")


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
