"""What the stages of a recipe want of its teacher, told without loading anything."""

from ..objectives.options import Needs
from ..objectives.registry import options_of
from .schema import Recipe, Stage


def needs_of_stage(stage: Stage) -> Needs:
    """All that its objectives cannot do without."""
    needs = Needs()
    for objective in stage.objective:
        needs |= options_of(objective).needs
    return needs


def columns_of_stage(stage: Stage) -> tuple[str, ...]:
    """What its terms and its order read of each row."""
    by = stage.data.curriculum.by
    return needs_of_stage(stage).columns if by is None else (*needs_of_stage(stage).columns, by)


def uses_teacher(stage: Stage, recipe: Recipe) -> bool:
    """Whether the stage trains on what the teacher says. One that reads a text cache as its data only reads it."""
    if recipe.teacher is None or stage.rounds is not None:
        return False
    if recipe.teacher.kind == "text-cache":
        return stage.data.answers != "own" and stage.data.train != ["teacher"]
    needs = needs_of_stage(stage)
    return needs.targets or needs.states or needs.spans


def asks_teacher(stage: Stage, recipe: Recipe) -> bool:
    """Whether the answers of the stage's data are the teacher's, so that questions are enough."""
    return recipe.teacher is not None and recipe.teacher.kind == "text-cache" and uses_teacher(stage, recipe)


def fills_cache(recipe: Recipe) -> bool:
    """Whether there is a teacher to be asked before anything is trained."""
    teacher = recipe.teacher
    if teacher is None or teacher.kind == "online" or not (teacher.endpoint or teacher.model):
        return False
    return any(uses_teacher(stage, recipe) for stage in recipe.stages)
