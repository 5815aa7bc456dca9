"""The names of the digits 0 … 9 in eighteen languages and thirteen scripts, and typing errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NAMES: dict[str, tuple[str, ...]] = {
    language: tuple(names.split())
    for language, names in {
        "English": "zero one two three four five six seven eight nine",
        "German": "null eins zwei drei vier fünf sechs sieben acht neun",
        "French": "zéro un deux trois quatre cinq six sept huit neuf",
        "Spanish": "cero uno dos tres cuatro cinco seis siete ocho nueve",
        "Polish": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
        "Finnish": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
        "Turkish": "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
        "Swahili": "sifuri moja mbili tatu nne tano sita saba nane tisa",
        "Russian": "ноль один два три четыре пять шесть семь восемь девять",
        "Greek": "μηδέν ένα δύο τρία τέσσερα πέντε έξι επτά οκτώ εννέα",
        "Hindi": "शून्य एक दो तीन चार पाँच छह सात आठ नौ",
        "Arabic": "صفر واحد اثنان ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة",
        "Hebrew": "אפס אחת שתיים שלוש ארבע חמש שש שבע שמונה תשע",
        "Georgian": "ნული ერთი ორი სამი ოთხი ხუთი ექვსი შვიდი რვა ცხრა",
        "Thai": "ศูนย์ หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า",
        "Chinese": "零 一 二 三 四 五 六 七 八 九",
        "Japanese": "ぜろ いち に さん よん ご ろく なな はち きゅう",
        "Korean": "영 하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉",
    }.items()
}

# What a slip puts in: a character that the language's names use.
ALPHABETS: dict[str, str] = {
    language: "".join(sorted(set("".join(names)))) for language, names in NAMES.items()
}


def misspell(text: str, *, rate: float, alphabet: Sequence[str], rng: np.random.Generator) -> str:
    """Typing errors: each character is, with probability `rate`, hit by one of four slips.

    The slips are equally likely: another character in its place, nothing in its place, an
    additional character after it, its exchange with the next one. One character always remains.

    Args:
        text: at least one character.
        rate: chance of a slip, a character.
        alphabet: what a wrong or additional character is drawn from.
        rng: source of all randomness.
    """
    typed = list(text)
    slips = rng.random(len(typed)) < rate
    kinds = rng.integers(4, size=len(typed))
    wrong = rng.integers(len(alphabet), size=len(typed))
    # Backwards, so that the places still to be visited do not move.
    for place in np.flatnonzero(slips)[::-1]:
        kind, character = kinds[place], alphabet[wrong[place]]
        if kind == 0:
            typed[place] = character
        elif kind == 1 and len(typed) > 1:
            del typed[place]
        elif kind == 2:
            typed.insert(place + 1, character)
        elif kind == 3 and place + 1 < len(typed):
            typed[place], typed[place + 1] = typed[place + 1], typed[place]
    return "".join(typed)
