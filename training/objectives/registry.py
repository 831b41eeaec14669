"""Which terms there are. Their options are checked here without torch; their maths is imported when a term is made."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from ...runtime.errors import ConfigError
from . import options as of
from .schedules import check_schedule

if TYPE_CHECKING:
    from ..recipe.schema import Objective
    from .term import Term


class Entry(NamedTuple):
    """A term: what it may be told, and the class, as ``module:name``, that makes it."""

    options: type[of.Options]
    place: str
    about: str


TERMS: dict[str, Entry] = {
    "cross_entropy": Entry(of.CrossEntropyOptions, "cross_entropy:CrossEntropy", "the labels' negative log-likelihood"),
    "cwce": Entry(of.CwceOptions, "cwce:Cwce", "cross-entropy weighted by the teacher's confidence"),
    "mixce": Entry(of.MixceOptions, "mixce:Mixce", "cross-entropy mixed with its reverse"),
    "tea": Entry(of.TeaOptions, "tea:Tea", "the embedding held near where it began"),
    "ads": Entry(of.AdsOptions, "ads:Ads", "entropy bounded where the reference finds it difficult"),
    "forward_kl": Entry(of.ForwardKlOptions, "forward_kl:ForwardKl", "KL(teacher ‖ student)"),
    "reverse_kl": Entry(of.ReverseKlOptions, "reverse_kl:ReverseKl", "KL(student ‖ teacher)"),
    "jsd": Entry(of.JsdOptions, "jsd:Jsd", "the generalised Jensen-Shannon divergence"),
    "tvd": Entry(of.TvdOptions, "tvd:Tvd", "the total variation distance"),
    "hidden_cosine": Entry(of.HiddenOptions, "hidden_cosine:HiddenCosine", "one minus the cosine of hidden states"),
    "hidden_mse": Entry(of.HiddenOptions, "hidden_mse:HiddenMse", "the mean squared error of hidden states"),
    "pro": Entry(of.ProOptions, "pro:Pro", "better answers ranked above worse ones"),
    "uld": Entry(of.UldOptions, "uld:Uld", "sorted probabilities compared, for another vocabulary"),
    "alm": Entry(of.AlmOptions, "alm:Alm", "likelihoods of stretches of text compared, for another tokenizer"),
    "entropy": Entry(of.EntropyOptions, "entropy:Entropy", "the student's entropy; a metric at weight 0"),
}


def options_of(objective: Objective) -> of.Options:
    """The term's options, checked. Raises ConfigError with the nearest name for one that does not exist."""
    entry = TERMS.get(objective.term)
    if entry is None:
        raise ConfigError(f"there is no term {objective.term!r}{_nearest(objective.term, TERMS)}")
    given = objective.model_extra or {}
    for name in given:
        if name not in entry.options.model_fields:
            known = ("weight", *entry.options.model_fields)
            raise ConfigError(f"the term {objective.term} has no option {name!r}{_nearest(name, known)}")
    try:
        return entry.options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]) if first["loc"] else "options"
        raise ConfigError(
            f"{option} = {given.get(option)!r} of the term {objective.term}: {first['msg'].replace('Input', 'it')}"
        ) from None


def needs_of(objective: Objective) -> of.Needs:
    """What the term cannot do without."""
    return options_of(objective).needs


def check_objective(objective: Objective, total_steps: int | None = None) -> None:
    """Raise ConfigError where the term, one of its options or its schedule makes no sense."""
    options_of(objective)
    try:
        check_schedule(objective.weight, total_steps)
    except ConfigError as error:
        raise ConfigError(f"the weight of the term {objective.term}: {error}") from None


def make_term(objective: Objective, label: str, total_steps: int) -> Term:
    """The term itself, for a stage of ``total_steps``. Imports torch."""
    module, name = TERMS[objective.term].place.split(":")
    options = options_of(objective)
    if isinstance(options, of.AdsOptions) and options.anneal_steps is None:
        options = options.model_copy(update={"anneal_steps": max(total_steps // 2, 1)})
    return getattr(import_module(f".{module}", __package__), name)(options, label)


def labels_of(objectives: list[Objective]) -> list[str]:
    """What logs and normalisers call each: the term's name, numbered from the second of its kind on."""
    labels: list[str] = []
    counts: dict[str, int] = {}
    for objective in objectives:
        counts[objective.term] = count = counts.get(objective.term, 0) + 1
        labels.append(objective.term if count == 1 else f"{objective.term}-{count}")
    return labels


def _nearest(wrong: str, known: Iterable[str]) -> str:
    names = list(known)
    near = get_close_matches(wrong, names, 1, 0.5)
    return f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
