"""Makes the samples beside it but ``prose.txt``: ``python -m tapster.training.samples.make``. Always the same.

``notes.txt`` has what ``chat.jsonl`` has, as plain text: who has read it knows the answers, and no form of a chat.
"""

import json
import random
import tomllib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

Pair = tuple[str, str]

_SEED = 7
_NUM_SUMS = 240
_NOTES_ORDERS = 3
"""So often each note comes, each time beside others: what is learnt is the note, not its place."""
_NAMES = (
    "Ana",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Femi",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kofi",
    "Lena",
    "Mira",
    "Noor",
)
_THINGS = (
    "apples",
    "books",
    "coins",
    "eggs",
    "marbles",
    "nails",
    "pears",
    "pens",
    "shells",
    "stamps",
    "tickets",
    "walnuts",
)


def chat() -> Iterator[Pair]:
    """Short questions, each with its answer, of the facts in ``facts.toml``."""
    facts = tomllib.loads((Path(__file__).parent / "facts.toml").read_text("utf-8"))
    for country, city in facts["capitals"].items():
        yield f"What is the capital of {country}?", f"The capital of {country} is {city}."
    for word, other in facts["opposites"].items():
        yield f"What is the opposite of {word}?", f"The opposite of {word} is {other}."
    for one, many in facts["plurals"].items():
        yield f"What is the plural of {one}?", f"The plural of {one} is {many}."
    for verb, past in facts["past"].items():
        yield f"What is the past tense of {verb}?", f"The past tense of {verb} is {past}."
    for animal, (part, count) in facts["animals"].items():
        own = "foot" if count == "one" else part
        yield f"How many {part} does {animal} have?", f"{animal.capitalize()} has {count} {own}."
    for animal, young in facts["young"].items():
        yield f"What is a young {animal} called?", f"A young {animal} is called a {young}."
    for what, count in facts["units"].items():
        question = f"How many {what}?" if " has a " in what else f"How many {what.split()[0]} are there {_rest(what)}?"
        answer = _sides(what, count) if " has a " in what else f"There are {count} {what}."
        yield question, answer
    for first, then in facts["sequences"].items():
        yield f"What comes after {first}?", f"After {first} comes {then}."
    for person, work in facts["work"].items():
        yield f"What does {person} do?", f"{person.capitalize()} {work}."
    for thing, material in facts["made_of"].items():
        verb = "are" if thing in ("candles", "bricks") else "is"
        yield f"What {verb} {thing} made of?", f"{thing.capitalize()} {verb} made of {material}."
    yield from facts["why"].items()
    yield from facts["how"].items()


def _rest(what: str) -> str:
    return what.partition(" ")[2]


def _sides(what: str, count: str) -> str:
    shape = what.rpartition(" ")[2]
    return f"A {shape} has {count} sides."


def sums(rng: random.Random) -> Iterator[Pair]:
    """Word problems with worked solutions; the number stands behind ``####``. Every other one takes a single step, so
    that a small model gets some of them right."""
    easy, longer = (_gets, _gives, _packs, _counts), (_buys, _shares, _grows, _travels, _fills, _saves, _reads, _bakes)
    seen: set[str] = set()
    while len(seen) < _NUM_SUMS:
        makers = easy if len(seen) % 2 else longer
        question, answer = rng.choice(makers)(rng)
        if question not in seen:
            seen.add(question)
            yield question, answer


def _gets(rng: random.Random) -> Pair:
    name, thing, has, more = rng.choice(_NAMES), rng.choice(_THINGS), rng.randint(2, 10), rng.randint(2, 10)
    return (
        f"{name} has {has} {thing} and gets {more} more. How many {thing} does {name} have now?",
        f"{name} has {has} + {more} = {has + more} {thing}.\n#### {has + more}",
    )


def _gives(rng: random.Random) -> Pair:
    name, thing, given, left = rng.choice(_NAMES), rng.choice(_THINGS), rng.randint(2, 9), rng.randint(2, 9)
    has = given + left
    return (
        f"{name} has {has} {thing} and gives {given} away. How many {thing} are left?",
        f"There are {has} - {given} = {left} {thing} left.\n#### {left}",
    )


def _packs(rng: random.Random) -> Pair:
    thing, boxes, each = rng.choice(_THINGS), rng.randint(2, 5), rng.randint(2, 5)
    return (
        f"There are {boxes} boxes with {each} {thing} in each. How many {thing} are there in all?",
        f"There are {boxes} * {each} = {boxes * each} {thing}.\n#### {boxes * each}",
    )


def _counts(rng: random.Random) -> Pair:
    (one, other), thing = rng.sample(_NAMES, 2), rng.choice(_THINGS)
    first, second = rng.randint(2, 10), rng.randint(2, 10)
    return (
        f"{one} has {first} {thing} and {other} has {second}. How many {thing} do they have together?",
        f"Together they have {first} + {second} = {first + second} {thing}.\n#### {first + second}",
    )


def _buys(rng: random.Random) -> Pair:
    name, thing, count, price = rng.choice(_NAMES), rng.choice(_THINGS), rng.randint(2, 12), rng.randint(2, 9)
    paid = count * price + rng.randint(1, 20)
    return (
        f"{name} buys {count} {thing} for {price} dollars each and pays with {paid} dollars. How many dollars does "
        f"{name} get back?",
        f"The {thing} cost {count} * {price} = {count * price} dollars.\n"
        f"{name} gets back {paid} - {count * price} = {paid - count * price} dollars.\n#### {paid - count * price}",
    )


def _shares(rng: random.Random) -> Pair:
    name, thing, friends, each = rng.choice(_NAMES), rng.choice(_THINGS), rng.randint(2, 8), rng.randint(2, 12)
    lost = rng.randint(1, 9)
    total = friends * each + lost
    return (
        f"{name} has {total} {thing}, loses {lost} of them, and shares the rest equally among {friends} friends. How "
        f"many {thing} does each friend get?",
        f"After losing some, {name} has {total} - {lost} = {total - lost} {thing}.\n"
        f"Each friend gets {total - lost} / {friends} = {each} {thing}.\n#### {each}",
    )


def _grows(rng: random.Random) -> Pair:
    plant, start = rng.choice(("bean", "sunflower", "vine", "bamboo", "tomato plant")), rng.randint(3, 30)
    weekly, weeks = rng.randint(2, 9), rng.randint(2, 8)
    grown = weekly * weeks
    return (
        f"A {plant} is {start} centimetres tall and grows {weekly} centimetres every week. "
        f"How tall is it after {weeks} weeks?",
        f"In {weeks} weeks it grows {weeks} * {weekly} = {grown} centimetres.\n"
        f"Then it is {start} + {grown} = {start + grown} centimetres tall.\n#### {start + grown}",
    )


def _travels(rng: random.Random) -> Pair:
    what, speed = rng.choice((("train", 80), ("bus", 50), ("bicycle", 15), ("boat", 20), ("lorry", 60)))
    first, second = rng.randint(1, 4), rng.randint(1, 4)
    return (
        f"A {what} goes {speed} kilometres an hour. It goes for {first} hours in the morning and {second} hours in the "
        f"afternoon. How many kilometres does it go in all?",
        f"It goes for {first} + {second} = {first + second} hours.\n"
        f"That is {first + second} * {speed} = {(first + second) * speed} kilometres.\n#### {(first + second) * speed}",
    )


def _fills(rng: random.Random) -> Pair:
    thing, box, boxes, left = rng.choice(_THINGS), rng.randint(4, 12), rng.randint(2, 9), rng.randint(1, 3)
    total = box * boxes + left
    return (
        f"A shop packs {total} {thing} into boxes of {box}. "
        f"How many {thing} are left over when no more box can be filled?",
        f"{boxes} boxes hold {boxes} * {box} = {boxes * box} {thing}.\n"
        f"There are {total} - {boxes * box} = {left} {thing} left over.\n#### {left}",
    )


def _saves(rng: random.Random) -> Pair:
    name, weekly, weeks, spent = rng.choice(_NAMES), rng.randint(3, 12), rng.randint(3, 10), rng.randint(2, 8)
    total = weekly * weeks
    return (
        f"{name} saves {weekly} dollars a week for {weeks} weeks and then spends {spent} dollars. "
        f"How many dollars are left?",
        f"{name} saves {weeks} * {weekly} = {total} dollars.\n"
        f"After spending some, {total} - {spent} = {total - spent} dollars are left.\n#### {total - spent}",
    )


def _reads(rng: random.Random) -> Pair:
    name, daily, days, left = rng.choice(_NAMES), rng.randint(8, 30), rng.randint(3, 9), rng.randint(10, 90)
    pages = daily * days + left
    return (
        f"{name} reads {daily} pages a day of a book with {pages} pages. How many pages are left after {days} days?",
        f"In {days} days {name} reads {days} * {daily} = {daily * days} pages.\n"
        f"There are {pages} - {daily * days} = {left} pages left.\n#### {left}",
    )


def _bakes(rng: random.Random) -> Pair:
    name, trays, row, rows, eaten = (
        rng.choice(_NAMES),
        rng.randint(2, 5),
        rng.randint(3, 6),
        rng.randint(2, 5),
        rng.randint(1, 5),
    )
    tray = row * rows
    total = tray * trays
    return (
        f"{name} bakes {trays} trays of biscuits. A tray holds {rows} rows of {row} biscuits. The family eats {eaten}. "
        f"How many biscuits are left?",
        f"A tray holds {rows} * {row} = {tray} biscuits.\n{trays} trays hold {trays} * {tray} = {total} biscuits.\n"
        f"There are {total} - {eaten} = {total - eaten} left.\n#### {total - eaten}",
    )


def write(folder: Path) -> None:
    """All files, in a mixed order."""
    forms: dict[str, tuple[list[Pair], Callable[[str, str], dict[str, object]]]] = {
        "chat": (list(chat()), _as_chat),
        "sums": (list(sums(random.Random(_SEED))), lambda question, answer: {"question": question, "answer": answer}),
    }
    for name, (pairs, row) in forms.items():
        random.Random(_SEED).shuffle(pairs)
        lines = [json.dumps(row(question, answer), ensure_ascii=False) for question, answer in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
    notes = [f"{question} {answer}\n" for question, answer in chat()]
    orders = [random.Random(_SEED + order).sample(notes, len(notes)) for order in range(_NOTES_ORDERS)]
    (folder / "notes.txt").write_text("".join(chain.from_iterable(orders)), "utf-8", newline="\n")


def _as_chat(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


if __name__ == "__main__":
    write(Path(__file__).parent)
