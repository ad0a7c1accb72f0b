"""The archetypes of synthetic pages: which grammar fills them and how tall they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vae_core.data import grammars_reading, grammars_service
from vae_core.data.page_parts import Box, Draw


@dataclass(frozen=True)
class Archetype:
    """A kind of page: its grammar, and the range of its height as a multiple of the width."""

    fill: Callable[[Box, Draw], None]
    heights: tuple[float, float]


ARCHETYPES: Mapping[str, Archetype] = {
    "home": Archetype(grammars_reading.home, (1.1, 2.0)),
    "contact": Archetype(grammars_service.contact, (0.65, 1.3)),
    "pricing": Archetype(grammars_service.pricing, (0.75, 1.6)),
    "news": Archetype(grammars_reading.news, (0.8, 2.0)),
    "blog": Archetype(grammars_reading.blog, (0.9, 2.0)),
    "article": Archetype(grammars_reading.article, (1.0, 2.0)),
    "product": Archetype(grammars_service.product, (0.75, 1.7)),
    "gallery": Archetype(grammars_reading.gallery, (0.6, 2.0)),
    "login": Archetype(grammars_service.login, (0.5, 0.95)),
    "checkout": Archetype(grammars_service.checkout, (0.8, 1.6)),
    "dashboard": Archetype(grammars_service.dashboard, (0.5, 1.2)),
    "faq": Archetype(grammars_reading.faq, (0.7, 1.8)),
    "team": Archetype(grammars_reading.team, (0.7, 1.7)),
    "search": Archetype(grammars_service.search, (0.7, 1.8)),
    "profile": Archetype(grammars_reading.profile, (0.8, 1.8)),
}
