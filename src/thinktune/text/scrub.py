"""Secrets, e-mail addresses and phone numbers, replaced by what they were.

Prep calls `scrub(text, kinds)` on each text of a row, where the recipe asks for it, adds up the
counts and puts them on the data card. Secrets are known by their shape: keys of well-known
services, private keys, tokens, passwords in addresses and in assignments. A shape is no proof, and
what has none is not found.

All patterns take time in proportion to the text: repetitions are bounded, or what they have passed
is not looked at again.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Kind = Literal["secrets", "emails", "phones"]
PLACEHOLDERS: dict[Kind, str] = {
    "secrets": "[secret]",
    "emails": "[e-mail address]",
    "phones": "[phone number]",
}


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A text without what was asked to be taken out."""

    text: str
    counts: Counter[str]
    """How many were replaced, by what they are: `API key`, `JWT`, `e-mail address`, …"""


_KEYS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    r"gh[opsru]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    r"glpat-[A-Za-z0-9_-]{20,255}",
    r"xox[a-z]-[A-Za-z0-9-]{10,255}",  # Slack
    r"sk-[A-Za-z0-9_-]{20,255}",  # OpenAI, Anthropic and others
    r"hf_[A-Za-z0-9]{30,64}",
    r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{20,64}|ya29\.[A-Za-z0-9_-]{20,255}",  # Google
    r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,255}",  # Stripe
    r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,255}|dckr_pat_[A-Za-z0-9_-]{20,64}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",  # SendGrid
)
_NAMES = (
    "password passwd secret api_key api-key apikey access_key access_token auth_token"
    " client_secret secret_key private_key secret_access_key AccountKey"
)
_SPELLED = {s for n in _NAMES.split() for s in (n, n.capitalize(), n.upper())}
_NAME = "|".join(sorted(_SPELLED, reverse=True))
_SECRETS = re.compile(
    rf"(?P<key>{'|'.join(_KEYS)})"
    r"|-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?P<private>"
    r"(?:\s{0,4}[A-Za-z-]{1,40}: [^\n]{0,200}\n){0,8}[^-]{0,20000})"
    r"|(?P<jwt>eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]{8,}+){0,2})"
    r"|(?:bearer|Bearer|BEARER)\s{1,4}(?P<bearer>[A-Za-z0-9._~+/=-]{20,4000})"
    r"|://[^\s/:@]{1,100}:(?P<url>[^\s/@]{1,200})@"
    rf"|(?:{_NAME})[\"']?\s{{0,4}}[:=]{{1,2}}\s{{0,4}}[\"']?(?P<named>[^\s\"',;()<>{{}}$]{{8,255}})"
)
_NAMED = {
    "key": "API key",
    "private": "private key",
    "jwt": "JWT",
    "bearer": "bearer token",
    "url": "password in an address",
    "named": "secret in an assignment",
}
_MIXED = ("key", "bearer", "named")
"""What must have letters and digits, or it is words: `sk-learn-like-estimators-with-names`."""
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"
    r"(?![A-Za-z0-9-])"
)
_PHONE = re.compile(
    r"(?<![\w+.-])(?:\+\d[\d ().-]{6,22}\d|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4})"
    r"(?![\w-])"
)
_PHONE_DIGITS = range(8, 16)


def scrub(text: str, kinds: Collection[Kind]) -> Scrubbed:
    """The text with what is of these kinds replaced, and how much that was."""
    counts: Counter[str] = Counter()

    def secret(match: re.Match[str]) -> str:
        kind = match.lastgroup or ""
        found = match[kind]
        inside = kind == "key" and match.start() and text[match.start() - 1].isalnum()
        if inside or not _likely(kind, found):
            return match[0]
        counts[_NAMED[kind]] += 1
        start = match.start(kind) - match.start()
        end = start + len(found)
        return match[0][:start] + PLACEHOLDERS["secrets"] + match[0][end:]

    def phone(match: re.Match[str]) -> str:
        if sum(character.isdigit() for character in match[0]) not in _PHONE_DIGITS:
            return match[0]
        counts["phone number"] += 1
        return PLACEHOLDERS["phones"]

    if "secrets" in kinds:
        text = _SECRETS.sub(secret, text)
    if "emails" in kinds and "@" in text:
        text, count = _EMAIL.subn(PLACEHOLDERS["emails"], text)
        counts += Counter({"e-mail address": count})  # keeps no zeros
    if "phones" in kinds:
        text = _PHONE.sub(phone, text)
    return Scrubbed(text, counts)


def _likely(kind: str, found: str) -> bool:
    """Whether what has the shape of a secret is more than words."""
    if kind in _MIXED:
        return any(c.isdigit() for c in found) and any(c.isalpha() for c in found)
    if kind == "jwt":
        return found.count(".") == 2 and ".eyJ" in found
    return bool(found.strip())
