"""Where personal data may stand in texts, over UTF-8 bytes: candidates, with every check that is arithmetic.

All that is looked for is ASCII, so no text is decoded. A byte beyond ASCII ends a candidate as a space does.

A *number* is a chain of groups of digits with separators between them. What one may be is decided by the sizes of its groups,
its separators, and the words before it; the rules stand in `_card` and `_phone`.
"""

from __future__ import annotations

import numba
import numpy as np

EMAIL, IPV4, IPV6, PHONE, CARD, IBAN, KEY = range(1, 8)
WANT_EMAIL, WANT_IP, WANT_PHONE, WANT_CARD, WANT_IBAN, WANT_KEY = 1, 2, 4, 8, 16, 32


def _set(chars: bytes) -> np.ndarray:
    table = np.zeros(256, np.bool_)
    table[list(chars)] = True
    return table


_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = b"0123456789"
_LETTER, _WORD, _HEX = _set(_LETTERS), _set(_LETTERS + _DIGITS + b"_"), _set(_DIGITS + b"abcdefABCDEF")
_ALNUM = _set(_LETTERS + _DIGITS)
_LOCAL = _set(_LETTERS + _DIGITS + b"._%+-'")  # of an e-mail address, before the @
_OPEN = ~_set(_LETTERS + _DIGITS + b"_/=-#$@&%\\~^`+")  # may stand before a number that is one by itself
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[65:91] += 32


def _packed(words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    raw = [word.encode() for word in words]
    offsets = np.zeros(len(raw) + 1, np.int64)
    np.cumsum([len(w) for w in raw], out=offsets[1:])
    return offsets, np.frombuffer(b"".join(raw), np.uint8).copy()


KEY_PREFIXES = (
    "AKIA", "ASIA", "aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_",
    "glpat-", "xoxa-", "xoxb-", "xoxe.", "xoxe-", "xoxp-", "xoxr-", "xoxs-", "xapp-", "hooks.slack.com/services/", "AIza",
    "ya29.", "GOCSPX-", "sk-", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", "eyJ", "-----BEGIN ", "npm_",
    "pypi-AgE", "SG.", "hf_", "shpat_", "dop_v1_",
)  # fmt: skip
# what says of a number after it which kind it is, in lower case; those with a | are whole words
PHONE_WORDS = (
    "|tel", "|tlf", "|tfn", "|ph", "phone", "telefon", "teléfono", "fax", "|call", "|mobile", "|mobil", "|móvil", "|cell",
    "|dial", "whatsapp", "|sms", "hotline", "helpline", "|handy", "|fone", "|тел", "電話", "电话", "手机", "☎", "✆", "📞", "📱",
    "|τηλ", "|tél", "전화",
)  # fmt: skip
CARD_WORDS = ("card", "visa", "|amex", "|cc", "maestro", "diners", "kredit", "carte", "tarjeta", "|karte", "cartão", "|carta")
IP_WORDS = (
    "|ip", "|ips", "address", "|host", "hostname", "server", "|dns", "|ping", "://", "|inet", "|gateway", "|proxy", "router",
)  # fmt: skip
VERSION_WORDS = (
    "version", "|ver", "|vers", "release", "|build", "firmware", "update", "|rev", "revision", "section", "|sec", "§",
    "chapter", "|table", "figure", "|fig", "|rule", "clause", "article", "|para", "edition", "|oid", "kernel", "driver",
    "upgrade", "|patch", "|v", "appendix", "|part", "|item", "|step", "|snmp",
)  # fmt: skip
_KEYS, _PHONES, _CARDS, _IPS, _VERSIONS = map(_packed, (KEY_PREFIXES, PHONE_WORDS, CARD_WORDS, IP_WORDS, VERSION_WORDS))
_KEY_OFFSETS, _KEY_BYTES = _KEYS
_PHONE_OFFSETS, _PHONE_BYTES = _PHONES
_CARD_OFFSETS, _CARD_BYTES = _CARDS
_IP_OFFSETS, _IP_BYTES = _IPS
_VERSION_OFFSETS, _VERSION_BYTES = _VERSIONS
PHONE_WINDOW, CARD_WINDOW, IP_WINDOW, VERSION_WINDOW = 24, 48, 32, 16

_IBAN_SIZES = np.zeros((26, 26), np.int64)  # by the letters of the country, from the SWIFT registry
for _entry in """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18
    FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21
    LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24
    SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
""".split():
    _IBAN_SIZES[ord(_entry[0]) - 65, ord(_entry[1]) - 65] = int(_entry[2:])

_NOTHING, _A_DIGIT, _A_MARK, _AN_AT, _A_COLON, _A_KEY = range(6)
_KIND = np.zeros(256, np.uint8)
_KIND[list(_DIGITS)] = _A_DIGIT
_KIND[list(b"+(")] = _A_MARK
_KIND[ord("@")] = _AN_AT
_KIND[ord(":")] = _A_COLON
_KIND[[ord(prefix[0]) for prefix in KEY_PREFIXES]] = _A_KEY
_NOTED = np.zeros(1 << 16, np.uint8)  # by two bytes, whether something may begin at the first
for _byte in np.flatnonzero(_KIND != _NOTHING).tolist():
    if _KIND[_byte] != _A_KEY:
        _NOTED[_byte << 8 : (_byte + 1) << 8] = 1
_NOTED[[ord(prefix[0]) << 8 | ord(prefix[1]) for prefix in KEY_PREFIXES]] = 1
_BLOCK = 4096

MOST_GROUPS = 32
NO_SEPARATOR, SPACE, DASH, DOT, SLASH, OPEN, CLOSE, WIDE = range(8)  # WIDE: dash or slash between spaces


@numba.njit(cache=True, nogil=True)
def _near(data, begin, at, window, offsets, words):  # type: ignore[no-untyped-def]
    """Whether one of the words, in either case, stands among so many bytes before a place; begin: of the text."""
    low = max(begin, at - window)
    for w in range(len(offsets) - 1):
        a, b = offsets[w], offsets[w + 1]
        whole = words[a] == 124  # |
        a += whole
        for i in range(low, at - (b - a) + 1):
            k = 0
            while k < b - a and _LOWER[data[i + k]] == words[a + k]:
                k += 1
            if k == b - a and not (whole and ((i > begin and _LETTER[data[i - 1]]) or (i + k < at and _LETTER[data[i + k]]))):
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _public(a, b, c):  # type: ignore[no-untyped-def]
    """Whether an IPv4 address that begins with these octets belongs to someone (IANA's special-purpose registry, RFC 6890)."""
    if a == 0 or a == 10 or a == 127 or a >= 224:  # this network, private, loopback, multicast and reserved
        return False
    if (a == 100 and 64 <= b < 128) or (a == 169 and b == 254) or (a == 172 and 16 <= b < 32) or (a == 192 and b == 168):
        return False
    if a == 192 and ((b == 0 and (c == 0 or c == 2)) or (b == 88 and c == 99)):
        return False
    return not ((a == 198 and (b == 18 or b == 19 or (b == 51 and c == 100))) or (a == 203 and b == 0 and c == 113))


@numba.njit(cache=True, nogil=True)
def _ipv4(data, begin, at, end):  # type: ignore[no-untyped-def]
    """(end of a dotted quad at this place or 0, whether it is a public address rather than a version or section number)."""
    octets = 0
    i = at
    for k in range(4):
        first, value = i, 0
        while i < end and 48 <= data[i] <= 57 and i - first < 4:
            value = value * 10 + int(data[i]) - 48
            i += 1
        if i == first or i - first > 3 or value > 255 or (i - first > 1 and data[first] == 48):
            return 0, False
        octets = octets << 8 | value
        if k < 3:
            if i >= end or data[i] != 46:
                return 0, False
            i += 1
    if i < end and (_WORD[data[i]] or data[i] == 37):
        return 0, False
    if i + 1 < end and (
        (data[i] == 46 and _WORD[data[i + 1]]) or (data[i] == 45 and _LETTER[data[i + 1]])
    ):  # goes on, as in a file name
        return 0, False
    if at > begin:
        before = data[at - 1]
        if _WORD[before] or before == 46:
            return 0, False
        if (before == 45 or before == 47) and at - 1 > begin and _LETTER[data[at - 2]]:  # name-1.2.3.4, Browser/1.2.3.4
            return i, False
    one, two, three = octets >> 24, octets >> 16 & 255, octets >> 8 & 255
    if not _public(one, two, three):
        return i, False
    if _near(data, begin, at, VERSION_WINDOW, _VERSION_OFFSETS, _VERSION_BYTES):
        return i, False
    most = max(two, three, octets & 255)
    if (one < 32 and most < 32) or (one < 10 and most < 100):  # so are versions and sections: some word has to say it
        return i, _near(data, begin, at, IP_WINDOW, _IP_OFFSETS, _IP_BYTES)
    return i, True


@numba.njit(cache=True, nogil=True)
def _ipv6(data, begin, colon, end):  # type: ignore[no-untyped-def]
    """(start, end) of what may be an IPv6 address with its first colon here, or (0, 0)."""
    a = colon
    while a > begin and _HEX[data[a - 1]] and colon - a < 5:
        a -= 1
    if not 1 <= colon - a <= 4 or (a > begin and (_WORD[data[a - 1]] or data[a - 1] == 58 or data[a - 1] == 46)):
        return 0, 0
    b, colons, double, long = colon, 0, 0, False
    size = colon - a
    while b < end and b - a < 46 and (_HEX[data[b]] or data[b] == 58):
        if data[b] == 58:
            colons += 1
            if data[b - 1] == 58 and b > colon:
                double += 1
            long |= size >= 3
            size = 0
        else:
            size += 1
        b += 1
    long |= size >= 3
    if data[b - 1] == 58 and data[b - 2] != 58:  # the colon of a sentence
        b -= 1
        colons -= 1
    if b < end and (_WORD[data[b]] or data[b] == 58):
        return 0, 0
    if double > 1 or colons < 3 or colons > 7 or (colons != 7 and double != 1) or not long:
        return 0, 0
    return a, b


@numba.njit(cache=True, nogil=True)
def _email(data, begin, at, end):  # type: ignore[no-untyped-def]
    """(start, end) of an address around the @ here, or (0, 0)."""
    a = at
    while a > begin and at - a < 64 and _LOCAL[data[a - 1]] and not (data[a - 1] == 46 and data[a] == 46):
        a -= 1
    while a < at and not _WORD[data[a]]:
        a += 1
    if a == at or data[at - 1] == 46:
        return 0, 0
    i, stop = at + 1, 0
    dots = 0
    while i < end and _ALNUM[data[i]]:
        if stop and 65 <= data[i] <= 90 and data[at + 1] >= 97:  # mail.org.Then, where a sentence begins
            break
        first, letters = i, True
        while i < end and (_ALNUM[data[i]] or data[i] == 45):
            i += 1
        last = i
        while data[last - 1] == 45:
            last -= 1
        for k in range(first, last):
            letters &= _LETTER[data[k]]
        punycode = last - first > 4 and _LOWER[data[first]] == 120 and data[first + 1] != 46 and data[first + 2] == 45
        if dots > 0 and ((letters and 2 <= last - first <= 24) or punycode):
            stop = last
        if last < i or i + 1 >= end or data[i] != 46:
            break
        dots += 1
        i += 1
    if stop == 0 or stop - at > 254:
        return 0, 0
    return a, stop


@numba.njit(cache=True, nogil=True)
def _iban(data, begin, at, end):  # type: ignore[no-untyped-def]
    """End of an IBAN that begins here (two letters, two digits), or 0. It may be printed in groups of four."""
    if (at > begin and _WORD[data[at - 1]]) or not 48 <= data[at + 3] <= 57:  # there is a byte: see _NOTED
        return 0
    lower = data[at] >= 97
    if lower != (data[at + 1] >= 97):
        return 0
    want = _IBAN_SIZES[_LOWER[data[at]] - 97, _LOWER[data[at + 1]] - 97]
    if want == 0:
        return 0
    n, i, spaced = 0, at, False
    rest = 0  # of the characters from the fifth on, then of the first four, modulo 97
    while n < want:
        if i >= end:
            return 0
        c = data[i]
        if c == 32 and n > 0 and n % 4 == 0 and (n == 4 or spaced) and data[i - 1] != 32:
            spaced = True
            i += 1
            continue
        if not _ALNUM[c] or (_LETTER[c] and (c >= 97) != lower) or (spaced and n > 4 and n % 4 == 0 and data[i - 1] != 32):
            return 0
        if n >= 4:
            value = int(c) - 48 if c < 58 else int(_LOWER[c]) - 87
            rest = (rest * (10 if value < 10 else 100) + value) % 97
        n += 1
        i += 1
    if i < end and _WORD[data[i]]:
        return 0
    for k in range(2):
        rest = (rest * 100 + int(_LOWER[data[at + k]]) - 87) % 97
    rest = (rest * 100 + (int(data[at + 2]) - 48) * 10 + int(data[at + 3]) - 48) % 97
    return i if rest == 1 else 0


@numba.njit(cache=True, nogil=True)
def _key(data, begin, at, end):  # type: ignore[no-untyped-def]
    """Whether one of the prefixes of API keys stands here, at the beginning of a word."""
    if at > begin and (_WORD[data[at - 1]] or data[at - 1] == 45):
        return False
    for w in range(len(_KEY_OFFSETS) - 1):
        a, b = _KEY_OFFSETS[w], _KEY_OFFSETS[w + 1]
        if _KEY_BYTES[a] == data[at] and at + (b - a) <= end:
            k = 1
            while k < b - a and data[at + k] == _KEY_BYTES[a + k]:
                k += 1
            if k == b - a:
                return True
    return False


# --------------------------------------------------------------------------------------------- numbers


@numba.njit(cache=True, nogil=True)
def _separator(data, at, end):  # type: ignore[no-untyped-def]
    """(kind, width) of the separator here, if a digit follows it: one of `space - . / ( )`, some of them with spaces."""
    if at >= end:
        return NO_SEPARATOR, 0
    i = at
    space = 0
    if data[i] == 32:
        space = 1
    elif data[i] == 0xC2 and i + 1 < end and data[i + 1] == 0xA0:
        space = 2
    kind = NO_SEPARATOR
    i += space
    if i < end:
        c = data[i]
        if c == 41:  # ), and what may follow it
            kind = CLOSE
            i += 1
            if i < end and (data[i] == 32 or data[i] == 45 or data[i] == 46 or data[i] == 47):
                i += 1
        elif c == 40:
            kind = OPEN
            i += 1
        elif c == 45 or c == 46 or c == 47:
            if space == 0:
                kind = DASH if c == 45 else DOT if c == 46 else SLASH
                i += 1
            elif c != 46 and i + 1 < end and data[i + 1] == 32:
                kind = WIDE
                i += 2
        elif space:
            kind = SPACE
    if i < end and 48 <= data[i] <= 57 and kind != NO_SEPARATOR:
        return kind, i - at
    return NO_SEPARATOR, 0


@numba.njit(cache=True, nogil=True)
def _groups(data, at, end, starts, sizes, after):  # type: ignore[no-untyped-def]
    """(groups found, end) of the number whose first digit stands here. More groups than fit are passed over, and count."""
    n, i = 0, at
    while True:
        first = i
        while i < end and 48 <= data[i] <= 57:
            i += 1
        kind, width = _separator(data, i, end)
        if n < MOST_GROUPS:
            starts[n], sizes[n], after[n] = first, i - first, kind
        n += 1
        if kind == NO_SEPARATOR:
            return n, i
        i += width


@numba.njit(cache=True, nogil=True)
def _luhn(data, starts, sizes, k, m):  # type: ignore[no-untyped-def]
    """Whether the digits of the groups k..m end in the right check digit, and are not all the same."""
    total, odd, same = 0, False, True
    for g in range(m, k - 1, -1):
        for i in range(starts[g] + sizes[g] - 1, starts[g] - 1, -1):
            digit = int(data[i]) - 48
            same &= data[i] == data[starts[k]]
            if odd:
                digit = digit * 2 - 9 if digit > 4 else digit * 2
            total += digit
            odd = not odd
    return total % 10 == 0 and not same


@numba.njit(cache=True, nogil=True)
def _issued(prefix, n):  # type: ignore[no-untyped-def]
    """Whether an issuer has cards of n digits that begin with these six (ISO/IEC 7812)."""
    p4, p3, p2 = prefix // 100, prefix // 1000, prefix // 10000
    if p2 // 10 == 4:  # Visa
        return n == 13 or n == 16 or n == 19
    if 51 <= p2 <= 55 or 2221 <= p4 <= 2720:  # Mastercard
        return n == 16
    if p2 == 34 or p2 == 37:  # American Express
        return n == 15
    if 300 <= p3 <= 305 or p3 == 309 or p2 == 36 or p2 == 38 or p2 == 39:  # Diners Club
        return n == 14 or n == 16 or n == 19
    if p4 == 6011 or 644 <= p3 <= 649 or p2 == 65:  # Discover
        return 16 <= n <= 19
    if 3528 <= p4 <= 3589:  # JCB
        return 16 <= n <= 19
    if p4 == 2131 or p4 == 1800:
        return n == 15
    if p2 == 62 or 810 <= p3 <= 817:  # UnionPay
        return 16 <= n <= 19
    if 2200 <= p4 <= 2204:  # Mir
        return 16 <= n <= 19
    if p4 == 5018 or p4 == 5020 or p4 == 5038 or p4 == 5893 or p4 == 6304 or p4 == 6759 or 6761 <= p4 <= 6763:  # Maestro
        return 12 <= n <= 19
    return False


@numba.njit(cache=True, nogil=True)
def _card(data, begin, starts, sizes, after, n, k):  # type: ignore[no-untyped-def]
    """The last group of a card number whose first group is k, or -1.

    One group, or 4-4-4-4(-3), 4-6-5, 4-6-4 with one kind of separator, space or dash, and no further group of four before or
    after. Sizes that are as often something else (12, 13, 17, 18 digits) need a word that says what it is.
    """
    m, total = k, sizes[k]
    if 12 <= total <= 19:
        if after[k] == DASH or after[k] == DOT or after[k] == SLASH:
            return -1
    elif total == 4 and (after[k] == SPACE or after[k] == DASH):
        kind = after[k]
        if k > 0 and after[k - 1] == kind and sizes[k - 1] == 4:
            return -1
        while m + 1 < n and after[m] == kind and m - k < 4:
            m += 1
        shape = 0
        for g in range(k, m + 1):
            shape = shape * 10 + min(sizes[g], 9)
        m = k + 3
        if shape == 44443:
            m = k + 4
        elif (
            shape // 100 == 465
            or shape // 10 == 465
            or shape == 465
            or shape // 100 == 464
            or shape // 10 == 464
            or shape == 464
        ):
            m = k + 2
        elif shape != 4444 and (shape // 10 != 4444 or shape % 10 == 4):
            return -1
        total = 0
        for g in range(k, m + 1):
            total += sizes[g]
        if after[m] == DASH or after[m] == DOT or after[m] == SLASH:
            return -1
    else:
        return -1
    prefix, taken = 0, 0
    for g in range(k, m + 1):
        for i in range(starts[g], starts[g] + sizes[g]):
            if taken < 6:
                prefix = prefix * 10 + int(data[i]) - 48
                taken += 1
    if not (_issued(prefix, total) and _luhn(data, starts, sizes, k, m)):
        return -1
    if total == 12 or total == 13 or total == 17 or total == 18:
        return m if _near(data, begin, starts[k], CARD_WINDOW, _CARD_OFFSETS, _CARD_BYTES) else -1
    return m


@numba.njit(cache=True, nogil=True)
def _phone(data, begin, starts, sizes, after, n, k, plus):  # type: ignore[no-untyped-def]
    """The last group of a telephone number whose first group is k, or -1. plus: a + stands before it.

    1. +, country code, 8 to 15 digits (11 for +1); one unbroken group has 10 or more and no string of zeros at its end.
    2. North America: 3-3-4 with dashes or dots, or the first three in parentheses; perhaps a 1 before it. Neither the area
       nor the exchange begins with 0 or 1, and 555-0100 to 0199 are left, which belong to nobody.
    3. A leading 0: three groups or more, 9 to 11 digits, one separator (space, dash, dot); or the first group ends in a
       parenthesis or, with at least 3 digits, in a slash, 9 to 12 digits.
    4. 7 to 13 digits after a word such as "tel", unless they are a date.
    """
    d0 = data[starts[k]]
    if plus:
        d1 = data[starts[k] + 1] if sizes[k] > 1 else np.uint8(49)
        if d0 == 48 or (d1 == 56 and d0 == 50) or (d0 == 56 and (d1 == 51 or d1 == 57)):  # no country: 0, 28, 83, 89
            return -1
        most = 11 if d0 == 49 else 15
        m, total = k, sizes[k]
        while m + 1 < n and total + sizes[m + 1] <= most and total < (11 if d0 == 49 else 15):
            m += 1
            total += sizes[m]
        if total > most or total < 8 or (d0 == 49 and total != 11):
            return -1
        if m == k:
            i = starts[k] + sizes[k] - 4
            if total < 10 or (data[i] == 48 and data[i + 1] == 48 and data[i + 2] == 48 and data[i + 3] == 48):
                return -1
        return m
    q = k
    if sizes[k] == 1 and d0 == 49 and k + 1 < n and after[k] != SLASH and after[k] != WIDE:
        q = k + 1
    if q + 2 < n and sizes[q] == 3 and sizes[q + 1] == 3 and sizes[q + 2] == 4:
        one, two = after[q], after[q + 1]
        shaped = (one == two and one in (DASH, DOT)) or (two == DASH and one in (SPACE, SLASH))
        shaped |= one == CLOSE and two in (DASH, DOT, SPACE)
        shaped |= q > k and one == two and one == SPACE
        x = starts[q + 1]
        fiction = (
            data[x] == 53
            and data[x + 1] == 53
            and data[x + 2] == 53
            and data[starts[q + 2]] == 48
            and data[starts[q + 2] + 1] == 49
        )
        if shaped and data[starts[q]] > 49 and data[x] > 49 and not fiction:
            return q + 2
    if d0 == 48 and sizes[k] >= 2 and data[starts[k] + 1] != 48 and after[k] != NO_SEPARATOR:
        kind = after[k]
        m, total, even, pairs, rising = k, sizes[k], sizes[k] <= 5, sizes[k] == 2, True
        last = 0
        loose = kind in (CLOSE, SLASH, WIDE)
        while m + 1 < n and (m == k or (after[m] in (SPACE, DASH) if loose else after[m] == kind)):
            if loose and total + sizes[m + 1] > 12:
                break
            m += 1
            total += sizes[m]
            even &= 2 <= sizes[m] <= 4
            pairs &= sizes[m] == 2
        if loose:
            if (
                m > k
                and 9 <= total <= 12
                and (kind == CLOSE or sizes[k] >= 3)
                and sizes[k] <= 6
                and not (kind == SLASH and m > k + 3)
            ):
                return m
        elif m - k >= 2 and 9 <= total <= 11 and even and not (kind == DASH and sizes[k] == 3 and sizes[k + 1] == 2):
            if pairs:  # 01 08 17 23 42 are the numbers of a lottery
                for g in range(k, m + 1):
                    value = int(data[starts[g]]) * 10 + int(data[starts[g] + 1])
                    rising &= value > last
                    last = value
            if not (pairs and rising):
                return m
    if k == 0:
        m, total = k, sizes[k]
        while m + 1 < n and total + sizes[m + 1] <= 13 and after[m] != OPEN and not (after[m] == WIDE and total >= 7):
            m += 1
            total += sizes[m]
        dated = m - k == 2 and (
            (sizes[k] == 4 and sizes[k + 1] <= 2 and sizes[m] <= 2) or (sizes[k] <= 2 and sizes[k + 1] <= 2 and sizes[m] == 4)
        )
        if 7 <= total <= 13 and not dated and _near(data, begin, starts[k], PHONE_WINDOW, _PHONE_OFFSETS, _PHONE_BYTES):
            return m
    return -1


@numba.njit(cache=True, nogil=True)
def _put(found, n, row, start, end, kind):  # type: ignore[no-untyped-def]
    if n == len(found):
        more = np.empty((2 * n, 4), np.int32)
        more[:n] = found
        found = more
    found[n, 0], found[n, 1], found[n, 2], found[n, 3] = row, start, end, kind
    return found, n + 1


@numba.njit(cache=True, nogil=True)
def candidates(offsets: np.ndarray, data: np.ndarray, wanted: int) -> np.ndarray:
    """(row, start, end, kind) as int32, in the order of their starts within a row but for addresses. wanted: bits of WANT_*.

    IPV4, PHONE, CARD and IBAN are decided. EMAIL and IPV6 have the right shape; KEY is where a prefix stands, with an empty
    span. Spans may overlap.
    """
    found = np.empty((256, 4), np.int32)
    n = 0
    starts, sizes = np.zeros(MOST_GROUPS, np.int64), np.zeros(MOST_GROUPS, np.int64)
    after = np.zeros(MOST_GROUPS, np.int64)
    places = np.empty(_BLOCK, np.int64)
    for row in range(len(offsets) - 1):
        begin, end = int(offsets[row]), int(offsets[row + 1])
        passed = passed_ip = begin  # numbers, and addresses, are looked for behind these
        for base in range(begin, end - 1, _BLOCK):
            block = data[base : min(base + _BLOCK + 1, end)]
            n_places = np.uint64(0)
            for i in range(len(block) - 1):  # without a branch: most bytes are nothing
                places[n_places] = base + i
                n_places += np.uint64(_NOTED[int(block[i]) << 8 | block[i + 1]])
            for place in range(n_places):
                at = places[place]
                kind = _KIND[data[at]]
                if kind == _A_KEY:
                    if wanted & WANT_KEY and _key(data, begin, at, end):
                        found, n = _put(found, n, row, at, at, KEY)
                    continue
                if kind == _AN_AT:
                    if wanted & WANT_EMAIL:
                        a, b = _email(data, begin, at, end)
                        if b:
                            found, n = _put(found, n, row, a, b, EMAIL)
                    continue
                if kind == _A_COLON:
                    if wanted & WANT_IP and at > begin and _HEX[data[at - 1]]:
                        a, b = _ipv6(data, begin, at, end)
                        if b:
                            found, n = _put(found, n, row, a, b, IPV6)
                    continue
                inside = at > begin and _WORD[data[at - 1]]
                if kind == _A_DIGIT and at >= passed_ip:
                    if wanted & WANT_IBAN and inside and at - 2 >= begin and _LETTER[data[at - 1]] and _LETTER[data[at - 2]]:
                        b = _iban(data, begin, at - 2, end)
                        if b:
                            found, n = _put(found, n, row, at - 2, b, IBAN)
                            passed = passed_ip = b
                            continue
                    b, public = _ipv4(data, begin, at, end)
                    if b:
                        if public and wanted & WANT_IP:
                            found, n = _put(found, n, row, at, b, IPV4)
                        passed, passed_ip = max(passed, b), b
                if at < passed or (kind == _A_DIGIT and inside):
                    continue
                first, plus = at, False  # a number, perhaps after + and (
                while first < end and first - at < 3 and (data[first] == 43 or data[first] == 40):
                    plus |= data[first] == 43
                    first += 1
                if first >= end or not 48 <= data[first] <= 57:
                    continue
                n_groups, stop = _groups(data, first, end, starts, sizes, after)
                alone = n_groups <= MOST_GROUPS and _stands_alone(data, begin, at, stop, end)
                if alone and wanted & (WANT_PHONE | WANT_CARD):
                    k = 0
                    while k < n_groups:
                        m = -1
                        what = CARD
                        if wanted & WANT_CARD and not (plus and k == 0):
                            m = _card(data, begin, starts, sizes, after, n_groups, k)
                        if m < 0 and wanted & WANT_PHONE:
                            what = PHONE
                            m = _phone(data, begin, starts, sizes, after, n_groups, k, plus and k == 0)
                            if m >= 0 and after[m] not in (NO_SEPARATOR, SPACE, OPEN, WIDE):
                                m = -1
                        if m >= 0:
                            a, b = starts[k], starts[m] + sizes[m]
                            if what == PHONE:
                                if k == 0:
                                    a = at
                                elif data[a - 1] == 40:
                                    a -= 1
                                if data[a] == 40 and 41 not in data[a:b]:
                                    a += 1
                                if (
                                    m + 1 == n_groups and b + 1 < end and data[b] == 120 and 48 <= data[b + 1] <= 57
                                ):  # x, an extension
                                    b += 2
                                    while b < end and 48 <= data[b] <= 57:
                                        b += 1
                            found, n = _put(found, n, row, a, b, what)
                            k = m + 1
                            continue
                        while k + 1 < n_groups and after[k] not in (SPACE, OPEN, CLOSE, WIDE):
                            k += 1
                        k += 1
                passed = stop
    return found[:n]


@numba.njit(cache=True, nogil=True)
def _stands_alone(data, begin, at, stop, end):  # type: ignore[no-untyped-def]
    """Whether a number is no part of a word, a path, a price, or a longer number."""
    if at > begin:
        before = data[at - 1]
        if not _OPEN[before]:
            return False
        if (before == 46 or before == 44 or before == 58) and at - 1 > begin and 48 <= data[at - 2] <= 57:
            return False
    if stop < end:
        c = data[stop]
        if _WORD[c] or c == 37 or c == 64:
            return c == 120 and stop + 1 < end and 48 <= data[stop + 1] <= 57  # x and an extension
        if (c == 45 or c == 46 or c == 47 or c == 44 or c == 58) and stop + 1 < end and _WORD[data[stop + 1]]:
            return False
    return True
