"""How a published model is loaded: code that can be pasted, for the model card.

Called by `card`.
"""

from thinktune.schema.errors import ThinktuneError
from thinktune.schema.serving import lora_rank_setting
from thinktune.tasks.publish.source import Source
from thinktune.text.chat_template import TEMPLATE_FILE

QUESTION = "What is 17 + 25?"


def usage(source: Source, *, merged: bool, name: str) -> str:
    """A snippet for transformers, and a command for vLLM."""
    parts = [
        "## How to use it",
        f"```python\n{_merged(name) if merged else _adapter(source, name)}{_asking()}```",
        "The prompt ends inside the think part: what is printed is reasoning, `</think>`, answer."
        if source.template.model.thinks
        else "What is printed has its reasoning between `<think>` and `</think>`.",
        f"With vLLM, in the folder of these files:\n\n```console\n{_vllm(source, merged)}\n```",
    ]
    return "\n\n".join(parts)


def _merged(name: str) -> str:
    return f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

MODEL = "{name}"{_where(name)}
tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto", device_map="auto")
"""


def _adapter(source: Source, name: str) -> str:
    imports = "AutoModelForCausalLM, AutoTokenizer, GenerationConfig"
    revision = f', revision="{source.hub_revision}"' if source.hub_revision else ""
    quantized, setting = "", ""
    if source.base == "nf4":
        imports = "AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig"
        quantized = """\
quantization = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=dtype,
)
"""
        setting = "    quantization_config=quantization,\n"
    return f"""\
import torch
from peft import PeftModel
from transformers import {imports}

MODEL = "{name}"{_where(name)}
tokenizer = AutoTokenizer.from_pretrained(MODEL)
dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
{quantized}base = AutoModelForCausalLM.from_pretrained(
    "{source.repo}"{revision},
    dtype=dtype,
{setting}    device_map="auto",
)
model = PeftModel.from_pretrained(base, MODEL)
"""


def _where(name: str) -> str:
    return "  # the folder of these files" if name == "." else ""


def _asking() -> str:
    return f"""\
messages = [{{"role": "user", "content": "{QUESTION}"}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(model.device)
settings = GenerationConfig.from_pretrained(MODEL)
output = model.generate(**inputs, generation_config=settings)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def _vllm(source: Source, merged: bool) -> str:
    if merged:
        return "$ vllm serve ."
    revision = f" --revision {source.hub_revision}" if source.hub_revision else ""
    packed = " --quantization bitsandbytes" if source.base == "nf4" else ""
    rank = source.train_task.train.rank if source.train_task else 16
    try:
        places = lora_rank_setting(rank, "", "")
    except ThinktuneError:
        return "$ # vLLM takes no adapter of this rank: merge it"
    return (
        f"$ vllm serve {source.repo}{revision}{packed} --generation-config . \\\n"
        f"    --chat-template {TEMPLATE_FILE} --enable-lora --max-lora-rank {places} \\\n"
        f"    --lora-modules {source.run}=."
    )
