"""An extension of griffe, which reads docstrings: doctests become blocks of code on the site."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^( *)>>>.*\n?(?:\1\S.*\n?| *\.\.\..*\n?)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences them, for in Markdown ``>>>`` is a quotation."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change an object's docstring as it is read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """A docstring whose doctests stand between fences.

    >>> print(fenced("One.\\n\\n>>> 1 + 1\\n2\\n\\nTwo."))
    One.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    Two.
    """
    return _DOCTEST.sub(lambda m: f"{m[1]}```pycon\n{m[0].rstrip()}\n{m[1]}```\n", text)
