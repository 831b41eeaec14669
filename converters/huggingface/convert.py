"""``--to hf``: write the folder, then look whether it is the model that the GGUF file is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from ...runtime.errors import ProofError
from ...runtime.gguf_facts import GGUFFacts
from ..artifact import Artifact
from ..checkpoint.checkpoint import Checkpoint, open_checkpoint
from ..gguf.architectures import embedding_rows, plan_model
from ..gguf.reader import GGUFTensors
from ..options import ConvertOptions
from ..outputs import Output
from ..progress import Progress
from ..targets import OWN_TYPE
from ..tokenizer.check import check_tokenizer
from ..tokenizer.read import read_vocabulary
from ..tokenizer.source import open_tokenizer
from ..workspace import deliver, workspace
from .folder import gguf_to_huggingface
from .tensors import own_type


def to_huggingface(source: Path, output: Output, options: ConvertOptions, progress: Progress) -> Artifact:
    """Write ``output`` from the GGUF file ``source``, in the type that the artifact's target then says.

    ConversionError, ModelError; ProofError when it is another model.
    """
    started = perf_counter()
    with workspace(output.path.parent) as place:
        folder = place / output.path.name
        tensors = GGUFTensors(source)
        target = output.target
        if target.type == OWN_TYPE:
            target = replace(target, type=own_type(tensors))
        total = sum(tensor.num_bytes for tensor in tensors.values())
        with progress.stage(f"Writing {output.path.name}", total) as advance:
            gguf_to_huggingface(source, folder, dtype=target.type, advance=advance)
        if options.verify:
            _verify(open_checkpoint(folder), source, progress)
        deliver(folder, output.path, replace=options.force)
    return Artifact(target, output.path, perf_counter() - started)


def _verify(checkpoint: Checkpoint, source: Path, progress: Progress) -> None:
    """Plan the way back: the same tensors, tokens and templates have to come out."""
    facts = GGUFFacts(source)
    with progress.stage("Checking the checkpoint"):
        check_tokenizer(open_tokenizer(checkpoint), source, facts.stop_strings())
        plan = plan_model(checkpoint, read_vocabulary(checkpoint, embedding_rows(checkpoint)))
        found = {tensor.name: tensor.shape for tensor in plan.tensors}
        wanted = {tensor.name: tensor.shape for tensor in GGUFTensors(source).values()}
        _require_same("tensor", wanted, found)
        _require_same("chat template", facts.chat_templates(), checkpoint.chat_templates)


def _require_same(what: str, wanted: Mapping[str, object], found: Mapping[str, object]) -> None:
    for name in {**wanted, **found}:
        if wanted.get(name) != found.get(name):
            raise ProofError(f"the checkpoint is not what the GGUF file is: its {what} {name} differs")
