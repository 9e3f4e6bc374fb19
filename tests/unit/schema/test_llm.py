"""Settings of asking: what they refuse, and that no key is ever among them."""

from typing import Any

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.llm import GenerateSpec, LlmSpec

LEAST = {"provider": "openai", "model": "m", "budget": {"tokens": 1000}}


def spec(**settings: Any) -> LlmSpec:
    return LlmSpec.parse({**LEAST, **settings}, "recipe")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"budget": {"money": 5}}, "a budget in money needs prices"),
        ({"budget": {}}, "there is no limit"),
        ({"provider": "openia"}, "did you mean 'openai'"),
        ({"parameters": {"extra": {"n": 4}}}, "'n' is not free"),
        ({"parameters": {"extra": {"stream": True}}}, "'stream' is not free"),
        ({"concurrency": {"start": 5}}, "out of order"),
        ({"base_url": "api.example.com/v1"}, "that is no address"),
        ({"base_url": "https://user:pass@host/v1"}, "no place for credentials"),
        ({"base_url": "https://host/v1?key=x"}, "leave that out"),
        (
            {"base_url": "http://api.example.com/v1", "key_env": "KEY"},
            "the key would go to api.example.com in the clear",
        ),
        ({"base_url": "http://8.8.8.8/v1", "key_env": "KEY"}, "in the clear"),
        ({"checks": {}}, "unknown key 'checks'"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecInvalid, match=says):
        spec(**settings)


@pytest.mark.parametrize("field", ["key_env", "key_secret"])
def test_a_key_in_place_of_its_name_is_refused_and_not_repeated(field: str) -> None:
    with pytest.raises(SpecInvalid) as raised:
        spec(**{field: "sk-proj-AbCd0123456789"})
    assert "never the key" in str(raised.value) and "AbCd" not in str(raised.value)


def test_which_variable_holds_the_key() -> None:
    assert spec().key_variable == "OPENAI_API_KEY"
    assert spec(provider="anthropic").key_variable == "ANTHROPIC_API_KEY"
    assert spec(base_url="http://vllm:8000/v1").key_variable is None
    assert spec(base_url="https://x.example/v1", key_secret="s").key_variable == "OPENAI_API_KEY"
    assert spec(base_url="https://x.example/v1", key_env="MINE").key_variable == "MINE"


def test_the_one_host_that_is_asked() -> None:
    assert spec().host == ("api.openai.com", 443)
    assert spec(base_url="http://vllm.models.svc:8000/v1/").host == ("vllm.models.svc", 8000)
    assert spec(base_url="http://10.0.0.7/v1", key_env="KEY").host == ("10.0.0.7", 80)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"drafts": 2, "temperature": 0}, "drafts at temperature 0"),
        ({"reasoning_column": "summary"}, "are the same"),
        ({"checks": {"matches": "("}}, "not a valid Python regular expression"),
        ({"checks": {"min_chars": 9, "max_chars": 3}}, "no reply could pass"),
        ({"checks": {"language": "english"}}, "language"),
        ({"prompt": ""}, "prompt"),
    ],
)
def test_what_a_field_refuses(settings: dict[str, Any], says: str) -> None:
    temperature = settings.pop("temperature", None)
    llm = {**LEAST, "parameters": {"temperature": temperature}}
    whole = {"llm": llm, "prompt": "{question}", "column": "summary", **settings}
    with pytest.raises(SpecInvalid, match=says):
        GenerateSpec.parse(whole, "recipe")
