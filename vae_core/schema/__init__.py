"""The sections of the config tree: names, defaults, units and bounds. `vae_core.config` puts them together."""
