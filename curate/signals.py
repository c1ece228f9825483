# ruff: noqa: E501 - a table
"""The signals: what `signals` measures of a text, by name, with type, formula and source.

This page is data. `curate.kernels.signals` computes it, `curate.stages.signals` writes it, `curate.stages.rules` judges by it,
and the tests hold it against a plain reading of the formulas. Words used in the formulas:

    n              number of characters (Unicode code points) of the text
    words          the text cut by the word rule of its language (`curate.lexicon`), whitespace left out
    real words     words with at least one character that is neither punctuation nor a control character
    lines          `str.splitlines()`; \\n-lines are the text split at "\\n", without an empty one behind the last "\\n"
    plain words    runs of word characters (letters, digits, marks of writing, `_`), or of other characters but whitespace
    bare words     whitespace-separated words in lower case with ASCII punctuation deleted; what is empty then is no word
    chars(x)       characters of x, summed where x is several

A ratio whose denominator is 0 is 0. Shares lie in [0, 1], unless the formula can exceed it (n-gram shares by Gopher count
overlaps). Ratios are float32, computed as float64 and rounded once; counts are uint32.
"""

from __future__ import annotations

from dataclasses import dataclass

GOPHER = "Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446, table A1 and appendix A.1.1)"
C4 = "C4 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.2, and its code in TensorFlow Datasets)"
FINEWEB = "FineWeb (Penedo et al. 2024, https://arxiv.org/abs/2406.17557, section 3.6)"
REDPAJAMA = "RedPajama-v2 (Weber et al. 2024, https://arxiv.org/abs/2411.12372, appendix)"
OWN = "own"


@dataclass(frozen=True)
class Signal:
    """One column: its name, `uint32`, `uint8` or `float32`, the family that it belongs to, the formula, and the source."""

    name: str
    dtype: str
    family: str
    formula: str
    source: str


def _family(family: str, source: str, rows: str) -> list[Signal]:
    signals = []
    for row in rows.strip().splitlines():
        name, dtype, formula = (part.strip() for part in row.split("|"))
        signals.append(Signal(name, dtype, family, formula, source))
    return signals


_BASE = """
text_chars                        | uint32  | n
word_rule                         | uint8   | which rule cut the words: 0 unknown language, 1 written with spaces, 2 English, 3 written without spaces
"""

_GOPHER = """
gopher_words                      | uint32  | real words
gopher_mean_word_length           | float32 | chars(real words) / real words
gopher_hash_ratio                 | float32 | "#" / words
gopher_ellipsis_ratio             | float32 | ("..." found from the left without overlap + "…") / words
gopher_bullet_line_share          | float32 | lines that begin, after whitespace, with "•" or "-" / lines
gopher_ellipsis_line_share        | float32 | lines that end, before whitespace, with "..." or "…" / lines
gopher_alpha_word_share           | float32 | words with a letter / words
gopher_stop_words                 | uint32  | different stop words among the words: for English the eight of the paper, else the language's list; null without one
"""

_GOPHER_REPETITION = """
gopher_dup_line_share             | float32 | lines that stood earlier / lines; here lines are the text split at runs of "\\n"
gopher_dup_line_char_share        | float32 | chars(lines that stood earlier) / n
gopher_dup_para_share             | float32 | paragraphs that stood earlier / paragraphs; the text, stripped, split at runs of two or more "\\n"
gopher_dup_para_char_share        | float32 | chars(paragraphs that stood earlier) / n
""" + "\n".join(
    f"gopher_top_{k}gram_char_share | float32 | count of the most frequent {k} words in a row (the first of equals) * their length joined by spaces / n"
    for k in (2, 3, 4)
) + "\n" + "\n".join(
    f"gopher_dup_{k}gram_char_share | float32 | chars of {k} words in a row that stood earlier, read from the left, going on behind each one found / n"
    for k in range(5, 11)
)  # fmt: skip

_C4 = """
c4_lines                          | uint32  | lines
c4_lines_long_word                | uint32  | lines with a whitespace-separated word of more than 1,000 characters
c4_lines_no_end                   | uint32  | lines that, stripped and without citation marks, do not end in an end mark of the language (English: . ? ! " '), or end in "..."
c4_lines_few_words                | uint32  | lines of fewer than 3 whitespace-separated words
c4_lines_javascript               | uint32  | lines with "javascript", in any case of ASCII letters
c4_lines_policy                   | uint32  | lines with one of the six phrases on terms, privacy and cookies, in any case
c4_lines_kept                     | uint32  | lines that C4 keeps: none of the five above
c4_lorem_ipsum                    | uint32  | lines with "lorem ipsum" among those with no long word, an end, and enough words
c4_curly_bracket                  | uint32  | lines with "{" among those with no long word, an end, enough words, and no "javascript"
c4_sentences                      | uint32  | sentences in the lines that C4 keeps
c4_any_end_lines_kept             | uint32  | as c4_lines_kept, for lines with any end
c4_any_end_lorem_ipsum            | uint32  | as c4_lorem_ipsum, for lines with any end
c4_any_end_curly_bracket          | uint32  | as c4_curly_bracket, for lines with any end
c4_any_end_sentences              | uint32  | as c4_sentences, for lines with any end
c4_bad_words                      | uint32  | entries of the bad-word list found between non-word characters (anywhere in Chinese, Japanese, Thai); null without a list
"""

_FINEWEB = """
fineweb_line_punct_ratio          | float32 | \\n-lines that end in terminal punctuation / \\n-lines; blank lines left out here and below
fineweb_short_line_ratio          | float32 | \\n-lines of at most 30 characters / \\n-lines
fineweb_char_dup_ratio            | float32 | chars(\\n-lines that stood earlier) / characters other than "\\n"
fineweb_new_line_ratio            | float32 | "\\n" / words
"""

_REDPAJAMA = """
rps_doc_word_count                | uint32  | bare words
rps_doc_mean_word_length          | float32 | chars(bare words) / bare words
rps_doc_num_sentences             | uint32  | stretches between . ! ? that hold a word character
rps_doc_symbol_to_word_ratio      | float32 | ("#" + "..." + "…") / plain words
rps_doc_frac_lines_end_with_ellipsis | float32 | \\n-lines that end, before whitespace, with "..." or "…" / \\n-lines
rps_doc_frac_no_alph_words        | float32 | plain words without an ASCII letter / plain words
rps_doc_frac_all_caps_words       | float32 | plain words with an upper-case and no lower-case letter / plain words
rps_doc_frac_unique_words         | float32 | different bare words / bare words
rps_doc_unigram_entropy           | float32 | - sum of p ln p over the shares p of the different bare words
rps_doc_stop_word_fraction        | float32 | plain words on the language's list of stop words / plain words; null without a list
rps_doc_lorem_ipsum               | float32 | "lorem ipsum" as two bare words / chars of the bare words joined by spaces
rps_doc_curly_bracket             | float32 | ("{" + "}") / n
rps_lines_ending_with_terminal_punctuation_mark | float32 | \\n-lines that end, before whitespace, with . ! ? or ” / \\n-lines
rps_lines_javascript_counts       | uint32  | bare words that are "javascript"
rps_lines_num_words               | float32 | bare words / \\n-lines
rps_lines_numerical_chars_fraction | float32 | numeric characters / chars of the bare words joined by spaces
rps_lines_start_with_bulletpoint  | float32 | \\n-lines that begin, after whitespace, with one of • ‣ ▶ ◀ ◦ ■ □ ▪ ▫ – / \\n-lines
rps_lines_uppercase_letter_fraction | float32 | upper-case characters / n
""" + "\n".join(
    f"rps_doc_frac_chars_top_{k}gram | float32 | count of the most frequent {k} bare words in a row (the first of equals; at least twice) * their chars / chars(bare words)"
    for k in (2, 3, 4)
) + "\n" + "\n".join(
    f"rps_doc_frac_chars_dupe_{k}grams | float32 | chars(bare words inside some {k} bare words in a row that occur twice or more) / chars(bare words)"
    for k in range(5, 11)
)  # fmt: skip

SIGNALS: tuple[Signal, ...] = (
    *_family("base", OWN, _BASE),
    *_family("gopher", GOPHER, _GOPHER),
    *_family("gopher_repetition", GOPHER, _GOPHER_REPETITION),
    *_family("c4", C4, _C4),
    *_family("fineweb", FINEWEB, _FINEWEB),
    *_family("redpajama", REDPAJAMA, _REDPAJAMA),
)
BY_NAME = {signal.name: signal for signal in SIGNALS}
FAMILIES = ("gopher", "gopher_repetition", "c4", "fineweb", "redpajama")

# word_rule
UNKNOWN, SPACED, ENGLISH, UNSPACED = 0, 1, 2, 3

# the eight words of which Gopher wants two, in English
GOPHER_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
