"""What get_template_version.sh prints: template and scripts, exactly two words around one `&`.  Pure."""


def versions(release: str, scripts: str) -> str:
    """One line.  `release` is the first line of the release file, `scripts` the signature of what runs here.

    ValueError if either says nothing: the reader would find one word where it wants two.
    """
    template, signature = (" ".join(text.replace("&", " ").split()) for text in (release, scripts))
    if not template or not signature:
        raise ValueError("the template's release is not known" if not template else "no signature")
    return f"{template}&{signature}\n"
