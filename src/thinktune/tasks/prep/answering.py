"""What surrounds the small programs behind `thinktune data`."""

from thinktune.schema.stages import PrepTask
from thinktune.store import new_attempt, open_store
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop


def quiet_context(task: PrepTask, stop: Stop) -> Context:
    """What surrounds a stage, for a program that tells nobody how far it is."""
    store, attempt = open_store(task.store), new_attempt()
    return Context(store, attempt, Reporter(store, task.run, "prep", attempt, quiet=True), stop)
