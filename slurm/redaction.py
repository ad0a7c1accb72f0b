"""Secrets in shell lines, hidden before the lines are stored or shown; where in doubt, too much is hidden."""

import re

HIDDEN = "***"

_SECRET_PART = re.compile(
    r"""(?:.*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL) | (?:API|ACCESS|PRIVATE|AUTH|SSH)?KEY
        |PWD|PASS|SSHPASS|O?AUTH)S? | AUTHORI[SZ]ATION""",
    re.VERBOSE | re.IGNORECASE,
)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of SNAKE_CASE, kebab-case and camelCase

# What stands before a value. A name is never the tail of a word, and never what `$NAME` or `${NAME}` reads.
_NAME = r"(?<![\w$.-])(?<!\$\{)-{0,2}(?P<name>[A-Za-z_][\w.-]*)"
_ASSIGNMENT = re.compile(_NAME + r"(?:\[[^]\n]*\])?\+?=(?!=)")  # NAME=, NAME[0]=, --name=
_OPTION = re.compile(r"(?<![\w$.-])--?(?P<name>[A-Za-z][\w.-]*)(?:[ \t]|\\\n)+(?!-)")  # --name value
_HEADER = re.compile(  # Authorization: Bearer, X-Api-Key:, "name":, name: (with a space)
    _NAME + r"""(?:(?<=-KEY):|(?<=-TOKEN):|(?<=AUTHORIZATION):|["']\s*:|:(?=[ \t]))[ \t]*"""
    r"(?:(?:BEARER|BASIC|DIGEST|TOKEN)[ \t]+)?",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"\bwandb[ \t]+(?P<name>login)(?:[ \t]+-\S+)*[ \t]+(?!-)")

# What a shell replaces by something else, which is no secret in itself.
_COMMAND = r"\$\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|`[^`]*`"
# but not ${NAME:-literal}
_EXPANSION = r"\$(?:[A-Za-z_]\w*|\d)|\$\{\w+(?::?\?[^{}]*|:?[-=+](?:\$\w+|\$\{\w+\}|\*\*\*)?)?\}"
_REFERENCE = rf"(?:{_EXPANSION}|{_COMMAND})"
_REFERENCES = re.compile(rf'(?P<quote>(?:\\?")?){_REFERENCE}(?:[:/,@]*{_REFERENCE})*(?P=quote)')
_QUOTED = re.compile(r"(?P<mark>\\?[\"'])(?:\\.|[^\\\n])*?(?P=mark)")
_ALREADY = re.compile(r"\*\*\*(?![^\s,;&|)}\"'])")
_DEFAULT = re.compile(r"(?P<start>\$\{(?P<name>\w+):?[-=+])(?P<value>[^{}]+)(?=\})")

# One word of a shell line, by the quotation mark that is open where it begins.
_BARE = rf"\\[\s\S]|{_COMMAND}|\$\{{[^{{}}]*\}}|[^\s;&|()<>\"'`\\]"
_WORDS = {
    "": re.compile(
        rf"(?:\"(?:\\[\s\S]|{_COMMAND}|[^\"\\])*+\"|'[^']*'|\([^()]*\)|[\"'][^\n]+|{_BARE})"
        rf"(?:\"(?:\\.|{_COMMAND}|[^\"\\\n])*+\"|'[^'\n]*'|{_BARE})*"
    ),
    '"': re.compile(rf"(?:\\\"(?:[^\"\\]|\\[^\"])*\\\"|'[^'\"]*'|{_BARE})+"),
    "'": re.compile(rf"(?:\"[^'\"]*\"|{_BARE})+"),
}

_URL = re.compile(r"(?P<scheme>\b[A-Za-z][\w+.-]*://)(?P<user>[^\s/:@\"'`]*)(?::(?P<password>[^\s/\"'`]*))?@(?=[^\s@])")
_KNOWN_SHAPES = re.compile(r"\b(?:hf_|gh[a-z]_|github_pat_|glpat-|sk-(?:proj-|ant-)?|xox[a-z]-|AKIA)[A-Za-z0-9_]{16,}")


def redacted(text: str) -> str:
    """Return shell lines with every secret value replaced by `***`.

    Secret are the values of variables, options, headers and keys with a name like `HF_TOKEN` or `--password` (see
    `is_secret_name`), the credentials in URLs, and what looks like the tokens of well-known services. `$HF_TOKEN`,
    `${HF_TOKEN}` and `$(cat file)` stay: they say where a secret is, not what it is.
    """
    text = _URL.sub(_without_credentials, text)
    text = _DEFAULT.sub(_without_default, text)
    for prefix in (_ASSIGNMENT, _OPTION, _HEADER, _LOGIN):
        text = _without_values(text, prefix)
    return _KNOWN_SHAPES.sub(HIDDEN, text)


def is_secret_name(name: str) -> bool:
    """Return whether a variable or option of this name holds a secret: one of its words is KEY, TOKEN, AUTH, ...

    Words are parted by `_`, `-`, `.` or capitals: `HF_TOKEN` and `apiKey` are secret, `TOKENIZERS_PARALLELISM` is not.
    `PWD`, the working folder, is not either.
    """
    return name.upper() != "PWD" and any(_SECRET_PART.fullmatch(part) for part in _PARTS.findall(name))


def _without_credentials(url: re.Match[str]) -> str:
    scheme, user, password = url["scheme"], url["user"], url["password"]
    if password:
        return url[0] if _REFERENCES.fullmatch(password) else f"{scheme}{user}:{HIDDEN}@"
    is_token = user and scheme.startswith("http") and not _REFERENCES.fullmatch(user)  # git@ of ssh is none
    return f"{scheme}{HIDDEN}@" if is_token else url[0]


def _without_default(expansion: re.Match[str]) -> str:
    """Hide the literal in `${HF_TOKEN:-literal}`."""
    if not is_secret_name(expansion["name"]) or _REFERENCES.fullmatch(expansion["value"]):
        return expansion[0]
    return expansion["start"] + HIDDEN


def _without_values(text: str, prefix: re.Pattern[str]) -> str:
    """Hide the value after each match of `prefix` that has a secret name."""
    done, position = [], 0
    while match := prefix.search(text, position):
        begin = end = match.end()
        if prefix is _LOGIN or is_secret_name(match["name"]):
            end = _end_of_value(text, match, prefix is _HEADER)
        is_said = _REFERENCES.fullmatch(text, begin, end) or _ALREADY.match(text, begin)
        is_secret = end > begin and not is_said
        done += [text[position:begin], HIDDEN if is_secret else ""]
        position = end if is_secret else begin
    return "".join([*done, text[position:]])


def _end_of_value(text: str, match: re.Match[str], is_header: bool) -> int:
    """Return where the value after `match` ends: with its word, or with the quotation that holds it and its name."""
    begin = match.end()
    if is_header and (quoted := _QUOTED.match(text, begin)):
        return quoted.end()
    quote = _open_quote(text[text.rfind("\n", 0, begin) + 1 : begin])
    word = _WORDS[quote].match(text, begin) or _WORDS[""].match(text, begin)
    is_quoted_whole = (
        quote and (is_header or text[match.start() - 1] == quote) and text[begin : begin + 1] not in "\"'\\"
    )
    if word is None or not is_quoted_whole or _REFERENCES.fullmatch(word[0]):
        return word.end() if word else begin
    inside = re.split(rf"(?<!\\)[{quote}\n]", text[word.end() :], maxsplit=1)[0]
    return word.end() + len(inside)


def _open_quote(line: str) -> str:
    """Return the quotation mark that is open at the end of `line`, or nothing."""
    quote = ""
    for mark in re.findall(r"\\.|[\"']", line):
        if mark == quote:
            quote = ""
        elif not quote and mark in "\"'":
            quote = mark
    return quote
