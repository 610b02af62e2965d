"""The templates of the pages, in which all that is filled in is escaped, and nothing may lack."""

from collections.abc import Callable
from typing import Any

import jinja2

from shapprune.reporting import words


def template(name: str, **filters: Callable[[Any], object]) -> jinja2.Template:
    """A template of this package.

    Args:
        name: of its file.
        filters: of its own, by their names, beside those that all pages have.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shapprune.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": words.percent,
        "number": words.number,
        "capital": words.capital,
        **filters,
    }
    return environment.get_template(name)
