"""Entry point of the container: `python -m thinktune.tasks.prep --task task.json`."""

from thinktune.schema.stages import PrepTask
from thinktune.tasks.runtime.entry import main

if __name__ == "__main__":
    main(PrepTask)
