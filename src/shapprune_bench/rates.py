"""Shares with Wilson's intervals, as JSON holds them and as tables show them."""

from collections.abc import Iterable, Mapping

from shapprune.method.rates import wilson


def rate_facts(hits: Iterable[bool], *, cases: int | None = None) -> dict[str, float]:
    """How many of how many, and the interval's ends in [0, 1]. For cases see `wilson`."""
    known = list(hits)
    rate = wilson(sum(known), len(known), cases=cases)
    return {"hits": rate.hits, "of": rate.of, "low": rate.low, "high": rate.high}


def rate_words(facts: Mapping[str, float]) -> str:
    """What `rate_facts` holds in words; nothing of none.

    >>> rate_words(rate_facts([True, False]))
    '1 of 2 (9% to 91%)'
    """
    if not facts["of"]:
        return ""
    return f"{facts['hits']} of {facts['of']} ({facts['low']:.0%} to {facts['high']:.0%})"


def share(hits: Iterable[bool], *, cases: int | None = None) -> str:
    """How many of how many, with the interval, in words; nothing of none."""
    return rate_words(rate_facts(hits, cases=cases))
