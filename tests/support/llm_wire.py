"""Replies and batches as OpenAI and Anthropic spell them. `llm_server` sends them."""

import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Spoiled = Literal[
    "empty",  # 200 with empty content
    "thinks only",  # empty content, text in `reasoning_content`, though it says "stop"
    "too long",  # finish_reason "length"
    "cut",  # the connection ends in the middle of the body
    "half a character",  # the body's length is right, its last byte begins a character
    "hang",  # worked on, never answered
    "no usage",
    "not json",
    "error in 200",
    "tells the key",  # repeats the credentials it was sent
]

USAGE = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
"""Input and output tokens, in both spellings."""


@dataclass
class Plan:
    """What becomes of one batch."""

    status: str = "completed"
    """`completed`, `expired`, `cancelled`, `failed`."""
    answered: float = 1.0
    """Share of the requests that are answered, and billed; the rest is what `status` says."""
    duplicated: int = 0
    """Results that come twice."""
    missing: int = 0
    """Results, of those answered, that are left out."""
    looks: int = 1
    """Times that its state is asked for before it has ended."""
    error: str = ""
    """Why it failed, with `failed`."""


@dataclass
class Batch:
    """One batch, and what has become of it."""

    id: str
    plan: Plan
    created: float
    metadata: dict[str, str]
    requests: list[dict[str, Any]]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    looked: int = 0

    @property
    def ended(self) -> bool:
        return self.looked >= self.plan.looks


def tokens_of(text: str) -> int:
    """Tokens as this server counts them: one for four bytes."""
    return max(1, len(text.encode()) // 4)


def reply_of(
    body: dict[str, Any], text: str, fault: Spoiled | None, anthropic: bool
) -> dict[str, Any]:
    """The reply with that text to a request, spoiled as told."""
    thinking, finish = "", "stop"
    most = body.get("max_tokens") or body.get("max_completion_tokens") or 16
    if fault in ("empty", "thinks only", "too long"):
        text = text[:9] if fault == "too long" else ""
        thinking = "Let me see." if fault == "thinks only" else ""
        finish = "length" if fault == "too long" else "stop"
    output = most if fault in ("thinks only", "too long") else min(most, tokens_of(text))
    used = (sum(tokens_of(turn["content"]) for turn in body["messages"]) + 4, output)
    if anthropic:
        blocks = [{"type": "thinking", "thinking": thinking, "signature": "s"}] if thinking else []
        blocks += [{"type": "text", "text": text}] if text else []
        return {
            "id": f"msg_{uuid.uuid4().hex[:8]}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": blocks,
            "stop_reason": "max_tokens" if finish == "length" else "end_turn",
            "usage": {"input_tokens": used[0], "output_tokens": used[1]},
        }
    message = {"role": "assistant", "content": text}
    message |= {"reasoning_content": thinking} if thinking else {}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex[:8]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": used[0],
            "completion_tokens": used[1],
            "total_tokens": sum(used),
        },
    }


def result_of(key: str, reply: dict[str, Any], anthropic: bool) -> str:
    """The line of a batch's results for a request that was answered."""
    if anthropic:
        result = {"type": "succeeded", "message": reply}
        return json.dumps({"custom_id": key, "result": result})
    response = {"status_code": 200, "request_id": "r", "body": reply}
    return json.dumps({"id": "x", "custom_id": key, "response": response, "error": None})


def missed(key: str, plan: Plan, anthropic: bool) -> str:
    """The same for one that was not."""
    if anthropic:
        kind = "canceled" if plan.status == "cancelled" else "expired"
        return json.dumps({"custom_id": key, "result": {"type": kind}})
    error = {"code": f"batch_{plan.status}", "message": "not in time"}
    return json.dumps({"id": "x", "custom_id": key, "response": None, "error": error})


def shown(batch: Batch, anthropic: bool, url: str) -> dict[str, Any]:
    """A batch as the service describes it."""
    count, status = len(batch.requests), batch.plan.status
    if anthropic:
        done = round(count * batch.plan.answered) if batch.ended else 0
        undone = count - done if batch.ended else 0
        canceled = undone if status == "cancelled" else 0
        created = datetime.fromtimestamp(batch.created, UTC).isoformat()
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if batch.ended else "in_progress",
            "request_counts": {
                "processing": 0 if batch.ended else count,
                "succeeded": done,
                "errored": 0,
                "canceled": canceled,
                "expired": undone - canceled,
            },
            "created_at": created,
            "expires_at": created,
            "results_url": f"{url}/v1/messages/batches/{batch.id}/results" if batch.ended else None,
        }
    errors = {"data": [{"code": "told", "message": batch.plan.error}]} if batch.plan.error else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "input_file_id": "file-x",
        "created_at": int(batch.created),
        "metadata": batch.metadata,
        "status": status if batch.ended else "in_progress",
        "request_counts": {"total": count, "completed": len(batch.lines), "failed": 0},
        "output_file_id": f"{batch.id}-out" if batch.ended and batch.lines else None,
        "error_file_id": f"{batch.id}-err" if batch.ended and batch.errors else None,
        "errors": errors if batch.ended else None,
    }
