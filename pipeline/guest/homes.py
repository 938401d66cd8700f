"""What people leave in their homes, and the removal of their accounts."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.guest import units
from pipeline.guest.accounts import Account, accounts, change_lines, humans, remove_accounts
from pipeline.guest.operations import SYSTEM, Context, Editor, Operation, Users, below, lines_of
from pipeline.guest.vagrant import is_insecure

HISTORIES = (
    *(".ash_history", ".bash_history", ".bash_sessions", ".history", ".irb_history"),
    *(".ksh_history", ".lesshst", ".local/share/fish/fish_history"),
    *(".local/share/recently-used.xbel", ".local/state/bash/history", ".local/state/lesshst"),
    *(".local/state/python_history", ".mariadb_history", ".mongorc_history", ".mysql_history"),
    *(".node_repl_history", ".psql_history", ".python_history", ".rediscli_history"),
    *(".selected_editor", ".sh_history", ".sqlite_history", ".sudo_as_admin_successful"),
    *(".viminfo", ".vim/.netrwhist", ".wget-hsts", ".xsession-errors", ".zhistory"),
    *(".zsh_history", ".zsh_sessions"),
)
CREDENTIALS = (
    *(".Xauthority", ".ICEauthority", ".ansible", ".aws", ".azure", ".bitwarden", ".boto"),
    *(".cargo/credentials", ".cargo/credentials.toml", ".composer/auth.json", ".config/chromium"),
    *(".config/composer/auth.json", ".config/containers/auth.json", ".config/doctl"),
    *(".config/gcloud", ".config/gh", ".config/glab-cli", ".config/google-chrome", ".config/hub"),
    *(".config/op", ".config/pulse/cookie", ".config/rclone", ".config/sops", ".databrickscfg"),
    *(".docker", ".esmtprc", ".fetchmailrc", ".gem/credentials", ".git-credentials"),
    *(".config/git/credentials", ".gnupg", ".gradle/gradle.properties", ".kube"),
    *(".local/share/Trash", ".local/share/keyrings", ".m2/settings-security.xml"),
    *(".m2/settings.xml", ".mozilla", ".msmtprc", ".my.cnf", ".mylogin.cnf", ".netrc", ".npmrc"),
    *(".password-store", ".pgpass", ".pki", ".pulumi", ".pypirc", ".rhosts", ".s3cfg", ".shosts"),
    *(".smbcredentials", ".subversion/auth", ".terraform.d", ".terraformrc", ".thunderbird"),
    *(".vault-token", ".vnc", ".yarnrc.yml", ".cache"),
)
AUTHORIZED = ("authorized_keys", "authorized_keys2")


# what shows that a directory is somebody's home, whatever it is called
MARKS = {
    *(name for name in HISTORIES if "/" not in name),
    *(".ssh", ".gnupg", ".profile", ".bashrc", ".bash_profile", ".bash_logout", ".zshrc", ".cshrc"),
}
# where homes of accounts lie that are in no /etc/passwd (of a domain, of other machines), and how
# deep: /home/DOMAIN/USER, /home/local/DOMAIN/USER
TREES = {
    **{"/home": 3, "/export/home": 2, "/var/home": 2, "/usr/home": 2},
    **{"/data": 2, "/media": 2, "/mnt": 2, "/srv": 2},
}
DIRECTORIES = 256  # that are looked into below each
# directories with a file or directory for each user, of the user's name
NAMED_BY_USERS = (
    "/var/mail",
    "/var/spool/mail",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/var/spool/cron/tabs",
    "/var/lib/AccountsService/users",
    "/var/lib/AccountsService/icons",
    "/var/lib/systemd/linger",
)


def homes(edit: Editor) -> list[str]:
    """The home of every account, wherever it is, what lies in /home without one, and what looks
    like a home elsewhere. Real paths."""
    listed = ["/root", *(account.home for account in accounts(edit))]
    listed += [f"/home/{name}" for name in edit.guest.names("/home")]
    for tree, depth in TREES.items():
        listed += _like_homes(edit, tree, depth)
    found = {edit.follow(home) for home in listed if _usable(home)}
    return sorted(home for home in found if edit.is_directory(home))


def is_home(reader: Editor, directory: str) -> bool:
    """Whether a directory has what shells and ssh leave in homes."""
    return not MARKS.isdisjoint(reader.guest.names(directory))


def _like_homes(edit: Editor, tree: str, depth: int) -> list[str]:
    """The directories below a tree that look like homes; what is in them is not looked into."""
    found: list[str] = []
    level, left = [tree], DIRECTORIES
    for _ in range(depth):
        below_it: list[str] = []
        for directory in level:
            for name in edit.guest.names(directory)[:left]:
                path = f"{directory}/{name}"
                if edit.is_directory(path):
                    left -= 1
                    (found if is_home(edit, path) else below_it).append(path)
        level = below_it
    return found


def _usable(home: str) -> bool:
    return home.startswith("/") and ".." not in PurePosixPath(home).parts and "\0" not in home


def _remove_secret(edit: Editor, path: str) -> None:
    """Remove a file or tree; of a link, its target too, unless that is part of the system:
    ~/.bash_history -> /dev/null is common, and ~/.netrc -> /etc/passwd conceivable."""
    found = edit.guest.stat(path)
    if found is not None and found.kind == "symlink":
        target = edit.follow(path)
        if _goes_with_link(edit, target):
            edit.remove(target)
    edit.remove(path)


def _goes_with_link(edit: Editor, target: str) -> bool:
    if edit.is_directory(target):
        return any(target != home and below(target, [home]) for home in homes(edit))
    return edit.is_file(target) and not below(target, SYSTEM)


def _remove_from_homes(edit: Editor, names: Sequence[str]) -> None:
    for home in homes(edit):
        there = set(edit.guest.names(home))  # one look instead of one a name
        for name in names:
            if PurePosixPath(name).parts[0] in there:
                _remove_secret(edit, f"{home.rstrip('/')}/{name}")


def remove_histories(edit: Editor, _: Context) -> None:
    _remove_from_homes(edit, HISTORIES)


def remove_credentials(edit: Editor, _: Context) -> None:
    _remove_from_homes(edit, CREDENTIALS)


def remove_user_keys(edit: Editor, _: Context) -> None:
    for path in _ssh_files(edit):
        if PurePosixPath(path).name not in AUTHORIZED:
            _remove_secret(edit, path)


def remove_authorized_keys(edit: Editor, context: Context) -> None:
    for path in _ssh_files(edit):
        if PurePosixPath(path).name not in AUTHORIZED:
            continue
        kept = [line for line in lines_of(edit.text(path)) if is_insecure(line)]
        if kept and context.policy.keep_insecure_keys:
            edit.write_text(path, "".join(f"{line}\n" for line in kept))
        else:
            _remove_secret(edit, path)


def _ssh_files(edit: Editor) -> list[str]:
    """What is in ~/.ssh of every home; where that is a link, in the directory it leads to, unless
    that is the system's (/etc/ssh)."""
    found = []
    for home in homes(edit):
        directory = edit.follow(f"{home.rstrip('/')}/.ssh")
        if edit.is_directory(directory) and not below(directory, SYSTEM):
            found += [f"{directory}/{name}" for name in edit.guest.names(directory)]
    return found


def remove_users(edit: Editor, context: Context) -> None:
    gone = _chosen(edit, context)
    if gone:
        _remove_homes(edit, gone)
        _remove_traces(edit, gone)
        remove_accounts(edit, gone)


def _chosen(edit: Editor, context: Context) -> list[Account]:
    policy = context.policy
    wanted = set(policy.remove_users)
    people = humans(edit)
    if policy.users is Users.ALL:
        wanted |= {account.name for account in people}
    elif policy.users is Users.PROVISIONED:
        wanted |= provisioned(edit) & {account.name for account in people}
    wanted -= policy.keep_users | (services(edit).keys() - policy.remove_users)
    return [account for account in accounts(edit) if account.name in wanted and account.uid != 0]


def services(edit: Editor) -> dict[str, str]:
    """The accounts of `humans` that an enabled service runs as -> that service. They stay."""
    names = {account.name for account in humans(edit)}
    return {name: unit for name, unit in units.users(edit).items() if name in names}


def provisioned(edit: Editor) -> set[str]:
    """Users that waagent made (ovf-env.xml) or cloud-init gave sudo to."""
    names = set()
    for line in edit.text("/var/lib/waagent/ovf-env.xml").replace("<", "\n<").splitlines():
        tag, _, value = line.partition(">")
        if tag.rpartition(":")[2].lstrip("<") == "UserName":
            names.add(value.strip())
    for path in ("/etc/sudoers.d/90-cloud-init-users", "/etc/sudoers.d/waagent"):
        for line in lines_of(edit.text(path)):
            words = line.split()
            if words and not words[0].startswith(("#", "%")):
                names.add(words[0])
    return names


def _remove_homes(edit: Editor, gone: Sequence[Account]) -> None:
    """As userdel(8): only what the user owns; never a directory of the system, nor one that holds
    the home of somebody who stays."""
    names = {account.name for account in gone}
    stay: set[str] = set()  # homes, and what they are in
    for account in accounts(edit):
        if account.name not in names and _usable(account.home):
            home = PurePosixPath(edit.follow(account.home))
            stay |= {str(home), *map(str, home.parents)}
    for account in gone:
        if not _usable(account.home):
            continue
        at = edit.follow(account.home)
        found = edit.guest.stat(at)
        if (
            found is not None
            and found.kind == "directory"
            and found.uid == account.uid
            and len(PurePosixPath(at).parts) > 2
            and not below(at, SYSTEM)
            and at not in stay
        ):
            edit.remove(at)
            edit.remove(account.home)  # the link to it, where it was one


def _remove_traces(edit: Editor, gone: Sequence[Account]) -> None:
    names = {account.name for account in gone}
    for directory in NAMED_BY_USERS:
        for name in edit.guest.names(directory):
            if name in names:
                edit.remove(f"{directory}/{name}")
    numbers = {account.uid for account in gone}
    for directory in ("/var/spool/cron/atjobs", "/var/spool/at"):
        for path, found in edit.guest.find(directory):
            if found.kind == "file" and found.uid in numbers:
                edit.remove(path)

    def other(line: str) -> str | None:
        return None if names.intersection(line.split()[:1]) else line

    change_lines(edit, "/etc/sudoers", other)
    for leaf in edit.guest.names("/etc/sudoers.d"):
        path = f"/etc/sudoers.d/{leaf}"
        before = lines_of(edit.whole_text(path))
        lines = [line for line in before if other(line) is not None]
        if len(lines) == len(before):
            continue
        if any(line.strip() and not line.startswith("#") for line in lines):
            change_lines(edit, path, other)
        else:
            edit.remove(path)


OPERATIONS = (
    Operation(
        "shell-history",
        "Remove shell, editor and database histories from every home",
        "They hold commands, host names and passwords that were typed.",
        remove_histories,
        paths=tuple(f"~/{name}" for name in HISTORIES),
    ),
    Operation(
        "ssh-user-keys",
        "Remove ssh private keys, known hosts and settings from every home",
        "A private key in an image is in the hands of everybody who starts it.",
        remove_user_keys,
        paths=("~/.ssh",),
    ),
    Operation(
        "ssh-authorized-keys",
        "Remove authorized_keys from every home",
        "They would let the builder of the image into all its machines.",
        remove_authorized_keys,
        paths=tuple(f"~/.ssh/{name}" for name in AUTHORIZED),
    ),
    Operation(
        "user-credentials",
        "Remove credentials, caches and browser profiles from every home",
        "Tokens and passwords of clouds, registries, databases and browsers live there.",
        remove_credentials,
        paths=tuple(f"~/{name}" for name in CREDENTIALS),
    ),
    Operation(
        "user-accounts",
        "Remove human users: accounts, groups, homes, mail, cron jobs, sudo rules",
        "A new machine gets its own users; old ones are a way in. What an enabled service runs as "
        "stays, without a password.",
        remove_users,
        paths=("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/sub[ug]id", "~"),
    ),
)
