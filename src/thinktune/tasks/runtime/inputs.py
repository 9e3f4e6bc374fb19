"""What a stage reads of the stages before it: their manifests, and through them their files.

Called by every stage but the first.
"""

import json
from pathlib import Path

from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.stages import Stage
from thinktune.store import Store, fetch, file_key, read_manifest


def stage_manifest(store: Store, run: str, stage: Stage) -> Manifest:
    """The committed artifact of an earlier stage. Raises InputMissing."""
    prefix = stage_prefix(run, stage)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        fault = f"stage {stage} of run {run} has committed nothing"
        raise InputMissing(store.location(prefix), fault, f"run {stage} first")
    return manifest


def prompt_facts(store: Store, run: str, prep: Manifest, folder: Path) -> PromptFacts:
    """What prep says of its prompts; the file is brought to `folder`. Raises InputMissing."""
    prefix = stage_prefix(run, "prep")
    remedy = "delete that artifact and run prep again"
    if PROMPT_FILE not in {entry.name for entry in prep.files}:
        fault = f"it has no {PROMPT_FILE}, which says where an answer ends"
        raise InputMissing(store.location(prefix), fault, remedy)
    path = fetch(store, prefix, prep, folder, names=[PROMPT_FILE]) / PROMPT_FILE
    place = store.location(file_key(store, prefix, prep, PROMPT_FILE))
    try:
        return PromptFacts.parse(json.loads(path.read_text(encoding="utf-8")), place)
    except SpecInvalid as error:
        raise InputMissing(place, error.fault, remedy) from None
    except ValueError:
        raise InputMissing(place, "it is not JSON", remedy) from None
