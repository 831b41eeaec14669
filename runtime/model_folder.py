"""Which folders are a model, in what format, and how it is called.

hf      a Hugging Face checkpoint: config.json and safetensors
mlx     the same files with MLX's marks: ``quantization`` or ``model_file`` in config.json, or safetensors that
        say so themselves
onnx    ONNX graphs, usually with genai_config.json
"""

from pathlib import Path

from .checkpoint_files import CONFIG, GENAI_CONFIG, WEIGHTS_INDEX, weight_names
from .errors import ModelError
from .json_file import read_json
from .safetensors_header import read_metadata

FORMATS = ("gguf", "hf", "mlx", "onnx")
"""Of models that are files; a model behind an address has none of them."""
_ONNX = ".onnx"


def folder_format(path: Path) -> str | None:
    """ "hf", "mlx" or "onnx"; None for what is no folder with such a model, as far as the names of its files say.

    What else is wrong with it is said when its profile is read.
    """
    formats = folder_formats(path)
    return formats[0] if formats else None


def folder_formats(path: Path) -> tuple[str, ...]:
    """All formats that the folder has a model in, the one that it is taken for first."""
    if not path.is_dir():
        return ()
    names = {entry.name for entry in path.iterdir() if entry.is_file()}
    found: list[str] = []
    if WEIGHTS_INDEX in names or weight_names(names):
        found.append("mlx" if _is_mlx(path, names) else "hf")
    if any(name.endswith(_ONNX) for name in names) or GENAI_CONFIG in names:
        # Without genai_config.json an ONNX file may be an export that somebody put beside the checkpoint.
        found.insert(0 if GENAI_CONFIG in names else len(found), "onnx")
    return tuple(found)


def _is_mlx(path: Path, names: set[str]) -> bool:
    try:
        config = read_json(path / CONFIG) if CONFIG in names else {}
        if is_mlx_quantization(config.get("quantization")) or isinstance(config.get("model_file"), str):
            return True
        weights = next((name for name in weight_names(names) if name in names), None)
        return weights is not None and read_metadata(path / weights).get("format") == "mlx"
    except ModelError:  # what is damaged is complained about where it is needed
        return False


def is_mlx_quantization(value: object) -> bool:
    """Whether this is what mlx-lm writes at ``quantization`` in config.json; transformers calls its own
    ``quantization_config``."""
    return isinstance(value, dict) and "group_size" in value and "bits" in value


def onnx_file(folder: Path, genai_config: dict[str, object] | None = None) -> Path:
    """The graph of the decoder: what genai_config.json names, else ``model.onnx``, else the only one. ModelError."""
    named = _named_graph(genai_config or {})
    if named is not None:
        if named != Path(named).name:
            raise ModelError(f"{folder / GENAI_CONFIG} names {named!r}, which is no file of its folder")
        return _existing(folder / named, f"{GENAI_CONFIG} names it")
    graphs = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(_ONNX))
    if "model.onnx" in graphs:
        return folder / "model.onnx"
    if len(graphs) != 1:
        what = f"several ONNX files ({', '.join(graphs[:5])})" if graphs else "no ONNX file"
        raise ModelError(f"{folder} has {what} and no {GENAI_CONFIG} that names one: rename it to model.onnx")
    return folder / graphs[0]


def _named_graph(genai_config: dict[str, object]) -> str | None:
    node: object = genai_config
    for key in ("model", "decoder", "filename"):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, str) else None


def _existing(path: Path, why: str) -> Path:
    if not path.is_file():
        raise ModelError(f"{path} is missing and {why}: download or convert the model again")
    return path


def folder_name(path: Path) -> str:
    """The folder's name; of one in the Hub's cache the repository's, without its owner; of what ``tapster train`` made
    that of the run."""
    path = shown_path(path)
    repo = path.parent.parent.name
    if path.parent.name == "snapshots" and repo.startswith("models--"):
        return repo.rpartition("--")[2]
    if path.name == "model" and (path.parent / "recipe.toml").is_file():
        return path.parent.name
    return path.name or "model"


def shown_path(path: Path) -> Path:
    """The absolute path; a link keeps its own name, which is the one that the user sees."""
    return path.resolve() if ".." in path.parts else path.absolute()
