"""What the names of attacks mean, in a few words each, as reports and the glossary have them."""

from collections.abc import Mapping

# See the modules of `attacks` for the papers.
ATTACKS: Mapping[str, str] = {
    "additive": "a fixed faint image is added to the whole picture",
    "badnets": "a small square of one colour",
    "blended": "a fixed pattern shines through the whole picture",
    "input-aware": "a pattern of its own for every image, which a network draws",
    "pattern-patch": "a small checkerboard, or a patch of noise",
    "physical-key": "glasses pasted onto a face",
    "quantisation": "fewer levels of brightness, with dithering (BppAttack)",
    "random-place": "a small patch at another place on every image",
    "reflection": "a faint double image of another picture, as in a window (Refool)",
    "sig": "faint stripes over the whole picture, on images whose labels stay right (SIG)",
    "trojan": "a patch made to excite one neuron of a trained network",
    "wanet": "a slight warp of the whole picture (WaNet)",
}
_MAPS: Mapping[str, str] = {
    "all-to-all": "each class is sent to the next",
    "several": "several targets, a trigger each",
    "source-specific": "images of one class alone are moved",
}


def attack_words(name: str) -> str:
    """What an attack does, by its name in tables.

    >>> attack_words("source-specific badnets")
    'a small square of one colour; images of one class alone are moved'
    """
    first, _, rest = name.partition(" ")
    words = [ATTACKS.get(rest or first, ""), _MAPS.get(first, "")]
    return "; ".join(filter(None, words))
