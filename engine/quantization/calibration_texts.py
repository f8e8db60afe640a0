"""Sentences in many scripts, to calibrate quantized models and to check quantized or exported ones.

They are the first article of the Universal Declaration of Human Rights (United Nations, 1948),
which is free to use and not part of any benchmark.
"""

from __future__ import annotations

from xtremely.engine.text.tokenizer import Tokenizer, Tokens

TEXTS = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason"
    " and conscience and should act towards one another in a spirit of brotherhood.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und"
    " Gewissen begabt und sollen einander im Geiste der Brüderlichkeit begegnen.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de"
    " raison et de conscience et doivent agir les uns envers les autres dans un esprit de"
    " fraternité.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и"
    " совестью и должны поступать в отношении друг друга в духе братства.",
    "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "Freedom",
    "自由",
)


SAMPLE = (*TEXTS, " ".join(TEXTS), " ".join(TEXTS[::-1]))
LONGEST = 512  # tokens after which texts of the sample are cut, unless the model's limit is lower


def sample(tokenizer: Tokenizer) -> Tokens:
    """The sentences and two texts of maximum length, tokenised with a model's tokenizer."""
    return tokenizer(SAMPLE, min(tokenizer.max_length, LONGEST))
