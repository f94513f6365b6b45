"""The word lists of the closed world, and the draws of single words, names and invented words."""

from .document import Rng


def words_in(text: str) -> list[str]:
    """Read a list of words that stand in one text."""
    return text.split()


NAMES = words_in(
    "Anna Ben Carla David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Rosa Sam Tina Victor Wendy "
    "Yara Zoe Omar Lucy Hugo Nina Ivan Clara Max Ella Tom Alice Bruno Dana Erik Fiona George Hanna Igor Julia Karl "
    "Lena Marco Nora Oscar Peter Quinn Rita Simon Theo Uma Vera Will Xena Yusuf Adam Bella Chris Diana Ali Mei Ravi "
    "Priya Kenji Aisha Carlos Sofia"
)
CITIES = words_in(
    "Paris London Berlin Rome Madrid Lisbon Vienna Oslo Tokyo Cairo Athens Dublin Prague Boston Chicago Delhi Lima "
    "Seoul Sydney Toronto Milan Geneva Denver Austin Miami Lagos Quito Riga Hamburg Munich"
)
JOBS = words_in(
    "doctor teacher baker farmer pilot nurse painter writer lawyer cook driver singer plumber engineer waiter judge "
    "dentist actor gardener tailor designer manager student clerk"
)
CAPITALS = {
    "France": "Paris", "England": "London", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Austria": "Vienna", "Norway": "Oslo", "Japan": "Tokyo", "Egypt": "Cairo", "Greece": "Athens", "Ireland": "Dublin",
    "Peru": "Lima", "Sweden": "Stockholm", "Poland": "Warsaw", "Russia": "Moscow", "China": "Beijing", "Turkey": "Ankara",
    "Cuba": "Havana", "Kenya": "Nairobi", "Canada": "Ottawa", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Hungary": "Budapest", "India": "Delhi", "Korea": "Seoul", "Latvia": "Riga", "Ecuador": "Quito",
}  # fmt: skip
ANIMALS = {
    "dog": ("barks", 4), "cat": ("meows", 4), "cow": ("moos", 4), "duck": ("quacks", 2), "sheep": ("bleats", 4),
    "lion": ("roars", 4), "bird": ("sings", 2), "bee": ("buzzes", 6), "snake": ("hisses", 0), "horse": ("neighs", 4),
    "frog": ("croaks", 4), "wolf": ("howls", 4), "owl": ("hoots", 2), "pig": ("oinks", 4), "hen": ("clucks", 2),
}  # fmt: skip
FRUITS = words_in("apple banana cherry grape lemon mango orange peach pear plum melon kiwi")
COLORS = words_in("red blue green yellow black white brown pink purple gray orange silver")
VEHICLES = words_in("car bus train bike boat plane truck tram")
FURNITURE = words_in("table chair bed lamp desk shelf sofa cupboard")
FOODS = words_in("bread cheese soup rice pasta cake salad pizza")
KINDS = {
    "animal": list(ANIMALS), "fruit": FRUITS, "color": COLORS, "vehicle": VEHICLES, "furniture": FURNITURE, "food": FOODS,
}  # fmt: skip
OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("happy", "sad"), ("old", "new"), ("open", "closed"),
    ("full", "empty"), ("hard", "soft"), ("high", "low"), ("light", "dark"), ("early", "late"), ("rich", "poor"),
    ("wet", "dry"), ("loud", "quiet"), ("near", "far"), ("strong", "weak"), ("clean", "dirty"), ("long", "short"),
    ("up", "down"), ("day", "night"),
]  # fmt: skip
PASTS = {
    "go": "went", "eat": "ate", "see": "saw", "run": "ran", "take": "took", "give": "gave", "make": "made", "come": "came",
    "write": "wrote", "drive": "drove", "buy": "bought", "sing": "sang", "walk": "walked", "play": "played",
    "jump": "jumped", "open": "opened", "find": "found", "lose": "lost", "send": "sent", "pay": "paid",
}  # fmt: skip
PLURALS = {
    "cat": "cats", "dog": "dogs", "box": "boxes", "city": "cities", "child": "children", "mouse": "mice", "foot": "feet",
    "book": "books", "baby": "babies", "man": "men", "leaf": "leaves", "bus": "buses", "car": "cars", "tooth": "teeth",
}  # fmt: skip
DAYS = words_in("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words_in("January February March April May June July August September October November December")
PRODUCTS = words_in(
    "phone laptop camera watch headphones keyboard blender toaster backpack jacket shoes tent book chair lamp tablet "
    "printer router monitor speaker mouse charger kettle vacuum bicycle helmet coat sweater mattress fridge oven "
    "drill"
)
GOOD = words_in("great excellent wonderful perfect amazing fantastic lovely good superb brilliant nice outstanding")
BAD = words_in("terrible awful bad broken horrible useless poor disappointing dreadful faulty cheap annoying")
PLAIN = words_in("okay average fine ordinary usual normal acceptable standard")
OTHER_NOUNS = words_in(
    "house tree river road garden window door school market bridge letter number music water stone paper cloud star "
    "question answer message order problem price week morning office team friend family system computer screen "
    "battery button page list word line file report plan story game test team line world time money service customer "
    "reason result"
)
VERBS = words_in("find keep open close check change send bring move use show need want like help call read write start stop")
ADJECTIVES = sorted({w for pair in OPPOSITES for w in pair} - {"up", "down", "day", "night"})
NOUNS = sorted({w for kind in KINDS.values() for w in kind} | set(PRODUCTS) | set(OTHER_NOUNS))
SYLLABLES = words_in(
    "ba be bi bo da de di do fi fo ga go ha he jo ka ke ko la le li lo ma me mi mo na ne no pa pe po ra re ri ro sa "
    "se si so ta te ti to va ve vo wa za zo tri sta gro ble cra dru lan mer son tin ver ton gar hol wick field"
)


def invented(rng: Rng) -> str:
    """Draw a word that exists in no list."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))


def word(rng: Rng) -> str:
    """Draw a noun, an adjective, a verb or an invented word."""
    dice = rng.random()
    if dice < 0.65:
        return rng.choice(NOUNS)
    if dice < 0.75:
        return rng.choice(ADJECTIVES)
    return rng.choice(VERBS) if dice < 0.82 else invented(rng)


def noun(rng: Rng) -> str:
    """Draw a thing that can be counted and owned."""
    return rng.choice(NOUNS) if rng.random() < 0.9 else invented(rng)


def distinct(rng: Rng, n: int) -> list[str]:
    """Draw n different words."""
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        drawn[word(rng)] = None
    return list(drawn)


def name(rng: Rng) -> str:
    """Draw a person's first name."""
    return rng.choice(NAMES) if rng.random() < 0.85 else invented(rng).capitalize()


def city(rng: Rng) -> str:
    """Draw a city."""
    return rng.choice(CITIES) if rng.random() < 0.85 else invented(rng).capitalize()


def with_article(noun_: str) -> str:
    """Put "a" or "an" before a noun."""
    return ("an " if noun_[0] in "aeiou" else "a ") + noun_


def sentence(rng: Rng) -> str:
    """Draw one plain statement about the world."""
    who, place, thing, other = name(rng), city(rng), noun(rng), noun(rng)
    color, quality = rng.choice(COLORS), rng.choice(ADJECTIVES)
    return rng.choice(
        [
            f"{who} has {with_article(color)} {thing}.",
            f"The {thing} is {quality}.",
            f"{who} lives in {place}.",
            f"The {thing} is near the {other}.",
            f"{who} likes {rng.choice(FRUITS)} and {rng.choice(FOODS)}.",
            f"The {quality} {thing} is {color}.",
            f"I want to {rng.choice(VERBS)} the {thing} on {rng.choice(DAYS)}.",
            f"We need {rng.randint(2, 30)} {thing}s for the {other}.",
            f"{who} and {name(rng)} went to {place} in {rng.choice(MONTHS)}.",
            f"Please {rng.choice(VERBS)} the {thing} before you {rng.choice(VERBS)} the {other}.",
            f"{who} works as {with_article(rng.choice(JOBS))} in {place}.",
            f"They did not {rng.choice(VERBS)} the {quality} {thing}.",
        ]
    )
