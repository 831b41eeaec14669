"""config.json for an ONNX graph: the rules are those of every converter, only the words are this one's."""

from ..gguf.architectures.config import Config


class GraphConfig(Config):
    """The keys of one config.json, each of which has to be understood."""

    cannot = "the graph that tapster writes does not have it for"
