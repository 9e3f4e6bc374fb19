"""Moments in and out of every form in which an optimizer keeps them."""

import pytest
import torch
from bitsandbytes.optim import AdamW8bit

from thinktune.tasks.train.optimizer import read_moments, write_moments


def some(kind: type[torch.optim.Optimizer]) -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
    """Parameters of one block less than two, of many, and too small for 8 bits; their optimizer."""
    torch.manual_seed(0)
    parameters: list[torch.Tensor] = [
        torch.nn.Parameter(torch.randn(shape)) for shape in ((64, 127), (128, 256), (10, 10))
    ]
    more = {"fused": True} if kind is torch.optim.AdamW else {}
    return parameters, kind(parameters, lr=1e-2, **more)


def step(parameters: list[torch.Tensor], optimizer: torch.optim.Optimizer, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, AdamW8bit])
def test_moments_read_and_written_go_on_to_the_bit(kind: type[torch.optim.Optimizer]) -> None:
    parameters, optimizer = some(kind)
    for seed in range(3):
        step(parameters, optimizer, seed)
    others, other = some(kind)
    for one, two in zip(parameters, others, strict=True):
        two.data.copy_(one.data)
    write_moments(other, others, *read_moments(optimizer, parameters))
    for seed in range(3, 6):
        step(parameters, optimizer, seed)
        step(others, other, seed)
    for one, two in zip(parameters, others, strict=True):
        assert torch.equal(one, two)


def test_moments_of_eight_bits_are_near_those_of_32() -> None:
    parameters, small = some(AdamW8bit)
    whole = some(torch.optim.AdamW)
    for seed in range(3):
        step(parameters, small, seed)
        step(*whole, seed)
    for found, wanted in zip(
        read_moments(small, parameters)[1:], read_moments(whole[1], whole[0])[1:], strict=True
    ):
        for one, two in zip(found, wanted, strict=True):
            assert torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), 0) > 0.99


def test_before_the_first_step_there_are_none() -> None:
    parameters, optimizer = some(torch.optim.AdamW)
    count, first, second = read_moments(optimizer, parameters)
    assert count == 0
    assert not any(tensor.any() for tensor in (*first, *second))
