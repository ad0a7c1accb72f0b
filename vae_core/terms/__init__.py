"""Further terms of the training objective, beside the likelihood and the KL: a registry of surrogates.

`TERMS` maps the name in `loss.terms` to what builds it; the name is also a field of `schema/terms.py`.
"""

from vae_core.terms.base import TERMS, Term, TermSetup, register_term, term_mistakes
from vae_core.terms.features import Lpips as _Lpips  # noqa: F401 - importing registers
from vae_core.terms.pixels import Ssim as _Ssim  # noqa: F401

__all__ = ["TERMS", "Term", "TermSetup", "register_term", "term_mistakes"]
