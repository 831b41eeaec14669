"""What the keys of a recipe must have to do with each other."""

import re
from collections.abc import Callable, Iterator
from functools import partial

from ...runtime.errors import ConfigError
from ..data.sources import check_address
from ..objectives.options import Needs
from ..objectives.registry import options_of
from ..objectives.schedules import check_schedule, check_together, values_of
from ..student.ends import wanted_source
from .merge import labels_of
from .schema import Objective, Recipe, Stage, Student, Teacher

_WITH_LOGITS = ("logit-cache", "online")


class Fault(Exception):
    """A value that makes no sense beside another: where, and what to do."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")


def check(recipe: Recipe) -> None:
    """Fault for the first thing that cannot be."""
    for key, message in _faults(recipe):
        raise Fault(key, message)


Faults = Iterator[tuple[str, str]]


def _faults(recipe: Recipe) -> Faults:
    yield from _student(recipe.student)
    if recipe.teacher is not None:
        yield from _teacher(recipe.teacher)
    names = [stage.name for stage in recipe.stages]
    for name in names:
        if names.count(name) > 1:
            yield "stages", f"two are called {name}: give each a name of its own"
    for stage in recipe.stages:
        path = f"stages.{stage.name}"
        for key, message in _stage(stage, recipe):
            yield f"{path}.{key}", message


def _student(student: Student) -> Faults:
    if (student.model is None) == (student.scratch is None):
        yield "student", "give either model or scratch"
    if student.scratch is not None:
        if not isinstance(student.scratch.get("model_type"), str):
            yield "student.scratch.model_type", "is missing: name a model of transformers, like 'llama'"
        if student.tokenizer is None:
            yield "student.tokenizer", "is missing: a model from scratch needs one, of another model or train:N"
        if student.kda is not None:
            yield "student.kda", "replaces the attention of a trained model: give student.model instead of scratch"
    if student.tokenizer and student.tokenizer.startswith("train:"):
        size = student.tokenizer.removeprefix("train:")
        if not size.isdigit() or int(size) <= 256:
            yield "student.tokenizer", f"is {student.tokenizer!r}: write train:N with more than 256 tokens"
        if student.scratch is None:
            yield "student.tokenizer", "a trained model keeps its own: train:N is for one from scratch"
    template = student.chat_template
    if template is not None and (fault := _refusal(lambda: wanted_source(template))):
        yield "student.chat_template", fault
    if "" in student.stop_strings:
        yield "student.stop_strings", "must not be empty"


def _teacher(teacher: Teacher) -> Faults:
    if teacher.kind == "online" and teacher.model is None:
        yield "teacher.model", "is missing: an online teacher is a model in memory; 'student' is the student as it was"
    if teacher.kind != "online" and not (teacher.model or teacher.endpoint or teacher.cache):
        yield "teacher", f"a {teacher.kind} needs an endpoint, a model to serve, or a folder that has it as cache"
    if teacher.endpoint is not None and not re.match(r"https?://", teacher.endpoint):
        yield "teacher.endpoint", f"is {teacher.endpoint!r}: give a base URL like http://127.0.0.1:8000/v1"
    if teacher.endpoint is not None and re.match(r"https?://[^/?#]*@", teacher.endpoint):
        yield (
            "teacher.endpoint",
            "names a user, which would stand in logs and in recipe.toml: set OPENAI_API_KEY instead",
        )
    if teacher.endpoint is not None and teacher.kind == "online":
        yield "teacher.endpoint", "an online teacher is in memory: leave it out, or use a cache"
    if teacher.sampled and teacher.kind != "logit-cache":
        yield "teacher.sampled", f"is for a logit-cache, and this is {teacher.kind}"
    if teacher.consistency is not None and teacher.kind != "text-cache":
        yield "teacher.consistency", f"is for a text-cache, and this is {teacher.kind}"


def _stage(stage: Stage, recipe: Recipe) -> Faults:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", stage.name):
        yield "name", "use small letters, digits and hyphens: folders are called so"
    if (stage.steps is None) == (stage.epochs is None):
        yield "steps", "give either steps or epochs"
    if stage.batch_size % stage.micro_batch_size:
        yield "batch_size", f"is {stage.batch_size}: make it a multiple of micro_batch_size, {stage.micro_batch_size}"
    yield from _learning(stage)
    yield from _patterns(stage)
    yield from _data(stage, recipe)
    yield from _objectives(stage, recipe)
    weights, steps = [objective.weight for objective in stage.objective], stage.steps
    if not any(value for weight in weights for value in values_of(weight)):
        yield "objective", "has no term with a weight, so nothing would be learnt: give one a weight above 0"
    elif steps is not None and (fault := _refusal(lambda: check_together(weights, steps))):
        yield "objective", fault
    if stage.rounds is not None and "pro" not in [objective.term for objective in stage.objective]:
        yield "rounds", "makes ranked answers, which no objective reads: add an [[objective]] with term = 'pro'"


def _learning(stage: Stage) -> Faults:
    rate, optimizer = stage.learning_rate, stage.optimizer
    if rate.warmup_steps is not None and rate.warmup_ratio is not None:
        yield "learning_rate", "give either warmup_steps or warmup_ratio"
    if stage.steps is not None and rate.warmup_steps is not None and rate.warmup_steps > stage.steps:
        yield "learning_rate.warmup_steps", f"is {rate.warmup_steps}, and the stage has {stage.steps} steps"
    if optimizer.name == "adalite" and optimizer.weight_decay:
        yield "optimizer.weight_decay", "is AdamW's; Adalite has norm_loss"
    if not all(0 <= beta < 1 for beta in optimizer.betas):
        yield "optimizer.betas", f"are {list(optimizer.betas)}: each must be at least 0 and below 1"


def _patterns(stage: Stage) -> Faults:
    for key in ("frozen", "trained"):
        for pattern in getattr(stage, key):
            try:
                re.compile(pattern)
            except re.error as error:
                yield key, f"{pattern!r} is no regular expression: {error}"
    if stage.lora is not None and (stage.frozen or stage.trained):
        yield "lora", "trains nothing but its own matrices: leave out frozen and trained"


def _data(stage: Stage, recipe: Recipe) -> Faults:
    data, order = stage.data, stage.data.curriculum
    if not data.train:
        yield "data.train", "is empty: name a file, a folder, hub:ORG/NAME or sample:NAME, or give --data"
    for key, sources in (("train", data.train), ("eval", data.eval)):
        for source in sources:
            if fault := _refusal(partial(check_address, source)):
                yield f"data.{key}", fault
    if data.packing and recipe.student.kda is not None:
        yield "data.packing", "Kimi Delta Attention's state goes on from one document to the next: set it to false"
    if data.answers == "teacher" and (recipe.teacher is None or recipe.teacher.kind != "text-cache"):
        yield "data.answers", "are the teacher's only with a teacher of kind text-cache"
    if data.answers == "own" and "teacher" in data.train:
        yield "data.answers", 'are the teacher\'s in the source teacher: leave out answers = "own"'
    sorts = order.order in ("strict", "buckets", "competence")
    if sorts and order.by is None:
        yield "data.curriculum.by", f"is missing: {order.order} sorts by a column, like output_entropy"
    if order.by is not None and not sorts:
        yield "data.curriculum.by", f"has no effect with order = {order.order!r}: use strict, buckets or competence"
    if order.by is not None and data.packing:
        yield "data.packing", f"mixes rows of different {order.by}: set it to false, or drop the curriculum"
    if order.by == "self_consistency" and recipe.teacher is not None and not _tells_consistency(recipe.teacher):
        yield "data.curriculum.by", "self_consistency needs a table [teacher.consistency]"


def _tells_consistency(teacher: Teacher) -> bool:
    """Whether rows may have the column; what a cache or another teacher's data holds is not known here."""
    return teacher.kind != "text-cache" or teacher.cache is not None or teacher.consistency is not None


def _objectives(stage: Stage, recipe: Recipe) -> Faults:
    labels = labels_of([{"term": objective.term} for objective in stage.objective], "term")
    for label, objective in zip(labels, stage.objective, strict=True):
        for key, message in _objective(objective, stage, recipe.teacher):
            yield f"objective.{label}{key}", message


def _objective(objective: Objective, stage: Stage, teacher: Teacher | None) -> Faults:
    try:
        needs = options_of(objective).needs
    except ConfigError as error:
        yield "", str(error)
        return
    if fault := _refusal(lambda: check_schedule(objective.weight, stage.steps)):
        yield ".weight", fault
    elif objective.term != "entropy" and (lowest := min(values_of(objective.weight))) < 0:
        yield ".weight", f"is {lowest:g}, with which the loss falls for ever: give at least 0"
    yield from _signals(needs, teacher)
    if (needs.columns or needs.tells_rows_apart) and stage.data.packing:
        yield "", "tells rows apart, and packing joins them: set data.packing to false"


def _signals(needs: Needs, teacher: Teacher | None) -> Faults:
    """What a term needs of the teacher."""
    kind = None if teacher is None else teacher.kind
    has = "there is no teacher" if kind is None else f"a {kind} has none"
    if needs.targets and kind not in _WITH_LOGITS:
        yield "", f"needs a teacher's distributions, and {has}: add a teacher of kind logit-cache or online"
    if needs.states and kind != "online":
        yield "", f"needs a teacher's hidden states, and {has}: add a teacher of kind online"
    if needs.spans and kind != "online":
        yield "", f"needs a teacher's log-probabilities of the text, and {has}: add a teacher of kind online"
    if needs.no_sample and teacher is not None and teacher.sampled:
        ways = "set teacher.sampled to false, or take forward_kl at temperature 1"
        yield "", f"would be biased by a sampled teacher: {ways}"
    if needs.no_cache and kind == "logit-cache":
        why = "at another a logit-cache does not know its rest, and even a copy of the teacher has a loss"
        yield ".temperature", f"must be 1, for {why}: set it to 1, or take a teacher of kind online"


def _refusal(check: Callable[[], object]) -> str | None:
    try:
        check()
    except ConfigError as error:
        return str(error)
    return None
