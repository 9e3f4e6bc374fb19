"""The engine that runs vLLM's offline engine: base loaded once, the adapter unmerged beside it.

vLLM computes in a process of its own. A thread here collects what it finishes, so that the caller
can be asked to stop, and notices when that process dies or hangs.
"""

import json
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from thinktune.schema.errors import DataInvalid, InternalError
from thinktune.schema.serving import lora_rank_setting
from thinktune.tasks.generate.protocol import Answer, Batch, Request, Sampling
from thinktune.tasks.model.base import Base, Dtype, compute_dtype, local_device
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

WINDOW_STEP = 1024
"""The window is rounded up to a multiple of this, so that compiled graphs are found again."""
MOST_SEQUENCES, MEMORY_SHARE = 512, 0.9
LOOK_S = 0.5
START_S = 3600.0
"""Seconds to load and compile; a large model from a slow disk takes long."""
STALL_S = 600.0
"""Seconds without a token after which the engine is taken for hung. The first one may wait for
kernels to be compiled."""

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # FlashInfer's sampler is compiled at its first use, for which an image has no compiler.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    # Our process may hold threads and a CUDA context, which no fork survives.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def prepare(environment: MutableMapping[str, str]) -> None:
    """Sets what vLLM reads when it is imported, unless it is set already. Its compiled graphs go to
    the volume that pods share, where there is one, so that only the first start compiles them."""
    for name, value in ENVIRONMENT.items():
        environment.setdefault(name, value)
    if cache := environment.get("THINKTUNE_CACHE"):
        environment.setdefault("VLLM_CACHE_ROOT", f"{cache}/vllm")


class VllmEngine:
    """See `protocol.Engine`."""

    name = "vllm"
    unit = "answers"

    def __init__(
        self,
        weights: Path,
        adapter: Path | None,
        *,
        repo: str,
        base: Base,
        dtype: Dtype,
        window: int,
        context: int | None = None,
        fp8: bool = False,
    ) -> None:
        """`weights` and `adapter` are folders; without an adapter, no request may want it. `repo`
        is what the log calls the model. `window`: tokens of the longest prompt with its answer.
        `context`: the most that the model has. `fp8`: round weights of 16 bits to FP8."""
        self._weights = weights
        self._adapter = adapter
        self._repo = repo
        self._base: Base = base
        self._dtype: Dtype = dtype
        self._quantization = "fp8" if fp8 else "bitsandbytes" if base == "nf4" else None
        rounded = -(-window // WINDOW_STEP) * WINDOW_STEP
        self._window = rounded if context is None else min(rounded, context)
        self._engine: Any = None

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[Batch]:
        """Each request by itself: vLLM decides from step to step what it computes together."""
        del sampling
        return [(request,) for request in requests]

    def work(self, batches: Sequence[Batch], sampling: Sampling) -> int:
        """Answers."""
        del sampling
        return sum(len(batch) for batch in batches)

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        """The answers in the order in which vLLM finishes them."""
        requests = [request for batch in batches for request in batch]
        if not requests:
            return
        stop.check("generation")
        self._check_lengths(requests)
        engine = self._loaded(reporter, stop)
        try:
            # One after the other: beside requests with an adapter, vLLM 0.32 on a CPU applies it
            # to those without one too.
            for adapter in (False, True):
                some = [request for request in requests if request.adapter == adapter]
                self._add(engine, some, sampling)
                for output in _Collector(engine).outputs(reporter, stop):
                    reporter.advance(1)
                    yield _answer(output, sampling)
        except BaseException:
            # Nothing of a generation that was given up may turn up in the next one.
            self.close()
            raise

    def close(self) -> None:
        """Ends vLLM's process, which gives the GPU back."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        _kill_children()
        engine.engine_core.shutdown()

    def _add(self, engine: Any, requests: Sequence[Request], sampling: Sampling) -> None:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind

        adapter = LoRARequest("tuned", 1, str(self._adapter)) if self._adapter else None
        for request in requests:
            params = SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
                max_tokens=sampling.max_new_tokens,
                stop_token_ids=list(sampling.stop_ids),
                seed=request.seed if sampling.temperature > 0 else None,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            prompt = {"prompt_token_ids": list(request.prompt_ids)}
            with_adapter = adapter if request.adapter else None
            engine.add_request(request.id, prompt, params, lora_request=with_adapter)

    def _check_lengths(self, requests: Sequence[Request]) -> None:
        """Raises DataInvalid for a prompt that leaves no room for an answer."""
        for request in requests:
            if len(request.prompt_ids) >= self._window:
                fault = f"its prompt has {len(request.prompt_ids)} tokens of {self._window}"
                remedy = "lower data.max_tokens, so that shorter questions are held out"
                raise DataInvalid(f"request {request.id}", fault, remedy)

    def _loaded(self, reporter: Reporter, stop: Stop) -> Any:
        """vLLM's engine, started when the first answer is asked for."""
        if self._engine is None:
            prepare(os.environ)
            from vllm import LLM

            reporter.say(f"starts vLLM with {self._repo} ({self._base})")
            began = time.monotonic()
            settings = self._settings()
            try:
                self._engine = _in_thread(lambda: LLM(**settings).llm_engine, reporter, stop)
            except (RuntimeError, ValueError) as error:
                fault = f"vLLM did not start ({(str(error) or repr(error)).splitlines()[0]})"
                remedy = (
                    "its own messages are above; evaluate.engine=transformers needs less memory "
                    "and takes every model"
                )
                raise InternalError("engine vllm", fault, remedy) from error
            reporter.say(f"vLLM is up after {time.monotonic() - began:.0f} s")
        return self._engine

    def _settings(self) -> dict[str, Any]:
        device = local_device()
        dtype = str(compute_dtype(self._dtype, device)).removeprefix("torch.")
        if self._base == "nf4" and dtype == "float32":
            dtype = "bfloat16"  # its 4-bit weights compute in 16 bits alone
        settings = {
            "model": str(self._weights),
            "skip_tokenizer_init": True,  # prompts and answers are token ids
            "dtype": dtype,
            "quantization": self._quantization,
            # The release's own sampling settings and end tokens would mix with the recipe's.
            "generation_config": "vllm",
            "max_model_len": self._window,
            "max_num_seqs": MOST_SEQUENCES,
            "seed": 0,
            "disable_log_stats": True,
        }
        if self._adapter is not None:
            settings |= {
                "enable_lora": True,
                "max_loras": 1,
                "max_lora_rank": _rank_setting(self._adapter),
            }
        if device.type == "cuda":
            return settings | {"gpu_memory_utilization": MEMORY_SHARE}
        return settings | {"enforce_eager": True}


def _in_thread(work: Callable[[], Any], reporter: Reporter, stop: Stop) -> Any:
    """What `work` returns or raises. Asked to stop, it raises Preempted and leaves the work to end
    with this process."""
    result: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            result.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            result.put((None, error))

    threading.Thread(target=run, name="vllm-start", daemon=True).start()
    deadline = time.monotonic() + START_S
    while True:
        reporter.heartbeat()
        if time.monotonic() > deadline:
            _kill_children()
            raise _broken(f"did not start within {START_S:.0f} s")
        if stop.requested:
            _kill_children()
        stop.check("generation")
        try:
            found, error = result.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return found


class _Collector:
    """Steps the engine in a thread until it has finished all requests."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._processes = _children()
        self._found: queue.Queue[list[Any] | BaseException | None] = queue.Queue()
        self._moved = time.monotonic()
        self._thread = threading.Thread(target=self._step, name="vllm", daemon=True)
        self._thread.start()

    def outputs(self, reporter: Reporter, stop: Stop) -> Iterator[Any]:
        """vLLM's outputs as they finish. Raises Preempted when asked to stop, InternalError where
        the engine died or hangs."""
        while True:
            stop.check("generation")
            try:
                found = self._found.get(timeout=LOOK_S)
            except queue.Empty:
                idle = time.monotonic() - self._moved
                # vLLM does not always notice the death of its own process.
                if not all(process.is_alive() for process in self._processes):
                    raise _broken("died") from None
                if idle > STALL_S:
                    raise _broken(f"computed nothing for {idle:.0f} s") from None
                if idle < LOOK_S:
                    reporter.heartbeat()
                continue
            if found is None:
                return
            if isinstance(found, BaseException):
                raise _broken(f"died ({type(found).__name__}: {found})") from found
            yield from found

    def _step(self) -> None:
        try:
            while self._engine.has_unfinished_requests():
                outputs = self._engine.step()
                self._moved = time.monotonic()
                if finished := [output for output in outputs if output.finished]:
                    self._found.put(finished)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._found.put(error)
            return
        self._found.put(None)


def _broken(fault: str) -> InternalError:
    remedy = "run the same command again: answers that had finished are kept"
    return InternalError("engine vllm", fault, remedy)


def _answer(output: Any, sampling: Sampling) -> Answer:
    said = output.outputs[0]
    ids = tuple(said.token_ids)
    if ids and ids[-1] in sampling.stop_ids:
        ids = ids[:-1]
    return Answer(output.request_id, ids, finished=said.finish_reason == "stop")


def _rank_setting(adapter: Path) -> int:
    """The adapter's rank, rounded up to a value that vLLM takes. Raises SpecInvalid."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([config["r"], *config.get("rank_pattern", {}).values()])
    return lora_rank_setting(rank, "train.rank", "set evaluate.engine=transformers")


def _children() -> list[multiprocessing.process.BaseProcess]:
    """vLLM's processes that are our children."""
    children = multiprocessing.active_children()
    return [child for child in children if child.name.startswith(("EngineCore", "VLLM"))]


def _kill_children() -> None:
    """vLLM's own way to stop waits for a process that may hang."""
    for child in _children():
        child.kill()
        child.join()
