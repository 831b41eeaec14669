"""The text that importance matrices are collected from, in the form of the model's own chats.

``calibration.txt`` ships with the package: questions and answers in prose, code, mathematics, JSON and a dozen
languages, in the form that ``proof.texts`` reads. None of it is in the text that proofs measure divergence on.
"""

from pathlib import Path

from ...runtime.profile import ModelProfile
from ..proof.texts import chat_texts, read_conversations

CALIBRATION = Path(__file__).with_name("calibration.txt")


def calibration_texts(profile: ModelProfile, file: Path | None = None) -> list[str]:
    """The conversations of ``file`` (None: the package's own) as the model's template writes them.

    A file without marks of turns is cut into pieces, each a question and its answer. ConfigError when it has no
    text.
    """
    return chat_texts(profile, read_conversations(file or CALIBRATION))
