"""Run as a program: llama.cpp's own converter over several checkpoints, in one process because it starts slowly.

``run_oracle.py TREE JOBS`` with JOBS a JSON list of [checkpoint, type, GGUF file]. Its pre-tokenizer is chosen by a
hash of what a tokenizer makes, which it has only for known models: for those trained in a test it is told.
"""

import json
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main(tree: str, jobs: str) -> None:
    sys.path.insert(0, tree)
    converter = import_module("convert_hf_to_gguf")
    TextModel: Any = import_module("conversion.base").TextModel  # noqa: N806  a class

    choose = TextModel.get_vocab_base_pre

    def known(model: Any, tokenizer: Any) -> str:
        try:
            return choose(model, tokenizer)
        except NotImplementedError:
            return "gpt-2"

    TextModel.get_vocab_base_pre = known
    for checkpoint, kind, file in json.loads(Path(jobs).read_text()):
        sys.argv = ["convert", checkpoint, "--outtype", kind, "--outfile", file]
        converter.main()
        logging.getLogger().handlers.clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
