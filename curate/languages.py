"""Names of languages: ISO 639 codes, labels of fastText models, and the scripts that a language is written in."""

from __future__ import annotations

import functools
import re

from curate.errors import RecipeError

UNKNOWN = "und"


def iso_code(label: str) -> str:
    """ISO 639-1 (else 639-3) of a fastText label such as `__label__en`, `__label__eng_Latn` or `__label__zh-min-nan`."""
    code, _, script = label.removeprefix("__label__").partition("_")
    if not script and code in _WIKIPEDIA:  # lid.176 names languages as Wikipedia does, where `als` is Alemannic
        return _WIKIPEDIA[code]
    code = re.match("[a-z]*", code.lower())[0]  # type: ignore[index]
    return iso1().get(code, code) if 2 <= len(code) <= 3 else UNKNOWN


def scripts_of(label: str) -> tuple[str, ...]:
    """ISO 15924 codes (as in `curate.kernels.scripts`) in which the language of a label or code is written; () if unknown.

    A script in the label (`zho_Hans`) decides; else the scripts in which the language has been printed in the last hundred
    years. `Jpan`, `Kore`, `Hans` and their like are taken apart.
    """
    script = label.removeprefix("__label__").partition("_")[2]
    if script:
        return _MIXED.get(script, (script,) if re.fullmatch("[A-Z][a-z]{3}", script) else ())
    return _scripts().get(iso_code(label), ())


def check_codes(codes: tuple[str, ...], where: str) -> None:
    """Raise RecipeError where a code is not written as the column `language` writes it; where: stage and parameter."""
    stage, _, parameter = where.partition(".")
    for code in codes:
        if not re.fullmatch("[a-z]{2,3}", code):
            raise RecipeError(f"{stage}: {parameter} holds {code!r}; write ISO 639-1 codes such as 'en', else 639-3")
        if code in iso1():
            raise RecipeError(f"{stage}: {code!r} in {parameter} is written {iso1()[code]!r} here")


_WIKIPEDIA = {"als": "gsw", "bh": "bho", "eml": "egl", "nah": "nci", "sh": "hbs", "bat-smg": "sgs", "fiu-vro": "vro",
              "map-bms": "jv", "roa-rup": "rup", "zh-yue": "yue", "zh-min-nan": "nan", "zh-classical": "lzh"}  # fmt: skip

_ISO1 = """
aar aa abk ab ave ae afr af aka ak amh am arg an ara ar asm as ava av aym ay aze az bak ba bel be bul bg bis bi bam bm ben bn
bod bo bre br bos bs cat ca che ce cha ch cos co cre cr ces cs chu cu chv cv cym cy dan da deu de div dv dzo dz ewe ee ell el
eng en epo eo spa es est et eus eu fas fa ful ff fin fi fij fj fao fo fra fr fry fy gle ga gla gd glg gl grn gn guj gu glv gv
hau ha heb he hin hi hmo ho hrv hr hat ht hun hu hye hy her hz ina ia ind id ile ie ibo ig iii ii ipk ik ido io isl is ita it
iku iu jpn ja jav jv kat ka kon kg kik ki kua kj kaz kk kal kl khm km kan kn kor ko kau kr kas ks kur ku kom kv cor kw kir ky
lat la ltz lb lug lg lim li lin ln lao lo lit lt lub lu lav lv mlg mg mah mh mri mi mkd mk mal ml mon mn mar mr msa ms mlt mt
mya my nau na nob nb nde nd nep ne ndo ng nld nl nno nn nor no nbl nr nav nv nya ny oci oc oji oj orm om ori or oss os pan pa
pli pi pol pl pus ps por pt que qu roh rm run rn ron ro rus ru kin rw san sa srd sc snd sd sme se sag sg sin si slk sk slv sl
smo sm sna sn som so sqi sq srp sr ssw ss sot st sun su swe sv swa sw tam ta tel te tgk tg tha th tir ti tuk tk tgl tl tsn tn
ton to tur tr tso ts tat tt twi tw tah ty uig ug ukr uk urd ur uzb uz ven ve vie vi vol vo wln wa wol wo xho xh yid yi yor yo
zha za zho zh zul zu
arb ar als sq azj az cmn zh ekk et fat ak gug gn khk mn kmr ku lvs lv npi ne ory or pbt ps pes fa plt mg quy qu swh sw uzn uz
ydd yi zsm ms zlm ms fuv ff gaz om
"""  # the last lines: the individual language that usually stands for its macrolanguage


@functools.lru_cache(maxsize=1)
def iso1() -> dict[str, str]:
    """ISO 639-1 by ISO 639-3."""
    words = _ISO1.split()
    return dict(zip(words[::2], words[1::2], strict=True))


_MIXED = {
    **dict.fromkeys(("Hans", "Hant", "Hani"), ("Hani", "Bopo")),
    **dict.fromkeys(("Jpan", "Hrkt", "Hira", "Kana"), ("Kana", "Hani")),
    **dict.fromkeys(("Kore", "Hang"), ("Hang", "Hani")),
    **dict.fromkeys(("Latf", "Latg"), ("Latn",)),
    **dict.fromkeys(("Aran",), ("Arab",)),
}

_SCRIPTS = """
Latn: aa af ak an ast ay bar bcl bi bm br ca cbk ceb ch co cs cy da de diq dsb ee egl en eo es et eu fi fj fo fr frr fur fy ga
  gd gl gn gsw gv hil ho hr hsb ht hu hz ia id ie ig ik ilo io is it jam jbo kab kg ki kj kl kr kw la lb lg li lij lmo ln lt
  ltg lu lv mh mi min mt mwl na nap nb nci nd nds ng nl nn no nr nv ny oc pam pap pcd pfl pl pms pt qu rm rn ro rw sc scn sco
  se sg sgs sk sl sm sn so sq ss st stq sv szl tet tl tn to tpi tr ts tum tw ty ve vec vep vi vls vo vro wa war wo xh yo zu
Latn Arab: ckb ff ha mg ms sw
Latn Arab Cyrl: az crh kk ku ky tk ug
Latn Cyrl: be bs hbs sr tt uz
Latn Cans: cr iu oj
Latn Deva: hif
Latn Ethi: om
Latn Hani: cdo hak nan za
Latn Hebr: lad
Latn Java: jv
Latn Sund: su
Cyrl: ab alt av ba bg bxr ce cu cv kbd kjh koi krc kv lez mdf mhr mk mrj myv os ru rue sah tyv udm uk xal
Cyrl Arab: tg
Cyrl Mong: mn
Arab: ar ary arz azb bal fa glk lrc mzn pnb ps skr ur
Arab Deva: ks sd
Arab Guru: pa
Deva: awa bho dty hi mag mai mr ne new
Deva Knda Latn: gom
Deva Beng Gujr Knda Mlym Orya Sinh Taml Telu Tibt Latn: pi sa
Beng: as bn bpy
Beng Mtei: mni
Hani Bopo: lzh wuu yue zh
Kana Hani: ja
Hang Hani: ko
Ethi: am ti tig
Armn: hy hyw
Cher: chr
Geor: ka xmf
Grek: el pnt
Gujr: gu
Hebr: he yi
Khmr: km
Knda: kn
Laoo: lo
Mlym: ml
Mymr: mnw my shn
Nkoo: nqo
Olck: sat
Orya: or
Sinh: si
Syrc: aii arc syr
Taml: ta
Telu: te
Tfng: zgh
Thaa: dv
Thai: th
Tibt: bo dz
Vaii: vai
Yiii: ii
"""


@functools.lru_cache(maxsize=1)
def _scripts() -> dict[str, tuple[str, ...]]:
    entries = (entry.partition(":") for entry in re.split(r"\n(?=[A-Z])", _SCRIPTS.strip()))
    return {code: tuple(scripts.split()) for scripts, _, codes in entries for code in codes.split()}
