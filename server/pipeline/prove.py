"""The fourth step: each artifact is the one that was compared with the model, and has passed."""

from .convert import ConvertStep
from .proofs import proved
from .step import Name, Verdict


class ProveStep:
    """The comparison itself is part of making an artifact; one that lies there without a proof that holds is made
    again."""

    name: Name = "prove"

    def __init__(self, artifacts: ConvertStep) -> None:
        self._artifacts = artifacts

    def check(self) -> Verdict:
        plan = self._artifacts.plan()
        if not plan:
            return Verdict("not needed", ["there are no artifacts"])
        todo = [one for one in plan if one.why]
        about = ", ".join(str(one.target) for one in todo or plan)
        holds = ", ".join(str(one.target) for one in plan if not one.why)
        return Verdict("will run" if todo else "up to date", ["with each artifact"] if todo else [], about, holds)

    def run(self) -> None:
        for one in self._artifacts.plan():
            proved(one.path)
