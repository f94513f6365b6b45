"""A tuned model on the embedded base as a finished job leaves one, with a random adapter in place of a trained one."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.domain.job import Checkpoint, Job
from tunesmith.domain.model import TunedModel
from tunesmith.domain.scope import Everywhere
from tunesmith.domain.states import Status
from tunesmith.store import checkpoints, jobs, models

NANO = "tunesmith-nano"
TUNED = "ft:tunesmith-nano:tunesmith:mine:AbCdEfGh"


@cache
def random_adapter(folder: Path, seed: int = 1, strength: float = 0.3) -> dict[str, bytes]:
    """Return the files of an adapter that changes what the base in the folder says."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith.lm.adapter_file import to_files
    from tunesmith.lm.lora import LoraModel

    adapter = LoraModel(AutoModelForCausalLM.from_pretrained(folder)).fresh(seed=seed, rank=8, alpha=16)
    generator = torch.Generator().manual_seed(seed)
    for pair in adapter.pairs.values():
        pair.b_OR.data.normal_(0, strength, generator=generator)
    return to_files(adapter, base_name=NANO)


def lay_out(
    served: Any,
    name: str = TUNED,
    *,
    base: str = NANO,
    project: str = "proj_default",
    seed: int = 1,
    strength: float = 0.3,
) -> TunedModel:
    """Write the rows and the bytes of a finished job and its model, and return the model."""
    inside = served.composed
    stands_on = inside.services.bases.get(base)
    job_id = inside.services.ids.job()
    key = f"jobs/{job_id}/attempts/1/checkpoints/000001"
    files = random_adapter(Path(stands_on.path), seed, strength)
    for file, content in files.items():
        inside.services.chat.blobs.put(f"{key}/{file}", [content])
    sha256 = hashlib.sha256(files["adapter_model.safetensors"]).hexdigest()
    model = TunedModel(name, project, "org-default", job_id, base, 2.0, key, sha256, stands_on.pins)
    job = Job(
        id=job_id, project_id=project, organization_id="org-default", model=base, base=base, start_adapter=None,
        training_file="file-x", validation_file=None, suffix=None, seed=1, method="supervised",
        method_config={"hyperparameters": {}},
        resolved=None, integrations=[], metadata=None, created_at=1.0, status=Status.SUCCEEDED, fine_tuned_model=name,
        pins=stands_on.pins,
    )  # fmt: skip
    metrics = {"step": 1, "train_loss": 0.5, "type": "supervised"}
    checkpoint = Checkpoint(inside.services.ids.checkpoint(), job_id, project, 1.0, 1, name, key, sha256, metrics)
    with inside.db.begin() as tx:
        everywhere = Everywhere("the test lays out what others made")
        jobs.add(tx, everywhere, job)
        models.add(tx, everywhere, model)
        checkpoints.add(tx, everywhere, checkpoint)
    return model
