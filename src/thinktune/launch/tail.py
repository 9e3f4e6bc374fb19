"""Follows the logs of a release's pods, each as it appears. Called by `conduct` and `logs -f`."""

import threading
from collections.abc import Callable, Sequence

from thinktune.launch.kube import Kube, Object
from thinktune.spec.errors import ThinktuneError

LAST_LINES_S = 5.0


class Tail:
    """One thread per pod, which says its lines until the pod ends."""

    def __init__(self, kube: Kube, release: str, say: Callable[[str], None]) -> None:
        self._kube, self._release, self._say = kube, release, say
        self._threads: dict[str, threading.Thread] = {}
        self._closed = False

    def follow(self, pods: Sequence[Object]) -> None:
        """Starts to read those that run or have ended and were not seen before."""
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
        for pod in self._kube.pods(self._release):
            self.follow([pod])
        for thread in self._threads.values():
            thread.join(timeout=LAST_LINES_S)

    def close(self) -> None:
        """Says nothing more."""
        self._closed = True

    def _read(self, pod: str, mark: str) -> None:
        try:
            for line in self._kube.log(pod, follow=True):
                if self._closed:
                    return
                self._say(f"{mark}{line}")
        except ThinktuneError:
            return  # the pod went; how the stage ended is told by who watches it
