"""A measured figure in prose stands in a mark, which readers do not see, and is written by script.

    lost <!-- fig repairs.foreign.lost.most -->7.4<!-- /fig --> points

A whole table, between empty lines, may stand in one as well.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches

_OPENS = "<!-- fig "
_MARK = re.compile(rf"{_OPENS}(\S+) -->((?:(?!{_OPENS}).)*?)<!-- /fig -->", re.DOTALL)
# Such a line is taken for HTML as a whole, and its Markdown is shown as it was typed.
_BEGINS_A_LINE = re.compile(rf"^[ \t]*(?:[-*+>]|\d+\.)?[ \t]*{_OPENS}\S+ -->(?!\n)", re.MULTILINE)
_ALT = re.compile(rf"!\[[^\]]*{_OPENS}")  # what is read aloud has no comments


def filled(text: str, figures: Mapping[str, str]) -> str:
    """A page with the figures of now.

    Raises:
        ValueError: there is no figure of such a name; or a mark is not closed, begins a line of
            prose or stands in the words for a picture. In one line.

    >>> filled("about <!-- fig a.b -->1<!-- /fig --> %", {"a.b": "2.5"})
    'about <!-- fig a.b -->2.5<!-- /fig --> %'
    """

    def fill(mark: re.Match[str]) -> str:
        name = mark[1]
        if name not in figures:
            near = get_close_matches(name, figures)
            raise ValueError(f"no figure {name!r}" + (f"; is it {' or '.join(near)}?" * bool(near)))
        return f"{_OPENS}{name} -->{figures[name]}<!-- /fig -->"

    for wrong, words in ((_BEGINS_A_LINE, "begins a line"), (_ALT, "is in a picture's words")):
        if found := wrong.search(text):
            line = text[: found.end()].splitlines()[-1]
            raise ValueError(f"the mark of a figure {words}: {line.strip()}")
    new, count = _MARK.subn(fill, text)
    if count != text.count(_OPENS) or count != text.count("<!-- /fig -->"):
        raise ValueError("the mark of a figure is not opened or not closed")
    return new


def unmarked(text: str) -> str:
    """A page without its marks and what they hold.

    >>> unmarked("about <!-- fig a.b -->1<!-- /fig --> %")
    'about  %'
    """
    return _MARK.sub("", text)
