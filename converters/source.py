"""What is converted: a checkpoint folder, a GGUF file, or a name on the Hub that stands for either."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..runtime.chat.builtin import BUILTIN_NAMES, builtin_source
from ..runtime.errors import ConversionError, ModelError
from ..runtime.hub import fetch_checkpoint
from ..runtime.model_folder import shown_path
from ..runtime.resolve import require_hub_name, resolve_model
from .checkpoint.checkpoint import Checkpoint, open_checkpoint
from .gguf.reader import GGUFTensor, GGUFTensors
from .options import ConvertOptions
from .outputs import base_name

_SIXTEEN_BITS = frozenset(("F32", "F16", "BF16", "F64"))


@dataclass(frozen=True)
class GGUFSource:
    """A GGUF model, the first of its files."""

    path: Path

    @property
    def name(self) -> str:
        return base_name(self.path.name.removesuffix(".gguf"))

    @property
    def is_quantized(self) -> bool:
        """Whether a tensor of it is."""
        return self._quantized() is not None

    def require_unquantized(self) -> None:
        """ConversionError for a quantized file: to quantize it again would lose twice."""
        if (tensor := self._quantized()) is not None:
            raise ConversionError(
                f"{self.path} is quantized already (the tensor {tensor.name} is {tensor.type}): give the checkpoint or "
                f"a 16-bit GGUF file; `--to hf` makes a checkpoint of it, with what was lost still lost"
            )

    def _quantized(self) -> GGUFTensor | None:
        return next((one for one in GGUFTensors(self.path).values() if one.type not in _SIXTEEN_BITS), None)


def open_source(spec: str, options: ConvertOptions, *, progress: bool = True) -> tuple[Checkpoint | GGUFSource, Path]:
    """The source, and the folder where artifacts lie unless told otherwise: beside it, or the current one when it
    lies where nobody looks (the Hub's cache, the demo package). ConversionError, ModelError."""
    if "://" in spec:
        raise ConversionError(f"{spec} is an address: give a checkpoint folder, a .gguf file, org/name or demo")
    path = Path(spec).expanduser() if spec.startswith("~") else Path(spec)
    if _is_checkpoint(path):
        if any(target.format == "hf" for target in options.targets):
            raise ConversionError(f"{spec} is a Hugging Face folder already: --to hf is for a GGUF file")
        return _adapted(open_checkpoint(path), options), shown_path(path).parent
    if spec == "demo" or path.exists() or Path(spec.rpartition(":")[0] or path).is_dir():
        _refuse_overrides(spec, options)
        found = GGUFSource(resolve_model(spec, formats=("gguf",)))
        if any(target.format == "gguf" for target in options.targets):
            found.require_unquantized()
        return found, Path() if spec == "demo" else found.path.parent
    try:
        require_hub_name(spec)
        return _adapted(open_checkpoint(fetch_checkpoint(spec, progress=progress)), options), Path()
    except ModelError as error:
        raise ConversionError(str(error)) from error


def _is_checkpoint(path: Path) -> bool:
    """Also one without its config.json, of which that is to be said."""
    if (path / "config.json").is_file():
        return True
    return path.is_dir() and any(path.glob("*.safetensors")) and not any(path.glob("*.gguf"))


def _adapted(checkpoint: Checkpoint, options: ConvertOptions) -> Checkpoint:
    """The checkpoint with the template and the stop strings that the user chose."""
    if options.chat_template is not None:
        checkpoint = replace(checkpoint, chat_templates={"default": _template(options.chat_template)})
    if options.stops:
        declared = checkpoint.generation_config.get("stop_strings") or []
        declared = [declared] if isinstance(declared, str) else declared
        stops = list(dict.fromkeys([*declared, *options.stops]))
        checkpoint = replace(checkpoint, generation_config={**checkpoint.generation_config, "stop_strings": stops})
    return checkpoint


def _template(choice: str) -> str:
    path = Path(choice)
    if choice in BUILTIN_NAMES or not path.suffix:
        return builtin_source(choice)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"cannot read the chat template {choice}: {error}") from error


def _refuse_overrides(spec: str, options: ConvertOptions) -> None:
    if options.chat_template is not None or options.stops:
        raise ConversionError(
            f"{spec} is a GGUF file, whose template and stops are copied as they are: --chat-template and --stop need "
            f"a checkpoint (`--to hf` makes one)"
        )
