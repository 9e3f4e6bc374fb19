"""Follows the logs of pods, each as it appears. Called by `conductor` and `logs -f`."""

import threading
import time
from collections.abc import Callable, Sequence

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.kube import Kube
from thinktune.schema.errors import ThinktuneError

LAST_LINES_S = 5.0
AGAIN_S = 2.0


class Tail:
    """One thread per pod, which says its lines until the pod ends."""

    def __init__(self, kube: Kube, say: Callable[[str], None]) -> None:
        self._kube = kube
        self._say = say
        self._threads: dict[str, threading.Thread] = {}
        self._closed = False
        self._deaf: OSError | None = None

    def follow(self, pods: Sequence[Object]) -> None:
        """Starts to read those that run or have ended and were not seen before.

        Raises the error with which nobody reads any more what is said (`… | head`).
        """
        if self._deaf is not None:
            raise self._deaf
        for pod in reversed(pods):
            name = pod["metadata"]["name"]
            if pod["status"].get("phase") == "Pending" or name in self._threads:
                continue
            index = (pod["metadata"].get("labels") or {}).get(
                "batch.kubernetes.io/job-completion-index"
            )
            mark = f"[{index}] " if index is not None else ""
            thread = threading.Thread(target=self._read, args=(name, mark), daemon=True)
            self._threads[name] = thread
            thread.start()

    def drain(self) -> None:
        """Waits for the last lines of pods that have ended."""
        for thread in self._threads.values():
            thread.join(timeout=LAST_LINES_S)

    def close(self) -> None:
        """Stops passing on lines of the pods' logs."""
        self._closed = True

    def _read(self, name: str, mark: str) -> None:
        last: str | None = None
        while not self._closed:
            try:
                for at, text in self._kube.log_from(name, last):
                    if self._closed:
                        return
                    last = at
                    self._say(f"{mark}{text}")
                pod = self._kube.pod(name)
                if pod is None or pod["status"].get("phase") != "Running":
                    return
            except ThinktuneError:
                # The pod went, or the connection; how the stage ended is told by who watches it.
                if self._is_gone(name):
                    return
            except OSError as error:
                self._deaf = error
                return
            time.sleep(AGAIN_S)

    def _is_gone(self, name: str) -> bool:
        try:
            return self._kube.pod(name) is None
        except ThinktuneError:
            return False
