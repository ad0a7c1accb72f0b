"""Colours of synthetic pages: one palette per archetype, a colour for each kind of box."""

import colorsys

from vae_core.data.painting import Colour

# Lightness and saturation of each kind; "accent" kinds take the archetype's second hue.
_TONES: dict[str, tuple[float, float]] = {
    "page": (0.96, 0.25),
    "header": (0.30, 0.45),
    "footer": (0.24, 0.35),
    "sidebar": (0.22, 0.40),
    "hero": (0.80, 0.55),
    "band": (0.86, 0.40),
    "summary": (0.84, 0.45),
    "card": (0.90, 0.30),
    "plan": (0.78, 0.55),
    "panel": (0.89, 0.28),
    "row": (0.90, 0.22),
    "quote": (0.86, 0.45),
    "table_head": (0.70, 0.35),
    "image": (0.62, 0.40),
    "map": (0.66, 0.40),
    "thumb": (0.66, 0.35),
    "field": (0.98, 0.10),
    "chip": (0.76, 0.40),
    "step": (0.72, 0.45),
    "title": (0.26, 0.30),
    "text": (0.58, 0.12),
    "logo": (0.55, 0.55),
    "button": (0.48, 0.75),
    "price": (0.42, 0.70),
    "avatar": (0.52, 0.55),
    "pin": (0.46, 0.80),
    "bar": (0.52, 0.60),
    "check": (0.60, 0.50),
}
_ACCENTS = frozenset({"logo", "button", "price", "avatar", "pin", "bar", "check", "step"})


def palette(position: int, count: int) -> dict[str, Colour]:
    """Return the palette of the archetype at `position` of `count`: hues spread over the whole circle."""
    hue = position / count
    colours = {}
    for kind, (lightness, saturation) in _TONES.items():
        this_hue = (hue + 0.42) % 1.0 if kind in _ACCENTS else hue
        red, green, blue = colorsys.hls_to_rgb(this_hue, lightness, saturation)
        colours[kind] = (round(red * 255), round(green * 255), round(blue * 255))
    return colours
