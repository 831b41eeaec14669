"""What each term lets a recipe say, and what it needs. Without torch, so that a recipe is checked in milliseconds."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
AboveZero = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a term cannot do without."""

    targets: bool = False
    """A teacher's distributions."""
    no_sample: bool = False
    """No random sample of them, which would bias the term."""
    no_cache: bool = False
    """Whole ones, of which a cache holds a part."""
    states: bool = False
    """The hidden states of student and teacher."""
    spans: bool = False
    """A teacher's log-probabilities of stretches of text, for another tokenizer."""
    same_tokens: bool = False
    """The teacher's tokens are compared with the student's one by one."""
    columns: tuple[str, ...] = ()
    """Of the data set. A column says something of a whole row, so such a term excludes packing."""
    tells_rows_apart: bool = False
    """The term weighs rows, which packing would merge."""

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            self.targets or other.targets,
            self.no_sample or other.no_sample,
            self.no_cache or other.no_cache,
            self.states or other.states,
            self.spans or other.spans,
            self.same_tokens or other.same_tokens,
            tuple(dict.fromkeys(self.columns + other.columns)),
            self.tells_rows_apart or other.tells_rows_apart,
        )


class Options(BaseModel):
    """The options of a term: strict about names, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def needs(self) -> Needs:
        return Needs()


class RowOptions(Options):
    """How the predictions of a batch are averaged, for the terms of the labels."""

    per: Literal["token", "sequence"] = "token"
    """The mean over all predictions of the batch, or the mean of each row's mean."""
    rows: Literal["all", "best"] = "all"
    """Of ranked answers, all or the best only (``rank`` 0)."""

    @property
    def needs(self) -> Needs:
        return Needs(
            columns=("rank",) if self.rows == "best" else (),
            tells_rows_apart=self.per == "sequence" or self.rows == "best",
        )


class CrossEntropyOptions(RowOptions):
    pass


class MixceOptions(RowOptions):
    eta: Share = 0.75
    """The share of plain cross-entropy; 1 is cross-entropy itself."""


class CwceOptions(Options):
    column: str = "output_entropy"
    floor: Share = 0.30
    slope: AboveZero = 1.5
    midpoint: float = 1.5
    """Nats, where the weight is halfway between ``floor`` and one."""
    per: Literal["token", "sequence"] = "sequence"
    normalize: Literal["weights", "count"] = "weights"
    """Divide by the sum of the weights, or, as the card writes it, by the number of rows (or predictions)."""
    calibration: Literal["none", "quantile", "zscore"] = "none"
    """Bring the training set's entropies onto a scale whose median is ``midpoint``."""

    @property
    def needs(self) -> Needs:
        return Needs(columns=(self.column,), tells_rows_apart=True)


class TeaOptions(Options):
    reduction: Literal["sum", "mean", "relative"] = "relative"


class DivergenceOptions(Options):
    temperature: AboveZero = 1.0

    @property
    def needs(self) -> Needs:
        return Needs(targets=True, no_sample=True, same_tokens=True)


class ForwardKlOptions(DivergenceOptions):
    missing: Literal["bucket", "zero"] = "bucket"
    """What a sparse teacher gives to tokens it did not store: its true remainder, as one outcome, or nothing."""

    @property
    def needs(self) -> Needs:
        return Needs(targets=True, no_sample=self.temperature != 1.0, same_tokens=True)


class ReverseKlOptions(DivergenceOptions):
    pass


class JsdOptions(DivergenceOptions):
    beta: Share = 0.5
    """The teacher's share of the mixture; 0 is the forward and 1 the reverse KL divergence."""
    missing: Literal["bucket", "zero"] = "bucket"


class TvdOptions(DivergenceOptions):
    missing: Literal["bucket", "zero"] = "bucket"


class HiddenOptions(Options):
    layers: Literal["all"] | Annotated[list[tuple[int, int]], Field(min_length=1)] = "all"
    """Pairs [student, teacher] of indices into the hidden states: 0 is the embedding, i the output of layer i, -1 the
    last, which is after the final norm."""

    @property
    def needs(self) -> Needs:
        return Needs(states=True, same_tokens=True)


class ProOptions(Options):
    average: bool = True
    """Set an answer against the mean of the worse ones' likelihoods; the paper takes their sum."""
    detach_worse: bool = False
    """Only raise the better answers; do not push the worse ones down."""

    @property
    def needs(self) -> Needs:
        return Needs(columns=("group", "rank"), tells_rows_apart=True)


class UldOptions(Options):
    temperature: AboveZero = 1.0
    top_k: Count | None = None
    """Compare this many of the largest probabilities, and what remains as one more; None compares all."""

    @property
    def needs(self) -> Needs:
        return Needs(targets=True, no_sample=True, no_cache=self.temperature != 1.0)


class AlmOptions(Options):
    temperature: AboveZero = 100.0

    @property
    def needs(self) -> Needs:
        return Needs(spans=True)


class EntropyOptions(Options):
    pass


class AdsOptions(Options):
    reference: Literal["teacher", "self"] = "teacher"
    """Whose entropy says which predictions are difficult."""
    quantile: OpenShare = 0.8
    """Predictions above this quantile of the reference's entropy are difficult."""
    sharpness: AboveZero = 0.1
    """Nats over which the mask goes from easy to difficult."""
    temperature: AboveZero = 1.0
    """Of the student's distribution whose entropy is bounded."""
    correct_top_k: Annotated[int, Field(ge=0)] = 5
    """Only where the label is among the student's k likeliest tokens, so that no mistake is sharpened; 0:
    everywhere."""
    target_ratio: OpenShare = 0.5
    """The bound goes from the entropy at the beginning to this share of it."""
    anneal_steps: Count | None = None
    """Steps until it does; None: half of the stage."""
    max_kl: AboveZero | None = None
    """A second constraint: the mean forward KL divergence from the teacher, in nats."""
    dual_every: Count = 10
    rho: AboveZero = 0.1
    rho_growth: Annotated[float, Field(ge=1.0)] = 2.0
    rho_max: AboveZero = 10.0
    patience: OpenShare = 0.9
    """rho grows where a violation did not fall below this share of the one before."""
    lambda_max: AboveZero = 10.0
    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of the running means."""

    @property
    def needs(self) -> Needs:
        needs_teacher = self.reference == "teacher" or self.max_kl is not None
        return Needs(targets=needs_teacher, no_sample=self.reference == "teacher", same_tokens=needs_teacher)
