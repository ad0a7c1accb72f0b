"""The registry of model families, selectable as `model.family`; a new one is one decorated function here.

A builder takes the section `model` and the network, and returns a model on the device where layers are made.
"""

from collections.abc import Callable

from vae_core.models.conditional import ConditionalVAE
from vae_core.models.gaussian import VAE, Autoencoder, OpposedVAE
from vae_core.models.hierarchical import HierarchicalVAE, group_sizes
from vae_core.models.latent import LatentModel
from vae_core.models.networks import Network
from vae_core.models.vector_quantised import VQVAE, Codebook
from vae_core.schema.model import ModelConfig

FamilyBuilder = Callable[[ModelConfig, Network], LatentModel]
FAMILIES: dict[str, FamilyBuilder] = {}


def register_family(name: str) -> Callable[[FamilyBuilder], FamilyBuilder]:
    """Make a family selectable as `model.family: <name>`."""

    def register(builder: FamilyBuilder) -> FamilyBuilder:
        FAMILIES[name] = builder
        return builder

    return register


@register_family("vae")
def _vae(config: ModelConfig, network: Network) -> LatentModel:
    return VAE(network.encoder, network.decoder, latent_dim=config.latent_dim, logvar_bound=config.logvar_bound)


@register_family("vae_gan")
def _vae_gan(config: ModelConfig, network: Network) -> LatentModel:
    return OpposedVAE(network.encoder, network.decoder, latent_dim=config.latent_dim, logvar_bound=config.logvar_bound)


@register_family("cvae")
def _cvae(config: ModelConfig, network: Network) -> LatentModel:
    return ConditionalVAE(
        network.encoder,
        network.decoder,
        latent_dim=config.latent_dim,
        classes=network.classes,
        classification=config.classification,
        logvar_bound=config.logvar_bound,
    )


@register_family("ae")
def _ae(config: ModelConfig, network: Network) -> LatentModel:
    return Autoencoder(network.encoder, network.decoder, latent_dim=config.latent_dim)


@register_family("vq")
def _vq(config: ModelConfig, network: Network) -> LatentModel:
    codebook = Codebook(config.codes, config.latent_dim, decay=config.code_decay, restart=config.code_restart)
    return VQVAE(network.encoder, network.decoder, codebook, latent_dim=config.latent_dim, commitment=config.commitment)


@register_family("hierarchical")
def _hierarchical(config: ModelConfig, network: Network) -> LatentModel:
    return HierarchicalVAE(
        network.encoder,
        network.decoder,
        groups=group_sizes(config.latent_dim, config.groups),
        logvar_bound=config.logvar_bound,
    )
