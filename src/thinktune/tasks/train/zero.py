"""The adapter's optimizer over several ranks: DeepSpeed's ZeRO stages 0 to 2 (arXiv:1910.02054).

Called by `lifecycle` where there is more than one rank. DeepSpeed gets the adapter alone, flat and
in float32: it adds the ranks' gradients up once per optimizer step in one bucket, and divides
moments (1) and gradients (2) among them. DeepSpeed does not see the frozen base: each rank has all
of it, or `thinktune.tasks.model.sharded` divides it (stage 3, whose adapter is treated as in
stage 1).

DeepSpeed itself makes the engine, not accelerate, which leaves DeepSpeed out on a CPU
and counts micro-batches by its own rules; accelerate supplies the process group and the trackers.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.train.adapter_optimizer import clip, total_norm
from thinktune.tasks.train.guard import SpikeGuard
from thinktune.tasks.train.optimizer import Moments, make_optimizer, read_moments, write_moments

LARGEST_BUCKET = 2**29
"""The most numbers that are reduced at once: 2 GiB in float32."""


def configuration(zero_stage: int, ranks: int, numbers: int) -> dict[str, Any]:
    """DeepSpeed's configuration for `numbers` trained weights: derived, never kept by hand."""
    bucket = min(numbers, LARGEST_BUCKET) // 2 * 2 + 2
    zero: dict[str, Any] = {"stage": 1 if zero_stage == 3 else zero_stage}
    if zero["stage"]:
        # Norm and clipping are ours, on the device: DeepSpeed's make the host wait for them.
        zero |= {"compute_grad_norm": False, "contiguous_gradients": False, "overlap_comm": False}
        zero |= {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    return {
        # Batches and their number are ours; DeepSpeed is told of steps alone.
        "train_batch_size": ranks,
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        # Both would wait for the device in every step; the step log has the figures.
        "timers": {"throughput": {"enabled": False}},
        "steps_per_print": None,
        "zero_optimization": zero,
    }


class ZeroOptimizer:
    """`AdapterOptimizer` by DeepSpeed."""

    def __init__(
        self,
        train: TrainSpec,
        parameters: Sequence[torch.nn.Parameter],
        device: torch.device,
        guard: SpikeGuard,
        zero_stage: int,
    ) -> None:
        deepspeed = _deepspeed(device)
        self._parameters = parameters
        self._guard = guard
        self._device = device
        self._max_norm = train.max_grad_norm
        self._ranks = dist.get_world_size()
        self._base, name = make_optimizer(train, parameters, device, self._ranks)
        self._base.register_step_pre_hook(self._before)
        numbers = sum(p.numel() for p in parameters)
        config = configuration(zero_stage, self._ranks, numbers)
        stage = config["zero_optimization"]["stage"]
        self._divided = stage > 0
        self._gradients_divided = stage > 1
        self._engine, *_ = deepspeed.initialize(
            model=torch.nn.ParameterList(parameters), optimizer=self._base, config=config
        )
        self.name = f"{name}, DeepSpeed ZeRO {stage} over {self._ranks} ranks"
        self._loss = self._norm = self._skip = torch.zeros((), device=device)

    def clear(self) -> None:
        """As `AdapterOptimizer.clear`."""
        for parameter in self._parameters:
            parameter.grad = None

    def backward(self, loss: torch.Tensor) -> None:
        """As `AdapterOptimizer.backward`. DeepSpeed takes the mean over the ranks, so each rank
        multiplies its loss by their number. Where DeepSpeed divides gradients it must know of every
        batch; otherwise it reads them at the step."""
        loss = loss * self._ranks
        if self._gradients_divided:
            self._engine.backward(loss, scale_wrt_gas=False)
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def step(self, loss: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """As `AdapterOptimizer.step`."""
        self._loss = loss
        for group in self._base.param_groups:
            group["lr"] = rate
        self._engine.step()
        return self._norm, self._skip

    def _before(self, optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        """Runs just before AdamW changes this rank's share, whose gradients are summed by now."""
        del arguments
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = total_norm(gradients)
        if self._divided:
            square = norm.square()
            dist.all_reduce(square)
            norm = square.sqrt()
        self._norm = norm
        self._skip = self._guard.judge(self._loss, norm)
        clip(gradients, norm, self._max_norm)
        optimizer.found_inf = self._skip  # type: ignore[attr-defined]

    def moments(self) -> Moments:
        """As `AdapterOptimizer.moments`: rank 0 gets them, which writes them down."""
        if not self._divided:
            return Moments(*read_moments(self._base, self._parameters))
        step, *both = read_moments(self._base, [self._partition])
        return Moments(step, *(self._joined(shares[0]) for shares in both))

    def load(self, moments: Moments) -> None:
        """As `AdapterOptimizer.load`."""
        if not self._divided:
            write_moments(self._base, self._parameters, moments.step, moments.first, moments.second)
            return
        self._engine.optimizer.refresh_fp32_params()
        shares = ([self._own(values)] for values in (moments.first, moments.second))
        write_moments(self._base, [self._partition], moments.step, *shares)

    @property
    def _partition(self) -> torch.Tensor:
        """This rank's share of the adapter: as long as every other's, the last one's end unused."""
        share: torch.Tensor = self._engine.optimizer.single_partition_of_fp32_groups[0]
        return share

    def _joined(self, share: torch.Tensor) -> list[torch.Tensor]:
        flat = share.new_empty(self._ranks * share.numel())
        dist.all_gather(list(flat.chunk(self._ranks)), share)
        if dist.get_rank() != 0:
            return []
        sizes = [p.numel() for p in self._parameters]
        parts = torch.split(flat[: sum(sizes)], sizes)
        return [part.view_as(p).cpu() for part, p in zip(parts, self._parameters, strict=True)]

    def _own(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        size = self._partition.numel()
        own = torch.zeros(size, dtype=torch.float32, device=self._device)
        start = -dist.get_rank() * size  # of each tensor, seen from this rank's share
        for value in values:
            first, last = max(start, 0), min(start + value.numel(), size)
            if first < last:
                own[first:last] = value.reshape(-1)[first - start : last - start]
            start += value.numel()
        return own


def _deepspeed(device: torch.device) -> Any:
    """DeepSpeed, saying only what went wrong."""
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if device.type == "cpu":
        # It would compile a shared-memory kernel, in images that have no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
