"""Make GGUF artifacts of several types from one source: write, quantize, compare with 16 bits, prove, deliver."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from ..runtime.errors import ConversionError, ProofError
from ..runtime.profile import load_profile
from .artifact import Artifact
from .checkpoint.checkpoint import Checkpoint
from .gguf.quantize import Quantizer
from .gguf.types import quant_type
from .imatrix.calibration import CALIBRATION
from .imatrix.collect import collect_imatrix
from .material import Material, Written, from_checkpoint, from_gguf, is_direct
from .options import AUTO, NONE, ConvertOptions, refuse_without_effect
from .outputs import Output
from .progress import Progress
from .proof.divergence import NUM_TOKENS, measure_divergence
from .proof.figures import Divergence
from .proof.proof import Proof, proof_path, prove, unverified
from .proof.texts import chat_texts, read_conversations, text_source
from .source import GGUFSource
from .workspace import deliver, forget, require_space, workspace

COMPARED_AT_ONCE = 4
"""Artifacts that share one computation of the reference at most: each is loaded meanwhile, beside the reference."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A file that is made and not yet proved."""

    output: Output
    path: Path
    seconds: float
    fallbacks: dict[str, str] = field(default_factory=dict)
    clamped: dict[str, int] = field(default_factory=dict)
    imatrix: Path | None = None


def make_ggufs(
    source: Checkpoint | GGUFSource,
    outputs: Sequence[Output],
    options: ConvertOptions,
    progress: Progress,
    tell: Callable[[str], None],
) -> Iterator[Artifact]:
    """The artifacts, each when it is at its place. Whatever ends the work early, what is not finished goes."""
    folder = outputs[0].path.parent
    needs_quantizer = isinstance(source, GGUFSource) or not all(is_direct(output, options) for output in outputs)
    _check_options(outputs, options, needs_quantizer)
    texts = _Texts(options)
    with workspace(folder) as place, ExitStack() as stack:
        quantizer = stack.enter_context(Quantizer()) if needs_quantizer else None
        written: list[Written] = []
        if isinstance(source, GGUFSource):
            material = from_gguf(source)
        else:
            material, written = from_checkpoint(source, outputs, options, place, progress)
        for note in material.notes:
            tell(note)
        imatrix = folder / f"{source.name}-imatrix.gguf"
        yield from _Ladder(material, quantizer, options, texts, place, imatrix, progress, tell).climb(outputs, written)


def _check_options(outputs: Sequence[Output], options: ConvertOptions, needs_quantizer: bool) -> None:
    if not needs_quantizer:
        given = [name for name, value in options.quantizing.items() if value not in (AUTO, NONE)]
        refuse_without_effect(given, [output.target for output in outputs])
    if options.imatrix == NONE:
        for output in outputs:
            if quant_type(output.target.type).needs_imatrix:
                raise ConversionError(
                    f"{output.target} cannot be made without an importance matrix: leave out --imatrix none"
                )


class _Ladder:
    """One run over all types."""

    def __init__(
        self,
        material: Material,
        quantizer: Quantizer | None,
        options: ConvertOptions,
        texts: "_Texts",
        place: Path,
        imatrix: Path,
        progress: Progress,
        tell: Callable[[str], None],
    ) -> None:
        self._material = material
        self._reference = material.reference
        self._quantizer = quantizer
        self._options = options
        self._place = place
        self._own_imatrix = imatrix
        self._imatrix: Path | None = None
        self._texts = texts
        self._progress = progress
        self._tell = tell

    def climb(self, outputs: Sequence[Output], written: Sequence[Written]) -> Iterator[Artifact]:
        ready = {one.output: _Made(one.output, one.path, *_of_report(one)) for one in written}
        for output, made in ready.items():
            if _is_exact(output):
                yield self._finish(made, None)
        lossy = [output for output in outputs if output not in ready or not _is_exact(output)]
        step = _compared_at_once(self._material.parameters)
        for start in range(0, len(lossy), step):
            group = [ready.get(output) or self._quantize(output) for output in lossy[start : start + step]]
            for made, divergence in zip(group, self._measure(group), strict=True):
                yield self._finish(made, divergence)

    def _quantize(self, output: Output) -> _Made:
        assert self._quantizer is not None
        assert self._reference is not None
        kind, options = quant_type(output.target.type), self._options
        has_choices = kind.bits < 16
        imatrix = self._imatrix_for(output)
        path = self._place / output.path.name
        require_space(self._place, int(self._material.parameters * kind.bits / 8), output.path.name)
        total = self._reference.stat().st_size
        with self._progress.stage(f"Quantizing to {kind.name}", total, "bytes") as advance:
            report = self._quantizer.quantize(
                self._reference,
                path,
                kind.name,
                imatrix=imatrix,
                tensor_types=options.tensor_types if has_choices else (),
                output_type=options.output_type if has_choices else None,
                embedding_type=options.embedding_type if has_choices else None,
                threads=options.threads,
                advance=advance,
            )
        fallbacks = {name: got for name, (_wanted, got) in report.fallbacks.items()}
        return _Made(output, path, report.seconds, fallbacks, imatrix=imatrix)

    def _imatrix_for(self, output: Output) -> Path | None:
        chosen = self._options.imatrix
        if chosen not in (None, AUTO, NONE):
            return Path(chosen)
        is_wanted = chosen == AUTO or (chosen is None and self._options.calibration is not None)
        if is_wanted or quant_type(output.target.type).needs_imatrix:
            self._imatrix = self._imatrix or self._collect()
            return self._imatrix
        return None

    def _collect(self) -> Path:
        """Collect it beside the artifacts, where an interrupted run finds it again."""
        assert self._reference is not None
        texts = chat_texts(load_profile(self._reference), self._texts.calibration)
        with self._progress.stage("Collecting the importance matrix") as advance:
            done = 0

            def move(now: int, _total: int) -> None:
                nonlocal done
                advance(now - done)
                done = now

            try:
                collect_imatrix(
                    self._reference,
                    texts,
                    self._own_imatrix,
                    replace=self._options.force,
                    threads=self._options.threads,
                    progress=move,
                )
            except KeyboardInterrupt:
                self._tell(f"{self._own_imatrix}.partial is kept: the same command goes on from there")
                raise
        return self._own_imatrix

    def _measure(self, group: Sequence[_Made]) -> list[Divergence] | list[None]:
        if not self._options.verify:
            return [None] * len(group)
        assert self._reference is not None
        texts = chat_texts(load_profile(self._reference), self._texts.proof)
        return measure_divergence(
            self._reference,
            [made.path for made in group],
            texts,
            text=text_source(self._options.proof_text),
            num_tokens=self._options.proof_tokens or NUM_TOKENS,
            threads=self._options.threads,
            progress=self._progress,
        )

    def _finish(self, made: _Made, divergence: Divergence | None) -> Artifact:
        """Prove the artifact and move it to its name; one that fails goes to a name that nobody takes for it."""
        started = perf_counter()
        proof = self._prove(made, divergence)
        target, rejected = made.output.path, made.output.path.with_name(made.output.path.name + ".rejected")
        if proof.failures:
            target = rejected
        proof.write(proof_path(target))
        deliver(made.path, target, replace=self._options.force or bool(proof.failures))
        if not proof.failures:
            forget(rejected, proof_path(rejected))
        if self._reference == made.path:
            if proof.failures:
                proof.require_passed()
            self._reference = target
        seconds = made.seconds + perf_counter() - started
        return Artifact(made.output.target, target, seconds, proof, divergence, made.fallbacks, made.clamped)

    def _prove(self, made: _Made, divergence: Divergence | None) -> Proof:
        source, recipe = self._material.source, _recipe(self._options, made)
        if not self._options.verify:
            return unverified(source, made.path, recipe=recipe, fallbacks=made.fallbacks)
        return prove(
            source,
            made.path,
            tokenizer=self._material.tokenizer,
            divergence=divergence,
            recipe=recipe,
            fallbacks=made.fallbacks,
            clamped=made.clamped,
            progress=self._progress,
        )


def _compared_at_once(parameters: int) -> int:
    """As many as half of the free memory holds, at a byte a weight: llama.cpp repacks some types into memory."""
    import psutil

    fitting = psutil.virtual_memory().available // 2 // max(parameters, 1)
    return max(1, min(COMPARED_AT_ONCE, fitting))


class _Texts:
    """What the divergence is measured on and the importance matrix collected from, read before any work begins."""

    def __init__(self, options: ConvertOptions) -> None:
        self.proof = read_conversations(options.proof_text) if options.verify else []
        self.calibration = read_conversations(options.calibration or CALIBRATION)


def _recipe(options: ConvertOptions, made: _Made) -> dict[str, Any]:
    """What the user chose and what it needs to be made again."""
    return {
        "imatrix": _identified(made.imatrix) if made.imatrix else None,
        "tensor_types": [f"{pattern}={name}" for pattern, name in options.tensor_types],
        "output_type": options.output_type,
        "embedding_type": options.embedding_type,
        "clamp": options.clamp,
        "stops": list(options.stops),
        "chat_template": options.chat_template,
        "threads": options.threads,
    }


def _identified(imatrix: Path) -> dict[str, str]:
    with imatrix.open("rb") as file:
        return {"file": imatrix.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _of_report(one: Written) -> tuple[float, dict[str, str], dict[str, int]]:
    return one.report.seconds, one.report.fallbacks, one.report.clamped


def _is_exact(output: Output) -> bool:
    return quant_type(output.target.type).bits >= 16


def require_all_passed(artifacts: Sequence[Artifact]) -> None:
    """ProofError when an artifact failed its proof."""
    failed = [artifact for artifact in artifacts if artifact.failures]
    if failed:
        more = f" (and {len(failed) - 1} more)" if failed[1:] else ""
        see = proof_path(failed[0].path).name
        raise ProofError(f"{failed[0].path.name} is not what its source was: {failed[0].failures[0]}{more}; see {see}")
