"""The spatial pyramid leaves torch as ONNX and gives the same features there, at sizes it has never seen."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from vae_core.models.parts import SpatialPyramid

LEVELS = (1, 2, 4)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # the exporter's own


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    any_batch, any_height, any_width = torch.export.Dim("b"), torch.export.Dim("h", min=4), torch.export.Dim("w", min=4)
    program = torch.onnx.export(
        SpatialPyramid(LEVELS).eval(),
        (torch.zeros(2, 3, 12, 20),),
        dynamo=True,
        dynamic_shapes=({0: any_batch, 2: any_height, 3: any_width},),
        verbose=False,
    )
    path = tmp_path_factory.mktemp("onnx") / "pyramid.onnx"
    program.save(str(path))
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("size", [(12, 20), (7, 9), (33, 5), (64, 128)])
def test_the_exported_pyramid_is_adaptive_pooling_at_any_size(session, size):
    features = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(size[0]))
    [found] = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    expected = torch.cat([adaptive_avg_pool2d(features, level).flatten(1) for level in LEVELS], dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
