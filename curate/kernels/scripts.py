"""Which script the letters of a text are in, counted over UTF-8 bytes without decoding.

The table is data, not `unicodedata`: the same text must get the same counts under every version of Python. Letters and marks
(Unicode categories L and M) of Unicode 17 by their Script property; Hiragana and Katakana are one script here, `Kana`,
scripts that no common detector has a language for are `Zzzz`. Letters and marks of no single script (Common, Inherited) do
not count.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from curate.kernels.chars import decode, kernel

_RANGES = """
Latn 41-5a 61-7a aa ba c0-d6 d8-f6 f8-2b8 2e0-2e4 1d00-1d25 1d2c-1d5c 1d62-1d65 1d6b-1d77 1d79-1dbe 1e00-1eff 2071 207f
     2090-209f 212a-212b 2132 214e 2183-2184 2c60-2c7f a722-a787 a78b-a7ff ab30-ab5a ab5c-ab64 ab66-ab69 ab6c-ab6d fb00-fb06
     ff21-ff3a ff41-ff5a 10780-107bf 1df00-1dff2 1dff5-1dfff
Grek 370-373 376-37d 37f 386 388-3e1 3f0-3f5 3f7-3ff 1d26-1d2a 1d5d-1d61 1d66-1d6a 1dbf 1f00-1fbc 1fbe 1fc2-1fcc 1fd0-1fdb
     1fe0-1fec 1ff2-1ffc 2126 ab65 1d242-1d244 1dff3-1dff4
Copt 3e2-3ef 2c80-2ce4 2ceb-2cf3
Cyrl 400-481 483-484 487-52f 1c80-1c8a 1d2b 1d78 2de0-2dff a640-a672 a674-a67d a67f-a69f fe2e-fe2f 1e030-1e08f
Armn 531-559 560-588 58b-58c fb13-fb17
Hebr 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7-5f2 fb1d-fb28 fb2a-fb4f
Arab 610-61a 620-63f 641-64a 656-65f 66e-66f 671-6d3 6d5-6dc 6df-6e8 6ea-6ef 6fa-6fc 6ff 750-77f 870-887 889-88f 897-8e1
     8e3-8ff fb50-fbb1 fbd3-fd3d fd50-fd8f fd92-fdc7 fdf0-fdfb fe70-fefc 10ec2-10ec7 10ecb-10ecf 10ed9-10eff 1ee00-1eebb
Syrc 710-74f 860-86a
Thaa 780-7b1
Nkoo 7ca-7f5 7fa-7fd
Zzzz 800-82d 840-85b 1681-169a 16a0-16ea 16f1-1734 1740-1773 1900-193b 1980-19c9 1bc0-1bf3 1c00-1c37 1c4d-1c4f 2c00-2c5f
     a6a0-a6e5 a6f0-a6f1 a800-a827 a82c a840-a873 a880-a8c5 a90a-a92d a930-a953 aa80-aadd 10000-100fa 10280-102d0 10300-1031f
     1032d-1032f 10350-1039d 103a0-103cf 10400-1049d 104b0-10563 10570-10767 10800-10855 10860-10876 10880-1089e 108e0-108f5
     10900-10915 10920-10939 10940-109b7 109be-109bf 10a00-10a3f 10a60-10a7c 10a80-10a9c 10ac0-10ac7 10ac9-10ae6 10b00-10b35
     10b40-10b55 10b60-10b72 10b80-10b91 10c00-10cf2 10d4a-10d6d 10d6f-10d85 10e80-10eac 10eb0-10eb1 10f00-10f1c 10f27-10f50
     10f70-10f85 10fb0-10fc4 10fe0-11046 11070-110ba 110c2 110d0-110e8 11150-11173 11176-111c4 111c9-111cc 111ce-111cf 111da
     111dc 11200-11237 1123e-112a8 112b0-112ea 11300-11339 1133c-113d3 113e1-1144a 1145e-114c5 114c7 11580-115c0 115d8-11640
     11644 11680-116b8 11700-1172b 11740-1183a 118a0-118df 118ff-11943 119a0-119e1 119e3-11a3e 11a47-11a99 11a9d 11ac0-11af8
     11b60-11be0 11c00-11c40 11c72-11d47 11d60-11d98 11db0-11ddb 11ee0-11ef6 11f00-11f42 11f5a 12000-12399 12480-12543
     12f90-12ff0 13000-1342f 13440-1612f 16800-16a5e 16a70-16abe 16ad0-16af4 16b00-16b36 16b40-16b43 16b63-16d6c 16e40-16e7f
     16ea0-16fe1 16fe4 17000-191d2 1b170-1bc99 1bc9d-1bc9e 1da00-1da36 1da3b-1da6c 1da75 1da84 1da9b-1daaf 1e000-1e02a
     1e290-1e2ef 1e4d0-1e4ef 1e5d0-1e5f0 1e6c0-1e6ff 1e800-1e8c4 1e8d0-1e8d6 3d000-3fc3f
Deva 900-950 955-963 971-97f a8e0-a8f7 a8fb a8fd-a8ff 11b0a
Beng 980-9e3 9f0-9f1 9fc 9fe 11df0-11df1
Guru a01-a5e a70-a75
Gujr a81-ae3 af9-aff
Orya b01-b63 b71
Taml b82-bd7
Telu c00-c63
Knda c80-c83 c85-ce3 cf1-cf3
Mlym d00-d4e d54-d57 d5f-d63 d7a-d7f
Sinh d81-ddf df2-df3
Thai e01-e3a e40-e4e
Laoo e81-ece edc-edf
Tibt f00 f18-f19 f35 f37 f39 f3e-f84 f86-fbc fc6
Mymr 1000-103f 1050-108f 109a-109d a9e0-a9ef a9fa-a9fe aa60-aa76 aa7a-aa7f
Geor 10a0-10fa 10fc-10ff 1c90-1cbf 2d00-2d2d
Hang 1100-11ff 302e-302f 3131-318e a960-a97c ac00-d7fb ffa0-ffdc
Ethi 1200-135f 1380-138f 2d80-2dde ab01-ab2e 1e7e0-1e7fe
Cher 13a0-13fd ab70-abbf
Cans 1401-166c 166f-167f 18b0-18f5 11ab0-11abf
Khmr 1780-17d3 17d7 17dc-17dd
Mong 180b-180d 180f 1820-18aa
Tale 1950-1974
Bugi 1a00-1a1b
Lana 1a20-1a7f 1aa7
Bali 1b00-1b4c 1b6b-1b73
Sund 1b80-1baf 1bba-1bbf
Olck 1c5a-1c7d
Tfng 2d30-2d6f 2d7f
Hani 3005 303b 3400-4dbf 4e00-9fff f900-fad9 16fe3 16ff0-16ff3 20000-33479
Kana 3041-3096 309d-309f 30a1-30fa 30fd-30ff 31f0-31ff ff66-ff6f ff71-ff9d 1aff0-1b168
Bopo 3105-312f 31a0-31bf
Yiii a000-a48c
Lisu a4d0-a4fd 11fb0
Vaii a500-a60c a610-a61f a62a-a62b
Java a980-a9c0
Cham aa00-aa4d
Mtei aae0-aaef aaf2-aaf6 abc0-abea abec-abed
Goth 10330-10340 10342-10349
Rohg 10d00-10d27
Cakm 11100-11134 11144-11147
Hmnp 1e100-1e13d 1e14e
Adlm 1e900-1e94b
"""
_REACH = 0x40000  # no script has letters beyond plane 3


@functools.lru_cache(maxsize=1)
def scripts() -> tuple[str, ...]:
    """ISO 15924 codes in the order of the columns of `count_scripts`."""
    return tuple(dict.fromkeys(word for word in _RANGES.split() if word[0].isupper()))


@functools.lru_cache(maxsize=1)
def table() -> np.ndarray:
    """uint8 by code point below 0x40000: 0 for what counts for no script, else 1 + the position in `scripts()`."""
    found = np.zeros(_REACH, np.uint8)
    script = 0
    for word in _RANGES.split():
        if word[0].isupper():
            script += 1
        else:
            first, _, last = word.partition("-")
            found[int(first, 16) : int(last or first, 16) + 1] = script
    return found


@kernel
def _script(data, at, end, table):  # type: ignore[no-untyped-def]
    """(script, width in bytes) of the character that begins at data[at]; 0 for what counts for none."""
    point, width = decode(data, at, end)
    return (table[point] if point < len(table) else np.uint8(0)), width


@numba.njit(cache=True, nogil=True)
def count_scripts(starts: np.ndarray, ends: np.ndarray, data: np.ndarray, table: np.ndarray, kinds: int) -> np.ndarray:
    """Letters by script, uint32 (texts, kinds), of the texts data[starts[i]:ends[i]] in UTF-8; kinds: len(scripts())."""
    counts = np.zeros((len(starts), kinds), np.uint32)
    here = np.zeros(kinds + 1, np.uint32)
    for i in range(len(starts)):
        here[:] = 0
        at = starts[i]
        while at < ends[i]:
            script, size = _script(data, at, ends[i], table)
            here[script] += 1
            at += size
        counts[i] = here[1:]
    return counts


@numba.njit(cache=True, nogil=True)
def main_scripts(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, table: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Letters of each text (int64), and the group of scripts that has most of them (int64; 0 where there are none).

    groups: by 1 + the position of a script in `scripts()`, as `together()` gives them.
    """
    letters, group = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
    here = np.zeros(len(groups), np.int64)
    for i in range(len(starts)):
        here[:] = 0
        at = starts[i]
        while at < ends[i]:
            script, size = _script(data, at, ends[i], table)
            here[groups[script]] += 1
            at += size
        here[0] = 0
        letters[i] = here.sum()
        group[i] = here.argmax()
    return letters, group


@functools.lru_cache(maxsize=1)
def together() -> np.ndarray:
    """Groups of scripts that one text is written in: each its own, but those of Chinese, Japanese and Korean are one."""
    groups = np.arange(len(scripts()) + 1)
    east = [1 + scripts().index(script) for script in ("Hani", "Kana", "Hang", "Bopo")]
    groups[east] = east[0]
    return groups


def fits(counts: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Whether texts can be in a language, by their letters: bool (texts).

    counts: as `count_scripts` gives them; allowed: bool (texts, scripts), the scripts of the language that each text is said
    to be in. They must hold an eighth of the letters, and at least as many as the other scripts together. Names, code and
    addresses are written in Latin letters everywhere: these do not count among the others, and half among their own.
    """
    latin = scripts().index("Latn")
    own = np.where(allowed, counts, 0).astype(np.int64)
    other = np.where(allowed, 0, counts).astype(np.int64)
    total = own.sum(1) + other.sum(1)
    most = 2 * own.sum(1) - own[:, latin] >= 2 * (other.sum(1) - other[:, latin])
    return most & (8 * own.sum(1) >= total) & (total > 0)
