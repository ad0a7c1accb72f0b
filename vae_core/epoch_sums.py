"""What an epoch's training metrics are made of."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vae_core.losses import Objective


class EpochSums:
    """Sums over an epoch's images and steps, kept on the device so that no step waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self._terms = torch.zeros(3, dtype=torch.float64, device=device)  # objective, reconstruction, kl
        self._parts: dict[str, Tensor] = {}  # scalars, float64
        self._norms = torch.zeros(2, dtype=torch.float64, device=device)  # sum and count of finite norms
        self._images = 0

    def add_images(self, terms: Objective) -> None:
        """Add the objective of a micro-batch."""
        sums = torch.stack([terms.total.sum(), terms.reconstruction.sum(), terms.kl.sum()])
        self._terms += sums.detach().double()
        self.add_parts(terms.parts)
        self._images += len(terms.total)

    def add_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Add further numbers of a micro-batch, `(B,)` each, by name."""
        for name, part in parts.items():
            self._parts[name] = self._parts.get(name, torch.zeros_like(self._terms[0])) + part.double().sum()

    def add_step(self, norm: Tensor) -> None:
        """Add the gradient norm of an optimizer step, a scalar tensor."""
        finite = torch.isfinite(norm)  # an fp16 overflow is skipped by the scaler and not counted
        self._norms += torch.stack([torch.where(finite, norm, 0.0), finite.to(norm.dtype)]).double()

    def means(self) -> dict[str, float]:
        """Return the means over images, and of the gradient norm over steps; waits for the device."""
        sums = torch.stack([*self._terms, *self._parts.values()])
        objective_, reconstruction, kl, *parts = (sums / self._images).tolist()
        norm, count = self._norms.tolist()
        return {
            "train/objective": objective_,
            "train/reconstruction": reconstruction,
            "train/kl": kl,
            "train/grad_norm": norm / max(count, 1.0),
        } | {f"train/{name}": mean for name, mean in zip(self._parts, parts, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        return {"terms": self._terms, "parts": dict(self._parts), "norms": self._norms, "images": self._images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._terms = state["terms"].to(self._terms.device).clone()
        self._parts = {name: part.to(self._terms.device) for name, part in state["parts"].items()}
        self._norms = state["norms"].to(self._norms.device).clone()
        self._images = state["images"]
