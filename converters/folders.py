"""Make MLX and ONNX artifacts, which are folders, from one source: write, compare with 16 bits, prove, deliver."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

from ..runtime.errors import ConversionError
from ..runtime.profile import load_profile
from .artifact import Artifact
from .checkpoint.checkpoint import Checkpoint, open_checkpoint
from .folder import FolderReport, generation_config
from .folder_formats import require_representable, usual_proof_tokens, write_folder
from .huggingface.folder import gguf_to_huggingface
from .material import write_reference
from .options import ConvertOptions
from .outputs import Output
from .progress import Progress
from .proof.divergence import measure_divergence
from .proof.figures import Divergence
from .proof.proof import Proof, proof_path, prove, unverified
from .proof.source import ProofSource, folder_source
from .proof.subject import Subject, folder_subject, source_rows
from .proof.texts import Conversation, chat_texts, read_conversations, text_source
from .proof.vocabulary import tokenizer_of
from .source import GGUFSource
from .tokenizer.check import TokenizerReport, check_same_tokenizer
from .tokenizer.source import open_tokenizer
from .workspace import deliver, forget, require_space, workspace


def make_folders(
    source: Checkpoint | GGUFSource,
    outputs: Sequence[Output],
    options: ConvertOptions,
    progress: Progress,
    tell: Callable[[str], None],
) -> Iterator[Artifact]:
    """The artifacts, each when it is at its place. Whatever ends the work early, what is not finished goes."""
    conversations = read_conversations(options.proof_text) if options.verify else []
    with workspace(outputs[0].path.parent) as place:
        checkpoint = source if isinstance(source, Checkpoint) else _as_checkpoint(source, place, progress, tell)
        for note in require_representable(checkpoint, [output.target for output in outputs]):
            tell(note)
        shop = _Workshop(checkpoint, place, options, conversations, progress)
        for output in outputs:
            yield shop.make(output)


def _as_checkpoint(source: GGUFSource, place: Path, progress: Progress, tell: Callable[[str], None]) -> Checkpoint:
    """A GGUF file as the checkpoint that these formats are made from."""
    if source.is_quantized:
        tell(f"{source.path.name} is quantized: what that has lost is lost in what is made from it, too")
    folder = place / source.name
    with progress.stage(f"Writing {source.name} as a checkpoint", source.path.stat().st_size, "bytes") as advance:
        gguf_to_huggingface(source.path, folder, advance=advance)
    return open_checkpoint(folder)


@dataclass(frozen=True)
class _Workshop:
    """One run over all folders. What they share is made when the first one needs it."""

    checkpoint: Checkpoint
    place: Path
    options: ConvertOptions
    conversations: list[Conversation]
    progress: Progress

    def make(self, output: Output) -> Artifact:
        """Write an artifact, prove it and move it to its name; one that fails goes to a name that nobody takes for
        it."""
        started = perf_counter()
        require_space(self.place, self._num_bytes(output), output.path.name)
        made = self.place / output.path.name
        report = self._write(made, output)
        subject = folder_subject(made, report, output.target.type)
        divergence = self._measure(subject) if self.options.verify else None
        proof = self._prove(subject, report, output, divergence)
        rejected = output.path.with_name(f"{output.path.name}.rejected")
        target = rejected if proof.failures else output.path
        proof.write(proof_path(target))
        deliver(made, target, replace=self.options.force or bool(proof.failures))
        if not proof.failures:
            forget(rejected, proof_path(rejected))
        seconds = perf_counter() - started
        return Artifact(output.target, target, seconds, proof, divergence, report.fallbacks, report.clamped)

    def _num_bytes(self, output: Output) -> int:
        """About as many as it will have, with the reference, if that is still to be made."""
        stored = sum(tensor.num_bytes for tensor in self.checkpoint.tensors.values())
        artifact = 2 * stored if output.target.type == "fp32" else stored
        return artifact + (stored if self.options.verify and "_reference" not in vars(self) else 0)

    def _write(self, folder: Path, output: Output) -> FolderReport:
        try:
            folder.mkdir()
            return write_folder(self.checkpoint, folder, self.options.folder_options(output.target), self.progress)
        except OSError as error:
            raise ConversionError(f"cannot write {output.path}: {error.strerror}") from error

    @cached_property
    def _reference(self) -> Path | str:
        """The checkpoint as a GGUF file of 16 bits, which llama.cpp runs: another program than the artifact's, so that
        what one gets wrong shows. Or the reason why there is none."""
        try:
            return write_reference(self.checkpoint, self.place, self.progress)
        except ConversionError as error:
            return f"llama.cpp cannot run the checkpoint to compare with: {error}"

    @cached_property
    def _texts(self) -> list[str]:
        assert isinstance(self._reference, Path)
        return chat_texts(load_profile(self._reference), self.conversations)

    def _measure(self, subject: Subject) -> Divergence | None:
        if not isinstance(self._reference, Path):
            return None
        [found] = measure_divergence(
            self._reference,
            [subject.path],
            self._texts,
            text=text_source(self.options.proof_text),
            num_tokens=self.options.proof_tokens or usual_proof_tokens(subject.profile.format),
            threads=self.options.threads,
            progress=self.progress,
        )
        return found

    def _prove(self, subject: Subject, report: FolderReport, output: Output, divergence: Divergence | None) -> Proof:
        source, recipe = self._source(report), self._recipe(output)
        if not self.options.verify:
            return unverified(source, subject, recipe=recipe, fallbacks=report.fallbacks)
        return prove(
            source,
            subject,
            tokenizer=self._tokenizer(subject),
            divergence=divergence,
            no_divergence=self._reference if isinstance(self._reference, str) else None,
            recipe=recipe,
            fallbacks=report.fallbacks,
            clamped=report.clamped,
            progress=self.progress,
        )

    def _source(self, report: FolderReport) -> ProofSource:
        tokenizer = open_tokenizer(self.checkpoint)

        def id_of(token: str) -> int | None:
            ids = tokenizer.encode(token)
            return ids[0] if len(ids) == 1 else None

        return folder_source(self.checkpoint, source_rows(self.checkpoint, report), id_of)

    def _tokenizer(self, subject: Subject) -> TokenizerReport:
        stops = generation_config(self.checkpoint).get("stop_strings", [])
        with self.progress.stage("Checking the tokenizer"), tokenizer_of(subject.profile) as tokenizer:
            return check_same_tokenizer(open_tokenizer(self.checkpoint), tokenizer, stops)

    def _recipe(self, output: Output) -> dict[str, Any]:
        """What the user chose, with what was chosen for them: defaults may change."""
        options = self.options
        return {
            **options.folder_options(output.target).recipe,
            "clamp": options.clamp,
            "stops": list(options.stops),
            "chat_template": options.chat_template,
        }
