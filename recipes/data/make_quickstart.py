"""Writes the quickstart data set: small facts and exercises in English, made from the lists and templates below.

    python make_quickstart.py OUT

The same bytes every time. Rows are short, so that a byte-level model of a million parameters learns something in 150 steps
of 16 rows on a CPU. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SEED = "tunesmith quickstart 1"


class Row(NamedTuple):
    """One exercise."""

    instruction: str
    input: str
    output: str


COLOURS = {
    "yellow": "banana lemon canary daffodil dandelion sunflower chick custard mustard",
    "red": "tomato cherry ruby strawberry poppy ladybird brick raspberry blood",
    "green": "frog cucumber lettuce spinach emerald clover pea lime broccoli leaf",
    "orange": "carrot pumpkin mandarin apricot goldfish amber",
    "white": "snow milk swan salt chalk cotton pearl flour",
    "black": "coal raven tar crow ink liquorice panther",
    "blue": "sapphire cornflower sky bluebell",
    "brown": "chocolate coffee chestnut walnut cinnamon acorn soil",
    "pink": "flamingo piglet salmon",
    "purple": "aubergine plum violet lavender amethyst",
    "grey": "elephant dolphin ash lead pebble mouse",
}
OPPOSITES = (
    "hot cold|big small|tall short|fast slow|old young|rich poor|hard soft|wet dry|light dark|happy sad|open closed|"
    "early late|loud quiet|strong weak|full empty|clean dirty|near far|high low|deep shallow|wide narrow|thick thin|"
    "sharp blunt|rough smooth|sweet bitter|brave timid|kind cruel|wise foolish|true false|right wrong|"
    "first last|always never|above below|inside outside|before after|up down|day night|summer winter|north south|"
    "east west|love hate|win lose|buy sell|push pull|give take|begin end|remember forget|arrive leave|laugh cry|"
    "asleep awake|alive dead|cheap dear|tight loose|calm stormy|safe dangerous|public private|"
    "ancient modern|simple complex|polite rude"
)
UNCOUNTED = "rain gold iron salt milk rice soup corn bread water"
PLURALS = {
    ("", "s"): "cat dog car tree house book river lamp stone bird chair table garden window flower cloud boat apple horse road",
    ("", "es"): "box bus glass dish brush watch bench fox class wish church peach tax kiss match lunch",
    ("y", "ies"): "city baby story lady party puppy berry penny cherry country family pony",
    ("f", "ves"): "leaf wolf half shelf loaf calf thief elf",
}
"""Words by what goes and what comes."""
ODD_PLURALS = "man men|woman women|child children|foot feet|tooth teeth|goose geese|mouse mice|ox oxen|sheep sheep|deer deer"
WORDS = (
    "sun moon star rain wind tree leaf root seed fish bird frog bear wolf lion goat duck hand foot nose knee door roof "
    "wall lamp ring coin gold iron salt milk rice soup cake plum pear corn bean ship boat sail rope road hill lake pond "
    "book page word song bell drum time year week desk fork bowl coat shoe glove bread water stone apple onion egg ear "
    "arm owl ant oak axe"
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS = "January February March April May June July August September October November December"
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
PAST = (
    "go went|see saw|eat ate|drink drank|run ran|sing sang|swim swam|write wrote|read read|give gave|take took|make made|"
    "come came|find found|know knew|grow grew|fly flew|draw drew|speak spoke|break broke|buy bought|bring brought|"
    "teach taught|catch caught|think thought|sleep slept|keep kept|feel felt|leave left|build built|walk walked|"
    "talk talked|jump jumped|play played|help helped|look looked|open opened|paint painted|cook cooked|ask asked"
)
YOUNG = (
    "cat kitten|dog puppy|cow calf|horse foal|sheep lamb|goat kid|pig piglet|duck duckling|goose gosling|hen chick|bear cub|"
    "lion cub|deer fawn|swan cygnet|owl owlet|frog tadpole|kangaroo joey|eagle eaglet|hare leveret|seal pup"
)
SOUNDS = (
    "cat meows|dog barks|cow moos|sheep bleats|horse neighs|duck quacks|pig grunts|lion roars|owl hoots|bee buzzes|"
    "frog croaks|snake hisses|wolf howls|mouse squeaks|crow caws|hen clucks|donkey brays|dove coos"
)
CAPITALS = (
    "France Paris|Italy Rome|Spain Madrid|Portugal Lisbon|Germany Berlin|Austria Vienna|Poland Warsaw|Norway Oslo|"
    "Sweden Stockholm|Finland Helsinki|Denmark Copenhagen|Ireland Dublin|Greece Athens|Hungary Budapest|Egypt Cairo|"
    "Kenya Nairobi|Japan Tokyo|China Beijing|Thailand Bangkok|Cuba Havana|Peru Lima|Chile Santiago|Canada Ottawa|"
    "Iceland Reykjavik|Belgium Brussels|Bulgaria Sofia|Romania Bucharest|Morocco Rabat|Ghana Accra|Nepal Kathmandu"
)
SIDES = {"triangle": 3, "square": 4, "rectangle": 4, "pentagon": 5, "hexagon": 6, "octagon": 8}
LEGS = {"bird": 2, "hen": 2, "dog": 4, "cow": 4, "ant": 6, "bee": 6, "spider": 8, "crab": 10, "snake": 0, "fish": 0}


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """`a b|c d` as (a, b), (c, d)."""
    for pair in text.split("|"):
        left, right = pair.split()
        yield left, right


def an(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def colours() -> Iterator[Row]:
    """What colour things have."""
    for colour, things in COLOURS.items():
        for thing in things.split():
            yield Row("What colour is this?", thing, f"It is {colour}.")


def opposites() -> Iterator[Row]:
    """Both ways."""
    for left, right in pairs(OPPOSITES):
        yield Row("Give the opposite.", left, f"The opposite is {right}.")
        yield Row("Give the opposite.", right, f"The opposite is {left}.")


def arithmetic() -> Iterator[Row]:
    """Sums, differences, the next number, even and odd."""
    for a in range(10):
        for b in range(10):
            yield Row(f"What is {a} + {b}?", "", f"The sum is {a + b}.")
            if a >= b and b:
                yield Row(f"What is {a} - {b}?", "", f"The difference is {a - b}.")
    for n in range(10, 60):
        yield Row("Is the number even or odd?", str(n), f"It is {'odd' if n % 2 else 'even'}.")
        yield Row("Which number comes next?", str(n), f"The next number is {n + 1}.")


def plurals() -> Iterator[Row]:
    """One and many."""
    regular = [(word, word.removesuffix(old) + new) for (old, new), words in PLURALS.items() for word in words.split()]
    for one, many in (*regular, *pairs(ODD_PLURALS)):
        yield Row("Write the plural.", one, f"The plural is {many}.")


def spelling() -> Iterator[Row]:
    """Letters of words."""
    for word in WORDS.split():
        yield Row("Spell it backwards.", word, f"Backwards it is {word[::-1]}.")
        yield Row("How many letters?", word, f"It has {len(word)} letters.")
        yield Row("Write it in capitals.", word, f"In capitals it is {word.upper()}.")
        yield Row("What is the first letter?", word, f"The first letter is {word[0]}.")
        yield Row("What is the last letter?", word, f"The last letter is {word[-1]}.")


def calendar() -> Iterator[Row]:
    """Days and months."""
    days, months = DAYS.split(), MONTHS.split()
    for at, day in enumerate(days):
        yield Row("Which day comes after this one?", day, f"The next day is {days[(at + 1) % 7]}.")
        yield Row("Which day comes before this one?", day, f"The day before is {days[at - 1]}.")
    for at, (month, ordinal, length) in enumerate(zip(months, ORDINALS.split(), LENGTHS, strict=True)):
        yield Row("Which month comes after this one?", month, f"The next month is {months[(at + 1) % 12]}.")
        yield Row("Which month comes before this one?", month, f"The month before is {months[at - 1]}.")
        yield Row(f"Which month is the {ordinal} of the year?", "", f"It is {month}.")
        yield Row("How many days in a common year?", month, f"It has {length} days.")


def grammar() -> Iterator[Row]:
    """Past tenses and articles."""
    for now, then in pairs(PAST):
        yield Row("Write the past tense.", now, f"The past tense is {then}.")
    for noun in WORDS.split():
        if noun not in UNCOUNTED.split():
            yield Row("Put a or an before it.", noun, f"We say {an(noun)}.")


def nature() -> Iterator[Row]:
    """Animals."""
    for parent, young in pairs(YOUNG):
        yield Row(f"What is the young of {an(parent)} called?", "", f"It is called {an(young)}.")
    for animal, sound in pairs(SOUNDS):
        yield Row(f"What does {an(animal)} do?", "", f"{an(animal).capitalize()} {sound}.")
    for animal, legs in LEGS.items():
        yield Row(f"How many legs does {an(animal)} have?", "", f"It has {legs} legs.")


def places() -> Iterator[Row]:
    """Capitals of countries, and sides of shapes."""
    for country, city in pairs(CAPITALS):
        yield Row(f"What is the capital of {country}?", "", f"The capital is {city}.")
        yield Row("In which country is this city?", city, f"It is in {country}.")
    for shape, sides in SIDES.items():
        yield Row(f"How many sides does {an(shape)} have?", "", f"It has {sides} sides.")


TOPICS = (colours, opposites, arithmetic, plurals, spelling, calendar, grammar, nature, places)


def rows() -> list[Row]:
    """All rows in the order of their digests: shuffled, and the same in every version of Python."""
    made = [row for topic in TOPICS for row in topic()]
    return sorted(made, key=lambda row: hashlib.sha256("\n".join((SEED, *row)).encode()).digest())


def main(out: str) -> None:
    """Write the data set, one JSON object a line."""
    text = "".join(json.dumps(row._asdict()) + "\n" for row in rows())
    Path(out).write_text(text, encoding="ascii", newline="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_quickstart.py OUT")
    main(sys.argv[1])
