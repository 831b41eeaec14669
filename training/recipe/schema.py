"""What a recipe may say. Every key of a recipe file is a field here; anything else is an error.

A number that changes with the steps is a *schedule*: a constant, or points ``[[step, value], …]`` that are joined by
straight lines; before the first and after the last point the value stays. Steps are optimiser steps, counted from 0.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
AboveZero = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Schedule = float | list[tuple[int, float]]
Dtype = Literal["float32", "bfloat16", "float16"]


class Table(BaseModel):
    """A table of a recipe: strict about its keys and types, and never changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Kda(Table):
    """Replace attention layers of the student by Kimi Delta Attention. ``layers`` are all, or their indices."""

    layers: Literal["all"] | list[int] = "all"
    conv_kernel: Positive = 4
    head_dim: Positive | None = None
    """None keeps the teacher's."""


class Student(Table):
    """Where the model that is trained begins. Either ``model`` or ``scratch``."""

    model: str | None = None
    """A Hub id, a folder, a GGUF file, or ``demo``."""
    scratch: dict[str, Any] | None = None
    """Values of a transformers config, with ``model_type``: a model with random weights."""
    tokenizer: str | None = None
    """Of another model; or ``train:N``: a byte-level BPE of N tokens, made from the training text."""
    chat_template: str | None = None
    """The name of a built-in template, a .jinja file, or Jinja itself."""
    stop_strings: list[str] = []
    """Text that ends an answer; written into generation_config.json."""
    dtype: Dtype = "bfloat16"
    """Of the weights that are saved."""
    compute: Dtype = "bfloat16"
    """Of the forward pass: bfloat16 is autocast over the masters."""
    masters: Literal["float32", "as-saved"] = "float32"
    """In what the optimiser keeps the weights. as-saved: in ``dtype``, which takes half the memory and rounds small
    updates away."""
    kda: Kda | None = None
    trust_remote_code: bool = False


class Consistency(Table):
    """Extra samples of each answer, to see how often the teacher agrees with itself."""

    samples: Positive = 5
    temperature: AboveZero = 0.7


class Teacher(Table):
    """Where the signal comes from.

    ``text-cache``: answers of an OpenAI-compatible ``endpoint``, as text, with entropies. ``logit-cache``: stored top-k
    log-probabilities over the training text. ``online``: a ``model`` in memory beside the student, or ``student`` for
    the student as it was before training.
    """

    kind: Literal["text-cache", "logit-cache", "online"]
    model: str | None = None
    endpoint: str | None = None
    """The base URL; None serves ``model`` on this machine while the cache is made."""
    cache: str | None = None
    """A folder; None is ``teacher/`` in the run's folder."""
    top_k: Positive = 20
    max_tokens: Positive = 512
    temperature: NotNegative = 0.0
    concurrency: Positive = 16
    consistency: Consistency | None = None
    sampled: bool = False
    """Logit cache: an unbiased random sample of the vocabulary instead of the top k."""
    max_rows: Positive | None = None
    dtype: Dtype = "bfloat16"


class Curriculum(Table):
    """The order of rows. ``strict``: ascending by the column ``by``; ``buckets``: that many equal parts in ascending
    order, each shuffled; ``competence``: drawn from a share of the sorted rows that grows with the square root of the
    step, from ``start`` to all."""

    order: Literal["shuffle", "strict", "buckets", "competence", "as-is"] = "shuffle"
    by: str | None = None
    buckets: Positive = 10
    start: Share = 0.1


class Data(Table):
    """What a stage reads.

    A source is ``hub:ORG/NAME[:CONFIG][:SPLIT]``, a file or a folder (JSONL, JSON, Parquet, text; ``.gz``), or
    ``sample:NAME`` of the package. ``teacher`` is the text cache.
    """

    train: list[str] = []
    eval: list[str] = []
    """Empty: ``eval_rows`` of the training rows are held out."""
    eval_rows: Annotated[int, Field(ge=0)] = 64
    max_rows: Positive | None = None
    format: Literal["auto", "text", "chat", "completion", "dolly", "oasst", "tinycot", "gsm8k"] = "auto"
    answers: Literal["teacher", "own"] | None = None
    """Whose answers are learnt: those of a text-cache teacher, or those that stand in the data. None: the teacher's
    where the recipe has a text-cache."""
    loss_on: Literal["answers", "all"] = "answers"
    packing: bool = False
    """Several rows in one sequence, each seeing itself only."""
    curriculum: Curriculum = Curriculum()


class Optimizer(Table):
    name: Literal["adamw", "adalite"] = "adamw"
    lr: AboveZero = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: AboveZero | None = None
    """None: 1e-8 for AdamW, 1e-5 for Adalite."""
    weight_decay: NotNegative = 0.0
    """AdamW's; never of norms, biases and, with an embedding anchor, embeddings."""
    norm_loss: NotNegative = 0.01
    """Adalite's Lambda: the pull of each tensor's norm to one."""
    safe: bool = True
    """Adalite: let the step vanish with the gradient."""


class LearningRate(Table):
    """How the learning rate goes over a stage. Of ``warmup_steps`` and ``warmup_ratio`` give at most one."""

    shape: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    warmup_ratio: Share | None = None


class Lora(Table):
    """Train low-rank updates, merged into the weights at the end of the stage."""

    rank: Positive = 16
    alpha: AboveZero = 32.0
    dropout: Share = 0.0
    targets: list[str] | Literal["all-linear"] = "all-linear"


class Neftune(Table):
    """Noise on the embeddings while training. ``paper``: uniform on (-1, 1), scaled by each sequence's length;
    ``supertrainer``: uniform on (0, 1), scaled by the stage's sequence length."""

    alpha: NotNegative = 10.0
    variant: Literal["paper", "supertrainer"] = "paper"


class Objective(BaseModel):
    """A term of the loss: which, how much of it, and the options of its own (see ``training/objectives``)."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    term: str
    weight: Schedule = Field(default_factory=lambda found: 0.0 if found.get("term") == "entropy" else 1.0)
    """Entropy is looked at, and trained on only where it is given a weight."""


class Rounds(Table):
    """Self-teaching: sample answers from the student, check them, and train on (correct, incorrect) pairs.

    After each round the weights are ``merge``d with those before it; ``weight_of_new`` is the new model's share.
    """

    count: Positive = 3
    samples: Positive = 8
    temperature: AboveZero = 0.5
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    max_tokens: Positive = 512
    max_questions: Positive | None = None
    checker: Literal["auto", "number", "letter", "exact"] = "number"
    """How a right answer is told; auto: by what the right one is, question by question."""
    merge: Literal["slerp", "lerp", "none"] = "slerp"
    weight_of_new: Share = 0.99


class Stage(Table):
    """One training run from weights to weights. Of ``steps`` and ``epochs`` give exactly one."""

    name: str
    steps: Positive | None = None
    epochs: AboveZero | None = None
    batch_size: Positive = 32
    """Sequences in one optimiser step, over all processes."""
    micro_batch_size: Positive = 4
    """Sequences in one forward pass of one process."""
    sequence_length: Positive = 1024
    seed: Annotated[int, Field(ge=0)] = 42
    max_grad_norm: AboveZero = 1.0
    frozen: list[str] = []
    """Regular expressions; parameters whose name one of them finds (``re.search``) are not trained."""
    trained: list[str] = []
    """If given, nothing else is trained."""
    gradient_checkpointing: bool = False
    logging_steps: Positive = 10
    eval_steps: Positive | None = None
    """None: at the beginning and at the end."""
    save_steps: Positive | None = None
    """None: at the end of the stage."""
    gradient_share_steps: Positive | None = None
    """How often the part in the gradient of each term with a weight is measured: a backward pass each. None: never."""
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    learning_rate: LearningRate = LearningRate()
    lora: Lora | None = None
    neftune: Neftune | None = None
    rounds: Rounds | None = None
    baseline: Literal["sft"] | None = None
    """``sft``: train the same student also with cross-entropy alone, on the same rows for as many steps, and report
    the held-out values of both. It costs as much again, and nothing of it is kept but the numbers."""
    objective: Annotated[list[Objective], Field(min_length=1)]


class Recipe(Table):
    """A recipe: a student, perhaps a teacher, and the stages of its training."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    card: str | None = None
    """Address of the model card that it reproduces."""
    description: str = ""
    student: Student
    teacher: Teacher | None = None
    stages: Annotated[list[Stage], Field(min_length=1)]
    convert: list[str] = []
    """What ``tapster pipeline`` makes of the result: targets of ``tapster convert --to``."""
    small: dict[str, Any] = {}
    """What ``--small`` changes: the same keys; tables are merged, stages by their name, everything else replaced."""
