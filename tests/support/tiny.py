"""A sweep small enough to run in seconds."""

TINY = """
# Does a tiny sweep come to its end?
# vae-sweep run tiny.yaml
base: wireframes-tiny
set:
  data.count: 40
  data.width: 16
  data.max_height: 32
  model.encoder_widths: [4, 8]
  model.decoder_widths: [8, 4]
  model.latent_dim: 4
  model.norm_groups: 2
  train.epochs: 3
  train.effective_batch: 8
  train.device: cpu
  evaluate.lpips: "off"
  evaluate.scale_images: 16
space:
  loss.beta: [0.1, 100.0]
seeds: 2
baseline: {loss.beta: 0.1}
"""
