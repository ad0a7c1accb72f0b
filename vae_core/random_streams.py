"""The only source of randomness: generators keyed by what a number is for, so that no draw depends on another."""

import hashlib

import numpy as np
import torch


def stream_seed(*key: str | int) -> int:
    """Return a 63-bit seed that depends on every part of `key` (purpose first, then seed, epoch, step, ...)."""
    content = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") >> 1


def generator(*key: str | int) -> torch.Generator:
    """Return a fresh CPU generator for `key`; CPU, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(stream_seed(*key))


def numpy_generator(*key: str | int) -> np.random.Generator:
    """Return a fresh NumPy generator for `key`."""
    return np.random.Generator(np.random.PCG64(stream_seed(*key)))
