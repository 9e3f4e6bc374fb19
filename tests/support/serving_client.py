"""Asks a server from inside a cluster, with nothing but Python: `load`, `paths` or `ask`.

    python client.py load URL MODEL CLIENTS    until SIGTERM; then what came of it
    python client.py paths URL                 status by request that must not work
    python client.py ask URL MODEL             an answer

The last line of its output is JSON. The key is in the file KEY. Each request has a connection of
its own, as through a load balancer; under load, every other client keeps its connection for as long
as the server does.
"""

import http.client
import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KEY = Path("/etc/key/key")
QUESTION = "A shop has 4 red hats and 5 blue hats. How many hats has it?"
TIMEOUT_S = 90


def ask(
    url: str, model: str, *, most: int = 8, kept: http.client.HTTPConnection | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and answer to one chat request. No second attempt. `kept`: the client's connection,
    which is made where it is not there."""
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": most,
            "temperature": 0,
        }
    )
    headers = {"Authorization": f"Bearer {KEY.read_text().strip()}"}
    status, text = request(url, "POST", "/v1/chat/completions", body, headers, kept)
    return status, json.loads(text)


def request(
    url: str,
    method: str,
    path: str,
    body: str | None = None,
    headers: dict[str, str] | None = None,
    kept: http.client.HTTPConnection | None = None,
) -> tuple[int, str]:
    """Status and text. The path is sent as it is."""
    connection = kept or connection_to(url)
    given = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, given | (headers or {}))
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    if kept is None:
        connection.close()
    return answer.status, text


def connection_to(url: str) -> http.client.HTTPConnection:
    """One that connects at its first request, and anew after the server has said that it closes."""
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, TIMEOUT_S)


def load(url: str, model: str, clients: int) -> dict[str, Any]:
    """Asks without a pause until SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    statuses: Counter[str] = Counter()
    faults: list[str] = []

    def work(kept: http.client.HTTPConnection | None) -> None:
        while not stopped.is_set():
            try:
                status, answer = ask(url, model, kept=kept)
                statuses[str(status)] += 1
                if status != 200:
                    faults.append(f"{status} {json.dumps(answer)[:200]}")
            except (OSError, ValueError, http.client.HTTPException) as error:
                statuses["failed"] += 1
                faults.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")
                if kept is not None:
                    kept.close()

    threads = [
        threading.Thread(target=work, args=(connection_to(url) if number % 2 else None,))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    say("at work")
    stopped.wait()
    for thread in threads:
        thread.join()
    return {"statuses": statuses, "faults": faults[:10]}


def paths(url: str) -> dict[str, int]:
    """Status of each request that nobody may make, or not without a key."""
    key = {"Authorization": f"Bearer {KEY.read_text().strip()}"}
    adapter = json.dumps({"lora_name": "x", "lora_path": "/tmp"})
    asked = [
        ("POST", "/v1/load_lora_adapter", adapter, key),
        ("POST", "/v1/unload_lora_adapter", adapter, key),
        ("POST", "/adapters", adapter, key),
        ("DELETE", "/adapters/x", None, key),
        ("POST", "/v1/completions", "{}", key),
        ("POST", "/invocations", "{}", key),
        ("POST", "/tokenize", "{}", key),
        ("GET", "/health", None, key),
        ("GET", "/docs", None, key),
        ("GET", "//v1/models", None, key),
        ("GET", "/v1/../v1/models", None, key),
        ("GET", "/v1%2fmodels", None, key),
        ("DELETE", "/v1/models", None, key),
        ("GET", "/v1/models", None, {}),
        ("GET", "/v1/models", None, {"Authorization": "Bearer wrong"}),
        ("GET", "/metrics", None, {}),
        ("POST", "/v1/chat/completions", "{}", {}),
    ]
    found = {}
    for method, path, body, headers in asked:
        with_key = "with key" if headers == key else "wrong key" if headers else "no key"
        found[f"{method} {path} {with_key}"] = request(url, method, path, body, headers)[0]
    return found


def say(text: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Prints the outcome as JSON."""
    what, url, *rest = arguments
    if what == "load":
        say(json.dumps(load(url, rest[0], int(rest[1]))))
    elif what == "paths":
        say(json.dumps(paths(url)))
    else:
        status, answer = ask(url, rest[0], most=32)
        say(json.dumps({"status": status, "answer": answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
