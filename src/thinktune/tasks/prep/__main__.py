"""Entry point of the container: `python -m thinktune.tasks.prep --task task.json`."""

from thinktune.spec.task import PrepTask
from thinktune.tasks.entry import main

if __name__ == "__main__":
    main(PrepTask)
