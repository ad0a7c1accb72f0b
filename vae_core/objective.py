"""What training minimises, per image, and whatever of it depends on the optimizer steps before.

Letters: B images of a micro-batch, C channels, H x W padded pixels, M latent dimensions.
"""

import math

import torch
from torch import Tensor, nn

from vae_core.data.batches import Batch
from vae_core.errors import UserError
from vae_core.kl_control import KlControl, build_kl_control
from vae_core.losses import LIKELIHOODS, Objective, objective, real_dims
from vae_core.models.latent import Latent
from vae_core.schedules import SCHEDULES, BetaCurve, phase_at
from vae_core.schema.loss import LossConfig
from vae_core.schema.terms import Phase
from vae_core.sigma import Sigma, build_sigma
from vae_core.terms import TERMS, TermSetup, term_mistakes


class TrainingObjective(nn.Module):
    """The section `loss` at work: a model's output to nats per image.

    Its parameters (a learned sigma, learned weights) belong to the run's optimizer; its state also holds the
    running means of earlier optimizer steps. Frozen networks are neither parameters nor state.

    Args:
        settings: the section `loss`.
        epochs: length of the training.
        latent_dim: M.
        smallest_side: px, of any image of the data set.
        device: where the training runs.

    Raises:
        UserError: a term cannot work here; see `loss_mistakes`.
    """

    def __init__(
        self, settings: LossConfig, *, epochs: int, latent_dim: int, smallest_side: int, device: torch.device | str
    ) -> None:
        super().__init__()
        mistakes = loss_mistakes(settings, smallest_side)
        if mistakes:
            raise UserError(mistakes)
        self._settings = settings
        self._curve = BetaCurve(settings.beta, settings.warmup_epochs, epochs, settings.cycles, settings.ramp_share)
        self.sigma: Sigma = build_sigma(
            settings.sigma_mode, kind=settings.reconstruction, sigma=settings.sigma, device=device
        )
        self.kl_control: KlControl = build_kl_control(settings, self.scheduled_beta, latent_dim, device)
        setup = _setup(settings, smallest_side, device)
        self._terms = {name: TERMS[name](setup) for name in settings.active_terms}
        self.log_variances = nn.ParameterDict()
        if settings.term_weights == "learned":
            starts = settings.term_weights_in(None)
            self.log_variances.update(
                {name: nn.Parameter(torch.tensor(-math.log(starts[name]), device=device)) for name in self._terms}
            )

    def of(
        self, batch: Batch, logits: Tensor, latent: Latent, position: float, shares: Tensor | None = None
    ) -> Objective:
        """Return the objective of each image of a micro-batch, and remember what later steps need of it.

        Its `parts` hold, in nats per image, the terms before their weight (`term_<name>`) and the model's own losses
        with theirs; and what moves with the steps: `sigma`, `weight_<name>` and the effective beta.

        Args:
            batch: the images.
            logits: `(R, C, H, W)`, the model's reconstructions; R = B, or one for each image and label.
            latent: what the model inferred.
            position: in epochs, where the optimizer step starts.
            shares: `(B,)`, how much of each image's objective the caller takes; default: all of it.
        """
        likelihood = LIKELIHOODS[self._settings.reconstruction]
        rows, dims = batch.repeated(len(logits) // len(batch.images)), real_dims(batch.mask, batch.images.shape[1])
        error, kl = (latent.over_labels(of) for of in (likelihood.error(logits, rows.images, rows.mask), latent.kl))
        sigma = self.sigma.value()
        counted = torch.ones_like(dims) if shares is None else shares
        self.sigma.observe(error * counted, dims * counted)
        cost = self.kl_control.cost(kl, position)
        further, parts = self._weighted_terms(rows, logits, latent, dims, position)
        for name, loss in latent.losses.items():
            further, parts[name] = further + loss, loss
        if isinstance(sigma, Tensor):
            parts["sigma"] = sigma
        if cost.effective is not None:
            parts["effective_beta"] = cost.effective
        return objective(
            likelihood.nll(error, dims, sigma),
            kl.sum(dim=1),
            cost.beta,
            further + cost.correction,
            {name: part.detach().expand(len(dims)) for name, part in parts.items()},
        )

    def finish_step(self) -> None:
        """Let what this optimizer step measured count for the steps to come; call it after the optimizer's step."""
        self.sigma.finish_step()
        self.kl_control.finish_step()

    def scheduled_beta(self, position: float) -> float:
        """Return what the schedule or the phase gives for the coefficient of the KL at a position in epochs."""
        phase = self._phase(position)
        if phase is not None and phase.beta is not None:
            return phase.beta
        return SCHEDULES[self._settings.beta_schedule](position, self._curve)

    def beta(self, position: float) -> float:
        """Return the coefficient of the KL in `val/objective` at a position in epochs; waits for the device.

        It is the scheduled one, the PI controller's, or 0 under a capacity, whose penalty vanishes at its target.
        """
        return self.kl_control.evaluation_beta(position)

    def scale(self) -> float:
        """Return the likelihood's scale as it stands, in pixel units; waits for the device."""
        return float(torch.as_tensor(self.sigma.value()).detach())

    def _phase(self, position: float) -> Phase | None:
        phases = self._settings.phases
        return phases[phase_at(position, [phase.epochs for phase in phases])] if phases else None

    def _weighted_terms(
        self, rows: Batch, logits: Tensor, latent: Latent, dims: Tensor, position: float
    ) -> tuple[float | Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the terms, `(B,)` or 0, and what of it is logged."""
        total: float | Tensor = 0.0
        parts: dict[str, Tensor] = {}
        weights = self._settings.term_weights_in(self._phase(position))
        for name, term in self._terms.items():
            if weights[name] == 0:
                continue
            value = latent.over_labels(term(logits, rows))
            parts[f"term_{term.name}"] = value
            if name in self.log_variances:
                log_variance = self.log_variances[name]
                parts[f"weight_{term.name}"] = torch.exp(-log_variance)
                total = total + uncertain(value, dims, log_variance)
            else:
                total = total + weights[name] * value
        return total, parts


def uncertain(term: Tensor, dims: Tensor, log_variance: Tensor) -> Tensor:
    """Return e^-s * term + dims * s, `(B,)`, the negative log-likelihood of an error per value with scale e^s.

    Its weight e^-s is best at one over the mean error per value, where the term weighs as much as its `dims (B,)`
    values. Source: Kendall et al. 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses".
    """
    return torch.exp(-log_variance) * term + dims * log_variance


def loss_mistakes(settings: LossConfig, smallest_side: int) -> list[str]:
    """Return why terms of the section `loss` cannot work on this machine with this data; one message each.

    Args:
        settings: the section.
        smallest_side: px, of any image of the data set.
    """
    return term_mistakes(settings.active_terms, _setup(settings, smallest_side, "cpu"))


def _setup(settings: LossConfig, smallest_side: int, device: torch.device | str) -> TermSetup:
    return TermSetup(device=device, smallest_side=smallest_side, **settings.perceptual.model_dump())
