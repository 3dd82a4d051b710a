"""The network that denoises: fewer steps, the same numbers."""

import copy

import pytest
import torch
from tiny import network, shaken
from torch import nn

from cosdd.model.quick import QuickMish, quick

SPACE = {1: (32,), 2: (16, 24), 3: (8, 8, 16)}


def trained(**model):
    """A network whose batch norms have seen images."""
    net = shaken(network(**model)).double().train()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("activation", ["mish", "silu", "relu"])
@pytest.mark.parametrize("block", ["supplement", "plain"])
@torch.inference_mode()
def test_it_is_the_same_function_in_float64(block, activation, dimensions):
    torch.manual_seed(0)
    net = trained(dimensions=dimensions, block=block, activation=activation, padding="reflect")
    fast = quick(net)
    x = torch.randn(2, 1, *SPACE[dimensions], dtype=torch.float64)
    outputs = []
    for one in (net, fast):
        features, window = one.encode(x)
        outputs.append((one.sample(features, window, lambda level, shape, device: torch.ones(shape)), one.direct(x)))
    for slow, same in zip(*outputs, strict=True):
        torch.testing.assert_close(same, slow, rtol=0, atol=1e-11 * float(slow.max() - slow.min()))
    assert not [part for part in fast.ladder.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@torch.inference_mode()
def test_what_starts_as_wavelets_is_the_same_function_in_float64(dimensions):
    torch.manual_seed(0)
    net = trained(dimensions=dimensions, start="wavelets", block="plain", activation="silu")
    x, outputs = torch.randn(2, 1, *SPACE[dimensions], dtype=torch.float64), []
    for one in (net, quick(net)):
        features, window = one.encode(x)
        outputs.append(one.sample(features, window, lambda level, shape, device: torch.ones(shape)))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-11 * float(outputs[0].max() - outputs[0].min()))


def test_the_network_itself_stays_as_it_is():
    net = trained(block="supplement", activation="mish")
    before = copy.deepcopy(net.state_dict())
    quick(net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.requires_grad or name.startswith("measured.") for name, p in net.named_parameters())
    net.train()(torch.randn(1, 1, 16, 16, dtype=torch.float64))["loss"].backward()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mish_with_one_exponential_is_mish(layout):
    """Also where the exponential overflows or vanishes, and for more numbers than are done at once."""
    x = torch.cat([torch.linspace(-120, 120, 2**17, dtype=torch.float64), torch.tensor([-1e30, 0.0, 1e30, torch.inf])])
    x = torch.cat([x, x.new_zeros(-len(x) % 256)]).reshape(2, 4, -1, 32).contiguous(memory_format=layout)
    rounded = nn.functional.mish(x.float().double()).float()
    torch.testing.assert_close(QuickMish()(x.float()), rounded, rtol=1e-6, atol=1e-30)
    torch.testing.assert_close(QuickMish()(x.clone()), nn.functional.mish(x), rtol=1e-12, atol=1e-30)
