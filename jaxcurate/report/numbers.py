"""Formats of the numbers in the page."""

import math

MINUS = "\N{MINUS SIGN}"


def count(value: float) -> str:
    """Returns a number with thousands separators, and with one decimal if it is not whole.

    Examples:
        >>> count(1234567), count(33.333)
        ('1,234,567', '33.3')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def percent(fraction: float) -> str:
    """Returns a fraction in percent with three digits, never rounded to 0 or 100.

    Examples:
        >>> percent(0.1234).replace("\N{NO-BREAK SPACE}", " ")
        '12.3 %'
        >>> percent(0.99999).replace("\N{NO-BREAK SPACE}", " ")
        '> 99.9 %'
    """
    value = 100 * fraction
    if 99.95 <= value < 100:
        return "> 99.9\N{NO-BREAK SPACE}%"
    if 0 < value < 0.001:
        return "< 0.001\N{NO-BREAK SPACE}%"
    return f"{value:.3g}\N{NO-BREAK SPACE}%"


def signed(value: float) -> str:
    """Returns a difference with its sign and three decimals.

    Examples:
        >>> signed(0.0312)
        '+0.031'
    """
    if not math.isfinite(value):
        return ("+" if value > 0 else MINUS) + "\N{INFINITY}"
    return f"{value:+.3f}".replace("-", MINUS)


def figure(value: float) -> str:
    """Returns a measured value of any size with four digits.

    Examples:
        >>> figure(123.456)
        '123.5'
    """
    return f"{value:.4g}".replace("-", MINUS)


def decimals(value: float) -> str:
    """Returns a value between 0 and 1 with three decimals.

    Examples:
        >>> decimals(0.98765)
        '0.988'
    """
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """Returns a time in the one or two largest units that it has.

    Examples:
        >>> duration(3.21), duration(754), duration(7380)
        ('3.2 s', '12 min 34 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def short(text: str, length: int = 28) -> str:
    """Returns a text on one line, with its middle left out if it has over `length` characters.

    Examples:
        >>> short("folder/a_long_name.png", length=11)
        'folde…e.png'
    """
    text = " ".join("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
                    .split())  # fmt: skip
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
