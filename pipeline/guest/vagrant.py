"""What Vagrant expects in a box: its user, whom the key that everybody has lets in, and who may
become root (https://developer.hashicorp.com/vagrant/docs/boxes/base)."""

from pipeline.errors import Refused
from pipeline.guest import units
from pipeline.guest.accounts import Account, accounts, add_account
from pipeline.guest.operations import Editor, lines_of

USER = "vagrant"
# Vagrant's insecure keys: their private halves are public, and `vagrant up` replaces them by one of
# its own. https://github.com/hashicorp/vagrant/blob/main/keys/vagrant.pub
_COMMENT = "vagrant insecure public key"
KEYS = (
    "ssh-rsa "
    "AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltG"
    "EFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITA"
    "MzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFY"
    "bAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbI"
    "bEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ==",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1YdxBpNlzxDqfJyw/QKow1F+wvG9hXGoqiysfJOn5Y",
)
SUDOERS = f"/etc/sudoers.d/{USER}"
_SSHD = ("/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd")
_UNITS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")
_WANTED = "/etc/systemd/system/multi-user.target.wants"


def open_to_vagrant(edit: Editor) -> tuple[str, ...]:
    """Give the guest the user, its keys and its rights, and let it start an SSH server. Returns
    what Vagrant will not be able to do with it. Raises Refused where there is none."""
    if not any(edit.is_file(edit.follow(path)) for path in _SSHD):
        raise Refused(
            "the guest has no SSH server: Vagrant could not reach a machine of the box",
            hint="install openssh-server in it, and publish it again",
        )
    account = next((item for item in accounts(edit) if item.name == USER), None)
    account = account or add_account(edit, USER)
    _let_in(edit, account)
    edit.write_text(SUDOERS, f"{USER} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    _start_sshd(edit)
    if not any(edit.exists(f"{place}/sudo") for place in ("/usr/bin", "/bin", "/usr/local/bin")):
        return ("the guest has no sudo: provisioning that needs root will fail",)
    return ()


def is_insecure(line: str) -> bool:
    """Whether a line of authorized_keys is one of Vagrant's keys, whatever its options are."""
    return any(key.split()[1] in line.split() for key in KEYS)


def _let_in(edit: Editor, account: Account) -> None:
    directory = f"{account.home.rstrip('/')}/.ssh"
    path = f"{directory}/authorized_keys"
    present = lines_of(edit.text(path))
    missing = [
        f"{key} {_COMMENT}" for key in KEYS if key.split()[1] not in " ".join(present).split()
    ]
    edit.make_directory(directory, account.uid, account.gid, 0o700)
    edit.write_text(path, "".join(f"{line}\n" for line in (*present, *missing)), 0o600)
    edit.own(path, account.uid, account.gid)


def _start_sshd(edit: Editor) -> None:
    if not units.runs_systemd(edit) or units.is_enabled(edit, *_UNITS):
        return
    for name in _UNITS[:2]:
        for directory in units.DIRECTORIES:
            if edit.is_file(f"{directory}/{name}"):
                edit.symlink(f"{directory}/{name}", f"{_WANTED}/{name}")
                return
