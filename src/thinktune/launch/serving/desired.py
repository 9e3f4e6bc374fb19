"""Changes which runs a server serves: one conditional update of a ConfigMap that replicas follow.

Called by `serve` and `promote`.
"""

from thinktune.launch.cluster.api import Conflict
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving.live import desired_of
from thinktune.schema.errors import InputMissing, ServiceUnavailable
from thinktune.schema.served import SERVED_FILE, Desired

TRIES = 5


def change_desired(server: str, release: str, before: Desired, after: Desired, kube: Kube) -> None:
    """Makes a server serve `after`, if it still serves `before`. `release`: its name in Helm.

    Raises ServiceUnavailable where somebody else has changed it meanwhile: what they saw is not
    what we saw, and neither change is lost by one of the two looking again.
    """
    for _ in range(TRIES):
        seen = desired_of(release, kube)
        if seen is None:
            fault = "its ConfigMap with the runs that it serves is gone"
            raise InputMissing(f"server {server}", fault, "install it again: thinktune serve RUN")
        there, desired = seen
        if desired != before:
            fault = f"somebody else has changed it meanwhile: it now serves {desired.first.run}"
            remedy = "look at it (`thinktune status`), and promote again if that is still right"
            raise ServiceUnavailable(f"server {server}", fault, remedy)
        try:
            kube.change_config_map(there, {SERVED_FILE: after.canonical()})
        except Conflict:
            continue  # a label, as Helm writes it; or the runs, as the next look tells
        return
    fault = f"it changed under each of {TRIES} attempts"
    raise ServiceUnavailable(f"server {server}", fault, "try again")
