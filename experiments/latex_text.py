"""Text for LaTeX: users' names and the signs of tables, so that any engine compiles them."""

import re
import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after a line's end it would be an optional argument
    "]": "{]}",
    "*": r"\textasteriskcentered{}",
}
_SIGNS = {
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "\N{NO-BREAK SPACE}": "~",
}
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_CAPITALS = "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
_MINUS = re.compile(r"(?<![\w.}-])-(?=\d)")  # of a number, no hyphen
_EXPONENT = re.compile(r"(?<=\d)e([+-]\d+)\b")
_LAST_LATIN = 0x17F  # of Latin Extended-A: what a plain LaTeX document reads


def latex(text: str) -> str:
    """Return text with everything escaped that TeX would take for a command.

    Latin letters with accents stay (every TeX since 2018 reads UTF-8); what no usual font has is named by its code.
    """
    words = "".join(_character(sign) for sign in " ".join(text.split()))
    return _MINUS.sub("$-$", words)


def latex_number(text: str) -> str:
    """Return a table's number, `-9.5 ± 1.2`, in math mode; a dash, and what has a unit, as text."""
    plain = _EXPONENT.sub("", text)
    if not any(sign.isdigit() for sign in plain) or any(sign.isalpha() for sign in plain):
        return latex(text)
    number = text.replace("±", r"\pm").replace(",", "{,}")
    return f"${powers_of_ten(number)}$"


def powers_of_ten(text: str) -> str:
    """Return numbers for math mode with their exponents as LaTeX writes them: `4.2e-07` as 4.2 times a power of ten."""
    return _EXPONENT.sub(lambda found: rf"\times 10^{{{int(found[1])}}}", text)


def _character(sign: str) -> str:
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if sign in _SIGNS:
        return _SIGNS[sign]
    if sign.isascii():
        return sign
    if (letter := _greek(sign)) is not None:
        return letter
    if sign.isalpha() and ord(sign) <= _LAST_LATIN:
        return sign
    plain = "".join(part for part in unicodedata.normalize("NFKD", sign) if part.isascii())
    return plain or rf"\texttt{{U+{ord(sign):04X}}}"


def _greek(sign: str) -> str | None:
    name = unicodedata.name(sign, "").replace("LAMDA", "LAMBDA")
    kind, _, letter = name.rpartition(" ")
    if kind == "GREEK SMALL LETTER" and letter.lower() in _GREEK.split():
        return f"$\\{letter.lower()}$"
    if kind == "GREEK CAPITAL LETTER" and letter.capitalize() in _CAPITALS.split():
        return f"$\\{letter.capitalize()}$"
    return None
