"""Answer files of Windows Setup: where they are, and whether they hold passwords.

Windows Setup keeps the one that it was given, and looks for others in known places (Microsoft,
"Windows Setup: implicit answer file search order"). Passwords in them are plain or base64.
"""

import re

from pipeline.guest.windows.tree import Tree, decoded, is_file

PATTERNS = (
    "/*unattend*.xml",
    "/Windows/Panther/*.xml",
    "/Windows/Panther/Unattend/*.xml",
    "/Windows/System32/Sysprep/*.xml",
    "/Windows/System32/Sysprep/Panther/*.xml",
)
# where Windows keeps the password of an AutoLogon that an answer file asked for
WINLOGON = "Microsoft\\Windows NT\\CurrentVersion\\Winlogon"
AUTO_LOGON = "DefaultPassword"
OPERATION = "windows-unattend"  # removes them
LIMIT = 4 << 20  # bytes of a file that are looked at
TAG = re.compile(r"<(/?)([^<>\s/]*+)[^<>]*+>")
CDATA = "![cdata["
DELETED = "*SENSITIVE*DATA*DELETED*"  # what Windows Setup puts in the place of one that it used


def answer_files(tree: Tree) -> list[str]:
    found = {path for pattern in PATTERNS for path in tree.matching(pattern)}
    return sorted(path for path in found if is_file(tree.guest, path))


def with_passwords(tree: Tree) -> list[str]:
    """The answer files that hold a password."""
    return [
        path for path in answer_files(tree) if holds_password(decoded(tree.guest.read(path, LIMIT)))
    ]


def holds_password(answers: str) -> bool:
    """By the elements' names: any that ends in Password, with something in it but PlainText, which
    says whether it is encoded. One pass, whatever the file is: it need not be XML."""
    inside, text_from = "", 0
    ignored = False
    for tag in TAG.finditer(answers):
        name = tag[2].rpartition(":")[2].lower()
        text = answers[text_from : tag.start()].strip()
        if inside and not ignored and ((text and text != DELETED) or name.startswith(CDATA)):
            return True
        text_from = tag.end()
        if name == "plaintext":
            ignored = not tag[1]
        elif tag[1] and name == inside:
            inside = ""
        elif not inside and name.endswith("password") and not tag[0].endswith("/>"):
            inside = "" if tag[1] else name
    return False
