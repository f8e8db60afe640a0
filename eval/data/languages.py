"""Languages of XTREME and XTREME-R: codes, names, families, branches, scripts.

Families and branches follow Glottolog and Ethnologue, at the level of the XTREME paper (Table 5).
Scripts have ISO 15924 names and are those of the benchmark's text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xtremely.kernels.guard import unknown


@dataclass(frozen=True)
class Language:
    """A language as the benchmark uses it.

    Attributes:
        code: ISO 639-1.
        iso3: ISO 639-3 (the macrolanguage where the benchmark names one).
        name: English name.
        family: top-level family.
        branch: branch inside the family, for the large families.
        script: script of the benchmark's text.
    """

    code: str
    iso3: str
    name: str
    family: str
    branch: str
    script: str


_TABLE = """
af afr Afrikaans   Indo-European  Germanic        Latin
ar ara Arabic      Afro-Asiatic   Semitic         Arabic
az aze Azerbaijani Turkic         Oghuz           Latin
bg bul Bulgarian   Indo-European  Slavic          Cyrillic
bn ben Bengali     Indo-European  Indo-Aryan      Bengali
de deu German      Indo-European  Germanic        Latin
el ell Greek       Indo-European  Hellenic        Greek
en eng English     Indo-European  Germanic        Latin
es spa Spanish     Indo-European  Romance         Latin
et est Estonian    Uralic         Finnic          Latin
eu eus Basque      Basque         Basque          Latin
fa fas Persian     Indo-European  Iranian         Arabic
fi fin Finnish     Uralic         Finnic          Latin
fr fra French      Indo-European  Romance         Latin
gu guj Gujarati    Indo-European  Indo-Aryan      Gujarati
he heb Hebrew      Afro-Asiatic   Semitic         Hebrew
hi hin Hindi       Indo-European  Indo-Aryan      Devanagari
ht hat Haitian     Creole         French-based    Latin
hu hun Hungarian   Uralic         Ugric           Latin
id ind Indonesian  Austronesian   Malayic         Latin
it ita Italian     Indo-European  Romance         Latin
ja jpn Japanese    Japonic        Japanese        Japanese
jv jav Javanese    Austronesian   Javanese        Latin
ka kat Georgian    Kartvelian     Karto-Zan       Georgian
kk kaz Kazakh      Turkic         Kipchak         Cyrillic
ko kor Korean      Koreanic       Korean          Hangul
lt lit Lithuanian  Indo-European  Baltic          Latin
ml mal Malayalam   Dravidian      South-Dravidian Malayalam
mr mar Marathi     Indo-European  Indo-Aryan      Devanagari
ms msa Malay       Austronesian   Malayic         Latin
my mya Burmese     Sino-Tibetan   Burmo-Qiangic   Myanmar
nl nld Dutch       Indo-European  Germanic        Latin
pa pan Punjabi     Indo-European  Indo-Aryan      Gurmukhi
pl pol Polish      Indo-European  Slavic          Latin
pt por Portuguese  Indo-European  Romance         Latin
qu que Quechua     Quechuan       Quechuan        Latin
ro ron Romanian    Indo-European  Romance         Latin
ru rus Russian     Indo-European  Slavic          Cyrillic
sw swa Swahili     Niger-Congo    Bantu           Latin
ta tam Tamil       Dravidian      South-Dravidian Tamil
te tel Telugu      Dravidian      South-Central   Telugu
th tha Thai        Kra-Dai        Tai             Thai
tl tgl Tagalog     Austronesian   Philippine      Latin
tr tur Turkish     Turkic         Oghuz           Latin
uk ukr Ukrainian   Indo-European  Slavic          Cyrillic
ur urd Urdu        Indo-European  Indo-Aryan      Arabic
vi vie Vietnamese  Austroasiatic  Vietic          Latin
wo wol Wolof       Niger-Congo    Senegambian     Latin
yo yor Yoruba      Niger-Congo    Volta-Niger     Latin
zh zho Mandarin    Sino-Tibetan   Sinitic         Han
"""

LANGUAGES: dict[str, Language] = {
    fields[0]: Language(*fields) for fields in (line.split() for line in _TABLE.split("\n")[1:-1])
}


def codes(text: str) -> tuple[str, ...]:
    """Split a text of space-separated language codes."""
    return tuple(text.split())


# The forty languages of XTREME itself; the others of the table came with XTREME-R.
XTREME = codes(
    "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv"
    " ka kk ko ml mr ms my nl pt ru sw ta te th tl tr ur vi yo zh"
)


def language(code: str) -> Language:
    """The language with an ISO 639-1 code."""
    if code not in LANGUAGES:
        raise unknown("language", code, LANGUAGES)
    return LANGUAGES[code]


def grouped(codes: Iterable[str], by: str) -> dict[str, list[str]]:
    """Codes grouped by ``family``, ``branch`` or ``script``, groups and codes in order."""
    groups: dict[str, list[str]] = {}
    for code in sorted(codes):
        groups.setdefault(getattr(language(code), by), []).append(code)
    return dict(sorted(groups.items()))
