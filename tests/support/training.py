"""What tests of resumed trainings share."""

import io

import torch

from vae_core.events import Epoch


def through_disk(state):
    """Return a state as a checkpoint would bring it back."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def epochs_of(events):
    """Return the metrics of every epoch that two equal trainings share: all but times."""
    return [
        {key: value for key, value in event.metrics.items() if not key.startswith("time/")}
        for event in events
        if isinstance(event, Epoch)
    ]


def assert_bit_equal(left, right):
    """Compare two dicts of tensors."""
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
