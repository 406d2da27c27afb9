"""The products of matrices say what torch's interpolation says, and have gradients."""

from typing import Literal

import pytest
import torch
from torch.nn import functional

from guard.ml.upsampling import drawn_out_to


@pytest.mark.parametrize(("mode", "corners"), [("bilinear", False), ("bicubic", True)])
def test_it_interpolates_as_torch_does(mode: Literal["bilinear", "bicubic"], corners: bool) -> None:
    torch.manual_seed(0)
    grids = torch.randn(3, 2, 5, 4, dtype=torch.float64).requires_grad_()

    drawn = drawn_out_to(grids, 17, 9, mode=mode, corners=corners)

    expected = functional.interpolate(grids, size=(17, 9), mode=mode, align_corners=corners)
    assert torch.allclose(drawn, expected, atol=1e-6)
    (own,) = torch.autograd.grad(drawn.square().sum(), grids)
    (theirs,) = torch.autograd.grad(expected.square().sum(), grids)
    assert torch.allclose(own, theirs, atol=1e-4)
