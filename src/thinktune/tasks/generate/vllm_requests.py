"""What vLLM is asked and what it answers, in its own terms and in ours. The vLLM engine uses it."""

import json
import math
from pathlib import Path
from typing import Any

from thinktune.schema.serving import adapter_rank, lora_rank_setting
from thinktune.store.adapters import CONFIG_FILE
from thinktune.tasks.generate.protocol import Answer, Completion, Likelihood, Request, Sampling


def answer_params(request: Request, sampling: Sampling) -> Any:
    """How an answer to a request is drawn."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=list(sampling.stop_ids),
        seed=request.seed if sampling.temperature > 0 else None,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def scored_params() -> Any:
    """How the likelihood of a prompt's tokens is asked for."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    # One token is the least that it generates; nobody reads it.
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def answer_of(output: Any, sampling: Sampling) -> Answer:
    """From a finished output of vLLM."""
    said = output.outputs[0]
    ids = tuple(said.token_ids)
    if ids and ids[-1] in sampling.stop_ids:
        ids = ids[:-1]
    return Answer(output.request_id, ids, finished=said.finish_reason == "stop")


def likelihood_of(output: Any, completion: Completion) -> Likelihood:
    """From what vLLM says of each token of a prompt: its own log-probability among others."""
    said = output.prompt_logprobs[len(completion.prompt_ids) :]
    found = [each[token].logprob for token, each in zip(completion.ids, said, strict=True)]
    return Likelihood(math.fsum(found), len(found))


def targets_of(adapter: Path) -> list[str]:
    """Names of the layers that the adapter is on."""
    config = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    return sorted(config["target_modules"])


def rank_setting(adapter: Path) -> int:
    """The adapter's rank, rounded up to a value that vLLM takes. Raises SpecInvalid."""
    config = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    return lora_rank_setting(adapter_rank(config), "train.rank", "set evaluate.engine=transformers")
