"""The record beside an artifact that says what was checked and what was lost: ``NAME.proof.json``.

proof_version   1
verified        false when the checks were skipped; then there are only ``artifact``, ``source``, ``versions``, ``date``
passed          whether every check passed
failures        what did not, a sentence each
artifact        name, bytes, sha256 (of a folder one for each file of weights; null if not verified), type,
                architecture, parameters, bits_per_weight; fallbacks: the type that a tensor has whose rows are no whole
                blocks of its own
source          name; SHA-256 of the small files of a checkpoint, ``revision`` in the Hub's cache; per file of weights
                its bytes and, up to 4 GB in all, its SHA-256: ``weights`` says which of the two
recipe          what the user chose, as far as it was told: imatrix (file, sha256), tensor_types, output_type,
                embedding_type, clamp, stops, chat_template, threads
versions        tapster, llama_cpp_python (which brings its own llama.cpp), of a folder also mlx and mlx_lm, or
                onnxruntime and onnx_ir; what is not installed is left out
date            UTC
checks          each with ``passed``
  tensors         count, parameters, exact, types: per type the worst relative RMSE and its bound. ``clamped``: how
                  many values of a tensor were beyond float16 and compared with the largest that it holds
  tokenizer       texts, tokens: tokenized alike by the source's tokenizer and by the artifact's
  template        templates, rendered, refused
  stops           strings, eog_ids, cases, merged
  divergence      nats; overall, short, long: mean with its interval (null for few positions), quantiles, top1,
                  perplexities; bound; text: name, sha256 of its file, texts and tokens of it that were run.
                  ``measured`` false with a ``reason`` where there is none
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

from ...runtime.errors import ConversionError, ProofError
from ...runtime.profile import ModelProfile
from ..gguf.reader import GGUFTensors
from ..progress import Progress
from ..tokenizer.check import TokenizerReport
from .bounds import EXACT, divergence_bound
from .figures import Divergence, shown
from .source import ProofSource
from .stops import StopReport, check_stops
from .subject import Subject, gguf_subject
from .template import check_templates
from .tensors import TensorReport, check_tensors
from .vocabulary import tokenizer_of

VERSION = 1
Digest = str | dict[str, str]
_TOKENIZER = "tokenizer.ggml."


@dataclass(frozen=True)
class Proof:
    """``record`` is what the file says. ``failures`` is empty when all is well, and when nothing was checked."""

    artifact: Path
    record: dict[str, Any]

    @property
    def failures(self) -> list[str]:
        """What is wrong with the artifact, a sentence each."""
        return list(self.record.get("failures", ()))

    def write(self, path: Path | None = None) -> Path:
        """Write it at once or not at all; by default beside the artifact. ConversionError when that fails."""
        path = path or proof_path(self.artifact)
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_text(json.dumps(self.record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ConversionError(f"cannot write {path}: {error.strerror}") from error
        return path

    def require_passed(self) -> None:
        """ProofError when a check failed."""
        if failures := self.failures:
            more = f" (and {len(failures) - 1} more, see {proof_path(self.artifact).name})" if failures[1:] else ""
            raise ProofError(f"{self.artifact.name} is not what its source was: {failures[0]}{more}")


def proof_path(artifact: Path) -> Path:
    """Where an artifact's proof lies: ``NAME.gguf`` has ``NAME.proof.json``."""
    name = artifact.name
    return artifact.with_name((name[: -len(".gguf")] if name.lower().endswith(".gguf") else name) + ".proof.json")


def prove(
    source: ProofSource,
    artifact: Path | Subject,
    *,
    tokenizer: TokenizerReport | None = None,
    divergence: Divergence | None = None,
    no_divergence: str | None = None,
    progress: Progress | None = None,
    recipe: Mapping[str, Any] | None = None,
    fallbacks: Mapping[str, str] | None = None,
    clamped: Mapping[str, int] | None = None,
) -> Proof:
    """Check an artifact and record what was found; nothing is raised for what is wrong with it.

    ``tokenizer`` is the comparison already made; without it the vocabularies of source and artifact have to be equal.
    A quantized artifact needs a ``divergence``, or in ``no_divergence`` the reason why it has none. ``recipe`` and
    ``fallbacks`` are recorded; the tensors in ``clamped`` are compared with what float16 can hold of the source, and
    how many values that concerns is recorded. ModelError when the artifact cannot be read at all.
    """
    subject = artifact if isinstance(artifact, Subject) else gguf_subject(artifact)
    profile = subject.profile
    with ThreadPoolExecutor(2) as pool:
        digest = pool.submit(_digests, subject)
        identity = pool.submit(source.identify)
        tensor_report = check_tensors(source.tensors, subject.tensors, progress, clamped)
        template_report = check_templates(source.chat_templates, source.bos_token, source.eos_token, profile)
        stop_report = _stops(source, profile)
        checks = {
            "tensors": tensor_report.to_json(),
            "tokenizer": _tokenizer(source, tokenizer, subject),
            "template": template_report.to_json(),
            "stops": stop_report.to_json(),
            "divergence": _divergence(tensor_report, divergence, no_divergence),
        }
        failures = [*tensor_report.problems, *template_report.problems, *stop_report.problems]
        failures += [check.pop("problem") for check in checks.values() if "problem" in check]
        facts = _facts(subject, digest.result(), fallbacks)
        facts |= _origin(source, subject, identity.result(), recipe)
    verdict = {"proof_version": VERSION, "verified": True, "passed": not failures, "failures": failures}
    return Proof(subject.path, {**verdict, **facts, "checks": checks})


def unverified(
    source: ProofSource,
    artifact: Path | Subject,
    *,
    recipe: Mapping[str, Any] | None = None,
    fallbacks: Mapping[str, str] | None = None,
) -> Proof:
    """The record of an artifact that nobody wanted checked; nothing large is read for it, so there are no hashes."""
    subject = artifact if isinstance(artifact, Subject) else gguf_subject(artifact)
    facts = _facts(subject, None, fallbacks)
    facts |= _origin(source, subject, source.identify(is_hashed=False), recipe)
    return Proof(subject.path, {"proof_version": VERSION, "verified": False, **facts})


def _facts(subject: Subject, digest: Digest | None, fallbacks: Mapping[str, str] | None) -> dict[str, Any]:
    profile = subject.profile
    return {
        "artifact": {
            "name": subject.path.name,
            "bytes": profile.file_bytes,
            "sha256": digest,
            "type": subject.type,
            "architecture": profile.architecture,
            "parameters": subject.parameters,
            "bits_per_weight": bits_per_weight(subject),
            "fallbacks": dict(fallbacks or {}),
        },
    }


def _origin(
    source: ProofSource, subject: Subject, identity: Mapping[str, Any], recipe: Mapping[str, Any] | None
) -> dict[str, Any]:
    versions = {name: _version(name.replace("_", "-")) for name in ("tapster", *subject.versions)}
    return {
        "source": {"name": source.name, **identity},
        "recipe": dict(recipe or {}),
        "versions": {name: found for name, found in versions.items() if found},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def bits_per_weight(subject: Subject) -> float:
    """How many bits the tensors take for each number in them."""
    return round(8 * subject.num_bytes / max(sum(prod(tensor.shape) for tensor in subject.tensors.values()), 1), 3)


def _digests(subject: Subject) -> Digest:
    """Of a file its SHA-256; of a folder that of each file with weights."""
    if not subject.path.is_dir():
        return _sha256(subject.path)
    return {file.name: _sha256(file) for file in subject.weights}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _stops(source: ProofSource, profile: ModelProfile) -> StopReport:
    with tokenizer_of(profile) as tokenizer:
        return check_stops(profile, tokenizer, source.stop_strings, source.eog_ids)


def _tokenizer(source: ProofSource, report: TokenizerReport | None, subject: Subject) -> dict[str, Any]:
    if report is not None:
        found = {"texts": report.texts, "tokens": report.tokens, "notes": list(report.notes)}
        return {"passed": report.problem is None, **found, **({"problem": report.problem} if report.problem else {})}
    if source.tokenizer is None or not isinstance(subject.tensors, GGUFTensors):
        return {"passed": False, "problem": "the tokenizer was not compared with the source's"}
    metadata = subject.tensors.metadata
    keys = sorted({key for values in (source.tokenizer, metadata) for key in values if key.startswith(_TOKENIZER)})
    different = [key for key in keys if source.tokenizer.get(key) != metadata.get(key)]
    if different:
        return {"passed": False, "problem": f"the metadata key {different[0]} is not the source's"}
    return {"passed": True, "equal_keys": len(keys)}


def _divergence(tensors: TensorReport, found: Divergence | None, no_divergence: str | None) -> dict[str, Any]:
    quantized = {error.type for error in tensors.errors} - EXACT
    if found is None:
        if no_divergence or not quantized:
            return {"passed": True, "measured": False, "reason": no_divergence or _unquantized(tensors)}
        return {"passed": False, "measured": False, "problem": "the divergence from 16 bits was not measured"}
    bound, mean = divergence_bound(quantized), found.overall.mean
    record = {"passed": mean <= bound, "measured": True, "bound": bound, **found.to_json()}
    if mean <= bound:
        return record
    said = f"by {shown(mean)} nats on average, at most {bound:.3g} is right for its types"
    return {**record, "problem": f"it predicts other than 16 bits: {said if mean == mean else 'its logits are NaN'}"}


def _unquantized(tensors: TensorReport) -> str:
    """Why nothing needs measuring where numbers are stored one by one: a float of other precision may be lossy."""
    if tensors.is_exact:
        return "every number is the source's"
    lossy = [error for error in tensors.errors if error.rmse]
    if not lossy:
        return "not quantized; what is beyond float16 was cut off" if tensors.clamped else "not quantized"
    bits = 16 if any(error.type in ("F16", "BF16") for error in lossy) else 32
    reason = f"{bits} bits; worst relative error {max(error.rmse for error in lossy):.2g}"
    return f"{reason}; what is beyond float16 was cut off" if tensors.clamped else reason
